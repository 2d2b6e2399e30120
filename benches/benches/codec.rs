//! What one tabular row costs to decode and to encode, on each route.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use sluicegate_benches as row;
use sluicegate_codec::record::{self, Form, encode};
use sluicegate_codec::{binary, json};

fn decode(c: &mut Criterion) {
    let signature = row::signature();
    let (typed, v2, (head, raw)) = (row::typed(), row::v2(), row::binary());
    let head = head.to_string();
    c.bench_function("decode/typed", |b| b.iter(|| record::read(&signature, &typed).expect("a good row")));
    c.bench_function("decode/v2 json", |b| b.iter(|| json::read(&v2, None).expect("a good row")));
    c.bench_function("decode/v2 binary", |b| {
        b.iter(|| {
            let (head, raw) = binary::split(Some(&head), raw.clone()).expect("a good body");
            json::read(&head, raw).expect("a good row")
        });
    });
}

fn encode(c: &mut Criterion) {
    let (signature, response) = (row::signature(), row::response());
    c.bench_function("encode/typed", |b| b.iter(|| encode::write(&signature, &response, Form::One)));
    c.bench_function("encode/v2 json", |b| {
        b.iter(|| json::write(&response, "1", &json::Outputs::default()).expect("has a JSON form"));
    });
    c.bench_function("encode/v2 binary", |b| b.iter(|| json::write(&response, "1", &json::Outputs::new(true)).expect("writes")));
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
