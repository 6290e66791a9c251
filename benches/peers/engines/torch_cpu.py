"""PyTorch on CPU: eager and compiled, f32, bf16 and dynamic int8."""

import warnings

import torch
from torch import nn

from machine import cpu_flags
from model import Classifier

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


class Engine:
    def __init__(self, mode, bundle, artefacts, threads):
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.threads, self.mode = threads, mode
        self.model = Classifier(bundle, "sdpa").eval()
        if mode.endswith("bf16"):
            if not BF16_FLAGS & cpu_flags():
                raise RuntimeError("this CPU has no bf16 instructions")
            self.model = self.model.bfloat16()
        elif mode == "int8":
            self.model = quantize(self.model)
        self.compiled = {}

    def session(self, streams, shape):
        return Session(self.callable(shape), self.threads // streams)

    def callable(self, shape):
        """Compiled apart for each fixed shape, and once for shapes that differ."""
        if not self.mode.startswith("compile"):
            return self.model
        if shape not in self.compiled:
            import torch._dynamo.config
            import torch._inductor.config

            # Over the limit calls would go on uncompiled, without a word; all compiled share it.
            torch._dynamo.config.recompile_limit = 64
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            torch._inductor.config.freezing = True  # weights packed for the kernels
            torch._inductor.config.compile_threads = 1  # no helper processes beside the measured one
            self.compiled[shape] = torch.compile(self.model, dynamic=shape is None)
        return self.compiled[shape]


class Session:
    def __init__(self, function, threads):
        self.function, self.threads = function, threads

    def enter(self):
        torch.set_num_threads(self.threads)  # OpenMP keeps it for each calling thread

    def run(self, stream, batch):
        del stream
        with torch.inference_mode():
            mask = torch.from_numpy(batch.mask) if batch.padded else None
            return self.function(torch.from_numpy(batch.ids), mask).float().numpy()


def quantize(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torchao, whose int8 needs torch.compile
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        return quantize_dynamic(model, {nn.Linear: per_channel_dynamic_qconfig})
