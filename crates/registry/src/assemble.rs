//! Puts an ensemble together over the models that take its steps.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluicegate_core::{Code, Error, ModelName, Result, Signature};

use crate::load::keeps;
use crate::spec::Run;
use crate::verify::Verified;
use sluicegate_triton::ensemble::{Ensemble, Step};
use sluicegate_triton::tensors;

/// An ensemble whose every step has a model that it fits.
pub struct Assembled {
    /// What was verified.
    pub verified: Verified,
    /// The steps.
    pub ensemble: Arc<Ensemble>,
    /// What its configuration says that it takes and gives.
    pub signature: Signature,
    /// How it is declared to run.
    pub declared: Run,
    /// How it runs: without a cache, which would outlive the versions of its steps.
    pub run: Run,
}

impl Assembled {
    /// Assembles. `member` is the signature of the model that a step asks, `published` the one that callers rely on by now.
    ///
    /// # Errors
    /// What `member` says of one that is not there; [`Code::BadSignature`] where steps do not fit their models, or the published
    /// signature would break; [`Code::BadManifest`] where this is no ensemble.
    pub fn of(
        verified: Verified,
        declared: &Run,
        published: Option<&Signature>,
        member: &dyn Fn(&Step) -> Result<Signature>,
    ) -> Result<Self> {
        let none = || Error::new(Code::BadManifest, format!("`{}` is no ensemble", verified.found.model));
        let config = verified.found.config()?.ok_or_else(none)?;
        let ensemble = config.ensemble.clone().ok_or_else(none)?;
        let signature = tensors::alone(&config.model, verified.found.model_directory())?;
        ensemble.check(&signature, member)?;
        keeps(&signature, published, declared)?;
        let run = Run { cache: None, ..declared.clone() };
        Ok(Self { verified, ensemble, signature, declared: declared.clone(), run })
    }
}

/// Whether the steps of a model lead back to it.
///
/// # Errors
/// [`Code::BadManifest`] where they do.
pub fn is_straight(model: &ModelName, ensemble: &dyn Fn(&ModelName) -> Option<Arc<Ensemble>>) -> Result<()> {
    let (mut seen, mut ahead) = (BTreeSet::new(), vec![model.clone()]);
    while let Some(next) = ahead.pop() {
        let Some(own) = ensemble(&next) else { continue };
        for step in &own.steps {
            if step.model == *model {
                let through = if next == *model { "itself".to_owned() } else { format!("itself, through `{next}`") };
                return Err(Error::new(Code::BadManifest, format!("the steps of ensemble `{model}` ask {through}")));
            }
            if seen.insert(step.model.clone()) {
                ahead.push(step.model.clone());
            }
        }
    }
    Ok(())
}
