//! Compiles ../../proto without protoc and keeps the descriptors for gRPC reflection.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(told("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let files = [
        "sms/node.proto",
        "sms/task.proto",
        "spearlet/object.proto",
        "spearlet/function.proto",
        "spearlet/invocation.proto",
        "spearlet/instance.proto",
        "spear/v1/execution.proto",
        "spear/v1/agent.proto",
    ];
    let descriptors = protox::compile(files, [&proto])?;
    let out = PathBuf::from(told("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let code = tonic_prost_build::configure().bytes(".").build_transport(false).codec_path("crate::codec::SmallCodec");
    code.compile_fds(descriptors)?;
    Ok(())
}

/// At the time it runs: a target directory may serve several checkouts, and the script is then compiled in one of them.
#[expect(clippy::disallowed_methods, reason = "cargo tells a build script its directories this way")]
fn told(name: &str) -> Result<String, env::VarError> {
    env::var(name)
}
