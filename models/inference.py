"""The inference form of the attention networks: the same function of the same weights, twice as fast on a CPU.

What makes it faster: batch normalisation is part of the linear layers. Layers are computed for a few series at a time,
whose intermediate values stay in the cache. Queries, keys and values are computed as (B, 128, S), in which each head is
a contiguous matrix, so nothing is copied. The softmax is left unnormalised until the values are summed, and the sum of
its weights comes out of the same product, from a row of ones beside the values; padding has zeros there, which is all
that masking takes. Each thread computes its own series and waits for no other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Network, PointwiseLayer

OBSERVATIONS = 1 << 11  # computed together, so that their intermediate values fit the cache
WEIGHTS = 1 << 18  # attention weights computed together, likewise
SAFE = 1e-30, 1e30  # sums of exp(score) without overflow or underflow; other series are left to the network itself


class InferenceForm(Network):
    """A Transformer or STNet in evaluation mode, on a CPU, without gradients.

    It is built from the weights of the moment and does not follow later changes of them. ``dtype`` is that of the
    products with weights; attention, residuals and layer normalisation are always computed in float32.
    """

    def __init__(self, network: Network, dtype: torch.dtype):
        super().__init__()
        self.network, self.decoder, self.dtype = network, network.decoder, dtype
        with torch.no_grad():
            self.embedding = [tuple(part.to(dtype) for part in folded(layer)) for layer in network.mlp1]
            self.layers = [Layer(layer, dtype) for layer in network.transformerencoder.layers]
        self.eval()

    def features(self, inputs: tuple) -> Tensor:
        size = power_of_two(OBSERVATIONS // inputs[0].shape[1])
        slices = [slice(start, start + size) for start in range(0, len(inputs[0]), size)]
        parts = [tuple(None if value is None else value[rows] for value in inputs) for rows in slices]
        return torch.cat(in_threads(self.of_slice, parts))

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)
    def of_slice(self, inputs: tuple) -> Tensor:
        """``features`` of a few series."""
        network, (x, mask, _, _) = self.network, inputs
        count, length, _ = x.shape
        h = x.flatten(0, 1).to(self.dtype)
        for weight, bias in self.embedding:
            h = torch.addmm(bias, h, weight).relu_()
        x = network.inlayernorm(h.float()).view(count, length, -1)
        x += network.position_enc(network.days(inputs))
        safe = torch.ones(count, dtype=torch.bool)
        for layer in self.layers:
            x, is_safe = layer(x, mask)
            safe &= is_safe
        features = torch.bmm(network.pooling(inputs)[:, None], network.transformerencoder.norm(x)).squeeze(1)
        if not safe.all():
            features[~safe] = network.features(tuple(None if value is None else value[~safe] for value in inputs))
        return features


class Layer:
    """An encoder layer of ``models.attention``."""

    def __init__(self, layer: nn.TransformerEncoderLayer, dtype: torch.dtype):
        self.layer, self.dtype, attention = layer, dtype, layer.self_attn
        self.heads = attention.num_heads
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        scale = attention.head_dim**-0.5
        ones = F.pad(biases[2].view(self.heads, -1), (0, 1), value=1).flatten()  # a row of ones after those of a head
        value = F.pad(weights[2].unflatten(0, (self.heads, -1)), (0, 0, 0, 1)).flatten(0, 1)
        self.query = (weights[0] * scale).to(dtype), (biases[0] * scale).to(dtype)[:, None]
        self.key = weights[1].to(dtype)  # a bias would add the same number to all scores of a query
        self.value = value.to(dtype), ones.to(dtype)[:, None]
        self.out, self.linear1, self.linear2 = (
            (linear.weight.T.contiguous().to(dtype), linear.bias.to(dtype))
            for linear in (attention.out_proj, layer.linear1, layer.linear2)
        )

    def __call__(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, S, dim), mask (B, S) True at padding or None -> (B, S, dim), and which series are right, (B,) bool."""
        attended, is_safe = self.attend(x.to(self.dtype), mask)
        weight, bias = self.out
        x = x + torch.baddbmm(bias, attended.to(self.dtype).mT, weight.expand(len(x), -1, -1))
        x = self.layer.norm1(x).flatten(0, 1)
        (weight1, bias1), (weight2, bias2) = self.linear1, self.linear2
        x += torch.addmm(bias2, torch.addmm(bias1, x.to(self.dtype), weight1).relu_(), weight2)
        return self.layer.norm2(x).view(len(attended), -1, x.shape[-1]), is_safe

    def attend(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attention of all heads before the output projection, (B, S, dim) -> (B, dim, S); which are right, (B,)."""
        count, length, _ = x.shape
        (query, query_bias), (value, ones) = self.query, self.value
        q = torch.baddbmm(query_bias, query.expand(count, -1, -1), x.mT).float()
        k = torch.bmm(self.key.expand(count, -1, -1), x.mT).float()
        v = torch.baddbmm(ones, value.expand(count, -1, -1), x.mT).float()
        if mask is not None:
            v *= (~mask)[:, None].float()
        q, k, v = (part.view(count * self.heads, -1, length) for part in (q, k, v))
        sums = torch.empty_like(v)
        size = self.heads * power_of_two(WEIGHTS // (self.heads * length * length))
        scores = x.new_empty(min(size, len(q)), length, length, dtype=torch.float32)
        for rows in (slice(start, start + size) for start in range(0, len(q), size)):
            keys = k[rows].mT
            weights = torch.bmm(keys, q[rows], out=scores[: len(keys)]).exp_()  # (n H, S keys, S queries)
            torch.bmm(v[rows], weights, out=sums[rows])
        total = sums[:, -1:]
        is_safe = ((total > SAFE[0]) & (total < SAFE[1])).view(count, -1).all(1)
        return (sums[:, :-1] / total).view(count, -1, length), is_safe


def power_of_two(most: int) -> int:
    """The largest up to ``most``, at least 1: batches split evenly, so that equal series are computed alike."""
    return 1 << max(0, most.bit_length() - 1)


def folded(layer: PointwiseLayer) -> tuple[Tensor, Tensor]:
    """Weight (inputs, outputs) and bias (outputs,) of the layer with its batch normalisation in evaluation mode."""
    norm = layer.bn
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return (layer.lin.weight * scale[:, None]).T.contiguous(), (layer.lin.bias - norm.running_mean) * scale + norm.bias


def in_threads(work: Callable[[tuple], Tensor], parts: list[tuple]) -> list[Tensor]:
    """``work`` of each part, in as many threads as torch uses; each computes alone."""
    threads = torch.get_num_threads()
    if min(threads, len(parts)) == 1:
        return [work(part) for part in parts]
    try:
        with ThreadPoolExecutor(min(threads, len(parts)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)  # what a thread sets is the default of those that start later
