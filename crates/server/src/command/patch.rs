//! `sluicegate status --patch FILE`: the change of the configuration that makes promoted candidates stable, as a unified diff.

use std::path::Path;

use serde_json::Value;
use similar::TextDiff;
use sluicegate_core::ModelName;

use super::{COULD_NOT, NO, WELL, complain, say};

/// Prints the change for every promoted model. Returns the exit code: 1 where there is nothing to change.
pub(super) fn print(file: &Path, models: &[&Value]) -> u8 {
    let name = file.display().to_string();
    let before = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            complain(format_args!("{name} cannot be read: {error}"));
            return COULD_NOT;
        }
    };
    let promoted = models.iter().filter(|model| model["rollout"]["phase"] == "promoted");
    let mut after = before.clone();
    for model in promoted {
        let rollout = &model["rollout"];
        let known = model["name"].as_str().and_then(|name| name.parse::<ModelName>().ok());
        let Some((model, candidate)) = known.zip(rollout["candidate"].as_str().and_then(|number| number.parse().ok())) else {
            continue;
        };
        match crate::config::patch::promoted(&name, &after, &model, candidate) {
            Ok(text) => after = text,
            Err(error) => {
                complain(error);
                return COULD_NOT;
            }
        }
    }
    if before == after {
        complain("no candidate is promoted: there is nothing to change");
        return NO;
    }
    let diff = TextDiff::from_lines(&before, &after);
    say(diff.unified_diff().header(&format!("a/{name}"), &format!("b/{name}")).to_string().trim_end());
    WELL
}
