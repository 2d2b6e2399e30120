//! Runs an ensemble: each step as soon as its inputs are there, by the way that every request goes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};
use sluicegate_batch::Job;
use sluicegate_core::shape::Dims;
use sluicegate_core::{Code, Error, Request, Response, Result, Signature, Tensor};
use sluicegate_triton::ensemble::{Ensemble, Step};

use crate::route::Routed;

/// A step on its way: its place among the steps, and what its model answered.
type Taken<'a> = Pin<Box<dyn Future<Output = (usize, Result<Response>)> + Send + 'a>>;

/// Runs those steps that lead to the wanted outputs. Where one fails, the others are given up, and its error is the answer.
pub(crate) async fn run(routed: &Routed, ensemble: &Ensemble, job: Job) -> Result<Vec<Tensor>> {
    let mut uses = Uses::of(ensemble, &job.wanted);
    let mut tensors: Vec<Option<Tensor>> = vec![None; ensemble.tensors];
    for (place, input) in job.inputs.into_iter().enumerate() {
        tensors[place] = Some(input);
    }
    let mut under_way: FuturesUnordered<Taken<'_>> = FuturesUnordered::new();
    loop {
        for (place, step) in ensemble.steps.iter().enumerate() {
            if uses.waits[place] && step.inputs.iter().all(|&(_, tensor)| tensors[tensor].is_some()) {
                uses.waits[place] = false;
                let request = request(step, &uses, &tensors, job.priority, job.deadline)?;
                uses.let_go(step, &mut tensors);
                under_way.push(take(routed, step, place, request));
            }
        }
        let Some((place, outcome)) = under_way.next().await else { break };
        let step = &ensemble.steps[place];
        // What is wrong with a request to a step has its place in that request, which the caller did not see.
        let response = outcome.map_err(|error| Error::new(error.code(), error.message()).at(step.place()))?;
        for output in response.outputs {
            if let Some((_, tensor)) = step.outputs.iter().find(|(name, _)| **name == *output.name) {
                tensors[*tensor] = Some(output.tensor);
            }
        }
    }
    let signature = &routed.live().signature;
    let output = |&wanted: &usize| {
        let missing = || Error::new(Code::Internal, "every step was taken, and an output is missing");
        let tensor = tensors[ensemble.outputs[wanted]].clone().ok_or_else(missing)?;
        check(signature, wanted, job.rows, &tensor)?;
        Ok(tensor)
    };
    job.wanted.iter().map(output).collect()
}

/// One step, as a request of its own that is counted like any other.
fn take<'a>(routed: &'a Routed, step: &'a Step, place: usize, request: Request) -> Taken<'a> {
    Box::pin(async move {
        let member = match routed.step(step) {
            Ok(member) => member,
            Err(error) => return (place, Err(error)),
        };
        let outcome = crate::infer(&member, request).await;
        match &outcome {
            Ok(_) => member.answered(),
            Err(error) => member.failed(error),
        }
        (place, outcome)
    })
}

fn request(step: &Step, uses: &Uses, tensors: &[Option<Tensor>], priority: u64, deadline: Instant) -> Result<Request> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        let message = "the time of the ensemble's request ran out before this step; raise its timeout or batching.queue_timeout";
        return Err(Error::new(Code::DeadlineExceeded, message).at(step.place()));
    }
    let input = |(name, tensor): &(String, usize)| Some((Arc::from(name.as_str()), tensors[*tensor].clone()?));
    let wanted = step.outputs.iter().filter(|(_, tensor)| uses.readers[*tensor] > 0);
    Ok(Request {
        inputs: step.inputs.iter().filter_map(input).collect(),
        outputs: wanted.map(|(name, _)| name.clone()).collect(),
        priority,
        timeout: Some(left),
        ..Request::default()
    })
}

/// Which steps lead to what is wanted, and who still reads each tensor.
#[derive(Debug, PartialEq, Eq)]
struct Uses {
    /// Whether a step is to be taken.
    waits: Vec<bool>,
    /// How many steps and outputs are to read a tensor.
    readers: Vec<usize>,
}

impl Uses {
    fn of(ensemble: &Ensemble, wanted: &[usize]) -> Self {
        let mut uses = Self { waits: vec![false; ensemble.steps.len()], readers: vec![0; ensemble.tensors] };
        wanted.iter().for_each(|&output| uses.readers[ensemble.outputs[output]] += 1);
        // Backwards: whoever reads what a step gives comes after it.
        for (place, step) in ensemble.steps.iter().enumerate().rev() {
            if step.outputs.iter().any(|&(_, tensor)| uses.readers[tensor] > 0) {
                uses.waits[place] = true;
                step.inputs.iter().for_each(|&(_, tensor)| uses.readers[tensor] += 1);
            }
        }
        uses
    }

    /// Frees what a step was the last one to read.
    fn let_go(&mut self, step: &Step, tensors: &mut [Option<Tensor>]) {
        for &(_, tensor) in &step.inputs {
            self.readers[tensor] -= 1;
            if self.readers[tensor] == 0 {
                tensors[tensor] = None;
            }
        }
    }
}

/// The models of an ensemble change without it: what they give is what its own signature says, or the fault is theirs.
fn check(signature: &Signature, output: usize, rows: usize, tensor: &Tensor) -> Result<()> {
    let (spec, sizes) = (&signature.outputs()[output], tensor.shape().sizes());
    let fits = sizes.len() == spec.dims.len() && spec.dims.iter().zip(sizes).all(|(dim, &size)| dim.admits(size));
    let kept = !signature.is_batched() || sizes.first() == Some(&rows);
    if tensor.dtype() == spec.dtype && fits && kept {
        return Ok(());
    }
    let got = format!("{} {}", tensor.dtype(), tensor.shape());
    let message = format!("output `{}` came as {got} for {rows} rows, expected {} {}", spec.name, spec.dtype, Dims(&spec.dims));
    Err(Error::new(Code::RunFailed, message))
}

#[cfg(test)]
mod tests {
    use sluicegate_proto::config::from_text;

    use super::*;

    /// `b` of `a`; `l` and `r` of `b`; `z` of both. `l` is an output too.
    fn diamond() -> Ensemble {
        let step = |inputs: &[(&str, &str)], output: &str| {
            let inputs: String =
                inputs.iter().map(|(key, value)| format!("input_map {{ key: \"{key}\" value: \"{value}\" }}")).collect();
            format!("step [ {{ model_name: \"m\" {inputs} output_map {{ key: \"y\" value: \"{output}\" }} }} ]")
        };
        let steps =
            [step(&[("x", "l"), ("y", "r")], "z"), step(&[("x", "b")], "r"), step(&[("x", "b")], "l"), step(&[("x", "a")], "b")];
        let text = format!(
            "input [ {{ name: \"a\" }} ] output [ {{ name: \"z\" }}, {{ name: \"l\" }} ] ensemble_scheduling {{ {} }}",
            steps.join(" ")
        );
        Ensemble::of(&from_text(&text).expect("a configuration")).expect("a good one").expect("an ensemble")
    }

    #[test]
    fn only_steps_that_lead_to_a_wanted_output_are_taken_and_tensors_go_with_their_last_reader() {
        let ensemble = diamond();
        let of = |wanted: &[usize]| {
            let uses = Uses::of(&ensemble, wanted);
            let taken: Vec<usize> =
                ensemble.steps.iter().zip(&uses.waits).filter(|(_, waits)| **waits).map(|(step, _)| step.number).collect();
            (taken, uses)
        };
        assert_eq!(of(&[0, 1]).0, [4, 2, 3, 1]);
        let (taken, mut uses) = of(&[1]);
        assert_eq!(taken, [4, 3], "neither the other side nor the join");
        let mut tensors: Vec<Option<Tensor>> =
            vec![Some(Tensor::from_vec(sluicegate_core::Shape::new(&[1]), vec![1u8]).expect("fits")); ensemble.tensors];
        let first = &ensemble.steps[0];
        uses.let_go(first, &mut tensors);
        assert!(tensors[first.inputs[0].1].is_none() && tensors[first.outputs[0].1].is_some());
    }
}
