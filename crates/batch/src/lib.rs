//! Turns many waiting requests into few engine runs.
//!
//! In reading order: [`policy`] (pure: who runs next, together with whom), [`queue`] (what waits, and who is idle),
//! [`stack`] (join rows, cut them apart), [`pad`] (rows of different sizes), `worker` (who runs a batch: the caller's thread or
//! the model's own), `turn` (whether the caller's thread reads others first, and whose runs follow each other), [`journal`]
//! (the last batches, and why each left), [`ticket`] (the caller's end). To change who is in a batch, change `policy.rs` and nothing else.
//!
//! Batching is work-conserving: an idle instance takes what waits at once. A batch forms because instances are busy, or because
//! one thread read several requests in one turn.

pub mod journal;
pub mod pad;
pub mod policy;
pub mod queue;
pub mod stack;
pub mod ticket;
mod turn;
mod worker;

pub use journal::{Ran, Totals};
pub use pad::Padding;
pub use policy::{Left, Limits};
pub use queue::{Batcher, Execution, Job, Setup};
pub use ticket::{Done, Ticket};
