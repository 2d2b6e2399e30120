//! What was found once is not found again, and a few thousand mutations find nothing new.

use std::process::Command;

use sluicegate_fuzz::targets::TARGETS;
use sluicegate_fuzz::{corpus, drive};

/// Mutations of each target in a test; `make fuzz` makes as many as there is time for.
const CASES: &str = "4000";

#[test]
fn every_target_has_inputs_of_which_some_are_taken_and_some_refused() {
    for target in TARGETS {
        let inputs = corpus::read(target).expect("a corpus");
        let outcomes = inputs
            .iter()
            .map(|(name, input)| drive::once(target, input).unwrap_or_else(|why| panic!("{}/{name}: {why}", target.name)));
        let (taken, refused): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| outcome.starts_with(drive::ACCEPTED));
        assert!(!taken.is_empty() && !refused.is_empty(), "{}: {taken:?}, {refused:?}", target.name);
    }
}

#[test]
fn mutations_of_a_fixed_seed_break_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate-fuzz"))
        .args(["--cases", CASES, "--seconds", "3600"])
        .output()
        .expect("the program starts");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    println!("{told}");
}
