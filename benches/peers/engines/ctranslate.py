"""CTranslate2's Encoder; pooling and heads, which it has not, by numpy on its output without a copy."""

import ctranslate2
import numpy as np

import work
from engines.by_streams import ByStreams


class Engine(ByStreams):
    def __init__(self, mode, bundle, artefacts, threads):
        path = artefacts / "ctranslate2"
        if mode not in ctranslate2.get_supported_compute_types("cpu"):
            raise RuntimeError(f"CTranslate2 supports no compute_type {mode} on this CPU")
        super().__init__()
        self.path, self.mode, self.threads, self.pooling = path, mode, threads, work.pooling(bundle)
        heads = np.load(path / "heads.npz")
        self.weight, self.bias = heads["weight"].T.copy(), heads["bias"]

    def make_session(self, streams):
        return Session(self, streams)


class Session:
    def __init__(self, engine, streams):
        self.engine = engine
        self.encoder = ctranslate2.Encoder(
            str(engine.path),
            device="cpu",
            compute_type=engine.mode,
            inter_threads=streams,
            intra_threads=engine.threads // streams,
        )

    def enter(self):
        pass

    def run(self, stream, batch):
        del stream
        lengths = batch.mask.sum(1)
        output = self.encoder.forward_batch(
            ctranslate2.StorageView.from_array(batch.ids.astype(np.int32)),
            ctranslate2.StorageView.from_array(lengths.astype(np.int32)),
        )
        state = output.last_hidden_state
        if state.dtype != ctranslate2.DataType.float32:
            state = state.to(ctranslate2.DataType.float32)
        hidden = np.asarray(state)
        if self.engine.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            # A batched product sums the tokens; padding has weight 0.
            pooled = np.matmul(batch.mask[:, None, :].astype(np.float32), hidden)[:, 0, :] / lengths[:, None]
        return (pooled @ self.engine.weight + self.engine.bias).astype(np.float32)
