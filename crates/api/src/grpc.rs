//! The gRPC side of the Open Inference Protocol, on its own address and beside HTTP on the other one.
//!
//! | call | file |
//! |---|---|
//! | ModelInfer | [`infer`], ahead of the generated service |
//! | ModelStreamInfer | [`stream`] |
//! | ServerLive, ServerReady, ModelReady, ServerMetadata, ModelMetadata | [`models`] |
//! | `grpc.health.v1` | [`health`] |
//!
//! `unary` frames the messages of ModelInfer, [`codec`] makes those of bytes that are compressed, [`arriving`] bounds how long one may take to come, [`status`] makes a status of an error.

pub mod arriving;
pub mod codec;
pub mod health;
pub mod infer;
pub mod models;
mod service;
pub mod status;
pub mod stream;
mod unary;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body as AnyBody;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body::Body;
use sluicegate_core::{Code, Error, Result};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes as Table;
use tower_service::Service as _;

use crate::http::Api;
use arriving::Arriving;
use health::Health;
use service::inference::grpc_inference_service_server::GrpcInferenceServiceServer;

/// The path of the call that nearly every request is.
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The service's name, for health and reflection.
pub const SERVICE: &str = "inference.GRPCInferenceService";

/// The compressions that are read, and written where the caller takes them.
const ENCODINGS: [CompressionEncoding; 2] = [CompressionEncoding::Gzip, CompressionEncoding::Deflate];

/// The calls of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Grpc {
    api: Api,
    /// All but [`INFER`].
    table: Table,
}

/// An answer on its way.
pub struct Answering(Pin<Box<dyn Future<Output = Response> + Send>>);

impl Grpc {
    /// Those of an API.
    ///
    /// # Errors
    /// [`Code::Internal`] where the descriptors of this build cannot be read.
    pub fn new(api: Api) -> Result<Self> {
        let bound = api.message;
        let mut inference =
            GrpcInferenceServiceServer::new(api.clone()).max_decoding_message_size(bound).max_encoding_message_size(usize::MAX);
        for encoding in ENCODINGS {
            inference = inference.accept_compressed(encoding).send_compressed(encoding);
        }
        let unread = |error| Error::new(Code::Internal, format!("reflection: {error}"));
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(sluicegate_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut table = Table::builder();
        table
            .add_service(inference)
            .add_service(tonic_health::pb::health_server::HealthServer::new(Health(api.clone())))
            .add_service(reflection().build_v1().map_err(unread)?)
            .add_service(reflection().build_v1alpha().map_err(unread)?);
        Ok(Self { api, table: table.routes().prepare() })
    }

    /// Whether a request is a call: by its method and type of content.
    pub fn is_call<B>(request: &Request<B>) -> bool {
        let is_grpc = |kind: &[u8]| kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web");
        request.method() == Method::POST && request.headers().get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()))
    }

    /// Answers a call.
    ///
    /// Who sends a message as it is, is answered so: nearly every client says that it reads compressed ones, without having been asked.
    pub fn answer<B>(&self, mut request: Request<B>) -> Answering
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let time = self.api.body.time;
        if unary::is_plain(request.headers()) {
            request.headers_mut().remove(unary::ACCEPTED);
        }
        if request.uri().path() == INFER {
            let request = request.map(|body| Arriving::new(body, Some(time)));
            return Answering(Box::pin(infer::answer(self.api.clone(), request)));
        }
        // A stream is as long as its caller likes.
        let time = (!request.uri().path().ends_with("StreamInfer")).then_some(time);
        let (mut table, bound) = (self.table.clone(), self.api.message);
        Answering(Box::pin(async move {
            let answered = table.call(request.map(|body| tonic::body::Body::new(Arriving::new(body, time)))).await;
            status::name_the_setting(answered.unwrap_or_else(|never| match never {}).map(AnyBody::new), bound)
        }))
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.as_mut().poll(cx).map(Ok)
    }
}
