"""The engines that a Python process calls. Tasnif, and its reference in candle, run by their own command line: ../tasnif.py.

An engine is made once for a precision and a number of threads. It gives sessions: `session(streams, shape)` is what
runs `streams` batches at once with `threads / streams` threads each; `shape` is the [batch, tokens] of every batch, or
None where they differ. A session has `enter()`, called first by each thread that will use it, and
`run(stream, batch) -> logits` [batch, labels], f32.
"""

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Variant:
    name: str  # of the row in tables
    precision: str  # f32, bf16 or int8
    module: str  # engines.<module>.Engine
    mode: str  # what Engine makes of it
    needs: str | None = None  # the artefact of export.py
    settings: str = ""  # in words, for the report

    @property
    def key(self):
        return f"{self.name} {self.precision}"


VARIANTS = [
    Variant("ONNX Runtime", "f32", "onnx_runtime", "fused.onnx", "onnx-fused", "fused graph, ORT_ENABLE_ALL"),
    Variant("ONNX Runtime", "int8", "onnx_runtime", "int8.onnx", "onnx-int8", "fused graph, dynamic int8 per channel"),
    Variant("OpenVINO", "f32", "open_vino", "f32", "openvino", "INFERENCE_PRECISION_HINT f32"),
    Variant("OpenVINO", "bf16", "open_vino", "bf16", "openvino", "INFERENCE_PRECISION_HINT bf16"),
    Variant("OpenVINO", "int8", "open_vino", "int8", "openvino-int8", "NNCF static int8, the rest f32"),
    Variant("PyTorch", "f32", "torch_cpu", "eager", None, "eager, scaled_dot_product_attention"),
    Variant("PyTorch compiled", "f32", "torch_cpu", "compile", None, "torch.compile, frozen weights"),
    Variant("PyTorch", "bf16", "torch_cpu", "bf16", None, "eager, bf16 weights and activations"),
    Variant("PyTorch compiled", "bf16", "torch_cpu", "compile-bf16", None, "torch.compile, frozen bf16 weights"),
    Variant("PyTorch", "int8", "torch_cpu", "int8", None, "quantize_dynamic of every Linear, per channel"),
    Variant("CTranslate2", "f32", "ctranslate", "float32", "ctranslate2", "Encoder, compute_type float32"),
    Variant("CTranslate2", "bf16", "ctranslate", "bfloat16", "ctranslate2", "Encoder, compute_type bfloat16"),
    Variant("CTranslate2", "int8", "ctranslate", "int8", "ctranslate2", "Encoder, compute_type int8"),
    Variant("candle BertModel", "f32", "candle_bert", "f32", None, "candle-transformers 0.11.1, a process a stream"),
]


def create(variant, bundle, artefacts, threads):
    return import_module(f"engines.{variant.module}").Engine(variant.mode, bundle, artefacts, threads)
