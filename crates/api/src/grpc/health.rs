//! `grpc.health.v1`, as load balancers and Kubernetes ask it: the gateway, the service, or one model by its name.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, stream};
use sluicegate_core::ModelRef;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::SERVICE;
use crate::http::Api;

/// How often a watched status is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Answers of the health of an API.
pub struct Health(pub Api);

impl Health {
    /// `None` for a name that nothing has.
    fn of(api: &Api, name: &str) -> Option<ServingStatus> {
        let serving = |is: bool| if is { ServingStatus::Serving } else { ServingStatus::NotServing };
        if name.is_empty() || name == SERVICE {
            return Some(serving((api.ready)()));
        }
        let target = ModelRef::parse(name).ok()?;
        let table = api.gateway.published().load();
        table.models.get(target.model)?;
        Some(serving(table.would_answer(&target).is_ok()))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let unknown = || Status::not_found(format!("no service or model is called `{name}`"));
        Self::of(&self.0, &name).map(answer).map(Response::new).ok_or_else(unknown)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The status now, and each time that it is another one. A name that nothing has may come to be one.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (api, name) = (self.0.clone(), request.into_inner().service);
        let changes = stream::unfold(None, move |last| {
            let (api, name) = (api.clone(), name.clone());
            async move {
                loop {
                    let now = Self::of(&api, &name).unwrap_or(ServingStatus::ServiceUnknown);
                    if last != Some(now) {
                        return Some((Ok(answer(now)), Some(now)));
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
