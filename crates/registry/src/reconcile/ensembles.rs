//! Ensembles among the models: tried again when a model that takes their steps is there, refused where steps lead in a circle.

use std::sync::Arc;

use sluicegate_core::{ModelName, Result};

use super::Thread;
use crate::assemble;
use sluicegate_triton::ensemble::Ensemble;

impl Thread {
    /// The steps of a model, as its newest version has them.
    pub(super) fn ensemble(&self, model: &ModelName) -> Option<Arc<Ensemble>> {
        self.found.get(model)?.last()?.ensemble().cloned()
    }

    /// Whether the steps of a model do not lead back to it.
    pub(super) fn is_straight(&self, model: &ModelName) -> Result<()> {
        assemble::is_straight(model, &|model| self.ensemble(model))
    }

    /// Lets the ensembles try again that failed, or are about to, and have a step that this model takes: they may fit it now.
    pub(super) fn retry_ensembles_of(&mut self, model: &ModelName) {
        let asks = |ensemble: &Arc<Ensemble>| ensemble.steps.iter().any(|step| step.model == *model);
        let failed: Vec<ModelName> =
            self.failed.keys().filter(|name| self.ensemble(name).as_ref().is_some_and(asks)).cloned().collect();
        failed.iter().for_each(|name| drop(self.failed.remove(name)));
        let loading = self.loading.keys().filter(|name| self.ensemble(name).as_ref().is_some_and(asks));
        let outdated: Vec<ModelName> = loading.cloned().collect();
        self.outdated.extend(outdated);
    }
}
