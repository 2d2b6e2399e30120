//! `/openapi.json` and `/models/{model}/openapi.json`: made anew when what serves has changed, kept until it does.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde_json::json;
use sluicegate_core::{ModelRef, Result};
use sluicegate_openapi::{Described, Info, Scope};
use sluicegate_registry::{Live, Table};

use super::Api;
use super::answer::{self, Dialect, Head};
use super::docs;
use super::infer::Parts;

const TITLE: &str = "Sluicegate";
const ABOUT: &str =
    "Predictions of the models that this gateway serves: a typed route for each, and the Open Inference Protocol.";

/// The last document made, and the generation of the table that it was made from.
#[derive(Default)]
pub struct Cache(Mutex<Option<(u64, Bytes)>>);

impl Cache {
    fn get(&self, table: &Table, make: impl FnOnce() -> Bytes) -> Bytes {
        if let Some((generation, document)) = &*self.0.lock()
            && *generation == table.generation
        {
            return document.clone();
        }
        // Made outside of the lock: two callers at a swap make it twice, and nobody waits.
        let document = make();
        *self.0.lock() = Some((table.generation, document.clone()));
        document
    }
}

/// `GET /openapi.json`
pub async fn of_gateway(State(api): State<Api>, request: Request) -> Response {
    let table = api.gateway.published().load();
    let document = api.openapi.get(&table, || {
        document(&api, Scope::Gateway, &table, &table.live().into_iter().map(|live| &**live).collect::<Vec<_>>())
    });
    answer(&request, &document)
}

/// `GET /models/{model}/openapi.json`
pub async fn of_model(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let table = api.gateway.published().load();
    let found = (|| -> Result<_> {
        let target = ModelRef::parse(parts.model())?;
        let live = table.find(target.model, target.version.as_ref())?;
        Ok(match target.version {
            Some(_) => vec![&**live],
            None => table.live().into_iter().filter(|other| other.model == live.model).map(|live| &**live).collect(),
        })
    })();
    match found {
        Ok(versions) => answer(&request, &document(&api, Scope::Model, &table, &versions)),
        Err(error) => answer::error(Dialect::Typed, &Head::of(request.headers()), &error),
    }
}

fn document(api: &Api, scope: Scope, table: &Table, versions: &[&Live]) -> Bytes {
    let is_default = |live: &Live| {
        let served = table.models.get(&live.model);
        served.and_then(|served| served.default.as_ref()).is_some_and(|default| default.version == live.version)
    };
    let described: Vec<Described<'_>> = versions
        .iter()
        .map(|live| Described {
            name: &live.model,
            version: live.version,
            digest: &live.digest,
            default: is_default(live),
            description: live.description.as_deref(),
            signature: &live.signature,
            lineage: live.lineage.as_ref().map(|lineage| json!(lineage)),
        })
        .collect();
    let info = Info { title: TITLE, version: api.version, description: ABOUT, scope, protocols: &api.protocols };
    serde_json::to_vec(&sluicegate_openapi::openapi(&info, &described)).unwrap_or_default().into()
}

fn answer(request: &Request, document: &Bytes) -> Response {
    let head = Head::of(request.headers());
    let etag = docs::etag(document);
    let fresh = docs::is_fresh(request.headers(), &etag);
    let (status, body) = if fresh { (StatusCode::NOT_MODIFIED, Vec::new()) } else { (StatusCode::OK, document.to_vec()) };
    let mut response = answer::respond(&head, status, HeaderValue::from_static("application/json"), body);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    // A swap changes it at any time.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
