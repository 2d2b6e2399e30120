//! Triton's traces, of which there are none: they are off, and stay so.

use std::collections::BTreeMap;

use sluicegate_core::{Code, Error, Result};
use sluicegate_proto::inference::TraceSettingResponse;
use sluicegate_proto::inference::trace_setting_response::SettingValue;
use sluicegate_registry::Table;

/// The settings of a model, or of all where none is named.
///
/// # Errors
/// [`Code::UnknownModel`].
pub fn settings(table: &Table, model: &str) -> Result<TraceSettingResponse> {
    if !model.is_empty() && !table.models.contains_key(model) {
        table.find(model, None)?;
    }
    let off = [("trace_level", "OFF"), ("trace_rate", "0"), ("trace_count", "0"), ("log_frequency", "0"), ("trace_file", "")];
    let setting = |(key, value): (&str, &str)| (key.to_owned(), SettingValue { value: vec![value.to_owned()] });
    Ok(TraceSettingResponse { settings: off.map(setting).into_iter().collect::<BTreeMap<_, _>>() })
}

/// The refusal of every change.
pub fn refusal() -> Error {
    Error::new(Code::Unsupported, "traces in Triton's form are not written; the trace setting stays OFF")
}
