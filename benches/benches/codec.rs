//! What one tabular row costs to decode and to encode, on each route.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use sluicegate_api::http::predict::decode::Form;
use sluicegate_api::http::predict::{self, encode};
use sluicegate_api::http::{binary, json};
use sluicegate_benches as row;

fn decode(c: &mut Criterion) {
    let signature = row::signature();
    let (typed, v2, (head, raw)) = (row::typed(), row::v2(), row::binary());
    let headers = HeaderMap::from_iter([(binary::HEADER_LENGTH, HeaderValue::from(head))]);
    c.bench_function("decode/typed", |b| b.iter(|| predict::read(&signature, &typed).expect("a good row")));
    c.bench_function("decode/v2 json", |b| b.iter(|| json::read(&v2, None).expect("a good row")));
    c.bench_function("decode/v2 binary", |b| {
        b.iter(|| {
            let (head, raw) = binary::split(&headers, raw.clone()).expect("a good body");
            json::read(&head, raw).expect("a good row")
        });
    });
}

fn encode(c: &mut Criterion) {
    let (signature, response) = (row::signature(), row::response());
    c.bench_function("encode/typed", |b| b.iter(|| encode::write(&signature, &response, Form::One)));
    c.bench_function("encode/v2 json", |b| {
        b.iter(|| json::write(&response, "1", &json::Binary::default()).expect("has a JSON form"));
    });
    c.bench_function("encode/v2 binary", |b| b.iter(|| json::write(&response, "1", &json::Binary::all()).expect("writes")));
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
