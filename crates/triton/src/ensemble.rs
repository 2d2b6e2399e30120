//! An ensemble: steps over other served models, from tensor to tensor, without a circle.

use std::collections::BTreeMap;

use sluicegate_core::shape::Dims;
use sluicegate_core::{Code, DType, Dim, Error, ModelName, Result, Signature};
use sluicegate_proto::inference::ModelConfig;
use sluicegate_proto::inference::model_config::SchedulingChoice;

use super::bad;

/// The most steps of one ensemble.
const MAX_STEPS: usize = 128;

/// The steps of an ensemble, in an order in which their inputs are there.
#[derive(Debug)]
pub struct Ensemble {
    /// The steps.
    pub steps: Vec<Step>,
    /// How many tensors there are. Those of the callers come first, in the order of the signature.
    pub tensors: usize,
    /// Which tensor each output is, in the order of the signature.
    pub outputs: Vec<usize>,
    names: Vec<String>,
}

/// One step: a request to another model.
#[derive(Debug)]
pub struct Step {
    /// Its place in the configuration, from 1.
    pub number: usize,
    /// The model that is asked.
    pub model: ModelName,
    /// Its version; without one, the version that answers by default.
    pub version: Option<u64>,
    /// The model's inputs, and which tensor each one is.
    pub inputs: Vec<(String, usize)>,
    /// The model's outputs that are used, and which tensor each one becomes.
    pub outputs: Vec<(String, usize)>,
}

impl Step {
    /// What it is called in messages.
    pub fn place(&self) -> String {
        match self.version {
            Some(version) => format!("step {} (`{}@{version}`)", self.number, self.model),
            None => format!("step {} (`{}`)", self.number, self.model),
        }
    }
}

impl Ensemble {
    /// The ensemble of a configuration; none where it is no ensemble's.
    ///
    /// # Errors
    /// [`Code::BadManifest`] naming the tensor or the step where the steps do not make one way from the inputs to the outputs.
    pub fn of(config: &ModelConfig) -> Result<Option<Self>> {
        let Some(SchedulingChoice::EnsembleScheduling(scheduling)) = &config.scheduling_choice else { return Ok(None) };
        if !(1..=MAX_STEPS).contains(&scheduling.step.len()) {
            return Err(bad(format!("ensemble_scheduling: expected 1 to {MAX_STEPS} steps, got {}", scheduling.step.len())));
        }
        let mut made = Made::default();
        for input in &config.input {
            made.by(&input.name, "the inputs")?;
        }
        let mut steps = Vec::with_capacity(scheduling.step.len());
        for (place, step) in scheduling.step.iter().enumerate() {
            let number = place + 1;
            let model: ModelName =
                step.model_name.parse().map_err(|error: Error| bad(format!("step {number}: model_name: {error}")))?;
            // -1 is the default; without a version it is 0, which no version has.
            let version = u64::try_from(step.model_version).ok().filter(|&version| version > 0);
            let mut own = Step { number, model, version, inputs: Vec::new(), outputs: Vec::new() };
            if step.output_map.is_empty() {
                return Err(bad(format!("{}: output_map: expected an output at least, got none", own.place())));
            }
            for (name, tensor) in &step.output_map {
                own.outputs.push((name.clone(), made.by(tensor, &own.place())?));
            }
            steps.push(own);
        }
        let mut read = vec![false; made.names.len()];
        for (own, step) in steps.iter_mut().zip(&scheduling.step) {
            for (name, tensor) in &step.input_map {
                let place = made.find(tensor).ok_or_else(|| {
                    bad(format!("{}: tensor `{tensor}` is no input of the ensemble, and no step gives it", own.place()))
                })?;
                read[place] = true;
                own.inputs.push((name.clone(), place));
            }
        }
        let mut outputs = Vec::with_capacity(config.output.len());
        for output in &config.output {
            let given = made.find(&output.name).filter(|&place| place >= config.input.len());
            outputs.push(given.ok_or_else(|| bad(format!("output `{}`: no step gives it", output.name)))?);
        }
        if outputs.is_empty() {
            return Err(bad("an ensemble has an output at least, got none"));
        }
        outputs.iter().for_each(|&place| read[place] = true);
        if let Some(unused) = read.iter().position(|read| !read) {
            let (name, by) = &made.names[unused];
            return Err(bad(format!("tensor `{name}`, from {by}, is used by no step and is no output")));
        }
        let names: Vec<String> = made.names.into_iter().map(|(name, _)| name).collect();
        Ok(Some(Self { steps: sort(steps, config.input.len(), names.len())?, tensors: names.len(), outputs, names }))
    }

    /// Checks the steps against the signatures of the models that they ask.
    ///
    /// # Errors
    /// What `member` says of a model that is not there; [`Code::BadSignature`] naming the step where its tensors are not the
    /// model's.
    pub fn check(&self, signature: &Signature, member: &dyn Fn(&Step) -> Result<Signature>) -> Result<()> {
        let mut known: Vec<Option<(DType, Vec<Dim>)>> = vec![None; self.tensors];
        for (place, spec) in signature.inputs().iter().enumerate() {
            known[place] = Some((spec.dtype, spec.dims.clone()));
        }
        for step in &self.steps {
            let own = member(step).map_err(|error| error.at(step.place()))?;
            let wrong = |message: String| Error::new(Code::BadSignature, format!("{}: {message}", step.place()));
            if let Some(spec) = own.inputs().iter().find(|spec| step.inputs.iter().all(|(name, _)| **name != *spec.name)) {
                return Err(wrong(format!("input_map: input `{}` of the model is missing", spec.name)));
            }
            for (name, tensor) in &step.inputs {
                let Some(place) = own.input(name) else {
                    return Err(wrong(format!("input_map: the model has no input `{name}`")));
                };
                let spec = &own.inputs()[place];
                self.fits(*tensor, &mut known, &(spec.dtype, spec.dims.clone())).map_err(wrong)?;
            }
            for (name, tensor) in &step.outputs {
                let Some(place) = own.output(name) else {
                    return Err(wrong(format!("output_map: the model has no output `{name}`")));
                };
                let spec = &own.outputs()[place];
                known[*tensor] = Some((spec.dtype, spec.dims.clone()));
            }
        }
        for (spec, &tensor) in signature.outputs().iter().zip(&self.outputs) {
            let wrong = |message| Error::new(Code::BadSignature, format!("output `{}`: {message}", spec.name));
            self.fits(tensor, &mut known, &(spec.dtype, spec.dims.clone())).map_err(wrong)?;
        }
        Ok(())
    }

    /// Whether a tensor is what is expected of it, as far as that is known before there is one.
    fn fits(&self, tensor: usize, known: &mut [Option<(DType, Vec<Dim>)>], expected: &(DType, Vec<Dim>)) -> Result<(), String> {
        let name = &self.names[tensor];
        let Some((dtype, dims)) = &known[tensor] else { return Err(format!("tensor `{name}` is not there yet")) };
        let may = |(a, b): (&Dim, &Dim)| a.fixed().is_none() || b.fixed().is_none() || a == b;
        if *dtype == expected.0 && dims.len() == expected.1.len() && dims.iter().zip(&expected.1).all(may) {
            return Ok(());
        }
        Err(format!("tensor `{name}` is {dtype} {}, expected {} {}", Dims(dims), expected.0, Dims(&expected.1)))
    }
}

/// What an ensemble's configuration says to no effect.
pub(crate) fn without_effect(config: &ModelConfig) -> Vec<String> {
    let cached = config.response_cache.is_some_and(|cache| cache.enable);
    [
        (!config.model_warmup.is_empty(), "model_warmup has no effect: the steps of an ensemble are warm before it is served"),
        (cached, "response_cache has no effect on an ensemble, which would outlive its steps' versions; enable it for them"),
        (!config.instance_group.is_empty(), "instance_group has no effect: an ensemble has no instances of its own"),
    ]
    .into_iter()
    .filter(|(is_set, _)| *is_set)
    .map(|(_, remark)| remark.to_owned())
    .collect()
}

/// Tensors by name, and what gives each one.
#[derive(Default)]
struct Made {
    names: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Made {
    fn by(&mut self, name: &str, who: &str) -> Result<usize> {
        if let Some(place) = self.find(name) {
            let (_, other) = &self.names[place];
            return Err(bad(format!("tensor `{name}` comes from {other} and from {who}; expected one of them")));
        }
        self.places.insert(name.to_owned(), self.names.len());
        self.names.push((name.to_owned(), who.to_owned()));
        Ok(self.names.len() - 1)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }
}

/// Puts steps in an order in which their inputs are there.
fn sort(mut steps: Vec<Step>, inputs: usize, tensors: usize) -> Result<Vec<Step>> {
    let mut there: Vec<bool> = (0..tensors).map(|place| place < inputs).collect();
    let mut sorted = Vec::with_capacity(steps.len());
    while !steps.is_empty() {
        let Some(next) = steps.iter().position(|step| step.inputs.iter().all(|&(_, tensor)| there[tensor])) else {
            let circle = steps.iter().map(Step::place).collect::<Vec<_>>().join(", ");
            return Err(bad(format!("steps wait for each other in a circle: {circle}")));
        };
        let step = steps.remove(next);
        step.outputs.iter().for_each(|&(_, tensor)| there[tensor] = true);
        sorted.push(step);
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests;
