//! Makes the gRPC service of the protocol; its messages are those of `sluicegate-proto`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../proto/proto");
    let files = protox::compile(["inference.proto"], ["../proto/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::grpc::codec::Protobuf")
        .extern_path(".inference", "::sluicegate_proto::inference")
        .compile_fds(files)?;
    Ok(())
}
