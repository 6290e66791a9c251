//! Compiles the protocol definitions with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

const TASNIF_PROTO: &str = "tasnif/v1/tasnif.proto";
const OPEN_INFERENCE_PROTO: &str = "inference/open_inference_grpc.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile([TASNIF_PROTO, OPEN_INFERENCE_PROTO], ["proto"])?;
    // The same descriptors answer the reflection service.
    std::fs::write(out_dir.join("descriptors.bin"), {
        use protox::prost::Message;
        descriptors.encode_to_vec()
    })?;
    let of_package = |package| {
        let mut descriptors = descriptors.clone();
        descriptors.file.retain(|file| file.package() == package);
        descriptors
    };
    // The command line prints replies as JSON.
    tonic_prost_build::configure()
        .codec_path("crate::server::codec::FewFields")
        .type_attribute(".tasnif.v1", "#[derive(serde::Serialize)]")
        .field_attribute("logit", "#[serde(skip_serializing_if = \"Option::is_none\")]")
        .compile_fds(of_package("tasnif.v1"))?;
    tonic_prost_build::configure()
        .codec_path("crate::server::codec::FewFields")
        // Small where it is empty: a client may send many.
        .boxed(".inference.ModelInferRequest.InferInputTensor.contents")
        .btree_map(".inference")
        .compile_fds(of_package("inference"))?;
    Ok(())
}
