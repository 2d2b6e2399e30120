//! The HTTP side: the routes, and what every handler shares.
//!
//! The two that answer predictions come first, in [`hot`], without the router.
//!
//! | path | file |
//! |---|---|
//! | `/v2/models/{m}[/versions/{v}]/infer` | [`infer`] |
//! | `/v2/models/{m}[/versions/{v}]/config`, `…/stats` | [`config`], [`statistics`] |
//! | `/v2/models/{m}[/versions/{v}]/generate`, `…/generate_stream` | [`generate`] |
//! | `/v2/repository/…` | [`repository`] |
//! | `/v2/logging`, and what is not served: `/v2/…trace/setting`, `/v2/…sharedmemory/…` | [`logging`] |
//! | `/models/{m}[@{v}]/predict` | [`predict`] |
//! | `/models/{m}[@{v}]/batching` | [`batching`] |
//! | `/v2`, `/v2/models…`, `/models…` | [`models`] |
//! | `/v2/health/…`, `/livez`, `/readyz` | [`health`] |
//! | `/`, `/v1/models…` | [`v1`] |
//! | `/invocations`, `/ping`, `/health`, `/version` | [`invocations`] |
//! | `/v1/embeddings`, `/v1/rerank`, `/v2/rerank`, `/embed`, `/predict`, `/rerank` | [`text`] |
//! | `/docs`, `/redoc`, `/openapi.json` | [`docs`], [`openapi`] |
//!
//! Those of operators are in `admin`, which adds its own to these.

pub mod answer;
pub mod batching;
pub mod body;
pub mod caching;
pub mod config;
pub mod docs;
pub mod exchange;
pub mod generate;
pub mod health;
pub mod hot;
pub mod infer;
pub mod invocations;
pub mod logging;
pub mod models;
pub mod openapi;
pub mod predict;
pub mod repository;
pub mod statistics;
pub mod text;
pub mod v1;

pub use sluicegate_openapi::Protocols;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use sluicegate_core::{Code, Error};
use sluicegate_extension::{Controls, LogLevel};
use sluicegate_gateway::Gateway;
use sluicegate_registry::{Control, Status};

use answer::{Dialect, Head};

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

/// The parts of an [`Api`].
pub struct Shared {
    /// The way to an answer.
    pub gateway: Gateway,
    /// How far each version came.
    pub status: Arc<Status>,
    /// Whether new requests are welcome.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// What became of the last change of the configuration, as JSON.
    pub config_state: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The way to load and unload by hand.
    pub control: Control,
    /// The way to what is logged.
    pub log_level: Box<LogLevel>,
    /// What bounds a request's body.
    pub body: body::Bounds,
    /// The most bytes of a message of gRPC.
    pub message: usize,
    /// What is answered beside inference.
    pub protocols: Protocols,
    /// This program's version.
    pub version: &'static str,
    /// A path prefix that an ingress leaves on requests: empty, or `/base`.
    pub root_path: String,
    /// The document of all that serves, kept until that changes.
    pub openapi: openapi::Cache,
}

impl std::ops::Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// Puts the parts together.
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// What callers may change, and the ways to it.
    pub fn controls(&self) -> Controls<'_> {
        Controls {
            allowed: self.protocols.control,
            published: self.gateway.published(),
            registry: &self.control,
            log_level: &*self.log_level,
        }
    }

    /// The routes of the `http` address, with those of others beside them.
    pub fn routes(&self, others: Router<Self>) -> Router {
        let v2 = Router::new()
            .route("/v2", get(models::server))
            .route("/v2/", get(models::server))
            .route("/v2/health/live", get(health::v2_live))
            .route("/v2/health/ready", get(health::v2_ready))
            .route("/v2/models", get(models::list))
            .route("/v2/models/{model}", get(models::metadata))
            .route("/v2/models/{model}/versions/{version}", get(models::metadata))
            .route("/v2/models/{model}/ready", get(models::ready))
            .route("/v2/models/{model}/versions/{version}/ready", get(models::ready))
            .route("/v2/models/{model}/infer", post(infer::infer))
            .route("/v2/models/{model}/versions/{version}/infer", post(infer::infer))
            .merge(config::routes())
            .merge(statistics::routes())
            .merge(generate::routes())
            .merge(repository::routes())
            .merge(logging::routes());
        let typed = Router::new()
            .route("/models", get(models::overview))
            .route("/models/{model}", get(models::detail))
            .route("/models/{model}/predict", post(predict::predict))
            .route("/models/{model}/batching", get(batching::batching))
            .route("/models/{model}/openapi.json", get(openapi::of_model))
            .route("/openapi.json", get(openapi::of_gateway))
            .merge(docs::routes())
            .merge(others);
        let mut routes = v2.merge(typed);
        if self.protocols.v1 {
            routes = routes.merge(v1::routes());
        }
        if self.protocols.invocations {
            routes = routes.merge(invocations::routes());
        }
        if self.protocols.text {
            routes = routes.merge(text::routes());
        }
        let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(self.clone());
        match self.root_path.as_str() {
            "" => routes,
            // With and without the prefix, for ingresses that strip it and those that do not.
            prefix => {
                let nested = Router::new().nest(prefix, routes.clone()).fallback_service(routes);
                // KServe's client asks with the slash, which nesting leaves out.
                if self.protocols.v1 { nested.route(&format!("{prefix}/"), get(v1::alive)) } else { nested }
            }
        }
    }
}

/// Answers what has no route.
pub async fn not_found(request: axum::extract::Request) -> axum::response::Response {
    answer::nowhere(&request)
}

/// Answers a method that its route does not have.
pub async fn method_not_allowed(request: axum::extract::Request) -> axum::response::Response {
    let head = Head::of(request.headers());
    let error = Error::new(Code::MethodNotAllowed, "Method Not Allowed");
    answer::error(Dialect::of(request.uri().path()), &head, &error)
}
