//! Compiles the protocol definitions with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

const TASNIF_PROTO: &str = "tasnif/v1/tasnif.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile([TASNIF_PROTO], ["proto"])?;
    // The same descriptors answer the reflection service.
    std::fs::write(out_dir.join("descriptors.bin"), {
        use protox::prost::Message;
        descriptors.encode_to_vec()
    })?;
    // The command line prints replies as JSON.
    tonic_prost_build::configure()
        .type_attribute(".tasnif.v1", "#[derive(serde::Serialize)]")
        .field_attribute("logit", "#[serde(skip_serializing_if = \"Option::is_none\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
