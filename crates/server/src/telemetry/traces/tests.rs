//! Which requests are traced, what their spans are called, and what messages are made of them.

use std::time::Duration;

use axum::http::{Request, Response};
use parking_lot::Mutex;
use prost::Message;
use sluicegate_core::trace::{Sink, Told};
use sluicegate_proto::otlp::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;

use super::otlp::Teller;
use super::*;
use crate::config::otel::{Protocol, Traces};

fn traces(ratio: f64) -> Traces {
    Traces {
        address: "http://localhost:4318".parse().expect("an address"),
        protocol: Protocol::Http,
        headers: Vec::new(),
        timeout: Duration::from_secs(1),
        sampler: Sampler { follows_parent: true, ratio },
        queue: 100,
        batch: 100,
        delay: Duration::from_millis(1),
    }
}

fn tracer(ratio: f64) -> Tracer {
    let traces = traces(ratio);
    Tracer { sampler: traces.sampler, queue: Arc::new(Queue::new(&traces)) }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().method(method).uri(path);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("a request")
}

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn what_asks_a_model_is_traced_and_who_looks_is_not() {
    let tracer = tracer(1.0);
    let grpc = [("content-type", "application/grpc")];
    for (method, path, headers, is_traced) in [
        ("POST", "/models/fraud/predict", &[][..], true),
        ("GET", "/models/fraud", &[], false),
        ("POST", "/inference.GRPCInferenceService/ModelInfer", &grpc, true),
        ("POST", "/inference.GRPCInferenceService/ModelStreamInfer", &grpc, true),
        ("POST", "/grpc.health.v1.Health/Check", &grpc, false),
    ] {
        assert_eq!(tracer.begin(&mut request(method, path, headers)).is_some(), is_traced, "{path}");
    }
}

#[test]
fn a_caller_is_followed_and_what_comes_after_is_a_part_of_the_new_span() {
    let tracer = tracer(0.0);
    assert!(tracer.begin(&mut request("POST", "/", &[])).is_none());
    assert!(
        tracer.begin(&mut request("POST", "/", &[("traceparent", CALLER), ("traceparent", CALLER)])).is_none(),
        "two are none"
    );
    let mut followed = request("POST", "/", &[("traceparent", CALLER)]);
    let traced = tracer.begin(&mut followed).expect("followed");
    let told = TraceParent::parse(followed.headers()["traceparent"].as_bytes()).expect("a place");
    assert_eq!((told.place, told.place.trace), (traced.trace.place(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
    assert_ne!(told.place.span, 0x00f0_67aa_0ba9_02b7);
    assert!(followed.extensions().get::<Trace>().is_some());
}

#[derive(Default)]
struct Kept(Mutex<Vec<Told>>);

impl Sink for Kept {
    fn take(&self, told: Told) {
        self.0.lock().push(told);
    }
}

#[test]
fn the_status_of_a_call_is_that_of_its_trailers_and_of_a_request_that_of_its_answer() {
    for (is_call, answered, status) in [(false, true, Some(200)), (true, true, Some(5)), (true, false, None)] {
        let kept = Arc::new(Kept::default());
        let trace = Trace::new(kept.clone(), Place::new(), None, None);
        let asked = Some(Box::new(Asked { is_call, ..Asked::default() }));
        let mut traced = Traced { trace, header: None, began: Instant::now(), asked };
        if answered {
            traced.answered(&mut Response::builder().header("x-request-id", "r-1").body(()).expect("an answer"));
            traced.trailed(&HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("5"))]));
        }
        drop(traced);
        let told = kept.0.lock();
        let asked = told[0].spans[0].asked.as_deref().expect("a request's span");
        assert_eq!((asked.status, asked.id.as_deref()), (status, answered.then_some("r-1")));
    }
}

#[test]
fn a_message_has_the_times_of_the_walls_clock() {
    let (began, otel) = (Instant::now(), Otel::default());
    let span = Span { id: 2, ..Span::new("batch", began, began + Duration::from_micros(5)) };
    let span = Span { links: [Place { trace: 3, span: 4 }].into_iter().collect(), ..span };
    let sent = Teller::new(&otel, "").request(&[Told { trace: 1, caller: 0, state: None, spans: vec![span] }]).encode_to_vec();
    let request = ExportTraceServiceRequest::decode(&sent[..]).expect("the message of the receivers");
    let resource = request.resource_spans[0].resource.as_ref().expect("a resource");
    assert_eq!(resource.attributes[0].key, "service.name");
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((&span.trace_id[..], &span.span_id[..]), (&1u128.to_be_bytes()[..], &2u64.to_be_bytes()[..]));
    assert_eq!((&span.links[0].trace_id[..], &span.links[0].span_id[..]), (&3u128.to_be_bytes()[..], &4u64.to_be_bytes()[..]));
    assert!(span.parent_span_id.is_empty());
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5_000);
    let year = Duration::from_nanos(span.start_time_unix_nano).as_secs() / 31_557_600 + 1970;
    assert!((2025..2200).contains(&year), "{year}");
}
