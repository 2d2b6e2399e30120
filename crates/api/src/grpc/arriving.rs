//! The body of a call as it arrives: of one message, all of it within a bound of time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// A body that has to be there in time.
pub struct Arriving<B> {
    body: B,
    time: Option<Duration>,
    /// Set only where something is not there already.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Arriving<B> {
    /// `time` for all of it; `None` for as long as it takes.
    pub fn new(body: B, time: Option<Duration>) -> Self {
        Self { body, time, timer: None }
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(error.into()))));
        }
        let Some(time) = this.time else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(time)));
        timer.as_mut().poll(cx).map(|()| {
            let message = format!("the message did not come within {time:?}; raise http.body_timeout to wait longer");
            Some(Err(Status::deadline_exceeded(message)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads what is left of a body, so that a caller who still sends gets to read the answer. Bounded by its time.
pub async fn discard<B: Body<Data = Bytes, Error = Status> + Unpin>(mut body: B, mut most: usize) {
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        most = most.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if most == 0 {
            return;
        }
    }
}
