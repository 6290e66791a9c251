"""The shipped bundle -> what each peer loads: ONNX (plain, fused, int8), OpenVINO IR (f32, int8), CTranslate2.

Run by compare.py in a process of its own: python export.py BUNDLE OUT CALIBRATION [--cut]. What could not be made stands in
OUT/made.json with its reason, and the engines that need it are reported as absent.
"""

import json
import sys
from pathlib import Path

import torch

import work
from model import Classifier, load_bert

OPSET = 17
EXAMPLE_TOKENS = 32


def main():
    bundle, out, calibration = (Path(argument) for argument in sys.argv[1:4])
    cut = "--cut" in sys.argv[4:]
    documents = json.loads(calibration.read_text())
    made = {}
    steps = {
        "onnx": lambda: export_onnx(bundle, out / "plain.onnx"),
        "onnx-fused": lambda: fuse_onnx(bundle, out / "plain.onnx", out / "fused.onnx"),
        "onnx-int8": lambda: quantize_onnx(out / "fused.onnx", out / "int8.onnx"),
        "openvino": lambda: export_openvino(bundle, out, cut),
        "openvino-int8": lambda: quantize_openvino(out / "openvino.xml", out / "openvino-int8.xml", documents),
        "ctranslate2": lambda: export_ctranslate2(bundle, out / "ctranslate2"),
    }
    for name, step in steps.items():
        print(f"export: {name}", flush=True)
        try:
            made[name] = {"note": step()}
        except Exception as error:  # any failure of a peer's tool is a finding, not the end of the comparison
            made[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
            print(f"export: {name} failed: {made[name]['failed']}", file=sys.stderr, flush=True)
    (out / "made.json").write_text(json.dumps(made, indent=1))


def export_onnx(bundle, path, cut=False):
    """The TorchScript exporter: its graph is the one that ONNX Runtime's transformer fusion is written for. That fusion
    takes whole layers, so what is `cut` is for others."""
    ids = torch.zeros(2, EXAMPLE_TOKENS, dtype=torch.int64)
    torch.onnx.export(
        Classifier(bundle, "plain", cut).eval(),
        (ids, torch.ones_like(ids)),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={
            "input_ids": {0: "batch", 1: "tokens"},
            "attention_mask": {0: "batch", 1: "tokens"},
            "logits": {0: "batch"},
        },
    )
    return f"torch.onnx, opset {OPSET}"


def fuse_onnx(bundle, source, path):
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = json.loads((bundle / "config.json").read_text())
    options = FusionOptions("bert")
    options.enable_gelu_approximation = False
    model = optimizer.optimize_model(
        str(source),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        optimization_options=options,
        opt_level=0,  # what is left is done when the session is made, for the machine that runs it
    )
    fused = model.get_fused_operator_statistics()
    if fused["Attention"] != config["num_hidden_layers"]:
        raise RuntimeError(f"attention was fused in {fused['Attention']} of {config['num_hidden_layers']} layers")
    model.save_model_to_file(str(path))
    return ", ".join(f"{count} {name}" for name, count in fused.items() if count)


def quantize_onnx(source, path):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    reduce_range = not has_vnni()
    quantize_dynamic(
        str(source),
        str(path),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=reduce_range,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # shapes are not inferred through fused nodes
    )
    return f"quantize_dynamic, QInt8 per channel, reduce_range={reduce_range}"


def has_vnni():
    """Without VNNI, u8 × s8 products saturate at 16 bits, and 7-bit weights are ONNX Runtime's own advice."""
    return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def export_openvino(bundle, out, cut):
    import openvino

    source = out / ("cut.onnx" if cut else "plain.onnx")
    if cut:
        export_onnx(bundle, source, cut)
    openvino.save_model(openvino.convert_model(str(source)), str(out / "openvino.xml"), compress_to_fp16=False)
    return "openvino.convert_model of the ONNX graph" + (", its last layer cut" if cut else "")


def quantize_openvino(source, path, documents):
    import nncf
    import openvino

    samples = [work.pad([document], [0], pad_id=0) for document in documents]
    quantized = nncf.quantize(
        openvino.Core().read_model(str(source)),
        nncf.Dataset([(sample.ids, sample.mask) for sample in samples]),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(samples),
    )
    openvino.save_model(quantized, str(path), compress_to_fp16=False)
    return f"nncf.quantize, ModelType.TRANSFORMER (smooth quant, fast bias correction), {len(samples)} documents"


def export_ctranslate2(bundle, path):
    """By CTranslate2's own loader of BertModel. Pooling and heads are in engines/ctranslate.py."""
    import numpy
    from ctranslate2.converters.transformers import BertLoader
    from tokenizers import Tokenizer

    encoder, _ = load_bert(bundle)
    if not hasattr(encoder.config, "position_embedding_type"):
        encoder.config.position_embedding_type = "absolute"
    loader = BertLoader()
    spec = loader.get_model_spec(encoder)
    vocabulary = Tokenizer.from_file(str(bundle / "tokenizer.json")).get_vocab()
    spec.register_vocabulary(sorted(vocabulary, key=vocabulary.get))
    spec.config.unk_token = "<unk>"
    spec.config.layer_norm_epsilon = encoder.config.layer_norm_eps
    spec.validate()
    spec.optimize(quantization=None)
    path.mkdir(exist_ok=True)
    spec.save(str(path))
    classifier = Classifier(bundle, "plain")
    numpy.savez(path / "heads.npz", weight=classifier.head.weight.detach(), bias=classifier.head.bias.detach())
    return "ctranslate2.converters.transformers.BertLoader, f32; int8 is made when it is loaded"


if __name__ == "__main__":
    main()
