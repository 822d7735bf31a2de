"""The contrastive loss over the queue, computed without holding all its logits."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2048  # keys compared at a time on a CPU, so that their logits stay in the cache


class QueueLogSumExp(torch.autograd.Function):
    """log sum_k exp(q . k) over the keys of a queue, and the largest q . k.

    Its gradient with respect to a query is the mean of the keys, weighted by their softmax. Both sums are accumulated
    chunk by chunk and rescaled when the largest logit grows (Milakov and Gimelshein 2018, arXiv:1805.02867), so one
    pass over the queue, with two matrix products, serves forward and backward.
    """

    @staticmethod
    def forward(ctx, queries: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
        """queries (B, dim), divided by the temperature; queue (dim, K) -> log-sum-exp and largest, each (B, 1)."""
        whole = queries.device.type != "cpu" or torch.compiler.is_compiling()  # then one large product is fastest
        largest = queries.new_full((len(queries), 1), float("-inf"), dtype=torch.float32)
        total, weighted = torch.zeros_like(largest), torch.zeros_like(queries, dtype=torch.float32)
        for keys in queue.split(queue.shape[1] if whole else CHUNK, dim=1):
            logits = (queries @ keys).float()  # (B, chunk)
            higher = torch.maximum(largest, logits.amax(1, keepdim=True))
            weight = logits.sub_(higher).exp_()
            rescale = (largest - higher).exp()
            total = total * rescale + weight.sum(1, keepdim=True)
            weighted = weighted * rescale + weight.to(keys.dtype) @ keys.T
            largest = higher
        ctx.save_for_backward((weighted / total).to(queries.dtype))
        ctx.mark_non_differentiable(largest)
        return largest + total.log(), largest

    @staticmethod
    def backward(ctx, grad: Tensor, _) -> tuple[Tensor, None]:
        (mean_key,) = ctx.saved_tensors
        return grad.to(mean_key.dtype) * mean_key, None
