//! `sluicegate status`, `promote`, `rollback`, `pause`, `resume`: they ask a running gateway at its `ops` address.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::{COULD_NOT, NO, Output, WELL, complain, say};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often a gateway that is waited for is asked.
const PAUSE: Duration = Duration::from_millis(250);

/// The most of an answer that is read.
const MOST: u64 = 16 << 20;

/// The gateway that is asked.
#[derive(Args, Clone)]
pub(super) struct Target {
    /// The address for operators of the running gateway.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8082")]
    ops: String,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What is asked by `status`.
#[derive(Args)]
pub(super) struct Status {
    /// One model alone.
    model: Option<String>,
    #[command(flatten)]
    target: Target,
    /// Wait until every model is ready and no rollout is under way. Exits with 1 where that does not come, or one was rolled back.
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Print the change of the configuration that makes a promoted candidate the stable version, to be reviewed and merged.
    #[arg(long, value_name = "FILE")]
    patch: Option<std::path::PathBuf>,
}

/// What is asked to move.
#[derive(Args)]
pub(super) struct Move {
    /// The model whose rollout is meant.
    model: String,
    #[command(flatten)]
    target: Target,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    /// Who says so, for the record.
    #[arg(long)]
    by: Option<String>,
}

/// Why there is no answer.
enum Trouble {
    /// Nobody is there, or what came is no answer.
    Nobody(String),
    /// The gateway refused.
    Refused(String),
}

impl Target {
    fn ask(&self, verb: &str, path: &str, query: &[(&str, &str)]) -> Result<Value, Trouble> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into();
        let url = format!("{}{path}", self.ops.trim_end_matches('/'));
        let nobody = |error: &dyn std::fmt::Display| Trouble::Nobody(format!("no gateway answers at {url}: {error}; give --ops"));
        let answer = match verb {
            "POST" => query.iter().fold(agent.post(&url), |request, (key, value)| request.query(*key, *value)).send_empty(),
            _ => agent.get(&url).call(),
        };
        let mut answer = answer.map_err(|error| nobody(&error))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(MOST).read_to_string().map_err(|error| nobody(&error))?;
        let body: Value = serde_json::from_str(&text).map_err(|_| nobody(&"what came is no JSON"))?;
        if status.is_success() {
            return Ok(body);
        }
        let reason = body["detail"].as_str().or_else(|| body["error"].as_str()).map_or_else(|| body.to_string(), str::to_owned);
        Err(Trouble::Refused(reason))
    }

    fn tell(&self, body: &Value, text: impl FnOnce(&Value) -> String) {
        match self.output {
            Output::Json => say(body),
            Output::Text => say(text(body).trim_end()),
        }
    }
}

impl Trouble {
    fn end(&self) -> u8 {
        match self {
            Self::Nobody(reason) => {
                complain(reason);
                COULD_NOT
            }
            Self::Refused(reason) => {
                complain(reason);
                NO
            }
        }
    }
}

/// Moves a rollout by hand. Returns the exit code.
pub(super) fn go(verb: &str, asked: &Move) -> u8 {
    let said = [("by", asked.by.as_deref()), ("reason", asked.reason.as_deref())];
    let query: Vec<(&str, &str)> = said.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    match asked.target.ask("POST", &format!("/models/{}/rollout/{verb}", asked.model), &query) {
        Ok(body) => {
            asked.target.tell(&body, rollout);
            WELL
        }
        Err(trouble) => trouble.end(),
    }
}

/// Tells what serves and what moves. Returns the exit code.
pub(super) fn status(asked: &Status) -> u8 {
    let until = Instant::now() + Duration::from_secs(asked.timeout);
    loop {
        let found = asked.target.ask("GET", "/status", &[]);
        let late = !asked.wait || Instant::now() >= until;
        match found {
            // One who waits may be there before the gateway is.
            Err(_) if !late => {}
            Err(trouble) => return trouble.end(),
            Ok(body) => {
                let models = models(&body, asked.model.as_deref());
                if models.is_empty() && asked.model.is_some() {
                    complain(format_args!("the gateway serves no model `{}`", asked.model.as_deref().unwrap_or_default()));
                    return NO;
                }
                let settled = settled(&body, &models);
                if late || settled.is_some() {
                    return finish(asked, &body, &models, settled);
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn models<'a>(body: &'a Value, only: Option<&str>) -> Vec<&'a Value> {
    let all = body["models"].as_array().into_iter().flatten();
    all.filter(|model| only.is_none_or(|only| model["name"] == only)).collect()
}

/// Whether all is well, once nothing moves any more.
fn settled(body: &Value, models: &[&Value]) -> Option<bool> {
    let phases: Vec<&str> = models.iter().filter_map(|model| model["rollout"]["phase"].as_str()).collect();
    if phases.contains(&"rolled_back") || body["config"]["state"] == "refused" {
        return Some(false);
    }
    let ready = models.iter().all(|model| model["ready"] == true) && body["ready"] == true;
    (ready && phases.iter().all(|phase| *phase == "promoted")).then_some(true)
}

fn finish(asked: &Status, body: &Value, models: &[&Value], settled: Option<bool>) -> u8 {
    if let Some(file) = &asked.patch {
        return super::patch::print(file, models);
    }
    asked.target.tell(body, |_| models.iter().map(|model| line(model)).collect());
    if asked.wait && settled != Some(true) {
        complain("not every model is ready with its rollout at its end; see above");
        return NO;
    }
    WELL
}

fn line(model: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let ready = if model["ready"] == true { "ready" } else { "not ready" };
    let reason = model["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    let moving = if model["rollout"].is_object() { rollout(&model["rollout"]) } else { String::new() };
    format!("{}  version {}  {ready}{reason}\n{moving}", word(&model["name"]), word(&model["default_version"]))
}

/// What moves, in some lines.
fn rollout(rollout: &Value) -> String {
    let text = |key: &str| rollout[key].as_str().map(str::to_owned).unwrap_or_else(|| rollout[key].to_string());
    let mut lines = format!(
        "  {} {} -> {}: {}, candidate at {}\n",
        text("strategy"),
        text("stable"),
        text("candidate"),
        text("phase"),
        text("share")
    );
    for sentence in rollout["sentences"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        lines.push_str(&format!("    {sentence}\n"));
    }
    lines
}
