//! The figures of a run as a page.

use std::fmt::Write as _;

use crate::drive::Figures;

/// The page.
pub fn page(seed: u64, all: &[Figures]) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut page = format!(
        "# Mutated inputs\n\nSeed {seed}, one target after another, on a machine of {cores} cores. Nothing broke.\n\n\
         | target | inputs | a second | taken | ways | most bytes asked for a byte | slowest, ms (its bytes) |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for figures in all {
        let Figures { target, cases, accepted, outcomes, seconds, bytes_per_byte, slowest } = figures;
        // Writing to memory does not fail.
        let _ = writeln!(
            page,
            "| {target} | {cases} | {:.0} | {accepted} | {outcomes} | {bytes_per_byte:.0} | {:.1} ({}) |",
            *cases as f64 / seconds.max(1e-9),
            slowest.0,
            slowest.1,
        );
    }
    page
}
