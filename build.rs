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
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
