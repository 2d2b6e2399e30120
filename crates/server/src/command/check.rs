//! `sluicegate check`: every error of a configuration and of the models that it declares, before anybody is served by them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::SystemTime;

use serde::Serialize;
use sluicegate_core::{Code, Error, ModelName, Result, Signature};
use sluicegate_engine::Engines;
use sluicegate_registry::assemble::{self, Assembled};
use sluicegate_registry::load::Loaded;
use sluicegate_registry::manifest::Manifest;
use sluicegate_registry::reconcile::Root;
use sluicegate_registry::settle;
use sluicegate_registry::source::Found;
use sluicegate_registry::source::dir::Directory;
use sluicegate_registry::spec::Run;
use sluicegate_registry::verify::Verified;
use sluicegate_registry::warm::Warm;
use sluicegate_registry::{Also, Declared, Spec, Want};
use sluicegate_triton::ensemble::Step;

use super::{COULD_NOT, NO, Output, Source, WELL, complain, say};
use crate::app;

/// One thing that is wrong, or that is worth knowing.
#[derive(Serialize)]
struct Remark {
    severity: &'static str,
    place: String,
    message: String,
}

#[derive(Default, Serialize)]
struct Report {
    /// Versions that were loaded and have answered.
    versions: usize,
    remarks: Vec<Remark>,
}

impl Report {
    fn add(&mut self, severity: &'static str, place: impl Display, message: impl Display) {
        self.remarks.push(Remark { severity, place: format!("{place}"), message: format!("{message}") });
    }

    /// A version that can be served.
    fn well(&mut self, found: &Found, remarks: Vec<String>) {
        self.versions += 1;
        for remark in remarks {
            self.add("warning", found.path.display(), remark);
        }
    }

    fn error(&mut self, place: impl Display, message: impl Display) {
        self.add("error", place, message);
    }
}

/// What ensembles are checked against, once all models are known.
#[derive(Default)]
struct Members {
    /// The signatures of those that load, by number.
    signatures: BTreeMap<ModelName, BTreeMap<u64, Signature>>,
    /// The version that answers, where it is not the newest.
    defaults: BTreeMap<ModelName, u64>,
    /// The ensembles that are still to be checked.
    ensembles: Vec<(Found, Run)>,
}

impl Members {
    fn of(&self, step: &Step) -> Result<Signature> {
        let versions = self.signatures.get(&step.model);
        let signature = match step.version.or_else(|| self.defaults.get(&step.model).copied()) {
            Some(version) => versions.and_then(|versions| versions.get(&version)),
            None => versions.and_then(|versions| versions.values().next_back()),
        };
        let none = || Error::new(Code::BadManifest, format!("no version of `{}` that it asks for loads", step.model));
        signature.cloned().ok_or_else(none)
    }

    /// Checks the ensembles, those first that others ask.
    fn finish(mut self, report: &mut Report) {
        while !self.ensembles.is_empty() {
            let pending = |name: &ModelName| self.ensembles.iter().find(|(found, _)| found.model == *name);
            let is_next = |(found, _): &(Found, Run)| {
                found.ensemble().is_some_and(|steps| steps.steps.iter().all(|step| pending(&step.model).is_none()))
            };
            let place = self.ensembles.iter().position(is_next);
            // Those in a circle wait for each other.
            let circle = |model: &ModelName| assemble::is_straight(model, &|name| pending(name)?.0.ensemble().cloned());
            let straight =
                self.ensembles.first().map_or(Ok(()), |(found, _)| circle(&found.model)).err().filter(|_| place.is_none());
            let (found, run) = self.ensembles.remove(place.unwrap_or(0));
            let assembled = match straight {
                Some(error) => Err(error),
                None => verify(&found).and_then(|verified| Assembled::of(verified, &run, None, &|step| self.of(step))),
            };
            match assembled {
                Ok(assembled) => {
                    report.well(&found, assembled.verified.remarks());
                    self.signatures.entry(found.model).or_default().insert(found.version, assembled.signature);
                }
                Err(error) => report.error(found.path.display(), told(&error)),
            }
        }
    }
}

/// Checks. Returns the exit code.
pub(super) fn run(source: &Source, output: Output) -> u8 {
    let mut report = Report::default();
    match source.watch() {
        Err(errors) => errors.iter().for_each(|error| report.error(error.place(), error.message())),
        Ok((config, _)) => {
            let engines = app::engines(&config);
            match engines {
                Err(error) => report.error("engine.onnxruntime", error),
                Ok(engines) => check(&app::roots(&config), &app::declared(&config), &engines, &mut report),
            }
        }
    }
    let failed = report.remarks.iter().any(|remark| remark.severity == "error");
    match output {
        Output::Text => {
            for Remark { severity, place, message } in &report.remarks {
                say(format_args!("{severity}: {place}: {message}"));
            }
            let errors = report.remarks.iter().filter(|remark| remark.severity == "error").count();
            say(format_args!("{} versions load and answer, {errors} errors", report.versions));
        }
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => say(json),
            Err(error) => {
                complain(error);
                return COULD_NOT;
            }
        },
    }
    if failed { NO } else { WELL }
}

fn check(roots: &[Root], declared: &Declared, engines: &Engines, report: &mut Report) {
    let mut found: Vec<(&Root, Found)> = Vec::new();
    for root in roots {
        match (Directory { root: root.path.clone() }).list(SystemTime::now()) {
            Err(error) => report.error(format_args!("registries.{}", root.name), error),
            Ok(listing) => {
                for remark in listing.remarks {
                    report.add("warning", format_args!("registries.{}", root.name), remark);
                }
                found.extend(listing.found.into_iter().map(|found| (root, found)));
            }
        }
    }
    found.sort_by(|(_, a), (_, b)| (&a.model, a.version).cmp(&(&b.model, b.version)));
    let mut members = Members::default();
    match declared {
        Declared::Everything(run) => {
            if found.is_empty() {
                report.error("registries", "no model found; expected <model>/<version>/model.onnx in the registry's directory");
            }
            let mut before: Option<(Found, Signature)> = None;
            for (_, version) in found {
                let signature = one(&version, run, engines, &mut members, report);
                compare(before.as_ref(), &version, signature.as_ref(), report);
                before = signature.map(|signature| (version, signature)).or(before);
            }
        }
        Declared::Models(specs, _) => specs.iter().for_each(|spec| check_spec(spec, &found, engines, &mut members, report)),
    }
    members.finish(report);
}

fn check_spec(spec: &Spec, found: &[(&Root, Found)], engines: &Engines, members: &mut Members, report: &mut Report) {
    let place = format!("models.{}", spec.name);
    let mine: Vec<Found> = found
        .iter()
        .filter(|(root, found)| root.name == spec.registry && found.model == spec.name)
        .map(|(_, found)| found.clone())
        .collect();
    let spec = &*settle::versions(spec, &mine, None);
    if mine.is_empty() {
        return report.error(place, format_args!("registry `{}` has no version of it", spec.registry));
    }
    let has = |number: u64| mine.iter().any(|found| found.version == number);
    if let Want::Number(number) = spec.version
        && !has(number)
    {
        report.error(&place, format_args!("registry `{}` has no version {number} of it", spec.registry));
    }
    let beside = |found: &&Found| match &spec.also {
        Also::All => true,
        Also::Numbers(numbers) => numbers.contains(&found.version),
        Also::Newest(count) => mine.iter().rev().take(*count).any(|newest| newest.version == found.version),
    };
    if let Also::Numbers(numbers) = &spec.also {
        for number in numbers.iter().filter(|&&number| !has(number)) {
            report.error(&place, format_args!("registry `{}` has no version {number} of it, which `also` names", spec.registry));
        }
    }
    let target = match &spec.version {
        Want::Latest => mine.last(),
        Want::LatestOf(numbers) => mine.iter().rev().find(|found| numbers.contains(&found.version)),
        Want::Number(number) => mine.iter().find(|found| found.version == *number),
        Want::Digest(digest) => {
            let has_it = |found: &&Found| verify(found).is_ok_and(|verified| verified.digest == *digest);
            let target = mine.iter().find(has_it);
            if target.is_none() {
                report.error(&place, format_args!("no version of it in registry `{}` has the digest {digest}", spec.registry));
            }
            target
        }
    };
    if let Some(target) = target {
        members.defaults.insert(spec.name.clone(), target.version);
    }
    let mut versions: Vec<&Found> = mine.iter().filter(beside).chain(target).collect();
    versions.sort_by_key(|found| found.version);
    versions.dedup_by_key(|found| found.version);
    for version in versions {
        one(version, &spec.run, engines, members, report);
    }
}

/// The steps of a version's life up to the point of being published.
fn one(found: &Found, run: &Run, engines: &Engines, members: &mut Members, report: &mut Report) -> Option<Signature> {
    let place = found.path.display().to_string();
    if found.ensemble().is_some() {
        members.ensembles.push((found.clone(), run.clone()));
        return None;
    }
    let warm = verify(found).and_then(|verified| Loaded::load(verified, engines, run, None)).and_then(Warm::up);
    match warm {
        Ok(warm) => {
            report.well(found, warm.loaded.verified.remarks());
            if let Some(reason) = &warm.loaded.opened.fallback {
                report.add("warning", &place, reason);
            }
            let signature = warm.loaded.signature;
            members.signatures.entry(found.model.clone()).or_default().insert(found.version, signature.clone());
            Some(signature)
        }
        Err(error) => {
            report.error(place, told(&error));
            None
        }
    }
}

fn verify(found: &Found) -> Result<Verified> {
    let manifest = Manifest::read(&found.path)?;
    Verified::read(found.clone(), manifest)
}

fn told(error: &Error) -> String {
    format!("{error} [{}]", error.code().name())
}

/// At a swap from one version to the next, a signature that breaks its callers is refused.
fn compare(before: Option<&(Found, Signature)>, found: &Found, signature: Option<&Signature>, report: &mut Report) {
    let (Some((before, old)), Some(new)) = (before, signature) else { return };
    if before.model == found.model {
        for breaks in new.breaks(old) {
            report.add(
                "warning",
                found.path.display(),
                format_args!("would be refused at a swap from version {}: {breaks}", before.version),
            );
        }
    }
}
