"""The shipped bundle as a torch module: token ids and mask -> the logits of all tasks, side by side."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel

import work


def load_bert(bundle: Path):
    """The encoder and the tensors of the heads, in f32. Its pooler, which the bundle has not, is left at zero."""
    tensors = {name: value.float() for name, value in load_file(bundle / "model.safetensors").items()}
    encoder = BertModel(BertConfig.from_pretrained(bundle)).float().eval()
    nn.init.zeros_(encoder.pooler.dense.weight)
    nn.init.zeros_(encoder.pooler.dense.bias)
    heads = {name: value for name, value in tensors.items() if name.startswith("heads.")}
    wanted = {name.removeprefix("bert."): value for name, value in tensors.items() if name not in heads}
    missing, unexpected = encoder.load_state_dict(wanted, strict=False)
    wrong = [name for name in missing + unexpected if "position_ids" not in name and "pooler" not in name]
    if wrong:
        raise SystemExit(f"{bundle / 'model.safetensors'}: tensors missing or not known: {wrong}")
    return encoder, heads


class Classifier(nn.Module):
    """BERT, pooling and heads, written so that every peer's graph fusion finds the patterns it looks for.

    transformers' own forward builds its mask in ways that the fusions of ONNX Runtime do not recognise. `attention`:
    "sdpa" is torch's fused attention, "plain" the products and softmax that graph optimisers match. `cut`: the last layer
    has the first token's query alone and what follows from it, if no other is read; no exporter does so by itself.
    """

    def __init__(self, bundle: Path, attention: str, cut=False):
        super().__init__()
        self.pooling = work.pooling(bundle)
        self.cut = cut and self.pooling == "cls"
        self.encoder, heads = load_bert(bundle)
        names = [name for name, _ in work.tasks(bundle)]
        weight = torch.cat([heads[f"heads.{name}.weight"] for name in names])
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(torch.cat([heads[f"heads.{name}.bias"] for name in names]))
        self.attention = {"sdpa": sdpa_attention, "plain": plain_attention}[attention]
        self.attention_heads = self.encoder.config.num_attention_heads

    def forward(self, input_ids, attention_mask=None):
        """`attention_mask` [batch, tokens]: 1 at tokens, 0 at padding; None where nothing is padded."""
        embeddings = self.encoder.embeddings
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        x = embeddings.word_embeddings(input_ids) + embeddings.position_embeddings(positions)
        x = embeddings.LayerNorm(x + embeddings.token_type_embeddings.weight[0])
        bias = None
        if attention_mask is not None:
            bias = (1.0 - attention_mask.unsqueeze(1).unsqueeze(2).to(x.dtype)) * -10000.0
        *others, last = self.encoder.encoder.layer
        for layer in others:
            x = self.layer(layer, x, x, bias)
        x = self.layer(last, x[:, :1] if self.cut else x, x, bias)
        return self.head(x[:, 0] if self.pooling == "cls" else mean(x, attention_mask))

    def layer(self, layer, x, attended, bias):
        """The layer for the states `x`, which attend to `attended`."""
        self_attention, output = layer.attention.self, layer.attention.output
        query, key, value = (
            self.split(project(states))
            for project, states in (
                (self_attention.query, x),
                (self_attention.key, attended),
                (self_attention.value, attended),
            )
        )
        context = self.attention(query, key, value, bias).transpose(1, 2).reshape(x.shape)
        x = output.LayerNorm(output.dense(context) + x)
        inner = functional.gelu(layer.intermediate.dense(x))
        return layer.output.LayerNorm(layer.output.dense(inner) + x)

    def split(self, x):
        batch, tokens, hidden = x.shape
        return x.view(batch, tokens, self.attention_heads, hidden // self.attention_heads).transpose(1, 2)


def mean(x, attention_mask):
    if attention_mask is None:
        return x.mean(1)
    weights = attention_mask.unsqueeze(2).to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1)


def sdpa_attention(query, key, value, bias):
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def plain_attention(query, key, value, bias):
    scores = torch.matmul(query, key.transpose(2, 3)) / query.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias
    return torch.matmul(torch.softmax(scores, dim=-1), value)
