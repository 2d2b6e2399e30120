//! What others ask who move pods and not models: `GET /models/{model}/analysis` for Argo Rollouts, `POST /hooks/flagger/{type}` for Flagger.

use std::str::FromStr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sluicegate_api::http::answer::{self, Dialect};
use sluicegate_api::http::{Api, body};
use sluicegate_core::{Code, Error, ModelRef, Result};
use sluicegate_traffic::Traffic;

use crate::rollout::{known, told};

/// Longest part of what Flagger says that is logged, in characters.
const LOGGED: usize = 300;

/// What is known of a rollout as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// Every rule of its stage holds, or it was promoted.
    Pass,
    /// A rule is broken, or it was rolled back.
    Fail,
    /// Neither is known.
    Inconclusive,
}

/// A rollout, judged.
#[derive(Clone, Debug, Serialize)]
struct Judged {
    model: String,
    ok: bool,
    verdict: Verdict,
    /// What the candidate answered or failed in this stage; of a shadow, rows that were compared and copies that failed.
    n: u64,
    phase: String,
    declared: bool,
    stable: String,
    candidate: String,
    reason: String,
}

impl Judged {
    /// From what is told of a rollout that is declared.
    fn of(view: &Value) -> Self {
        Self::from_parts(view, &view["verdicts"], &view["numbers"], &view["phase"], &view["reason"], true)
    }

    /// From the last decision of one that is declared no more.
    fn of_event(model: &str, event: &Value) -> Self {
        let (record, decision) = (&event["record"], &event["record"]["decision"]);
        let about = json!({ "model": model, "stable": record["spec"]["stable"], "candidate": record["spec"]["candidate"] });
        let numbers = &record["look"]["evidence"]["numbers"];
        Self::from_parts(&about, &decision["verdicts"], numbers, &decision["next"]["phase"], &decision["sentence"], false)
    }

    fn from_parts(about: &Value, verdicts: &Value, numbers: &Value, phase: &Value, reason: &Value, declared: bool) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let rules = verdicts.as_array().map(Vec::as_slice).unwrap_or_default();
        let rule = |is: &str| rules.iter().find(|rule| rule["known"] == is);
        let said = |rule: &Value| format!("{}: {}", text(&rule["metric"]), text(&rule["sentence"]));
        let (verdict, reason) = match (phase.as_str(), rule("fail"), rule("unknown")) {
            (Some("promoted"), ..) => (Verdict::Pass, text(reason)),
            (Some("rolled_back"), ..) => (Verdict::Fail, text(reason)),
            _ if !declared => (Verdict::Inconclusive, "it was taken out of the configuration before its end".to_owned()),
            (_, Some(broken), _) => (Verdict::Fail, said(broken)),
            _ if about["ready"] != true => (Verdict::Inconclusive, "a version of it is not ready".to_owned()),
            (_, _, Some(unknown)) => (Verdict::Inconclusive, said(unknown)),
            _ if rules.is_empty() => (Verdict::Inconclusive, "it has not begun".to_owned()),
            _ => (Verdict::Pass, "every rule holds".to_owned()),
        };
        let count = |side: &str, keys: [&str; 2]| keys.iter().filter_map(|key| numbers[side][key].as_u64()).sum::<u64>();
        let asked = count("candidate", ["answered", "failed"]);
        Self {
            model: text(&about["model"]),
            ok: verdict == Verdict::Pass,
            verdict,
            n: if asked > 0 { asked } else { count("shadow", ["compared", "failed"]) },
            phase: text(phase),
            declared,
            stable: text(&about["stable"]),
            candidate: text(&about["candidate"]),
            reason,
        }
    }

    fn is_under_way(&self) -> bool {
        matches!(self.phase.as_str(), "running" | "paused")
    }

    fn sentence(&self) -> String {
        format!("the rollout of {} is {}: {}", self.model, self.phase.replace('_', " "), self.reason)
    }
}

/// `GET /models/{model}/analysis`: the rollout that is declared, or else the last one that was.
pub(crate) async fn analysis(
    State(api): State<Api>,
    traffic: Extension<Arc<Traffic>>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    let judged = async {
        known(&api, &model)?;
        let none = match traffic.view(&model) {
            Ok(view) => return Ok(Judged::of(&view)),
            Err(none) => none,
        };
        let last = traffic.events(&model, 0, 1).await?;
        last.last().map(|event| Judged::of_event(&model, event)).ok_or(none)
    }
    .await;
    told(&request, judged.map(|judged| json!({ "data": judged })))
}

/// When Flagger asks. Its names are the types of its webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    ConfirmRollout,
    PreRollout,
    Rollout,
    ConfirmTrafficIncrease,
    ConfirmPromotion,
    PostRollout,
    Rollback,
    Event,
}

const TYPES: [(&str, Asks); 8] = [
    ("confirm-rollout", Asks::ConfirmRollout),
    ("pre-rollout", Asks::PreRollout),
    ("rollout", Asks::Rollout),
    ("confirm-traffic-increase", Asks::ConfirmTrafficIncrease),
    ("confirm-promotion", Asks::ConfirmPromotion),
    ("post-rollout", Asks::PostRollout),
    ("rollback", Asks::Rollback),
    ("event", Asks::Event),
];

impl FromStr for Asks {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = TYPES.iter().find(|(known, _)| *known == name).map(|(_, asks)| *asks);
        let all = || TYPES.map(|(name, _)| name).join(", ");
        found
            .ok_or_else(|| Error::new(Code::NotFound, format!("expected a type of Flagger's webhooks ({}), got `{name}`", all())))
    }
}

impl Asks {
    /// Whether Flagger does what it asks about, and why. `unready` is a model that does not answer.
    fn answer(self, rollouts: &[Judged], unready: Option<&str>) -> (bool, String) {
        let first = |is: &dyn Fn(&Judged) -> bool| rollouts.iter().find(|judged| is(judged)).map(Judged::sentence);
        let failed = |judged: &Judged| judged.verdict == Verdict::Fail;
        let against = match self {
            // Two that move at a time are judged by each other's faults.
            Self::ConfirmRollout => first(&|judged| failed(judged) || judged.is_under_way()),
            Self::PreRollout => unready.map(|model| format!("no version of {model} answers yet; /status says why")),
            Self::Rollout => first(&failed),
            Self::ConfirmTrafficIncrease | Self::ConfirmPromotion => first(&|judged| !judged.ok),
            Self::PostRollout | Self::Event => None,
            Self::Rollback => {
                let reason = first(&failed);
                return (reason.is_some(), reason.unwrap_or_else(|| "no rollout has failed".to_owned()));
            }
        };
        (against.is_none(), against.unwrap_or_else(|| "nothing speaks against it".to_owned()))
    }
}

/// `POST /hooks/flagger/{type}`: 200 says yes, 409 no. To `rollback`, yes means that the pods are rolled back.
pub(crate) async fn flagger(
    State(api): State<Api>,
    traffic: Extension<Arc<Traffic>>,
    Path(kind): Path<String>,
    request: Request,
) -> Response {
    let (head, said) = body::object(&api, request).await;
    let answered = said.and_then(|said| {
        let asks: Asks = kind.parse()?;
        let models = models(&api, &said)?;
        if matches!(asks, Asks::PostRollout | Asks::Event) {
            let part = |value: Option<&Value>| {
                value.and_then(Value::as_str).unwrap_or_default().chars().take(LOGGED).collect::<String>()
            };
            let (canary, namespace, phase) = (part(said.get("name")), part(said.get("namespace")), part(said.get("phase")));
            let event = part(said.get("metadata").and_then(|metadata| metadata.get("eventMessage")));
            tracing::info!(canary, namespace, phase, event, "told by Flagger: {kind}");
        }
        let rollouts: Vec<Judged> =
            models.iter().filter_map(|model| traffic.view(model).ok()).map(|view| Judged::of(&view)).collect();
        let table = api.gateway.published().load();
        let answers = |model: &&String| table.would_answer(&ModelRef { model, version: None }).is_ok();
        let unready = models.iter().find(|model| !answers(model)).map(String::as_str);
        match asks.answer(&rollouts, unready) {
            (true, sentence) => Ok(json!({ "type": kind, "reason": sentence, "rollouts": rollouts })),
            (false, sentence) => Err(Error::new(Code::Conflict, sentence)),
        }
    });
    match answered {
        Ok(body) => answer::json(&head, StatusCode::OK, &body),
        Err(error) => answer::error(Dialect::Typed, &head, &error),
    }
}

/// The model that `metadata.model` names, or all of this gateway.
fn models(api: &Api, said: &Map<String, Value>) -> Result<Vec<String>> {
    let wrong = |expected: &str, got: &Value| Error::new(Code::Malformed, format!("expected {expected}, got {got}"));
    let named = match said.get("metadata") {
        None | Some(Value::Null) => None,
        Some(Value::Object(metadata)) => metadata.get("model"),
        Some(other) => return Err(wrong("an object as `metadata`", other)),
    };
    match named {
        Some(Value::String(model)) => known(api, model).map(|()| vec![model.clone()]),
        Some(other) => Err(wrong("the name of a model as `metadata.model`", other)),
        None => {
            let table = api.gateway.published().load();
            let mut all: Vec<String> = table.models.keys().map(ToString::to_string).collect();
            all.sort();
            Ok(all)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(phase: &str, ready: bool, known: &[&str]) -> Value {
        let rule = |known: &&str| json!({ "metric": "error_rate", "known": known, "sentence": "so it is" });
        json!({
            "model": "m", "stable": "1", "candidate": "2", "phase": phase, "ready": ready, "reason": "by ada",
            "verdicts": known.iter().map(rule).collect::<Vec<_>>(),
            "numbers": { "candidate": { "answered": 3, "failed": 4 }, "shadow": { "compared": 9, "failed": 0 } },
        })
    }

    #[test]
    fn the_end_of_a_rollout_counts_before_its_rules_and_a_broken_rule_before_an_unknown_one() {
        use Verdict::{Fail, Inconclusive, Pass};
        for (phase, ready, known, verdict, reason) in [
            ("promoted", true, &["fail"][..], Pass, "by ada"),
            ("rolled_back", false, &["pass"], Fail, "by ada"),
            ("running", true, &["pass", "unknown", "fail"], Fail, "error_rate: so it is"),
            ("paused", true, &["pass", "fail"], Fail, "error_rate: so it is"),
            ("running", true, &["pass", "unknown"], Inconclusive, "error_rate: so it is"),
            ("running", true, &["pass"], Pass, "every rule holds"),
            ("paused", true, &["pass"], Pass, "every rule holds"),
            ("running", false, &["pass"], Inconclusive, "a version of it is not ready"),
            ("running", false, &["fail"], Fail, "error_rate: so it is"),
            ("running", true, &[], Inconclusive, "it has not begun"),
        ] {
            let judged = Judged::of(&view(phase, ready, known));
            assert_eq!((judged.verdict, judged.reason.as_str()), (verdict, reason), "{phase} {known:?}");
            assert_eq!((judged.ok, judged.n), (verdict == Pass, 7), "{phase} {known:?}");
        }
    }

    #[test]
    fn what_flagger_is_told_follows_from_the_rollouts_alone() {
        let of = |phase: &str, known: &str| Judged::of(&view(phase, true, &[known]));
        let none: &[Judged] = &[];
        let passing = &[of("promoted", "pass"), of("running", "pass")][..];
        let promoted = &[of("promoted", "pass")][..];
        let unknown = &[of("running", "unknown")][..];
        let broken = &[of("promoted", "pass"), of("paused", "fail")][..];
        let back = &[of("rolled_back", "pass")][..];
        for (name, yes) in [
            ("confirm-rollout", [true, false, true, false, false, false]),
            ("pre-rollout", [true, true, true, true, true, true]),
            ("rollout", [true, true, true, true, false, false]),
            ("confirm-traffic-increase", [true, true, true, false, false, false]),
            ("confirm-promotion", [true, true, true, false, false, false]),
            ("post-rollout", [true, true, true, true, true, true]),
            ("rollback", [false, false, false, false, true, true]),
            ("event", [true, true, true, true, true, true]),
        ] {
            let asks: Asks = name.parse().expect("a type");
            let answers = [none, passing, promoted, unknown, broken, back].map(|rollouts| asks.answer(rollouts, None).0);
            assert_eq!(answers, yes, "{name}");
            assert_eq!(asks.answer(none, Some("m")).0, !matches!(name, "pre-rollout" | "rollback"), "{name}, not ready");
        }
        assert!("rollbak".parse::<Asks>().is_err_and(|error| error.message().contains("confirm-traffic-increase")));
    }
}
