"""ONNX Runtime, CPU execution provider."""

import onnxruntime


class Engine:
    def __init__(self, mode, bundle, artefacts, threads):
        self.path, self.threads, self.made = artefacts / mode, threads, {}

    def session(self, streams, shape):
        del shape  # its kernels take any shape at the same speed
        if streams not in self.made:
            self.made[streams] = Session(self.path, self.threads // streams)
        return self.made[streams]


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
