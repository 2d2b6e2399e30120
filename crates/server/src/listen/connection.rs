//! One connection: HTTP/1.1 or HTTP/2 by its first bytes, closed when idle, stuck, drained or cut.

use std::pin::pin;
use std::sync::Arc;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use sluicegate_api::http::hot::Routes;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

use super::pulse::{Judge, Pulse, Pulsed, Verdict, Watched};
use super::threads::Deal;
use super::{Settings, Shutdown, Threads};
use crate::telemetry::traces::Tracer;

/// How long a connection that was told to close may stay open without a request, an answer on its way, or a word from its client:
/// one of HTTP/2 has to answer first and takes its time to read, and one that is gone does not.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// What all connections of a listener share.
pub(super) struct Server {
    routes: Routes,
    settings: Settings,
    shutdown: Shutdown,
    http: Builder<Deal>,
    pub(super) threads: Arc<Threads>,
    tracer: Option<Arc<Tracer>>,
}

impl Server {
    pub(super) fn new(
        routes: Routes,
        settings: Settings,
        threads: Arc<Threads>,
        shutdown: Shutdown,
        tracer: Option<Arc<Tracer>>,
    ) -> Self {
        let mut http = Builder::new(Deal(threads.clone()));
        // hyper's own timer of the head runs while a connection is idle, and is made anew for each request: see `pulse`
        http.http1().timer(TokioTimer::new()).header_read_timeout(None);
        http.http2().timer(TokioTimer::new()).keep_alive_interval(settings.keep_alive).max_concurrent_streams(256);
        Self { routes, settings, shutdown, http, threads, tracer }
    }

    /// Serves one connection to its end.
    pub(super) fn connection(&self, stream: std::net::TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let Settings { keep_alive, header_timeout, .. } = self.settings;
        let (begun, cut) = self.shutdown.of_connection();
        let (routes, http, tracer) = (self.routes.clone(), self.http.clone(), self.tracer.clone());
        async move {
            // only now, on the thread that is to read it
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let pulse = Arc::new(Pulse::default());
            let io = TokioIo::new(Pulsed::new(stream, Arc::clone(&pulse)));
            let mut connection = pin!(http.serve_connection(io, Watched { routes, pulse: Arc::clone(&pulse), tracer }));
            let mut begun = pin!(begun.cancelled());
            let mut cut = pin!(cut.cancelled());
            let period = Judge::period(keep_alive, header_timeout);
            let mut timer = pin!(sleep(period));
            let mut judge = Judge::new(Instant::now());
            let mut closing = false;
            let mut heard = 0;
            loop {
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(error, "connection failed");
                        }
                        return;
                    }
                    () = begun.as_mut(), if !closing => {
                        closing = true;
                        pulse.close();
                        connection.as_mut().graceful_shutdown();
                        timer.as_mut().reset(Instant::now() + LINGER);
                    }
                    () = cut.as_mut() => return,
                    () = timer.as_mut() => {
                        let now = Instant::now();
                        let before = heard;
                        heard = pulse.reads();
                        if closing && heard == before && pulse.is_quiet() {
                            return;
                        }
                        let next = if closing { LINGER } else { period };
                        timer.as_mut().reset(now + next);
                        match judge.judge(&pulse, now, keep_alive, header_timeout) {
                            Verdict::Keep => {}
                            Verdict::Stuck => return,
                            Verdict::Idle if closing => return,
                            Verdict::Idle => {
                                closing = true;
                                pulse.close();
                                connection.as_mut().graceful_shutdown();
                                timer.as_mut().reset(now + LINGER);
                            }
                        }
                    }
                }
            }
        }
    }
}
