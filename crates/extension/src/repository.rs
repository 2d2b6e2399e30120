//! The model repository: its index, and loads and unloads by hand.

use std::collections::BTreeMap;

use sluicegate_core::{Code, Digest, Error, Result, VersionRef};
use sluicegate_proto::inference::model_repository_parameter::ParameterChoice;
use sluicegate_proto::inference::repository_index_response::ModelIndex;
use sluicegate_proto::inference::{
    ModelRepositoryParameter, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use sluicegate_registry::reconcile::control::{Load, Report, Unload, Which};
use sluicegate_registry::{State, Status};

use crate::{Controls, config, overlay};

type Parameters = BTreeMap<String, ModelRepositoryParameter>;

/// Every version that was heard of, and models without any.
///
/// # Errors
/// [`Code::Forbidden`] where the repository is not for callers.
pub fn index(controls: &Controls<'_>, status: &Status, only_ready: bool) -> Result<RepositoryIndexResponse> {
    controls.check()?;
    let table = controls.published.load();
    let versions = status.snapshot();
    let mut models = Vec::new();
    let names: std::collections::BTreeSet<_> = table.models.keys().chain(versions.keys()).collect();
    for name in names {
        let reason = table.models.get(name).and_then(|served| served.reason.clone()).unwrap_or_default();
        let one = |version: String, state: &str, reason: String| ModelIndex {
            name: name.to_string(),
            version,
            state: state.to_owned(),
            reason,
        };
        match versions.get(name).filter(|versions| !versions.is_empty()) {
            None => models.push(one(String::new(), "UNAVAILABLE", reason)),
            Some(versions) => models.extend(versions.iter().map(|(number, entry)| {
                let (state, otherwise) = word(entry.state);
                one(number.to_string(), state, entry.reason.clone().unwrap_or_else(|| otherwise.to_owned()))
            })),
        }
    }
    models.retain(|model| !only_ready || model.state == "READY");
    Ok(RepositoryIndexResponse { models })
}

/// A state in the protocol's words, and the reason where there is no other one.
fn word(state: State) -> (&'static str, &'static str) {
    match state {
        State::Found | State::Verified | State::Loaded | State::Warm => ("LOADING", ""),
        State::Live => ("READY", ""),
        State::Draining => ("UNLOADING", ""),
        State::Gone => ("UNAVAILABLE", "unloaded"),
        State::Failed => ("UNAVAILABLE", "failed"),
    }
}

/// Loads a model or a version of it; what a load found out that was only tried. `version` is what the path names.
///
/// # Errors
/// [`Code::Forbidden`] where that is switched off; what is wrong with the parameters; those of
/// [`Control::load`](sluicegate_registry::Control::load).
pub async fn load(controls: &Controls<'_>, request: RepositoryModelLoadRequest, version: Option<&str>) -> Result<Option<Report>> {
    let RepositoryModelLoadRequest { repository_name, model_name: model, parameters } = request;
    controls.check()?;
    anywhere(&repository_name)?;
    if let Some(file) = parameters.keys().find(|key| key.starts_with("file:")) {
        let message = format!("parameter `{file}`: files do not come with a load; put the version into a registry's directory");
        return Err(Error::new(Code::Unsupported, message));
    }
    known(&parameters, &["config", "version", "digest", "dry_run"])?;
    let which = which(&parameters, version)?;
    let overlay = match text(&parameters, "config")? {
        None => None,
        Some(_) if which != Which::default() => {
            let message = "parameter `config` goes with a whole model and not with one version of it; version_policy says which versions serve";
            return Err(Error::new(Code::Malformed, message));
        }
        Some(said) => {
            let table = controls.published.load();
            let served = table.models.get(model.as_str());
            let now = served.and_then(|served| served.default.as_ref()).map(|live| config::of(live, served));
            Some(overlay::read(said, &model, now.as_ref())?)
        }
    };
    let dry_run = flag(&parameters, "dry_run")?;
    controls.registry.load(Load { model, which, overlay, dry_run }).await
}

/// Takes a model or a version of it out of service. `version` is what the path names.
///
/// # Errors
/// [`Code::Forbidden`] where that is switched off; what is wrong with the parameters; those of
/// [`Control::unload`](sluicegate_registry::Control::unload).
pub async fn unload(controls: &Controls<'_>, request: RepositoryModelUnloadRequest, version: Option<&str>) -> Result<()> {
    let RepositoryModelUnloadRequest { repository_name, model_name: model, parameters } = request;
    controls.check()?;
    anywhere(&repository_name)?;
    known(&parameters, &["unload_dependents", "version", "digest"])?;
    let (which, dependents) = (which(&parameters, version)?, flag(&parameters, "unload_dependents")?);
    controls.registry.unload(Unload { model, which, dependents }).await
}

fn anywhere(repository: &str) -> Result<()> {
    if repository.is_empty() {
        return Ok(());
    }
    let message = format!("loads and unloads name no repository, got `{repository}`; leave it out, as a model's name is enough");
    Err(Error::new(Code::Unsupported, message))
}

fn known(parameters: &Parameters, known: &[&str]) -> Result<()> {
    match parameters.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let message = format!("parameter `{key}` means nothing here; known are {}", known.join(", "));
            Err(Error::new(Code::Malformed, message))
        }
    }
}

fn which(parameters: &Parameters, path: Option<&str>) -> Result<Which> {
    let mut which = Which::default();
    let number;
    let said = match parameters.get("version").and_then(|value| value.parameter_choice.as_ref()) {
        Some(ParameterChoice::Int64Param(version)) => {
            number = version.to_string();
            Some(number.as_str())
        }
        _ => text(parameters, "version")?,
    };
    for version in path.into_iter().chain(said) {
        let same = match version.parse::<VersionRef>()? {
            VersionRef::Number(number) => *which.number.get_or_insert(number) == number,
            VersionRef::Digest(digest) => *which.digest.get_or_insert(digest.clone()) == digest,
            VersionRef::Alias(alias) => {
                let message = format!("`{alias}` is no version of a registry: expected a number or a digest");
                return Err(Error::new(Code::UnknownVersion, message));
            }
        };
        if !same {
            return Err(Error::new(
                Code::Malformed,
                format!("the path and the parameter `version`, {version}, name two versions"),
            ));
        }
    }
    if let Some(digest) = text(parameters, "digest")? {
        let digest: Digest =
            digest.parse().map_err(|error: Error| Error::new(Code::Malformed, error.message()).at("parameter `digest`"))?;
        if which.digest.get_or_insert(digest.clone()) != &digest {
            return Err(Error::new(Code::Malformed, format!("the path and the parameter `digest`, {digest}, name two versions")));
        }
    }
    Ok(which)
}

fn text<'a>(parameters: &'a Parameters, key: &str) -> Result<Option<&'a str>> {
    match parameters.get(key).map(|value| value.parameter_choice.as_ref()) {
        None => Ok(None),
        Some(Some(ParameterChoice::StringParam(text))) => Ok(Some(text)),
        Some(_) => Err(Error::new(Code::Malformed, format!("parameter `{key}` is a string"))),
    }
}

fn flag(parameters: &Parameters, key: &str) -> Result<bool> {
    match parameters.get(key).map(|value| value.parameter_choice.as_ref()) {
        None => Ok(false),
        Some(Some(ParameterChoice::BoolParam(flag))) => Ok(*flag),
        Some(_) => Err(Error::new(Code::Malformed, format!("parameter `{key}` is true or false"))),
    }
}
