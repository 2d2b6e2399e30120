//! The thread that sends spans to a receiver of OTLP, over HTTP or gRPC, and tries again where that may help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::uri::PathAndQuery;
use prost::Message;
use sluicegate_core::{Code, Error, Result};
use sluicegate_outbound::{Address, Failure, Secret, collector};
use sluicegate_proto::otlp::opentelemetry::proto::collector::trace::v1::ExportTraceServiceResponse;
use tokio::runtime::Handle;
use tonic::client::Grpc;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;

use super::LAST;
use super::otlp::{Request, Teller};
use super::queue::{Queue, tell};
use crate::config::otel::{Otel, Protocol, Traces};

const EXPORT: PathAndQuery = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

/// How long to wait before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_secs(1);

/// What sends.
pub(super) struct Sender {
    queue: Arc<Queue>,
    teller: Teller,
    receiver: Receiver,
    timeout: Duration,
    /// Whether the last attempt failed.
    failing: bool,
}

enum Receiver {
    Http { address: Address, headers: Vec<(String, Secret)> },
    Grpc { runtime: Handle, channel: Channel, metadata: MetadataMap },
}

impl Sender {
    pub(super) fn new(otel: &Otel, traces: &Traces, root: &str, queue: Arc<Queue>) -> Result<Self> {
        let (address, headers) = (traces.address.clone(), traces.headers.clone());
        let receiver = match traces.protocol {
            Protocol::Http => Receiver::Http { address, headers },
            Protocol::Grpc => {
                Receiver::Grpc { runtime: Handle::current(), channel: channel(&address)?, metadata: metadata(&address, &headers) }
            }
        };
        Ok(Self { queue, teller: Teller::new(otel, root), receiver, timeout: traces.timeout, failing: false })
    }

    /// Sends until the queue is closed, and then what is left.
    pub(super) fn run(mut self) {
        // Who asks goes before who wants to know about it.
        sluicegate_engine::lower_priority();
        loop {
            let told = self.queue.next();
            if told.is_empty() {
                return;
            }
            let count = told.iter().map(|told| told.spans.len()).sum();
            let request = self.teller.request(&told);
            drop(told);
            let (sent, refused, given_up) = self.deliver(&request, count);
            for (outcome, count) in [("sent", sent), ("refused", refused), ("given_up", given_up)] {
                if count > 0 {
                    tell(outcome, count);
                }
            }
            if self.failing && sent > 0 {
                self.failing = false;
                tracing::info!("traces are taken again");
            }
        }
    }

    /// How many were sent, refused and given up.
    fn deliver(&mut self, request: &Request, count: usize) -> (usize, usize, usize) {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE;
        loop {
            // At the end everything that is left has so long together.
            let closed = self.queue.closed();
            let until = closed.map_or(deadline, |closed| deadline.min(closed + LAST));
            let left = until.saturating_duration_since(Instant::now());
            match self.receiver.send(request, left.max(Duration::from_millis(1))) {
                Ok(refused) => return (count - refused.min(count), refused.min(count), 0),
                Err(Failure { why, may_pass }) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(error = why, "traces are not taken");
                    }
                    match may_pass {
                        false => return (0, count, 0),
                        true if closed.is_some() || left <= pause => return (0, 0, count),
                        true => self.queue.pause(pause),
                    }
                    pause *= 2;
                }
            }
        }
    }
}

impl Receiver {
    /// How many spans the receiver refused.
    fn send(&self, request: &Request, timeout: Duration) -> Result<usize, Failure> {
        let answer = match self {
            Self::Http { address, headers } => {
                let answer = collector::send(address, headers, &request.encode_to_vec(), timeout)?;
                ExportTraceServiceResponse::decode(&answer[..]).unwrap_or_default()
            }
            Self::Grpc { runtime, channel, metadata } => {
                let call = call(channel.clone(), metadata.clone(), request.clone());
                let late = || tonic::Status::deadline_exceeded(format!("no answer within {timeout:?}"));
                let answered = runtime.block_on(async { tokio::time::timeout(timeout, call).await });
                answered.unwrap_or_else(|_| Err(late())).map_err(|status| failure(&status))?
            }
        };
        let refused = answer.partial_success.unwrap_or_default();
        if refused.rejected_spans > 0 {
            tracing::warn!(spans = refused.rejected_spans, error = refused.error_message, "traces were refused");
        }
        Ok(usize::try_from(refused.rejected_spans).unwrap_or(0))
    }
}

async fn call(channel: Channel, metadata: MetadataMap, message: Request) -> Result<ExportTraceServiceResponse, tonic::Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let request = tonic::Request::from_parts(metadata, tonic::Extensions::default(), message);
    client.unary(request, EXPORT, ProstCodec::default()).await.map(tonic::Response::into_inner)
}

/// Which statuses may pass, as the specification of OTLP has it.
fn failure(status: &tonic::Status) -> Failure {
    use tonic::Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable};
    let may_pass = [Cancelled, DeadlineExceeded, ResourceExhausted, Aborted, OutOfRange, Unavailable, DataLoss];
    // What is below it says why: that a connection was refused, or a certificate not trusted.
    let mut why = format!("the receiver answered {:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        why = format!("{why}: {error}");
        source = error.source();
    }
    Failure { why, may_pass: may_pass.contains(&status.code()) }
}

fn channel(address: &Address) -> Result<Channel> {
    let bad = |error: tonic::transport::Error| {
        Error::new(Code::BadConfig, format!("OTEL_EXPORTER_OTLP_ENDPOINT: {address} cannot be called over gRPC: {error}"))
    };
    let mut endpoint = Endpoint::from_shared(address.to_string()).map_err(bad)?;
    if address.to_string().starts_with("https:") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(bad)?;
    }
    Ok(endpoint.connect_lazy())
}

fn metadata(address: &Address, headers: &[(String, Secret)]) -> MetadataMap {
    let basic = address.basic().map(|basic| ("authorization", basic));
    let mut metadata = MetadataMap::new();
    for (name, value) in headers.iter().map(|(name, value)| (name.as_str(), value)).chain(basic) {
        let value = MetadataValue::try_from(value.expose());
        // The configuration's own check lets nothing else pass.
        if let (Ok(name), Ok(mut value)) = (name.parse::<tonic::metadata::AsciiMetadataKey>(), value) {
            value.set_sensitive(true);
            metadata.insert(name, value);
        }
    }
    metadata
}
