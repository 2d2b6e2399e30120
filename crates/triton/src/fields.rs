//! Which fields of a configuration are served: a pure look at those that are set.

use serde_json::Value;
use sluicegate_core::{Code, Error, Result};
use sluicegate_proto::config::to_json;
use sluicegate_proto::inference::ModelConfig;

/// What becomes of a field that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is honoured.
    Honoured,
    /// It only tunes, and has no effect; why.
    Tunes(&'static str),
    /// Without it the model would mean something else; why it is not served.
    Fails(&'static str),
}

use Rule::{Fails, Honoured, Tunes};

/// Every field, by its path without places and keys. What stands here stands for all that is below it.
const FIELDS: &[(&str, Rule)] = &[
    ("name", Honoured),
    ("platform", Honoured),
    ("backend", Honoured),
    ("version_policy", Honoured),
    ("max_batch_size", Honoured),
    ("default_model_filename", Honoured),
    ("input.name", Honoured),
    ("input.data_type", Honoured),
    ("input.dims", Honoured),
    ("input.format", Tunes("the model itself says how its axes lie")),
    ("input.reshape", Fails("callers and model see the same shape")),
    ("input.is_shape_tensor", Fails("shape tensors belong to TensorRT")),
    ("input.allow_ragged_batch", Fails("requests of different sizes share a run by `pad` in model.yaml alone")),
    ("input.optional", Fails("every input must be sent")),
    ("input.is_non_linear_format_io", Fails("such formats belong to TensorRT")),
    ("output.name", Honoured),
    ("output.data_type", Honoured),
    ("output.dims", Honoured),
    ("output.label_filename", Honoured),
    ("output.reshape", Fails("callers and model see the same shape")),
    ("output.is_shape_tensor", Fails("shape tensors belong to TensorRT")),
    ("output.is_non_linear_format_io", Fails("such formats belong to TensorRT")),
    ("batch_input", Fails("no inputs are made of the batch")),
    ("batch_output", Fails("outputs are cut by rows alone")),
    ("instance_group.name", Honoured),
    ("instance_group.count", Honoured),
    ("instance_group.kind", Honoured),
    ("instance_group.gpus", Honoured),
    ("instance_group.profile", Tunes("profiles belong to TensorRT")),
    ("instance_group.rate_limiter", Tunes("runs are bounded by the instances alone")),
    ("instance_group.passive", Tunes("every instance takes what waits")),
    ("instance_group.secondary_devices", Tunes("an instance runs on one device")),
    ("instance_group.host_policy", Tunes("the system places threads")),
    ("cc_model_filenames", Tunes("the same file is loaded on every device")),
    ("metric_tags", Tunes("metrics have the labels of docs/metrics.md")),
    ("model_metrics", Tunes("metrics have the buckets of docs/metrics.md")),
    ("dynamic_batching.preferred_batch_size", Honoured),
    ("dynamic_batching.max_queue_delay_microseconds", Honoured),
    ("dynamic_batching.priority_levels", Honoured),
    ("dynamic_batching.default_priority_level", Honoured),
    ("dynamic_batching.default_queue_policy", Honoured),
    ("dynamic_batching.preserve_ordering", Tunes("an answer leaves when it is there")),
    ("dynamic_batching.priority_queue_policy", Tunes("one policy holds for all priorities")),
    ("sequence_batching", Fails("requests have no state that later ones see")),
    ("ensemble_scheduling.step.model_name", Honoured),
    ("ensemble_scheduling.step.model_version", Honoured),
    ("ensemble_scheduling.step.input_map", Honoured),
    ("ensemble_scheduling.step.output_map", Honoured),
    ("ensemble_scheduling.step.model_namespace", Fails("models have one name in all registries")),
    ("optimization", Tunes("the engine optimises as it does for every model")),
    ("parameters.intra_op_thread_count", Honoured),
    ("parameters", Tunes("of the backend's parameters intra_op_thread_count alone is read")),
    ("model_warmup", Honoured),
    ("model_operations", Fails("libraries of operators are not loaded")),
    ("model_transaction_policy.decoupled", Fails("a request has one answer")),
    ("model_repository_agents", Fails("files are served as they lie in the registry")),
    ("response_cache", Honoured),
    ("runtime", Tunes("engine.default chooses the runtime")),
];

/// What is set and not honoured, each with its path and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What fails the version.
    pub fails: Vec<String>,
    /// What has no effect.
    pub remarks: Vec<String>,
}

/// Looks through all fields that are set.
///
/// # Errors
/// [`Code::Internal`] where the configuration cannot be walked through, which no configuration that was read leads to.
pub fn look(config: &ModelConfig) -> Result<Found> {
    let json = to_json(config).map_err(|error| Error::new(Code::Internal, format!("{}: {error}", super::FILE)))?;
    let mut found = Found::default();
    walk(&json, &mut String::new(), &mut String::new(), &mut found);
    Ok(found)
}

/// `path` is that of the rules, `shown` that of the file. Both are as before when it returns.
fn walk(value: &Value, path: &mut String, shown: &mut String, found: &mut Found) {
    match rule(path) {
        Some(Honoured) => return,
        Some(Tunes(why)) if path != "parameters" => return found.remarks.push(format!("{shown} has no effect: {why}")),
        Some(Fails(why)) => return found.fails.push(format!("{shown} is not supported: {why}")),
        Some(Tunes(_)) | None => {}
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let (path_end, shown_end) = (path.len(), shown.len());
                if path == "parameters" {
                    shown.push_str(&format!("[{name}]"));
                } else {
                    shown.push_str(if path.is_empty() { "" } else { "." });
                    shown.push_str(name);
                }
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(name);
                walk(value, path, shown, found);
                path.truncate(path_end);
                shown.truncate(shown_end);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                let end = shown.len();
                shown.push_str(&format!("[{place}]"));
                walk(item, path, shown, found);
                shown.truncate(end);
            }
        }
        _ => found.fails.push(format!("{shown} is not supported: it is not known here")),
    }
}

/// The rule of this path, or of one of the backend's parameters.
fn rule(path: &str) -> Option<Rule> {
    let of = |path: &str| FIELDS.iter().find(|(known, _)| *known == path).map(|(_, rule)| *rule);
    of(path).or_else(|| path.strip_prefix("parameters.").and_then(|_| of("parameters")))
}

#[cfg(test)]
mod tests {
    use sluicegate_proto::config::from_json;

    use super::*;

    /// A value for each field of the configuration, whichever its rule.
    const ALL: &str = include_str!("all.json");

    #[test]
    fn every_field_has_a_rule_and_every_rule_a_field() {
        let config = from_json(ALL).expect("every field");
        let json = to_json(&config).expect("to JSON");
        for (path, rule) in FIELDS {
            let mut here = vec![&json];
            for step in path.split('.') {
                here =
                    here.into_iter().flat_map(|value| value.as_array().map_or(vec![value], |all| all.iter().collect())).collect();
                here = here.into_iter().filter_map(|value| value.get(step)).collect();
            }
            // Of the three ways to schedule a message holds one.
            let other = path.starts_with("sequence_batching") || path.starts_with("ensemble_scheduling");
            assert!(other || !here.is_empty(), "{path} ({rule:?}) is no field");
        }
        let found = look(&config).expect("a walk");
        let unknown = |text: &&String| text.contains("not known here");
        assert_eq!(found.fails.iter().find(unknown), None);
        let (fails, tunes) = FIELDS.iter().fold((0, 0), |(fails, tunes), (_, rule)| match rule {
            Fails(_) => (fails + 1, tunes),
            Tunes(_) => (fails, tunes + 1),
            Honoured => (fails, tunes),
        });
        assert_eq!((found.fails.len(), found.remarks.len()), (fails - 2, tunes), "{found:#?}");
    }
}
