"""ONNX Runtime, CPU execution provider."""

import onnxruntime

from engines.by_streams import ByStreams


class Engine(ByStreams):
    def __init__(self, mode, bundle, artefacts, threads):
        super().__init__()
        self.path, self.threads = artefacts / mode, threads

    def make_session(self, streams):
        return Session(self.path, self.threads // streams)


class Session:
    """One ONNX Runtime session: with one thread in its pool, each caller computes on its own thread."""

    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self.inner = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def enter(self):
        pass

    def run(self, stream, batch):
        del stream
        return self.inner.run(["logits"], {"input_ids": batch.ids, "attention_mask": batch.mask})[0]
