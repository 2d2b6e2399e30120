//! Hands verified bytes to an engine and settles the version's signature.

use std::num::NonZeroUsize;
use std::time::Instant;

use sluicegate_batch::Padding;
use sluicegate_core::{Code, Error, Result, Signature};
use sluicegate_engine::{Engines, ModelFile, Opened};

use crate::settle;
use crate::spec::Run;
use crate::verify::Verified;
use sluicegate_triton::{self as triton, tensors};

/// A version that an engine holds, not yet proven to answer.
pub struct Loaded {
    /// What was verified. The model's bytes are let go of here.
    pub verified: Verified,
    /// The engine's instances and what runs them.
    pub opened: Opened,
    /// The signature, manifest included.
    pub signature: Signature,
    /// What it declares of padding.
    pub padding: Padding,
    /// How it is declared to run.
    pub declared: Run,
    /// How it runs, with what its configuration says.
    pub run: Run,
    /// When loading began.
    pub began: Instant,
}

impl Loaded {
    /// Loads a version, to be run as declared and as its configuration says. `published` is the signature that callers rely on by now.
    ///
    /// # Errors
    /// [`Code::LoadFailed`] naming the operator or type that no engine has; [`Code::BadSignature`] where manifest and model
    /// disagree or the published signature would break; [`Code::NoEngine`] where the engine or device asked for is not there.
    pub fn load(mut verified: Verified, engines: &Engines, declared: &Run, published: Option<&Signature>) -> Result<Self> {
        let began = Instant::now();
        let config = verified.found.config()?.cloned();
        if config.as_ref().is_some_and(|config| config.ensemble.is_some()) {
            let message =
                format!("`{}` is an ensemble: other models run its steps, and no engine loads it", verified.found.model);
            return Err(Error::new(Code::BadManifest, message));
        }
        let mut run = match &config {
            Some(config) => settle::run(declared, &config.model, cores()),
            None => declared.clone(),
        };
        // A configuration names the tensors of the graph itself.
        run.options.text.tokenize &= config.is_none();
        run.options.max_rows = NonZeroUsize::new(run.limits.max_rows).unwrap_or(NonZeroUsize::MIN);
        let opened = engines.open(&ModelFile { path: &verified.model, bytes: &verified.bytes }, &run.options)?;
        verified.bytes = Vec::new();
        verified.remark.clone_from(&opened.remark);
        let (inputs, outputs) = (opened.inputs.clone(), opened.outputs.clone());
        let signature = match &config {
            Some(config) => tensors::sign(&config.model, verified.found.model_directory(), inputs, outputs)?,
            None => verified.manifest.sign(inputs, outputs, opened.example.clone())?,
        };
        let padding = Padding::of(&signature)?;
        keeps(&signature, published, declared)?;
        Ok(Self { verified, opened, signature, padding, declared: declared.clone(), run, began })
    }
}

/// Whether a new signature keeps what callers of the published one rely on.
pub(crate) fn keeps(signature: &Signature, published: Option<&Signature>, declared: &Run) -> Result<()> {
    let breaks = published.filter(|_| !declared.allow_signature_change).map(|published| signature.breaks(published));
    match breaks {
        Some(breaks) if !breaks.is_empty() => {
            let what = breaks.join("; ");
            let hint = "publish it under another name, or set allow_signature_change: true for the model";
            Err(Error::new(Code::BadSignature, format!("it would break its callers: {what}; {hint}")))
        }
        _ => Ok(()),
    }
}

impl Verified {
    /// What it says or has beside it to no effect, one sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = match &self.found.config {
            Some(Ok(config)) => config.remarks.clone(),
            _ => Vec::new(),
        };
        if self.found.overruled {
            remarks.push(format!("{} has no effect: {} of the version takes its place", triton::FILE, crate::manifest::FILE));
        }
        remarks.extend(self.remark.clone());
        remarks
    }
}

/// How many threads this process may run at the same time.
fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
