//! Listening and draining, over real sockets on the loopback address.

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

/// More than the buffers of two sockets hold.
const BIG: usize = 32 << 20;

/// More than the client's buffer holds, and less than the server's.
const SOME: usize = 1 << 20;

const LONG: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    Settings { keep_alive: LONG, header_timeout: LONG, max_connections: 16 }
}

struct Running {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<Drained>,
}

fn run(settings: Settings, grace: Duration) -> Running {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/slow", get(|| async { tokio::time::sleep(Duration::from_millis(200)).await }))
        .route("/big", get(|| async { vec![b'x'; BIG] }))
        .route("/some", get(|| async { vec![b'x'; SOME] }).post(|| async { vec![b'x'; SOME] }))
        .route("/never", get(std::future::pending::<()>));
    let listener = Listener::bind("http", SocketAddr::from(([127, 0, 0, 1], 0)), settings).expect("a free port");
    let address = listener.local_addr();
    let shutdown = Shutdown::new(grace);
    let task = tokio::spawn(listener.serve(router.into(), Arc::new(Threads::start(2).expect("two threads")), shutdown.clone()));
    Running { address, shutdown, task }
}

async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    stream
}

/// What comes until there is this text, or the end.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut got = String::new();
    let mut buffer = [0; 1024];
    loop {
        let count = timeout(LONG, stream.read(&mut buffer)).await.expect("in time").unwrap_or(0);
        got.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if count == 0 || got.contains(text) {
            return got;
        }
    }
}

/// Waits for the other side to close.
async fn closed(stream: &mut TcpStream) -> String {
    read_until(stream, "\0").await
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[tokio::test]
async fn a_taken_address_says_what_to_change() {
    let running = run(settings(), LONG);
    let error = Listener::bind("ops", running.address, settings()).expect_err("taken");
    let expected =
        format!("ops address {} is in use: end what uses it, or choose another one with ops.address or --ops", running.address);
    assert_eq!((error.code(), error.message()), (Code::Io, &*expected));
    let error = Listener::bind("http", SocketAddr::from(([192, 0, 2, 1], 80)), settings()).expect_err("not ours");
    assert!(error.message().contains("is none of this machine's"), "{error}");
}

#[tokio::test]
async fn a_drain_finishes_requests_and_closes_idle_connections_at_once() {
    let running = run(settings(), LONG);
    let mut idle = send(running.address, &request("/")).await;
    assert!(read_until(&mut idle, "hello").await.starts_with("HTTP/1.1 200"));
    let mut silent = send(running.address, "").await;
    let mut slow = send(running.address, &request("/slow")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    running.shutdown.begin();
    assert_eq!(closed(&mut idle).await, "");
    assert_eq!(closed(&mut silent).await, "");
    assert!(begun.elapsed() < Duration::from_millis(120), "idle connections do not wait: {:?}", begun.elapsed());
    let answer = closed(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(running.task.await.expect("no panic"), Drained { cut: 0 });
    assert!(TcpStream::connect(running.address).await.is_err(), "the address is closed");
}

#[tokio::test]
async fn an_answer_on_its_way_to_a_slow_client_is_not_cut_short_by_a_drain() {
    let running = run(settings(), LONG);
    let mut slow = send(running.address, &request("/big")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.shutdown.begin();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut got = Vec::new();
    timeout(LONG, slow.read_to_end(&mut got)).await.expect("in time").expect("to its end");
    assert!(got.len() > BIG, "{}", got.len());
    assert_eq!(running.task.await.expect("no panic"), Drained { cut: 0 });
}

/// A frame of HTTP/2: its type, its flags, its stream, its payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Bytes of DATA until there are so many, or the connection ends.
async fn data_until(stream: &mut TcpStream, wanted: usize) -> usize {
    let mut got = 0;
    let mut head = [0; 9];
    while got < wanted && timeout(LONG, stream.read_exact(&mut head)).await.expect("in time").is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.expect("a whole frame");
        got += if head[3] == 0 { payload.len() } else { 0 };
    }
    got
}

#[tokio::test]
async fn an_answer_that_waits_for_its_client_in_http2_is_not_cut_short_by_a_drain() {
    const WINDOW: u32 = 100;
    let running = run(settings(), LONG);
    let mut stream = send(running.address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // SETTINGS_INITIAL_WINDOW_SIZE, then GET /big.
    let window = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
    let head = [&[0x82, 0x86, 0x01, 1][..], b"x", &[0x04, 4], b"/big"].concat();
    let sent = [frame(4, 0, 0, &window), frame(4, 1, 0, &[]), frame(1, 5, 1, &head)].concat();
    stream.write_all(&sent).await.expect("sent");
    assert_eq!(data_until(&mut stream, WINDOW as usize).await, WINDOW as usize);
    running.shutdown.begin();
    tokio::time::sleep(connection::LINGER + Duration::from_secs(1)).await;
    stream.write_all(&frame(8, 0, 1, &50u32.to_be_bytes())).await.expect("open");
    assert_eq!(data_until(&mut stream, 50).await, 50, "what was asked for goes on");
}

/// A connection whose client's system takes little before the client reads.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(32 << 10).expect("a small buffer");
    socket.connect(address).await.expect("connected")
}

#[tokio::test]
async fn what_a_client_of_http2_says_after_the_end_does_not_take_its_answer_away() {
    let running = run(settings(), LONG);
    let mut stream = narrow(running.address).await;
    let wide = (1_u32 << 30).to_be_bytes();
    let window = [&[0, 4][..], &wide].concat();
    let head = [&[0x82, 0x86, 0x01, 1][..], b"x", &[0x04, 5], b"/some"].concat();
    let sent = [frame(4, 0, 0, &window), frame(4, 1, 0, &[]), frame(8, 0, 0, &wide), frame(1, 5, 1, &head)].concat();
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &sent[..]].concat()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.shutdown.begin();
    // h2's own ping before the last GOAWAY: without its answer the connection lingers anyway.
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(&frame(6, 1, 0, &[0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54])).await.expect("open");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(&frame(8, 0, 0, &1_u32.to_be_bytes())).await.expect("open");
    }
    assert_eq!(data_until(&mut stream, SOME).await, SOME);
    drop(stream);
    assert_eq!(running.task.await.expect("no panic"), Drained { cut: 0 });
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let running = run(settings(), LONG);
    let mut stream = narrow(running.address).await;
    let head = "POST /some HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 8388608\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        stream.write_all(&vec![0; SOME]).await.expect("taken");
    }
    let mut got = Vec::new();
    timeout(LONG, stream.read_to_end(&mut got)).await.expect("in time").expect("to its end");
    assert!(got.len() > SOME, "{}", got.len());
}

#[tokio::test]
async fn what_has_not_finished_in_time_is_cut_and_counted() {
    let running = run(settings(), Duration::from_millis(100));
    let mut never = send(running.address, &request("/never")).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.shutdown.begin();
    assert_eq!(running.task.await.expect("no panic"), Drained { cut: 1 });
    assert_eq!(closed(&mut never).await, "");
}

#[tokio::test]
async fn when_every_slot_is_taken_a_connection_waits_for_one() {
    let running = run(Settings { max_connections: 1, ..settings() }, LONG);
    let mut first = send(running.address, &request("/")).await;
    read_until(&mut first, "hello").await;
    let mut second = send(running.address, &request("/")).await;
    let mut buffer = [0; 1];
    assert!(timeout(Duration::from_millis(100), second.read(&mut buffer)).await.is_err(), "it waits");
    drop(first);
    assert!(read_until(&mut second, "hello").await.contains("hello"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_and_an_idle_connection_lives_longer() {
    let times = Settings { header_timeout: Duration::from_millis(100), ..settings() };
    let running = run(times, LONG);
    let mut stuck = send(running.address, "GET / HTTP/1.1\r\nhost:").await;
    let mut silent = send(running.address, "").await;
    let mut idle = send(running.address, &request("/")).await;
    read_until(&mut idle, "hello").await;
    closed(&mut stuck).await;
    closed(&mut silent).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    idle.write_all(request("/").as_bytes()).await.expect("open");
    assert!(read_until(&mut idle, "hello").await.contains("hello"), "keep_alive has not passed");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_keep_alive_and_a_slow_request_is_not() {
    let running = run(Settings { keep_alive: Duration::from_millis(100), ..settings() }, LONG);
    let mut slow = send(running.address, &request("/slow")).await;
    let mut idle = send(running.address, &request("/")).await;
    assert!(closed(&mut idle).await.contains("hello"));
    assert!(read_until(&mut slow, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn http2_is_spoken_on_the_same_port() {
    let running = run(settings(), LONG);
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    let mut stream = send(running.address, preface).await;
    let mut head = [0; 9];
    timeout(LONG, stream.read_exact(&mut head)).await.expect("in time").expect("a frame");
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    running.shutdown.begin();
    assert_eq!(running.task.await.expect("no panic"), Drained { cut: 0 });
}
