//! Makes Rust of the protobuf files, with no `protoc`: protox reads them, prost writes the messages.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost_build::Config;
use protox::prost::Message;

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment alone")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let files = protox::compile(["inference.proto", "model_config.proto"], ["proto"])?;
    fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    // Raw tensors stay views into what was received; maps have one order, and an empty one costs nothing.
    Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    // What is told to receivers of OpenTelemetry, and not among the descriptors that callers are shown.
    let files = protox::compile(["opentelemetry/proto/collector/trace/v1/trace_service.proto"], ["proto"])?;
    Config::new().bytes(["."]).disable_comments(["."]).include_file("otlp.rs").compile_fds(files)?;
    Ok(())
}
