//! The two routes that nearly every request takes, ahead of the router: they need no table of paths, and nothing boxed. Calls of
//! gRPC are told apart here too.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::{Method, Request};
use http_body::Body;
use sluicegate_core::{Code, Error, ModelRef};
use tower_service::Service;

use super::answer::{self, Dialect, Head};
use super::{Api, infer, predict};
use crate::grpc::{self, Grpc};

/// The routes of an address.
#[derive(Clone)]
pub struct Routes {
    hot: Option<Api>,
    calls: Option<Grpc>,
    router: Router,
}

/// A path of one of the two.
#[derive(Debug, PartialEq, Eq)]
enum Hot<'a> {
    Infer { model: &'a str, version: Option<&'a str> },
    Predict { model: &'a str },
}

impl<'a> Hot<'a> {
    /// Reads a path. Those with escapes, and all others, are for the router.
    fn read(path: &'a str) -> Option<Self> {
        let is_part = |part: &&str| !part.is_empty() && !part.contains(['/', '%']);
        if let Some(rest) = path.strip_prefix("/models/") {
            return rest.strip_suffix("/predict").filter(is_part).map(|model| Self::Predict { model });
        }
        let rest = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
        let (model, version) = rest.split_once("/versions/").map_or((rest, None), |(model, version)| (model, Some(version)));
        (is_part(&model) && version.as_ref().is_none_or(is_part)).then_some(Self::Infer { model, version })
    }
}

/// An answer on its way.
pub enum Answering {
    /// From one of the two.
    Hot(Pin<Box<dyn Future<Output = Response> + Send>>),
    /// From a call of gRPC.
    Called(grpc::Answering),
    /// From the router: boxed, so that it does not widen the hot ones.
    Routed(Box<RouteFuture<Infallible>>),
}

impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self { hot: None, calls: None, router }
    }
}

impl Routes {
    /// Those of an API, without layers.
    pub fn new(api: Api) -> Self {
        Self::beside(api, Router::new())
    }

    /// The same and others.
    pub fn beside(api: Api, others: Router<Api>) -> Self {
        Self { router: api.routes(others), calls: None, hot: Some(api) }
    }

    /// The calls of gRPC, and nothing else.
    pub fn calls(calls: Grpc) -> Self {
        let refuse = |request: axum::extract::Request| async move {
            let message = "this address speaks gRPC alone, over HTTP/2; HTTP is answered at http.address";
            let error = Error::new(Code::UnsupportedMedia, message);
            answer::error(Dialect::of(request.uri().path()), &Head::of(request.headers()), &error)
        };
        Self { hot: None, calls: Some(calls), router: Router::new().fallback(refuse) }
    }

    /// The same and the calls of gRPC.
    #[must_use]
    pub fn with_calls(self, calls: Grpc) -> Self {
        Self { calls: Some(calls), ..self }
    }

    /// Answers a request.
    pub fn answer<B>(&self, request: Request<B>) -> Answering
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + std::fmt::Display,
    {
        if let Some(calls) = &self.calls
            && Grpc::is_call(&request)
        {
            return Answering::Called(calls.answer(request));
        }
        match &self.hot {
            Some(api) if request.method() == Method::POST && Hot::read(request.uri().path()).is_some() => {
                Answering::Hot(Box::pin(route(api.clone(), request)))
            }
            // A router is always ready.
            _ => Answering::Routed(Box::new(self.router.clone().call(request))),
        }
    }
}

async fn route<B>(api: Api, request: Request<B>) -> Response
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let uri = request.uri().clone();
    match Hot::read(uri.path()) {
        Some(Hot::Predict { model }) => predict::answer(&api, ModelRef::parse(model), request).await,
        Some(Hot::Infer { model, version }) => infer::answer(&api, infer::target(model, version), request).await,
        None => answer::nowhere(&request),
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Hot(answer) => answer.as_mut().poll(cx).map(Ok),
            Self::Called(answer) => Pin::new(answer).poll(cx),
            Self::Routed(answer) => Pin::new(&mut **answer).poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_the_router_reads_it() {
        let infer = |model, version| Some(Hot::Infer { model, version });
        assert_eq!(Hot::read("/models/fraud/predict"), Some(Hot::Predict { model: "fraud" }));
        assert_eq!(Hot::read("/models/fraud@2/predict"), Some(Hot::Predict { model: "fraud@2" }));
        assert_eq!(Hot::read("/v2/models/fraud/infer"), infer("fraud", None));
        assert_eq!(Hot::read("/v2/models/fraud/versions/3/infer"), infer("fraud", Some("3")));
        for other in [
            "/",
            "/models//predict",
            "/models/a/b/predict",
            "/models/a%20b/predict",
            "/models/predict",
            "/v2/models//infer",
            "/v2/models/a/versions//infer",
            "/v2/models/a/versions/1/2/infer",
            "/v2/models/a/b/infer",
            "/v2/models/infer",
            "/v2/models/a/infer/",
        ] {
            assert_eq!(Hot::read(other), None, "{other}");
        }
    }
}
