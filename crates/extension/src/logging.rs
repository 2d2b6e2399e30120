//! What is logged, in Triton's settings: they stand for one level, from `off` to `trace`.

use std::collections::BTreeMap;

use sluicegate_core::{Code, Error, Result};
use sluicegate_proto::inference::log_settings_request::setting_value::ParameterChoice as Asked;
use sluicegate_proto::inference::log_settings_response::SettingValue;
use sluicegate_proto::inference::log_settings_response::setting_value::ParameterChoice;
use sluicegate_proto::inference::{LogSettingsRequest, LogSettingsResponse};

use crate::Controls;

/// The levels, and from which setting on each one logs.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The settings as they are.
///
/// # Errors
/// None in a running gateway.
pub fn settings(controls: &Controls<'_>) -> Result<LogSettingsResponse> {
    Ok(describe(place(&(controls.log_level)(None)?)))
}

/// Changes them, and gives them as they are then. Nothing asked for changes nothing, and is always allowed.
///
/// # Errors
/// [`Code::Forbidden`] where that is switched off, [`Code::Malformed`] where values are of the wrong type or contradict each
/// other, [`Code::Unsupported`] for settings that there are not here.
pub fn change(controls: &Controls<'_>, request: &LogSettingsRequest) -> Result<LogSettingsResponse> {
    if request.settings.is_empty() {
        return settings(controls);
    }
    controls.check()?;
    let now = place(&(controls.log_level)(None)?);
    let next = change_from(now, request)?;
    if next != now {
        (controls.log_level)(Some(LEVELS[next]))?;
    }
    Ok(describe(next))
}

/// The place of a level, and of the level that holds for all modules where there are several.
fn place(directives: &str) -> usize {
    let global = directives.split(',').map(str::trim).rfind(|part| !part.is_empty() && !part.contains(['=', '[']));
    let is = |level: &&str| global.is_some_and(|global| global.eq_ignore_ascii_case(level));
    // Where only modules are named, all others log errors.
    LEVELS.iter().position(is).unwrap_or(1)
}

fn describe(level: usize) -> LogSettingsResponse {
    let setting = |key: &str, choice| (key.to_owned(), SettingValue { parameter_choice: Some(choice) });
    let settings = BTreeMap::from([
        setting("log_file", ParameterChoice::StringParam(String::new())),
        setting("log_error", ParameterChoice::BoolParam(level >= 1)),
        setting("log_warning", ParameterChoice::BoolParam(level >= 2)),
        setting("log_info", ParameterChoice::BoolParam(level >= 3)),
        setting("log_verbose_level", ParameterChoice::Uint32Param(u32::try_from(level.saturating_sub(3)).unwrap_or(0))),
        setting("log_format", ParameterChoice::StringParam("default".into())),
    ]);
    LogSettingsResponse { settings }
}

fn change_from(now: usize, request: &LogSettingsRequest) -> Result<usize> {
    let (mut on, mut off) = (None::<usize>, None::<usize>);
    for (key, value) in &request.settings {
        let value = value.parameter_choice.as_ref();
        let wrong = |expected: &str| Error::new(Code::Malformed, format!("setting `{key}` is {expected}"));
        // The lowest level at which it is on.
        let level = match key.as_str() {
            "log_error" => 1,
            "log_warning" => 2,
            "log_info" => 3,
            "log_verbose_level" => match value {
                None => continue,
                Some(Asked::Uint32Param(0)) => {
                    off = Some(off.map_or(4, |off| off.min(4)));
                    continue;
                }
                Some(Asked::Uint32Param(verbose)) => {
                    on = on.max(Some(if *verbose == 1 { 4 } else { 5 }));
                    continue;
                }
                Some(_) => return Err(wrong("a whole number of 0 or more")),
            },
            // As they are anyway.
            "log_file" if matches!(value, None | Some(Asked::StringParam(_)) if said(value).is_empty()) => continue,
            "log_format" if matches!(value, None | Some(Asked::StringParam(_)) if ["", "default"].contains(&said(value))) => {
                continue;
            }
            "log_file" => return Err(unsupported(key, "the log goes to standard error, where the operator puts it into a file")),
            "log_format" => return Err(unsupported(key, "set log.format in the configuration")),
            _ => return Err(unsupported(key, "there are log_error, log_warning, log_info and log_verbose_level")),
        };
        match value {
            None => {}
            Some(Asked::BoolParam(true)) => on = on.max(Some(level)),
            Some(Asked::BoolParam(false)) => off = Some(off.map_or(level, |off| off.min(level))),
            Some(_) => return Err(wrong("true or false")),
        }
    }
    if let (Some(on), Some(off)) = (on, off)
        && on >= off
    {
        let (on, off) = (LEVELS[on], LEVELS[off]);
        let message = format!("the settings ask for `{on}` and against `{off}`; what is logged is everything from one level on");
        return Err(Error::new(Code::Malformed, message));
    }
    let raised = on.map_or(now, |on| now.max(on));
    Ok(off.map_or(raised, |off| raised.min(off - 1)))
}

fn said(value: Option<&Asked>) -> &str {
    match value {
        Some(Asked::StringParam(text)) => text,
        _ => "",
    }
}

fn unsupported(key: &str, instead: &str) -> Error {
    Error::new(Code::Unsupported, format!("setting `{key}` cannot be changed here; {instead}"))
}

#[cfg(test)]
mod tests {
    use sluicegate_proto::inference::log_settings_request::SettingValue;

    use super::*;

    fn ask(now: &str, settings: &[(&str, Asked)]) -> Result<&'static str> {
        let setting = |(key, value): &(&str, Asked)| ((*key).to_owned(), SettingValue { parameter_choice: Some(value.clone()) });
        let request = LogSettingsRequest { settings: settings.iter().map(setting).collect() };
        change_from(place(now), &request).map(|level| LEVELS[level])
    }

    #[test]
    fn settings_stand_for_one_level() {
        let (yes, no, verbose) = (Asked::BoolParam(true), Asked::BoolParam(false), Asked::Uint32Param);
        for (now, settings, expected) in [
            ("info", vec![], "info"),
            ("info", vec![("log_verbose_level", verbose(1))], "debug"),
            ("info", vec![("log_verbose_level", verbose(7))], "trace"),
            ("trace", vec![("log_verbose_level", verbose(0))], "info"),
            ("warn", vec![("log_verbose_level", verbose(0))], "warn"),
            ("debug", vec![("log_info", no.clone())], "warn"),
            ("info", vec![("log_warning", no.clone())], "error"),
            ("info", vec![("log_error", no.clone())], "off"),
            ("off", vec![("log_info", yes.clone())], "info"),
            ("info", vec![("log_info", no.clone()), ("log_warning", yes.clone())], "warn"),
            ("info,sluicegate_api=trace", vec![("log_info", yes.clone())], "info"),
            ("info", vec![("log_file", Asked::StringParam(String::new()))], "info"),
        ] {
            assert_eq!(ask(now, &settings).expect("a level"), expected, "{now} {settings:?}");
        }
        let contradiction = [("log_verbose_level", verbose(1)), ("log_info", no)];
        assert_eq!(ask("info", &contradiction).expect_err("both").code(), Code::Malformed);
        assert_eq!(ask("info", &[("log_info", verbose(1))]).expect_err("a number").code(), Code::Malformed);
        for key in ["log_file", "log_format", "log_colour"] {
            let error = ask("info", &[(key, Asked::StringParam("x".into()))]).expect_err("not served");
            assert!(error.code() == Code::Unsupported && error.message().contains(key), "{error}");
        }
    }

    #[test]
    fn what_is_told_is_what_was_asked_for() {
        for (level, name) in LEVELS.iter().enumerate() {
            assert_eq!(place(name), level);
            let settings = describe(level).settings;
            let is = |key: &str| settings[key].parameter_choice == Some(ParameterChoice::BoolParam(true));
            assert_eq!((is("log_error"), is("log_warning"), is("log_info")), (level > 0, level > 1, level > 2));
        }
    }
}
