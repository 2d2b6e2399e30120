//! Hands verified bytes to an engine and settles the version's signature.

use std::time::Instant;

use sluicegate_batch::Padding;
use sluicegate_core::{Code, Error, Result, Signature};
use sluicegate_engine::{Engines, ModelFile, Opened};

use crate::spec::Run;
use crate::verify::Verified;

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
    /// When loading began.
    pub began: Instant,
}

impl Loaded {
    /// Loads a version. `published` is the signature that callers rely on by now.
    ///
    /// # Errors
    /// [`Code::LoadFailed`] naming the operator or type that no engine has; [`Code::BadSignature`] where manifest and model
    /// disagree or the published signature would break; [`Code::NoEngine`] where the engine or device asked for is not there.
    pub fn load(mut verified: Verified, engines: &Engines, run: &Run, published: Option<&Signature>) -> Result<Self> {
        let began = Instant::now();
        let opened = engines.open(&ModelFile { path: &verified.model, bytes: &verified.bytes }, &run.options)?;
        verified.bytes = Vec::new();
        let signature = verified.manifest.sign(opened.inputs.clone(), opened.outputs.clone())?;
        let padding = Padding::of(&signature)?;
        if let Some(published) = published.filter(|_| !run.allow_signature_change) {
            let breaks = signature.breaks(published);
            if !breaks.is_empty() {
                let what = breaks.join("; ");
                let hint = "publish it under another name, or set allow_signature_change: true for the model";
                return Err(Error::new(Code::BadSignature, format!("it would break its callers: {what}; {hint}")));
            }
        }
        Ok(Self { verified, opened, signature, padding, began })
    }
}
