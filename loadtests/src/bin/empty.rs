//! The bound of what a handler on this stack can do: axum on tokio's default runtime, reading the same body, answering at once.

use axum::Router;
use axum::routing::post;
use bytes::Bytes;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ANSWER: &str = r#"{"label":"benign","probabilities":{"malignant":0.0123,"benign":0.9877}}"#;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is told on standard output")]
async fn main() -> std::io::Result<()> {
    let handler = |body: Bytes| async move { if body.is_empty() { "" } else { ANSWER } };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/models/{model}/predict", post(handler))).await
}
