//! What was found once is not found again, and a few thousand mutations find nothing new.

use std::process::Command;

use sluicegate_fuzz::targets::TARGETS;
use sluicegate_fuzz::{corpus, drive};

/// Mutations of each target in a test; `make fuzz` makes as many as there is time for.
const CASES: &str = "4000";

#[test]
fn every_target_has_inputs_of_which_some_are_taken_and_some_refused() -> Result<(), String> {
    // Errors and not panics, for the driver keeps what a panic says.
    for target in TARGETS {
        let inputs = corpus::read(target).map_err(|error| format!("{}: {error}", target.name))?;
        let (mut taken, mut refused) = (0, 0);
        for (name, input) in &inputs {
            let outcome = drive::once(target, input).map_err(|why| format!("{}/{name}: {why}", target.name))?;
            let is_taken = outcome.starts_with(drive::ACCEPTED);
            // These names tell, but for one that was found.
            let tells = target.name == "safetensors" && !name.starts_with("found-");
            if tells && is_taken == name.ends_with("-refused") {
                return Err(format!("{}/{name}: {outcome}", target.name));
            }
            *(if is_taken { &mut taken } else { &mut refused }) += 1;
        }
        if taken == 0 || refused == 0 || target.name == "safetensors" && refused < 30 {
            return Err(format!("{}: {taken} are taken, {refused} refused", target.name));
        }
    }
    Ok(())
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
