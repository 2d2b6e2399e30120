//! Who is served by a candidate, and what decides: pure functions of what was declared, counted and decided before.
//!
//! ```text
//! spec      what is declared                          Spec -> stages
//! evidence  what was counted in a stage               slices -> Evidence; adds up over replicas
//! rate      how often the candidate fails beside stable      e-process
//! bound     rates, means and quantiles                confidence sequences
//! analysis  each rule: pass, fail, or not known yet   Verdict with a sentence
//! state     how far it came                           State, Command
//! decide    what happens now                          Decision
//! record    a decision and all that it follows from   replay
//! ```
//!
//! Nothing here does I/O, waits, or reads a clock. All tests hold however often one looks: an e-process crosses `1/α` with a
//! probability of at most `α` at any time (Ville's inequality).

pub mod analysis;
pub mod bound;
pub mod decide;
pub mod evidence;
pub mod rate;
pub mod record;
pub mod spec;
pub mod state;

pub use decide::{Decision, Look, decide};
pub use evidence::Evidence;
pub use spec::Spec;
pub use state::{Command, Phase, State};
