//! `/v1/embeddings`, `/v1/rerank`, `/v2/rerank`, `/embed`, `/predict` and `/rerank`: models of text, as clients of OpenAI, Cohere, Jina
//! and text-embeddings-inference ask them.

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response as HttpResponse;
use axum::routing::post;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluicegate_core::{Code, Error, ModelName, ModelRef, Response, Result};
use sluicegate_landing::text::{Question, Task};
use sluicegate_landing::{embeddings, rerank, tei};
use sluicegate_registry::{Live, Table};

use super::Api;
use super::answer::Dialect;
use super::exchange::{Answer, Arrived, Exchange, aside, through};

/// The model that is asked, where the body names none.
const MODEL: HeaderName = HeaderName::from_static("x-model");

/// Most models that are named to a caller who has to choose one.
const MAX_NAMED: usize = 8;

/// The routes, where they are switched on.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/embeddings", post(openai::<embeddings::Asked>))
        .route("/v1/rerank", post(openai::<rerank::Asked>))
        // Cohere's newer client asks here.
        .route("/v2/rerank", post(openai::<rerank::Asked>))
        .route("/embed", post(tei::<tei::Embed>))
        .route("/predict", post(tei::<tei::Predict>))
        .route("/rerank", post(tei::<tei::Rerank>))
}

async fn openai<Q: Question>(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    answer::<Q>(&api, Dialect::OpenAi, request).await
}

async fn tei<Q: Question>(State(api): State<Api>, request: HttpRequest) -> HttpResponse {
    answer::<Q>(&api, Dialect::Tei, request).await
}

async fn answer<Q: Question>(api: &Api, dialect: Dialect, request: HttpRequest) -> HttpResponse {
    match enter::<Q>(api, dialect, request).await {
        Ok((exchange, question)) => {
            let mut asked = Some(question);
            let mut again = |exchange: &Exchange| asked.take().map_or_else(|| Q::read(&exchange.content), Ok);
            through!(api, exchange, run(api, exchange, again(exchange)).await)
        }
        Err(refusal) => refusal,
    }
}

/// Reads the body before the version is found: it may name the model.
async fn enter<Q: Question>(api: &Api, dialect: Dialect, request: HttpRequest) -> Result<(Exchange, Q), HttpResponse> {
    let arrived = Arrived::take(api, dialect, request).await?;
    let content = arrived.content.clone();
    let question = match aside(content.len(), move || Q::read(&content)).await {
        Ok(question) => question,
        Err(error) => return Err(arrived.refuse(&error)),
    };
    let name = model(api, &arrived.headers, question.model(), Q::TASK);
    let target = name.as_ref().map_err(Clone::clone).and_then(|name| ModelRef::parse(name));
    Ok((arrived.route(api, target).await?, question))
}

async fn run<Q: Question>(api: &Api, exchange: &Exchange, question: Result<Q>) -> Result<HttpResponse> {
    let mut question = question?;
    let id = exchange.head.id().to_owned();
    let read = move |live: &Live, _: &[u8]| {
        let mut request = question.request(&Q::TASK.of(&live.signature)?)?;
        request.id = Some(id);
        Ok((request, question))
    };
    let write = |live: &Live, response: &Response, question: Q| {
        let body = question.write(&Q::TASK.of(&live.signature)?, response)?;
        Ok(Answer { content_type: HeaderValue::from_static("application/json"), body })
    };
    exchange.ask(api, read, write).await
}

/// Which model is asked: the one that the body or the header names, the first of those configured that does it, or the only one.
fn model(api: &Api, headers: &HeaderMap, named: Option<&str>, task: Task) -> Result<String> {
    let header = || headers.get(MODEL).map(|name| name.to_str().unwrap_or_default());
    if let Some(named) = named.or_else(header) {
        return Ok(named.to_owned());
    }
    let table = api.gateway.published().load();
    let does = |name: &ModelName| does(&table, name, task);
    if let Some(configured) = api.protocols.text_models.iter().find(|name| does(name)) {
        return Ok(configured.to_string());
    }
    let mut names: Vec<&ModelName> = table.models.keys().filter(|name| does(name)).collect();
    names.sort_unstable();
    let does = match task {
        Task::Embed => "embed texts",
        Task::Rank => "rank texts for a query",
        Task::Classify => "classify texts",
    };
    match &names[..] {
        [only] => Ok(only.to_string()),
        [] => Err(Error::new(
            Code::UnknownModel,
            format!("no model that serves can {does}; GET /models lists what each takes and gives"),
        )),
        several => {
            let listed: Vec<&str> = several.iter().take(MAX_NAMED).map(|name| name.as_str()).collect();
            let how = format!("name one in `model` where the body has it, in the header {MODEL}, or in protocols.text_models");
            let why = format!("{} models that serve can {does}, and nothing says which is asked", several.len());
            Err(Error::new(Code::UnknownModel, format!("{why}: {}; {how}", listed.join(", "))))
        }
    }
}

fn does(table: &Table, name: &ModelName, task: Task) -> bool {
    table.find(name.as_str(), None).is_ok_and(|live| task.is_of(&live.signature))
}
