//! A configuration that comes with a load: what of it is honoured, and what is refused by its name.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::Value;
use sluicegate_core::{Code, Error, Result};
use sluicegate_proto::config::{from_json, to_json};
use sluicegate_proto::inference::ModelConfig;
use sluicegate_proto::inference::model_config::SchedulingChoice;
use sluicegate_proto::inference::model_version_policy::PolicyChoice;
use sluicegate_registry::{Overlay, Policy};

/// Most rows of a run, as the configuration's `batching.max_rows` has it.
const MAX_ROWS: usize = 65_536;

/// Most runs at the same time.
const INSTANCES: usize = 64;

/// Most versions that a policy may name.
const VERSIONS: usize = 64;

/// What can be said with a load.
const HONOURED: &str = "max_batch_size, dynamic_batching.max_queue_delay_microseconds, instance_group's count and version_policy";

/// Reads a configuration that comes with a load. What is said of the model as it is says nothing new, and passes: `now` is
/// its configuration, where it serves.
///
/// # Errors
/// [`Code::Malformed`] where it is none or a number is out of its bounds, [`Code::Unsupported`] with the name of the first
/// field that would be ignored.
pub fn read(text: &str, model: &str, now: Option<&ModelConfig>) -> Result<Overlay> {
    let config = from_json(text).map_err(|error| malformed(error.to_string()))?;
    let json = |config: &ModelConfig| to_json(config).map_err(|error| Error::new(Code::Internal, error));
    let (said, now) = (json(&config)?, now.map(json).transpose()?.unwrap_or_default());
    for (field, value) in said.as_object().into_iter().flatten() {
        match field.as_str() {
            "max_batch_size" | "version_policy" => {}
            "dynamic_batching" => fields(field, value, &now[field], &["max_queue_delay_microseconds"])?,
            "instance_group" => {
                let groups = value.as_array().into_iter().flatten().enumerate();
                for (place, group) in groups {
                    fields(field, group, &now[field][place], &["count"])?;
                }
            }
            "name" if value == model => {}
            _ if now[field] == *value => {}
            _ => return Err(refused(field)),
        }
    }
    let max_rows = usize::try_from(config.max_batch_size).ok().filter(|&rows| rows <= MAX_ROWS);
    let max_rows =
        max_rows.ok_or_else(|| malformed(format!("max_batch_size is 0 to {MAX_ROWS}, got {}", config.max_batch_size)))?;
    Ok(Overlay {
        // Left out and 0 are the same in protobuf.
        max_rows: Some(max_rows).filter(|&rows| rows > 0),
        max_delay: match &config.scheduling_choice {
            Some(SchedulingChoice::DynamicBatching(batching)) => {
                Some(Duration::from_micros(batching.max_queue_delay_microseconds))
            }
            _ => None,
        },
        instances: instances(&config)?,
        versions: config.version_policy.and_then(|policy| policy.policy_choice).map(policy).transpose()?,
    })
}

/// Refuses fields of a part that are neither honoured nor as they are anyway.
fn fields(part: &str, said: &Value, now: &Value, honoured: &[&str]) -> Result<()> {
    let fields = said.as_object().into_iter().flatten();
    let ignored = |(field, value): &(&String, &Value)| !honoured.contains(&field.as_str()) && now[field.as_str()] != **value;
    match fields.into_iter().find(ignored) {
        None => Ok(()),
        Some((field, _)) => Err(refused(&format!("{part}.{field}"))),
    }
}

fn instances(config: &ModelConfig) -> Result<Option<NonZeroUsize>> {
    let mut all = 0usize;
    for group in &config.instance_group {
        let count = usize::try_from(group.count).ok().filter(|&count| count <= INSTANCES);
        let count = count.ok_or_else(|| malformed(format!("instance_group.count is 1 to {INSTANCES}, got {}", group.count)))?;
        // Triton's default.
        all = all.saturating_add(count.max(1));
    }
    if all > INSTANCES {
        return Err(malformed(format!("instance_group has {all} instances, at most {INSTANCES} are made")));
    }
    Ok(NonZeroUsize::new(all))
}

fn policy(choice: PolicyChoice) -> Result<Policy> {
    let bounded = |count: usize| {
        let bad = || malformed(format!("version_policy names {count} versions, at most {VERSIONS} are served"));
        if count <= VERSIONS { Ok(count) } else { Err(bad()) }
    };
    match choice {
        PolicyChoice::All(_) => Ok(Policy::All),
        PolicyChoice::Latest(latest) => {
            bounded(usize::try_from(latest.num_versions).unwrap_or(usize::MAX)).map(|count| Policy::Newest(count.max(1)))
        }
        PolicyChoice::Specific(specific) => {
            bounded(specific.versions.len())?;
            let number =
                |version: &i64| u64::try_from(*version).map_err(|_| malformed(format!("version_policy names version {version}")));
            let versions = specific.versions.iter().map(number).collect::<Result<Vec<_>>>()?;
            if versions.is_empty() {
                Err(malformed("version_policy.specific names no version".into()))
            } else {
                Ok(Policy::These(versions))
            }
        }
    }
}

fn malformed(why: String) -> Error {
    Error::new(Code::Malformed, why).at("parameters.config")
}

fn refused(field: &str) -> Error {
    let why = format!("`{field}` cannot be changed with a load; honoured are {HONOURED}");
    Error::new(Code::Unsupported, why).at("parameters.config")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> (Code, String) {
        let error = read(text, "m", None).expect_err(text);
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn what_is_honoured_is_read() {
        let text = r#"{"name":"m","max_batch_size":4,"dynamic_batching":{"max_queue_delay_microseconds":100},
            "instance_group":[{"count":2},{}],"version_policy":{"specific":{"versions":[1,3]}}}"#;
        let overlay = read(text, "m", None).expect("honoured");
        let expected = Overlay {
            max_rows: Some(4),
            max_delay: Some(Duration::from_micros(100)),
            instances: NonZeroUsize::new(3),
            versions: Some(Policy::These(vec![1, 3])),
        };
        assert_eq!(overlay, expected);
        assert_eq!(read("{}", "m", None).expect("nothing said"), Overlay::default());
        let latest = read(r#"{"version_policy":{"latest":{"num_versions":2}}}"#, "m", None).expect("honoured");
        assert_eq!(latest.versions, Some(Policy::Newest(2)));
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_its_name() {
        for (text, field) in [
            (r#"{"optimization":{"priority":1}}"#, "`optimization`"),
            (r#"{"sequence_batching":{}}"#, "`sequence_batching`"),
            (r#"{"name":"other"}"#, "`name`"),
            (r#"{"dynamic_batching":{"preserve_ordering":true}}"#, "`dynamic_batching.preserve_ordering`"),
            (r#"{"instance_group":[{"count":1,"gpus":[0]}]}"#, "`instance_group.gpus`"),
        ] {
            let (code, message) = code(text);
            assert!(code == Code::Unsupported && message.contains(field), "{text}: {message}");
        }
        for text in [
            "[]",
            "{",
            r#"{"max_batch_size":-1}"#,
            r#"{"max_batch_size":1000000}"#,
            r#"{"nothing":1}"#,
            r#"{"instance_group":[{"count":1000}]}"#,
            r#"{"version_policy":{"specific":{}}}"#,
            r#"{"version_policy":{"specific":{"versions":[-1]}}}"#,
            r#"{"version_policy":{"latest":{"num_versions":4000000000}}}"#,
        ] {
            assert_eq!(code(text).0, Code::Malformed, "{text}");
        }
    }

    #[test]
    fn a_models_own_configuration_can_be_sent_back() {
        let now = ModelConfig { name: "m".into(), backend: "tract".into(), ..ModelConfig::default() };
        assert!(read(r#"{"name":"m","backend":"tract","max_batch_size":2}"#, "m", Some(&now)).is_ok());
        let error = read(r#"{"backend":"onnxruntime"}"#, "m", Some(&now)).expect_err("another engine");
        assert!(error.message().contains("`backend`"), "{error}");
    }
}
