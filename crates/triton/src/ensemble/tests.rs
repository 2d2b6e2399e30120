//! What makes an ensemble: one way from the inputs to the outputs, over models that fit.

use std::path::Path;

use proptest::prelude::*;
use sluicegate_core::signature::TensorSpec;
use sluicegate_proto::config::from_text;

use super::*;
use crate::tensors;

const ENDS: &str = r#"platform: "ensemble" max_batch_size: 4
    input [ { name: "a" data_type: TYPE_FP32 dims: [ 2 ] } ] output [ { name: "z" data_type: TYPE_FP32 dims: [ 2 ] } ]"#;

type Pair = (String, String);

/// One step: the model, its inputs, its outputs.
type Line<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

fn config(steps: &[Line<'_>]) -> ModelConfig {
    let map = |field: &str, pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| format!("{field} {{ key: \"{key}\" value: \"{value}\" }}")).collect::<Vec<_>>().join(" ")
    };
    let step = |(model, inputs, outputs): &Line<'_>| {
        format!(
            "step [ {{ model_name: \"{model}\" model_version: -1 {} {} }} ]",
            map("input_map", inputs),
            map("output_map", outputs)
        )
    };
    let steps: Vec<String> = steps.iter().map(step).collect();
    from_text(&format!("{ENDS} ensemble_scheduling {{ {} }}", steps.join(" "))).expect("a configuration")
}

fn diamond() -> ModelConfig {
    config(&[
        ("join", &[("l", "left"), ("r", "right")], &[("y", "z")]),
        ("one", &[("x", "b")], &[("y", "left")]),
        ("one", &[("x", "b")], &[("y", "right")]),
        ("one", &[("x", "a")], &[("y", "b")]),
    ])
}

#[test]
fn steps_are_put_in_an_order_in_which_their_inputs_are_there() {
    let ensemble = Ensemble::of(&diamond()).expect("a good one").expect("an ensemble");
    assert_eq!(ensemble.steps.iter().map(|step| step.number).collect::<Vec<_>>(), [4, 2, 3, 1]);
    assert_eq!((ensemble.tensors, ensemble.outputs.len()), (5, 1));
}

#[test]
fn steps_that_make_no_way_are_told_with_the_tensor_or_the_step() {
    let last: Line<'_> = ("one", &[("x", "b")], &[("y", "z")]);
    for (steps, words) in [
        (&[][..], "expected 1 to 128 steps"),
        (&[("one", &[("x", "a")][..], &[][..])], "output_map"),
        (&[last], "tensor `b` is no input of the ensemble, and no step gives it"),
        (&[("one", &[("x", "a")], &[("y", "a")]), last], "tensor `a` comes from the inputs and from step 1 (`one`)"),
        (
            &[("one", &[("x", "a")], &[("y", "z")]), ("one", &[("x", "a")], &[("y", "z")])],
            "comes from step 1 (`one`) and from step 2",
        ),
        (&[("one", &[("x", "a")], &[("y", "b")])], "output `z`: no step gives it"),
        (&[("one", &[("x", "a")], &[("y", "z"), ("w", "spare")])], "tensor `spare`, from step 1 (`one`), is used by no step"),
        (&[("one", &[("x", "c")], &[("y", "b")]), ("two", &[("x", "b"), ("a", "a")], &[("y", "c"), ("w", "z")])], "in a circle"),
        (&[("two", &[("x", "a"), ("y", "z")], &[("y", "z")])], "in a circle: step 1 (`two`)"),
    ] {
        let error = Ensemble::of(&config(steps)).expect_err(words);
        assert!(error.message().contains(words), "{error}");
    }
}

/// A model of these inputs and outputs, rows of FP32.
fn member(inputs: &[(&str, usize)], outputs: &[(&str, usize)]) -> Signature {
    let spec = |(name, width): &(&str, usize)| TensorSpec::new(name, DType::Fp32, vec![Dim::Free(None), Dim::Fixed(*width)]);
    Signature::new(inputs.iter().map(spec).collect(), outputs.iter().map(spec).collect(), None).expect("a good signature")
}

fn checked(config: &ModelConfig, members: &dyn Fn(&Step) -> Result<Signature>) -> Result<()> {
    let ensemble = Ensemble::of(config).expect("a good one").expect("an ensemble");
    ensemble.check(&tensors::alone(config, Path::new("/nowhere")).expect("a signature"), members)
}

#[test]
fn steps_must_fit_the_models_that_they_ask() {
    let config = diamond();
    let join = || member(&[("l", 2), ("r", 2)], &[("y", 2)]);
    let of = |one: Signature, join: Signature| {
        move |step: &Step| Ok(if step.model.as_str() == "join" { join.clone() } else { one.clone() })
    };
    let one = || member(&[("x", 2)], &[("y", 2), ("unused", 9)]);
    checked(&config, &of(one(), join())).expect("it fits");
    for (one, join, words) in [
        (member(&[("x", 3)], &[("y", 2)]), join(), "step 4 (`one`): tensor `a` is FP32 [-1, 2], expected FP32 [-1, 3]"),
        (member(&[("q", 2)], &[("y", 2)]), join(), "input_map: input `q` of the model is missing"),
        (member(&[], &[("y", 2)]), join(), "input_map: the model has no input `x`"),
        (member(&[("x", 2)], &[("q", 2)]), join(), "output_map: the model has no output `y`"),
        (one(), member(&[("l", 2), ("r", 2)], &[("y", 5)]), "output `z`: tensor `z` is FP32 [-1, 5]"),
    ] {
        let error = checked(&config, &of(one, join)).expect_err(words);
        assert!(error.message().contains(words), "{error}");
    }
    let gone = |step: &Step| Err(Error::new(Code::NotReady, format!("`{}` is not live", step.model)));
    let error = checked(&config, &gone).expect_err("nobody is there");
    assert_eq!((error.code(), error.message()), (Code::NotReady, "step 4 (`one`): `one` is not live"));
}

proptest! {
    /// Each step reads what some steps before it gave, in whatever order they stand in the file.
    #[test]
    fn whatever_is_without_a_circle_is_put_in_order(reads in prop::collection::vec(any::<prop::sample::Index>(), 1..12), seed in any::<u64>()) {
        let count = reads.len();
        let name = |place: usize| if place == 0 { "a".to_owned() } else { format!("t{place}") };
        let mut lines: Vec<(Vec<Pair>, Pair)> = Vec::new();
        for (place, read) in reads.iter().enumerate() {
            let before = read.index(place + 1);
            lines.push((vec![("x".to_owned(), name(before))], ("y".to_owned(), name(place + 1))));
        }
        // The last one reads all, so that none is unused.
        let all = (0..=count).map(|place| (format!("i{place}"), name(place))).collect();
        lines.push((all, ("y".to_owned(), "z".to_owned())));
        let turns = usize::try_from(seed % lines.len() as u64).expect("small");
        lines.rotate_left(turns);
        let owned: Vec<_> = lines.iter().map(|(inputs, (key, value))| {
            let inputs: Vec<(&str, &str)> = inputs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            (inputs, [(key.as_str(), value.as_str())])
        }).collect();
        let lines: Vec<Line<'_>> = owned.iter().map(|(inputs, outputs)| ("one", &inputs[..], &outputs[..])).collect();
        let ensemble = Ensemble::of(&config(&lines)).expect("no circle").expect("an ensemble");
        let mut there: Vec<bool> = (0..ensemble.tensors).map(|place| place == 0).collect();
        for step in &ensemble.steps {
            prop_assert!(step.inputs.iter().all(|&(_, tensor)| there[tensor]), "a step is before what it reads");
            step.outputs.iter().for_each(|&(_, tensor)| there[tensor] = true);
        }
        prop_assert_eq!(ensemble.steps.len(), count + 1);
    }
}
