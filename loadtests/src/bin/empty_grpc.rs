//! An empty handler of tonic: takes the message that the gateway takes, and answers with one that is always the same.
//!
//! It is on tokio's default runtime and on the gateway's allocator, with nothing around it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use sluicegate_proto::inference::model_infer_response::InferOutputTensor;
use sluicegate_proto::inference::{ModelInferRequest, ModelInferResponse};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone)]
struct Empty;

impl NamedService for Empty {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl UnaryService<ModelInferRequest> for Empty {
    type Response = ModelInferResponse;
    type Future = Ready<Result<Response<ModelInferResponse>, Status>>;

    fn call(&mut self, _: Request<ModelInferRequest>) -> Self::Future {
        let output = |name: &str, datatype: &str, shape: &[i64]| InferOutputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            ..InferOutputTensor::default()
        };
        ready(Ok(Response::new(ModelInferResponse {
            model_name: "breast-cancer".to_owned(),
            model_version: "1".to_owned(),
            id: "0123456789abcdef".to_owned(),
            outputs: vec![output("label", "INT64", &[1]), output("probabilities", "FP32", &[1, 2])],
            raw_output_contents: vec![vec![0; 8].into(), vec![0; 8].into()],
            ..ModelInferResponse::default()
        })))
    }
}

impl tower_service::Service<http::Request<Body>> for Empty {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// As the code that tonic generates does for a method.
    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Grpc::new(ProstCodec::default()).unary(Empty, request).await) })
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "whoever started it waits for its address")]
async fn main() {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).expect("a free port").with_nodelay(Some(true));
    println!("{}", incoming.local_addr().expect("an address"));
    Server::builder().add_service(Empty).serve_with_incoming(incoming).await.expect("a running server");
}
