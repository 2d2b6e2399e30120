//! `/invocations`, `/ping`, `/health` and `/version`: MLflow's scoring protocol, and SageMaker's contract with a container.

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use axum::routing::{get, post};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sluicegate_codec::scoring;
use sluicegate_core::{Code, Error, ModelRef, Request, Result};
use sluicegate_registry::Live;

use super::answer::{self, Dialect, Head};
use super::exchange::{Answer, Exchange};
use super::{Api, health};

/// The model that SageMaker's callers name where an endpoint has several.
const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");

/// The routes, where they are switched on.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/invocations", post(invoke))
        .route("/ping", get(ping))
        .route("/health", get(ping))
        .route("/version", get(version))
}

/// `GET /ping` and `GET /health`
async fn ping(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    health::ready(&api, &request)
}

/// `GET /version`
async fn version(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer::respond(&Head::of(request.headers()), StatusCode::OK, text, api.version.into())
}

/// `POST /invocations`
async fn invoke(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    let name = name(&api, request.headers());
    let target = name.as_ref().map_err(Clone::clone).and_then(|name| ModelRef::parse(name));
    match Exchange::enter(&api, Dialect::Scoring, target, request).await {
        Ok(exchange) => {
            let outcome = run(&api, &exchange).await;
            exchange.leave(outcome)
        }
        Err(refusal) => refusal,
    }
}

async fn run(api: &Api, exchange: &Exchange) -> Result<HttpResponse> {
    let (sent, wanted) = (Media::sent(&exchange.headers)?, Media::wanted(&exchange.headers)?);
    let read = move |live: &Live, content: &[u8]| {
        let inputs = match sent {
            Media::Json => scoring::read(&live.signature, content),
            Media::Csv { header } => scoring::read_csv(&live.signature, content, header),
        };
        Ok((Request { inputs: inputs?, ..Request::default() }, ()))
    };
    let write = move |_: &Live, response: &_, ()| {
        let body = match wanted {
            Media::Json => scoring::write(response),
            Media::Csv { .. } => scoring::write_csv(response),
        };
        Ok(Answer { content_type: wanted.name(), body: body? })
    };
    exchange.ask(api, read, write).await
}

/// Which model is asked: the one that the caller names, the one that is configured, or the only one.
fn name(api: &Api, headers: &HeaderMap) -> Result<String> {
    if let Some(named) = headers.get(TARGET_MODEL) {
        let named = named.to_str().unwrap_or_default().trim_start_matches('/');
        // A multi-model endpoint's callers name the archive that holds the model.
        return Ok(named.strip_suffix(".tar.gz").unwrap_or(named).to_owned());
    }
    if let Some(configured) = &api.protocols.invocations_model {
        return Ok(configured.to_string());
    }
    let table = api.gateway.published().load();
    let mut names = table.models.keys();
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.to_string()),
        _ => {
            let count = table.models.len();
            let why = format!("{count} models are served, and nothing says which one /invocations asks");
            let how = format!("set protocols.invocations_model, or send the header {TARGET_MODEL}");
            Err(Error::new(Code::UnknownModel, format!("{why}; {how}")))
        }
    }
}

/// A media type of these routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    Json,
    Csv { header: bool },
}

impl Media {
    fn name(self) -> HeaderValue {
        match self {
            Self::Json => HeaderValue::from_static("application/json"),
            Self::Csv { .. } => HeaderValue::from_static("text/csv"),
        }
    }

    /// What the body is; JSON where that is not said.
    fn sent(headers: &HeaderMap) -> Result<Self> {
        let Some(sent) = headers.get(CONTENT_TYPE) else { return Ok(Self::Json) };
        let sent = sent.to_str().unwrap_or_default();
        let refuse = |why: &str| {
            let known = "expected application/json, or text/csv, with header=absent where its first line is a row";
            Err(Error::new(Code::UnsupportedMedia, format!("content-type is `{sent}`{why}; {known}")))
        };
        let mut parts = sent.split(';').map(str::trim);
        let mut media = match parts.next().unwrap_or_default() {
            json if json.eq_ignore_ascii_case("application/json") => Self::Json,
            csv if csv.eq_ignore_ascii_case("text/csv") => Self::Csv { header: true },
            _ => return refuse(""),
        };
        for (key, value) in parts.filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, ""))) {
            let value = value.trim_matches('"');
            match (key.to_ascii_lowercase().as_str(), &mut media) {
                ("charset", _) if value.eq_ignore_ascii_case("utf-8") => {}
                ("charset", _) => return refuse(": only UTF-8 is read"),
                ("header", Self::Csv { header }) if ["present", "absent"].contains(&value) => *header = value == "present",
                _ => return refuse(&format!(": `{key}` is not known")),
            }
        }
        Ok(media)
    }

    /// What the answer is to be: the first of both that the caller lists and does not weigh with zero.
    fn wanted(headers: &HeaderMap) -> Result<Self> {
        let lists: Vec<&str> = headers.get_all(ACCEPT).into_iter().filter_map(|list| list.to_str().ok()).collect();
        let mut ranges =
            lists.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|range| !range.is_empty()).peekable();
        if ranges.peek().is_none() {
            return Ok(Self::Json);
        }
        let found = ranges.find_map(|range| {
            let (range, weight) = range.split_once(';').unwrap_or((range, ""));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
            match range.trim().to_ascii_lowercase().as_str() {
                "application/json" | "application/*" | "*/*" if !refused => Some(Self::Json),
                "text/csv" | "text/*" if !refused => Some(Self::Csv { header: false }),
                _ => None,
            }
        });
        found.ok_or_else(|| {
            let expected = "expected application/json or text/csv";
            Error::new(Code::NotAcceptable, format!("accept is `{}`, {expected}", lists.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_body_is_json_or_csv_and_all_else_is_named() {
        let sent = |value| Media::sent(&headers(CONTENT_TYPE, value)).map_err(|error| error.code());
        assert_eq!(Media::sent(&HeaderMap::new()).ok(), Some(Media::Json));
        assert_eq!(sent("application/json; charset=UTF-8"), Ok(Media::Json));
        assert_eq!(sent("Text/CSV"), Ok(Media::Csv { header: true }));
        assert_eq!(sent("text/csv; header=absent; charset=utf-8"), Ok(Media::Csv { header: false }));
        for bad in
            ["application/x-npy", "text/csv; charset=latin-1", "text/csv; header=no", "application/json; header=absent", ""]
        {
            assert_eq!(sent(bad), Err(Code::UnsupportedMedia), "{bad}");
        }
    }

    #[test]
    fn the_answer_is_what_the_caller_accepts() {
        let wanted = |value| Media::wanted(&headers(ACCEPT, value)).map_err(|error| error.code());
        assert_eq!(Media::wanted(&HeaderMap::new()).ok(), Some(Media::Json));
        assert_eq!(wanted("*/*"), Ok(Media::Json));
        assert_eq!(wanted("text/csv, application/json"), Ok(Media::Csv { header: false }));
        assert_eq!(wanted("text/csv;q=0, application/json"), Ok(Media::Json));
        assert_eq!(wanted("application/x-recordio"), Err(Code::NotAcceptable));
    }
}
