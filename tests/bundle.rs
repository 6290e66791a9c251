//! Loading model directories.

mod support;

#[test]
fn the_tiny_bundle_is_a_valid_checkpoint_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    support::tiny_bundle(dir.path());
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("heads.topic.weight").unwrap().shape(), [5, 32]);
    let tokenizer = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
    let encoding = tokenizer.encode("قال الوزير في القاهرة", true).unwrap();
    assert_eq!(encoding.get_tokens().first().map(String::as_str), Some("[CLS]"));
    assert!(!encoding.get_tokens().contains(&"[UNK]".to_owned()));
}
