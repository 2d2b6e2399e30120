//! Frees versions whose last request has ended, on one thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use metrics::counter;
use sluicegate_core::{Code, Digest, Error, ModelName, Result, metric};

use crate::cache::Cache;
use crate::publish::Work;
use crate::status::{State, Status};

/// Versions that may wait to be freed. More at once would mean that freeing one takes longer than loading it.
const BACKLOG: usize = 256;

struct Freed {
    model: ModelName,
    version: u64,
    digest: Digest,
    work: Work,
    cache: Option<Cache>,
}

/// Where versions go to be freed.
#[derive(Clone)]
pub struct Reaper(SyncSender<Freed>);

impl Reaper {
    /// Starts its thread, which ends when the last handle is gone.
    ///
    /// # Errors
    /// [`Code::Io`] where the machine gives no thread.
    pub fn start(status: Arc<Status>) -> Result<Self> {
        let (sender, freed) = sync_channel::<Freed>(BACKLOG);
        let work = move || {
            sluicegate_engine::lower_priority();
            for Freed { model, version, digest, work, cache } in freed {
                if let Work::Batches(batches) = work {
                    batches.batcher.free();
                }
                drop(cache);
                sluicegate_engine::release_memory();
                counter!(metric::FREED, "model" => model.to_string()).increment(1);
                tracing::info!(%model, version, %digest, "version freed");
                status.freed(&model, version, &digest);
            }
        };
        let started = std::thread::Builder::new().name("reaper".into()).spawn(work);
        started.map_err(|error| Error::new(Code::Io, format!("no thread to free versions: {error}")))?;
        Ok(Self(sender))
    }

    pub(crate) fn free(&self, model: ModelName, version: u64, digest: Digest, work: Work, cache: Option<Cache>) {
        // A full backlog frees it here and now: slower for one caller, but nothing is lost.
        drop(self.0.try_send(Freed { model, version, digest, work, cache }));
    }
}

impl Status {
    fn freed(&self, model: &ModelName, version: u64, digest: &Digest) {
        self.change(model, version, |entry| {
            if entry.state == State::Draining && entry.digest.as_ref() == Some(digest) {
                entry.state = State::Gone;
            }
        });
    }
}
