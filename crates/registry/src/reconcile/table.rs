//! What the registry's thread changes in the table: models become known, versions are published, swapped, retired.

use std::collections::HashSet;
use std::sync::Arc;

use metrics::counter;
use sluicegate_core::{ModelName, metric};

use tracing::field;

use super::hold::Hold;
use super::plan::Plan;
use super::{Thread, key};
use crate::manifest::Manifest;
use crate::publish::{Live, Served};
use crate::spec::{Also, Residency, Spec, Want};
use crate::status::State;
use crate::verify::Verified;

impl Thread {
    /// Puts models that are new into the table, where they are not ready: from then on they are no longer unknown. Says of
    /// each what is wanted of it. Names for versions are changed there alone: nothing is loaded for them.
    pub(super) fn know(&self, specs: &[Spec]) {
        let table = self.published.load();
        let held = |spec: &Spec| self.held.get(&spec.name).map(Hold::says);
        let is_known = |served: &Served, spec: &Spec| {
            let same = |(version, also): &(Want, Also)| *version == spec.version && *also == spec.also;
            let on_demand = spec.residency == Residency::OnDemand;
            served.wanted.as_ref().is_some_and(same)
                && served.held == held(spec)
                && served.aliases == spec.aliases
                && served.on_demand == on_demand
        };
        let news: Vec<&Spec> =
            specs.iter().filter(|spec| !table.models.get(&spec.name).is_some_and(|served| is_known(served, spec))).collect();
        if news.is_empty() {
            return;
        }
        self.published.change(|table| {
            for spec in news {
                let served = table.models.entry(spec.name.clone()).or_default();
                served.wanted = Some((spec.version.clone(), spec.also.clone()));
                served.held = held(spec);
                served.aliases = spec.aliases.clone();
                served.on_demand = spec.residency == Residency::OnDemand;
            }
        });
    }

    pub(super) fn publish(&self, live: &Arc<Live>) {
        let (model, version) = (live.model.clone(), live.version);
        counter!(metric::LOADS, "model" => model.to_string(), "outcome" => "live").increment(1);
        let (execution, one_row_us) =
            live.batches().map(|batches| (field::debug(batches.batcher.setup().execution), batches.one_row.as_micros())).unzip();
        tracing::info!(%model, version, digest = %live.digest, engine = live.engine, device = live.device, execution, one_row_us,
            "version live");
        for remark in &live.remarks {
            tracing::warn!(%model, version, remark, "a setting of the model has no effect");
        }
        if let Some(reason) = &live.fallback {
            tracing::warn!(%model, version, engine = live.engine, reason, "version runs on another engine or device than the preferred one");
        }
        self.status.set(&model, version, State::Live, live.fallback.clone(), Some(live.digest.clone()));
        self.status.change(&model, version, |entry| entry.remarks.clone_from(&live.remarks));
        let mut former = None;
        self.published.change(|table| {
            let served = table.models.entry(model.clone()).or_default();
            if served.default.as_ref().is_none_or(|default| default.version == version) {
                served.default = Some(live.clone());
            }
            former = served.versions.insert(version, live.clone());
        });
        if let Some(former) = former {
            former.meter.set_live(false);
        }
        live.meter.set_live(true);
    }

    /// Lets the version that should answer do so, where it is live.
    pub(super) fn switch(&self, spec: &Spec, plan: &Plan) {
        let table = self.published.load();
        let Some(served) = table.models.get(&spec.name) else { return };
        let Some(now) = &served.default else { return };
        let live = |version: Option<u64>| version.and_then(|version| served.versions.get(&version));
        let is_left = plan.retire.contains(&now.version);
        let Some(next) = live(plan.default).or_else(|| live(plan.stays)) else {
            if is_left {
                self.published.change(|table| {
                    if let Some(served) = table.models.get_mut(&spec.name) {
                        served.default = None;
                    }
                });
            }
            return;
        };
        if now.version == next.version {
            return;
        }
        // What was unloaded by hand is given up, whatever answers instead.
        let breaks = if is_left { Vec::new() } else { next.signature.breaks(&now.signature) };
        if !spec.run.allow_signature_change && !breaks.is_empty() {
            let reason = format!("not made the default: it would break its callers: {}", breaks.join("; "));
            self.status.set(&spec.name, next.version, State::Live, Some(reason), None);
            return;
        }
        let (from, to) = (now.version, next.version);
        self.published.change(|table| {
            if let Some(served) = table.models.get_mut(&spec.name) {
                served.default = served.versions.get(&to).cloned();
                served.reason = None;
            }
        });
        counter!(metric::SWAPS, "model" => spec.name.to_string()).increment(1);
        tracing::info!(model = %spec.name, from, to, "version swapped");
    }

    pub(super) fn retire(&self, model: &ModelName, version: u64) {
        let mut retired = None;
        // Before the table: the last request may end, and the version be freed, right after.
        self.status.set(model, version, State::Draining, None, None);
        self.published.change(|table| {
            if let Some(served) = table.models.get_mut(model) {
                retired = served.versions.remove(&version);
            }
        });
        if let Some(live) = retired {
            live.meter.set_live(false);
            tracing::info!(%model, version, "version drains");
        }
    }

    pub(super) fn forget_undeclared(&mut self, specs: &[Spec]) {
        let declared: HashSet<&ModelName> = specs.iter().map(|spec| &spec.name).collect();
        let table = self.published.load();
        let gone: Vec<ModelName> = table.models.keys().filter(|model| !declared.contains(model)).cloned().collect();
        for model in gone {
            tracing::info!(%model, "model is no longer declared; it drains");
            table
                .models
                .get(&model)
                .into_iter()
                .flat_map(|served| served.versions.values())
                .for_each(|live| live.meter.set_live(false));
            self.published.change(|table| drop(table.models.remove(&model)));
            self.status.forget(&model);
            self.failed.remove(&model);
            self.awake.remove(&model);
            self.footprints.retain(|(named, ..), _| *named != model);
        }
        let wants_digest = specs.iter().filter(|spec| matches!(spec.version, Want::Digest(_)));
        for found in wants_digest.filter_map(|spec| self.found.get(&spec.name)).flatten() {
            let digest = || Manifest::read(&found.path).and_then(|manifest| Verified::read(found.clone(), manifest));
            self.digests.entry(key(found)).or_insert_with(|| digest().ok().map(|verified| verified.digest));
        }
    }
}
