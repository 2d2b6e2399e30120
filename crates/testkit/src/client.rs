//! A client of HTTP/1.1 over one kept-alive connection. It sends what it is told to, right or wrong.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long one answer may take. A deadline against hanging for ever, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, opened with the first request and again after the other side has said that it closes it.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// Bytes that came behind the last answer.
    ahead: Vec<u8>,
}

/// A request, right or wrong.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path and query.
    pub path: String,
    /// Headers beside `host` and `content-length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The size of the chunks that the body goes out in, and then no `content-length`.
    pub chunks: Option<usize>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Request {
    /// Any method without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new(), chunks: None }
    }

    /// A POST of these bytes.
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("POST", path) }
    }

    /// A POST of the binary tensor extension: a JSON head, then raw tensors.
    pub fn binary(path: &str, head: &Value, raw: &[u8]) -> Self {
        let head = head.to_string();
        let length = head.len().to_string();
        Self::post(path, [head.as_bytes(), raw].concat()).header("inference-header-content-length", &length)
    }

    /// The same request with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same request with its body in chunks of this size.
    #[must_use]
    pub fn chunked(mut self, size: usize) -> Self {
        self.chunks = Some(size);
        self
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nhost: sluicegate\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match self.chunks {
            None if self.body.is_empty() && self.method != "POST" => out.extend_from_slice(b"\r\n"),
            None => {
                out.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
                out.extend_from_slice(&self.body);
            }
            Some(size) => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in self.body.chunks(size) {
                    out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        out
    }
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The JSON head and the raw tensors of an answer of the binary tensor extension.
    pub fn binary(&self) -> Option<(Value, &[u8])> {
        let (head, raw) = self.body.split_at_checked(self.header("inference-header-content-length")?.parse().ok()?)?;
        Some((serde_json::from_slice(head).ok()?, raw))
    }

    /// Whether the other side closes the connection after it.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, ahead: Vec::new() }
    }

    /// Whether its connection is open, as far as it was told.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Ends the connection, whatever is under way on it.
    pub fn close(&mut self) {
        self.stream = None;
        self.ahead.clear();
    }

    /// Sends bytes without waiting for an answer.
    ///
    /// # Errors
    /// Where the connection is refused or broken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.stream.is_none() {
            self.ahead.clear();
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(gone)?.write_all(bytes)
    }

    /// Reads the next answer.
    ///
    /// # Errors
    /// Where the connection ends before one has come, or what comes is none.
    pub fn read(&mut self) -> io::Result<Response> {
        let read = self.answer();
        match &read {
            Ok(response) if !response.closes() => {}
            _ => self.close(),
        }
        read
    }

    /// Sends bytes and reads the answer to them.
    ///
    /// # Errors
    /// Those of [`write`](Self::write) and [`read`](Self::read).
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<Response> {
        self.write(bytes).inspect_err(|_| self.close())?;
        self.read()
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn request(&mut self, request: &Request) -> io::Result<Response> {
        self.send(&request.bytes())
    }

    /// A GET.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request(&Request::new("GET", path))
    }

    /// A POST of JSON.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn post_json(&mut self, path: &str, body: &Value) -> io::Result<Response> {
        self.request(&Request::post(path, body.to_string()).header("content-type", "application/json"))
    }

    fn answer(&mut self) -> io::Result<Response> {
        loop {
            let head = self.until(b"\r\n\r\n")?;
            let head = String::from_utf8_lossy(&head).into_owned();
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
            let status: u16 = status.ok_or_else(|| odd(&format!("no status line: {head:?}")))?;
            let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
            let mut response = Response { status, headers: lines.filter_map(header).collect(), body: Vec::new() };
            // 100 Continue comes before the answer.
            if (100..200).contains(&status) {
                continue;
            }
            response.body = if response.header("transfer-encoding") == Some("chunked") {
                self.chunks()?
            } else {
                let length = response.header("content-length").map_or(Ok(0), str::parse);
                self.exactly(length.map_err(|_| odd("content-length is no number"))?)?
            };
            return Ok(response);
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).map_err(|_| odd("no chunk size"))?;
            body.extend(self.exactly(size)?);
            self.until(b"\r\n")?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.windows(end.len()).position(|window| window == end) {
                return Ok(self.ahead.drain(..at + end.len()).collect());
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            self.more()?;
        }
        Ok(self.ahead.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.as_mut().ok_or_else(gone)?.read(&mut buffer)? {
            0 => Err(gone()),
            read => {
                self.ahead.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before an answer")
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
