//! What a connection is doing, told by its socket and its requests in a few atomic words, and read now and then by
//! its timer: no clock is read and no timer is set on a request's way.

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::{Buf, Bytes, Frame, Incoming, SizeHint};
use hyper::service::Service;
use sluicegate_api::http::hot::{self, Routes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Duration, Instant};

use crate::telemetry::traces::{Traced, Tracer};

/// The counts of one connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Reads that brought something.
    reads: AtomicU32,
    /// `reads` when the last request ended: more have begun a request's head.
    reads_at_end: AtomicU32,
    /// Requests whose head has been read.
    started: AtomicU32,
    /// Those of them that are not answered to the end.
    active: AtomicU32,
    /// Whether the client does not take what is written, and how often it has begun to again.
    blocked: AtomicBool,
    unblocked: AtomicU32,
    /// Whether the first bytes were those of HTTP/2, whose control frames come between requests too.
    http2: AtomicBool,
    /// Whether it was told to close when its requests are answered.
    closing: AtomicBool,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in use, or not for long without.
    Keep,
    /// It has been without a request for long enough.
    Idle,
    /// A request's head has not come in time.
    Stuck,
}

impl Pulse {
    /// Whether no request is in work and no answer is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.active.load(Relaxed) == 0 && !self.blocked.load(Relaxed)
    }

    /// Tells that the connection is to close.
    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    /// Reads so far that brought something.
    pub(super) fn reads(&self) -> u32 {
        self.reads.load(Relaxed)
    }

    /// Whether the client may say more before it has taken all that was written: what HTTP/1.1 has open when it is told to
    /// close is idle, or was answered to its end.
    fn may_say_more(&self) -> bool {
        self.http2.load(Relaxed) || !self.closing.load(Relaxed)
    }

    /// Tells of a write.
    fn wrote(&self, pending: bool) {
        if self.blocked.load(Relaxed) != pending {
            self.blocked.store(pending, Relaxed);
            self.unblocked.fetch_add(u32::from(!pending), Relaxed);
        }
    }
}

/// Judges a connection each time that its timer fires.
#[derive(Debug)]
pub(super) struct Judge {
    /// Requests begun, and times that a slow client took more.
    progress: (u32, u32),
    quiet_since: Instant,
    head_since: Option<Instant>,
}

impl Judge {
    /// For a connection that was accepted now.
    pub(super) fn new(now: Instant) -> Self {
        Self { progress: (0, 0), quiet_since: now, head_since: Some(now) }
    }

    /// How often to ask: the timeouts are late by at most this much.
    pub(super) fn period(keep_alive: Duration, header_timeout: Duration) -> Duration {
        (keep_alive.min(header_timeout) / 2).clamp(Duration::from_millis(5), Duration::from_secs(5))
    }

    /// What is to be done now.
    pub(super) fn judge(&mut self, pulse: &Pulse, now: Instant, keep_alive: Duration, header_timeout: Duration) -> Verdict {
        let started = pulse.started.load(Relaxed);
        let progress = (started, pulse.unblocked.load(Relaxed));
        if pulse.active.load(Relaxed) > 0 || progress != self.progress {
            (self.progress, self.quiet_since, self.head_since) = (progress, now, None);
            return Verdict::Keep;
        }
        let within_head = started == 0 || pulse.reads.load(Relaxed) != pulse.reads_at_end.load(Relaxed);
        if within_head && !pulse.http2.load(Relaxed) {
            let since = *self.head_since.get_or_insert(now);
            return if now.duration_since(since) >= header_timeout { Verdict::Stuck } else { Verdict::Keep };
        }
        self.head_since = None;
        if now.duration_since(self.quiet_since) >= keep_alive { Verdict::Idle } else { Verdict::Keep }
    }
}

/// A socket that tells its pulse of what it reads.
pub(super) struct Pulsed<T> {
    inner: T,
    pulse: Arc<Pulse>,
}

impl<T> Pulsed<T> {
    pub(super) fn new(inner: T, pulse: Arc<Pulse>) -> Self {
        Self { inner, pulse }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Pulsed<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let got = &buf.filled()[before..];
        if !got.is_empty() && this.pulse.reads.fetch_add(1, Relaxed) == 0 && got.starts_with(b"PRI") {
            this.pulse.http2.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Pulsed<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.pulse.wrote(written.is_pending());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// Ends what is written, and then takes what still comes until the client ends its side, too: to close a socket that has
    /// something unread resets it, and the client loses what it has not taken yet. The connection's timer bounds the wait.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        let mut scratch = [MaybeUninit::uninit(); 4096];
        while self.pulse.may_say_more() {
            let mut buffer = ReadBuf::uninit(&mut scratch);
            ready!(self.as_mut().poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.pulse.wrote(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// The routes, for one connection: each request is active until the last byte of its answer is on its way.
pub(super) struct Watched {
    pub(super) routes: Routes,
    pub(super) pulse: Arc<Pulse>,
    pub(super) tracer: Option<Arc<Tracer>>,
}

/// A request that is active while this lives.
struct Active(Arc<Pulse>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.reads_at_end.store(self.0.reads.load(Relaxed), Relaxed);
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// An answer on its way.
pub(super) struct Answering {
    answer: hot::Answering,
    active: Option<Active>,
    /// Dropped after what it tells of.
    traced: Option<Box<Traced>>,
}

/// An answer's body, which keeps its request active.
pub(super) struct Answer {
    body: Body,
    active: Option<Active>,
    traced: Option<Box<Traced>>,
}

/// Bytes of an answer. They too keep the connection active: HTTP/2 takes them all at once, and may have to wait for its
/// client before it writes them.
pub(super) struct Chunk {
    bytes: Bytes,
    _active: Option<Active>,
}

impl Active {
    fn new(pulse: Arc<Pulse>) -> Self {
        pulse.active.fetch_add(1, Relaxed);
        Self(pulse)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}

impl Service<Request<Incoming>> for Watched {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.pulse.started.fetch_add(1, Relaxed);
        let active = Active::new(Arc::clone(&self.pulse));
        let traced = self.tracer.as_ref().and_then(|tracer| tracer.begin(&mut request));
        Answering { answer: self.routes.answer(request), active: Some(active), traced }
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = ready!(Pin::new(&mut self.answer).poll(cx))?;
        let (active, mut traced) = (self.active.take(), self.traced.take());
        if let Some(traced) = &mut traced {
            traced.answered(&mut answer);
        }
        Poll::Ready(Ok(answer.map(|body| Answer { body, active, traced })))
    }
}

impl hyper::body::Body for Answer {
    type Data = Chunk;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let (Some(traced), Some(Ok(frame))) = (&mut this.traced, &frame)
            && let Some(trailers) = frame.trailers_ref()
        {
            traced.trailed(trailers);
        }
        let active = || this.active.as_ref().map(|active| Active::new(Arc::clone(&active.0)));
        let held = |frame: Frame<Bytes>| frame.map_data(|bytes| Chunk { bytes, _active: active() });
        Poll::Ready(frame.map(|frame| frame.map(held)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(75);
    const HEAD: Duration = Duration::from_secs(10);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_connection_that_sends_nothing_is_stuck_after_the_header_timeout() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        let mut judge = Judge::new(start);
        assert_eq!(judge.judge(&pulse, after(start, 5), KEEP, HEAD), Verdict::Keep);
        assert_eq!(judge.judge(&pulse, after(start, 10), KEEP, HEAD), Verdict::Stuck);
    }

    #[test]
    fn between_requests_a_connection_is_kept_for_long_and_a_half_sent_head_is_not() {
        let (pulse, start) = (Arc::new(Pulse::default()), Instant::now());
        let mut judge = Judge::new(start);
        pulse.reads.store(1, Relaxed);
        pulse.started.store(1, Relaxed);
        let active = Active::new(Arc::clone(&pulse));
        assert_eq!(judge.judge(&pulse, after(start, 100), KEEP, HEAD), Verdict::Keep, "a long request is no idleness");
        pulse.reads.store(3, Relaxed);
        drop(active);
        assert_eq!(judge.judge(&pulse, after(start, 120), KEEP, HEAD), Verdict::Keep);
        assert_eq!(judge.judge(&pulse, after(start, 174), KEEP, HEAD), Verdict::Keep);
        assert_eq!(judge.judge(&pulse, after(start, 175), KEEP, HEAD), Verdict::Idle);

        pulse.reads.store(4, Relaxed);
        assert_eq!(judge.judge(&pulse, after(start, 176), KEEP, HEAD), Verdict::Keep);
        assert_eq!(judge.judge(&pulse, after(start, 186), KEEP, HEAD), Verdict::Stuck);
    }

    #[test]
    fn control_frames_of_http2_are_no_head() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        let mut judge = Judge::new(start);
        pulse.http2.store(true, Relaxed);
        pulse.reads.store(9, Relaxed);
        assert_eq!(judge.judge(&pulse, after(start, 74), KEEP, HEAD), Verdict::Keep);
        assert_eq!(judge.judge(&pulse, after(start, 75), KEEP, HEAD), Verdict::Idle);
    }
}
