//! Threads for the runtime's pools, at the priority of the process: a thread inherits that of its maker, and models are loaded
//! by threads of low priority.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use ort::environment::ThreadManager;

type Work = Box<dyn FnOnce() + Send>;

/// One thread that makes the others. It lives as long as the library, which is as long as the process.
#[derive(Clone)]
pub(crate) struct Spawner(SyncSender<(Work, SyncSender<std::io::Result<JoinHandle<()>>>)>);

impl Spawner {
    /// Starts it, with the priority of the calling thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (asks, asked) = sync_channel::<(Work, SyncSender<_>)>(1);
        Builder::new().name("spawner".into()).spawn(move || {
            for (work, made) in asked {
                // Whoever asked waits for it.
                let _ = made.send(Builder::new().name("engine".into()).spawn(work));
            }
        })?;
        Ok(Self(asks))
    }
}

impl ThreadManager for Spawner {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<JoinHandle<()>> {
        let (made, wait) = sync_channel(1);
        let gone = || ort::Error::new("the thread that makes threads is gone");
        self.0.send((Box::new(work), made)).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())?.map_err(|error| ort::Error::new(format!("no thread for the engine: {error}")))
    }

    fn join(thread: JoinHandle<()>) -> ort::Result<()> {
        let _ = thread.join();
        Ok(())
    }
}
