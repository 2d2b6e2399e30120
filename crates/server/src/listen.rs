//! Addresses: one listener each, a bound on its connections, and a drain that ends on time.
//!
//! In reading order: [`Listener`] (bind, accept, drain), [`shutdown`] (who says when), `connection` (one connection, HTTP/1.1
//! or HTTP/2 by its first bytes), [`threads`] (which thread serves it), `pulse` (what a connection is doing, for its timeouts).

mod connection;
mod pulse;
pub mod shutdown;
pub mod threads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_api::http::hot::Routes;
use sluicegate_core::{Code, Error, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::telemetry::traces::Tracer;

pub use shutdown::Shutdown;
pub use threads::Threads;

/// How many connections the system keeps for us before they are accepted.
const BACKLOG: i32 = 1024;

/// How long to wait after an error of `accept` that is not one connection's: out of file descriptors, or of memory.
const PAUSE: Duration = Duration::from_millis(100);

/// How often to say that something goes on being wrong.
const REMIND: Duration = Duration::from_secs(10);

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a connection may stay open without a request.
    pub keep_alive: Duration,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// The most connections that are open at once.
    pub max_connections: usize,
}

impl From<&crate::config::Http> for Settings {
    fn from(http: &crate::config::Http) -> Self {
        Self {
            keep_alive: http.keep_alive.get(),
            header_timeout: http.header_timeout.get(),
            max_connections: http.max_connections.get(),
        }
    }
}

/// An open address, not served yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    address: SocketAddr,
    socket: TcpListener,
    settings: Settings,
    tracer: Option<Arc<Tracer>>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had not finished in time and were cut.
    pub cut: usize,
}

impl Listener {
    /// Opens an address. `name` is the section and flag that set it: `http`, `ops`. It must be called within the runtime.
    ///
    /// # Errors
    /// [`Code::Io`], and which setting to change.
    pub fn bind(name: &'static str, address: SocketAddr, settings: Settings) -> Result<Self> {
        let socket = open(address).map_err(|error| {
            let change = format!("choose another one with {name}.address or --{name}");
            let message = match error.kind() {
                io::ErrorKind::AddrInUse => format!("{name} address {address} is in use: end what uses it, or {change}"),
                io::ErrorKind::AddrNotAvailable => {
                    format!("{name} address {address} is none of this machine's: {change}")
                }
                io::ErrorKind::PermissionDenied => {
                    format!("{name} address {address} may not be opened by this user (ports below 1024 often may not): {change}")
                }
                _ => format!("{name} address {address} cannot be opened: {error}; {change}"),
            };
            Error::new(Code::Io, message)
        })?;
        let address = socket.local_addr().unwrap_or(address);
        Ok(Self { name, address, socket, settings, tracer: None })
    }

    /// The same with what decides which of its requests are traced.
    #[must_use]
    pub fn traced(self, tracer: Option<Arc<Tracer>>) -> Self {
        Self { tracer, ..self }
    }

    /// The address, with the port that the system chose where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` begins, then takes no more connections, closes idle ones, and lets the others finish their
    /// requests until its grace has passed; what is left then is cut.
    pub async fn serve(self, routes: Routes, threads: Arc<Threads>, shutdown: Shutdown) -> Drained {
        let Self { name, address, socket, settings, tracer } = self;
        tracing::info!(listener = name, %address, "listening");
        let slots = Arc::new(Semaphore::new(settings.max_connections));
        let server = connection::Server::new(routes, settings, threads, shutdown.clone(), tracer);

        tokio::select! {
            biased;
            () = shutdown.begun() => {}
            () = accept(name, &socket, &slots, &server) => {}
        }
        // those that the system has accepted for us already are not lost
        while let Some(Ok((stream, _))) = ready(socket.accept()).await
            && let Ok(slot) = Arc::clone(&slots).try_acquire_owned()
        {
            start(&server, stream, slot);
        }
        drop(socket);
        drain(name, &slots, settings.max_connections, &shutdown).await
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What a future has at once, where it has something.
async fn ready<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

fn start(server: &connection::Server, stream: TcpStream, slot: OwnedSemaphorePermit) {
    // without it, a small answer may wait for an acknowledgement; a socket that refuses is only slower
    let _ = stream.set_nodelay(true);
    let Ok(stream) = stream.into_std() else { return };
    let connection = server.connection(stream);
    server.threads.serve(async move {
        connection.await;
        drop(slot);
    });
}

/// Accepts for ever. When every slot is taken, connections wait in the system's backlog.
async fn accept(name: &'static str, socket: &TcpListener, slots: &Arc<Semaphore>, server: &connection::Server) {
    let mut full = Reminder::default();
    let mut failing = Reminder::default();
    loop {
        if slots.available_permits() == 0 && full.is_due() {
            tracing::warn!(listener = name, "as many connections are open as may be, further ones wait");
        }
        // the semaphore is never closed
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => start(server, stream, slot),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if failing.is_due() {
                    tracing::error!(listener = name, %error, "cannot accept connections, trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the client left before it was accepted, which says nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn drain(name: &'static str, slots: &Semaphore, max_connections: usize, shutdown: &Shutdown) -> Drained {
    // a semaphore has far more permits than a configuration may ask for, and the count of one request is 32 bits
    let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
    let open = || max_connections - slots.available_permits();
    tracing::info!(listener = name, connections = open(), "draining");
    if timeout(shutdown.grace(), slots.acquire_many(all)).await.is_ok() {
        tracing::info!(listener = name, "drained");
        return Drained { cut: 0 };
    }
    let cut = open();
    tracing::warn!(listener = name, connections = cut, "the grace has passed, cutting connections that have not finished");
    shutdown.cut();
    // their tasks end at their next poll: this only lets them
    let _ = timeout(PAUSE, slots.acquire_many(all)).await;
    Drained { cut }
}

/// Says something at most every [`REMIND`].
#[derive(Default)]
struct Reminder(Option<Instant>);

impl Reminder {
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|last| now.duration_since(last) >= REMIND);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests;
