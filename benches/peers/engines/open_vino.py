"""OpenVINO, CPU plugin: static shapes where all batches have one, a request per stream."""

import openvino


class Engine:
    def __init__(self, mode, bundle, artefacts, threads):
        self.core = openvino.Core()
        self.path = artefacts / ("openvino-int8.xml" if mode == "int8" else "openvino.xml")
        self.precision = "bf16" if mode == "bf16" else "f32"
        if self.precision == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeError("OpenVINO reports no BF16 capability on this CPU")
        self.threads, self.made = threads, {}

    def session(self, streams, shape):
        if (streams, shape) not in self.made:
            self.made[streams, shape] = Session(self, streams, shape)
        return self.made[streams, shape]


class Session:
    def __init__(self, engine, streams, shape):
        model = engine.core.read_model(str(engine.path))
        if shape:
            model.reshape({name: list(shape) for name in ("input_ids", "attention_mask")})
        settings = {
            "INFERENCE_PRECISION_HINT": engine.precision,
            "INFERENCE_NUM_THREADS": engine.threads,
            "NUM_STREAMS": str(streams),
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        }
        compiled = engine.core.compile_model(model, "CPU", settings)
        self.requests = [compiled.create_infer_request() for _ in range(streams)]

    def enter(self):
        pass

    def run(self, stream, batch):
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        return self.requests[stream].infer(inputs, share_inputs=True)[0]
