//! `GET /models/{model}[@{version}]/batching`: how requests became runs of late, and why each batch left as it did.

use std::time::{Instant, SystemTime};

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use sluicegate_batch::{Batcher, Execution, Left, Ran};
use sluicegate_core::{Code, Error, ModelRef, Result};
use sluicegate_registry::Live;

use super::Api;
use super::answer::{self, Dialect, Head};
use super::infer::Parts;

/// The last batches, the newest first, with what bounds them.
pub async fn batching(State(api): State<Api>, parts: Parts, request: Request) -> Response {
    let head = Head::of(request.headers());
    let found = || -> Result<_> {
        let target = ModelRef::parse(parts.model())?;
        let live = api.gateway.published().load().find(target.model, target.version.as_ref())?.clone();
        let none =
            || Error::new(Code::NotFound, format!("`{}` is an ensemble: ask its steps' models for their batches", live.model));
        let described = live.batcher().map(|batcher| describe(&live, batcher)).ok_or_else(none)?;
        Ok((live, described))
    };
    match found() {
        Ok((live, described)) => {
            let mut response = answer::json(&head, StatusCode::OK, &described);
            answer::sign(&mut response, &live);
            response
        }
        Err(error) => answer::error(Dialect::Typed, &head, &error),
    }
}

fn describe(live: &Live, batcher: &Batcher) -> Value {
    let (setup, last) = (batcher.setup(), batcher.last());
    let (now, today) = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let batch = |ran: &Ran| {
        json!({
            "at_ms": today.saturating_sub(now.saturating_duration_since(ran.at)).as_millis(),
            "rows": ran.rows,
            "requests": ran.requests,
            "left": ran.left,
            "because": because(ran.left),
            "waited_us": ran.waited.as_micros(),
            "compute_us": ran.compute.as_micros(),
            "rows_left_behind": ran.behind,
            "failed": ran.failed,
        })
    };
    let rows: usize = last.iter().map(|ran| ran.rows).sum();
    json!({
        "model": live.model,
        "version": live.version.to_string(),
        "execution": setup.execution,
        "runs_on": match setup.execution {
            Execution::Inline => "the threads of the requests",
            Execution::Auto | Execution::Threads => "threads of the model's own",
        },
        "instances": batcher.instances(),
        "threads": live.run.options.threads,
        "max_rows": setup.limits.max_rows,
        "max_delay_us": setup.limits.max_delay.as_micros(),
        "preferred_rows": setup.preferred,
        "queue_rows": setup.limits.queue_rows,
        "queued_rows": batcher.queued_rows(),
        "mean_rows": rows as f64 / last.len().max(1) as f64,
        "batches": last.iter().map(batch).collect::<Vec<_>>(),
    })
}

fn because(left: Left) -> &'static str {
    match left {
        Left::Full => "it had max_rows rows",
        Left::Preferred => "it had a number of rows that the model prefers",
        Left::NextTooLarge => "the next request would not have fitted into max_rows",
        Left::TookAll => "an instance was idle and took all that waited",
        Left::TookAllOfItsKind => "an instance was idle; what else waited has other shapes or other outputs",
        Left::Delayed => "it had waited for max_delay, or for half of its time",
        Left::LookedEnough => "so much waits that no more was looked through",
        Left::Again => "the batch that it was in failed, and it ran again by itself",
    }
}
