"""Weights that int8 can hold, so that serving in int8 adds the error of activations alone."""

import torch

STEPS = 63  # 7 bits: AVX2 adds up products of bytes in words, which hold four of these; costs less accuracy than chance moves


def on_int8_grid(tensors):
    """Rounds the matrices of the layers to 63 steps either way, a scale for each output.

    The scale is the output's largest weight over 63, in f16 as it is shipped, which is what a loader makes of it: rounding
    the result again changes nothing. Embeddings, norms, biases and heads are not multiplied in int8, and stay.
    """
    return {name: rounded(value) if ".layer." in name and value.ndim == 2 else value for name, value in tensors.items()}


def rounded(weights):
    largest = weights.abs().amax(dim=1, keepdim=True).to(torch.float16).to(torch.float32)
    scale = largest / STEPS
    steps = torch.where(scale > 0, weights / scale, 0.0).round().clamp(-STEPS, STEPS)
    return steps * scale
