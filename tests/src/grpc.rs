//! A client of gRPC for tests: tonic's own channel, with the protocol's messages.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use sluicegate_proto::inference::model_infer_request::InferInputTensor;
use sluicegate_proto::inference::{ModelInferRequest, ModelInferResponse};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The path of the call that infers.
pub const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A runtime for the calls of one test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A channel to an address. Cloned, it is the same connection.
#[derive(Clone, Debug)]
pub struct Caller(Grpc<Channel>);

impl Caller {
    /// Connects at the first call. Must be called within a runtime.
    pub fn new(address: SocketAddr) -> Self {
        let endpoint: Endpoint = format!("http://{address}").parse().expect("an address");
        let grpc = Grpc::new(endpoint.connect_lazy());
        Self(grpc.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX))
    }

    /// One call.
    ///
    /// # Errors
    /// The status of the answer.
    pub async fn call<A, T>(&self, path: &'static str, request: Request<A>) -> Result<Response<T>, Status>
    where
        A: Message + 'static,
        T: Message + Default + 'static,
    {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(request, http::uri::PathAndQuery::from_static(path), ProstCodec::default()).await
    }

    /// One inference.
    ///
    /// # Errors
    /// The status of the answer.
    pub async fn infer(&self, message: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
        self.call(INFER, Request::new(message)).await
    }

    /// One inference whose caller waits for so long.
    ///
    /// # Errors
    /// The status of the answer.
    pub async fn infer_within(&self, message: ModelInferRequest, time: Duration) -> Result<ModelInferResponse, Status> {
        let mut request = Request::new(message);
        request.set_timeout(time);
        self.call(INFER, request).await.map(Response::into_inner)
    }
}

/// A request of one FP32 tensor `x` in raw contents.
pub fn request(model: &str, shape: &[usize], data: &[f32]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input("x", "FP32", shape)],
        raw_input_contents: vec![crate::raw(data).into()],
        ..ModelInferRequest::default()
    }
}

/// An input without its elements.
pub fn input(name: &str, datatype: &str, shape: &[usize]) -> InferInputTensor {
    let shape = shape.iter().map(|&size| i64::try_from(size).expect("a small size")).collect();
    InferInputTensor { name: name.to_owned(), datatype: datatype.to_owned(), shape, ..InferInputTensor::default() }
}

/// The elements of the first output of an answer.
pub fn numbers(answer: &ModelInferResponse) -> Vec<f32> {
    let raw: &[u8] = answer.raw_output_contents.first().map_or(&[], Bytes::as_ref);
    raw.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
}

/// The error's word in the metadata of a status.
pub fn code(status: &Status) -> &str {
    status.metadata().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or("none")
}
