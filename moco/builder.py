"""Momentum contrast on series: two encoders, a queue of keys, logits.

K. He, H. Fan, Y. Wu, S. Xie and R. Girshick, "Momentum contrast for unsupervised visual representation learning",
CVPR 2020 (v1); X. Chen, H. Fan, R. Girshick and K. He, "Improved baselines with momentum contrastive learning",
2020 (v2, the MLP head). A training step reads as their Algorithm 1:

    moco.update_key_encoder()
    contrast = moco(view_q, view_k)
    contrast.loss.backward()
    optimizer.step()
    moco.enqueue(contrast.keys)

Nothing but the two named methods has side effects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moco.batchnorm import split_batchnorm
from moco.loss import QueueLogSumExp
from utils.runtime.distributed import gather, rank_and_size, shared_permutation


class Contrast(NamedTuple):
    """One comparison of queries with their keys and the queue."""

    loss: Tensor  # (), mean cross-entropy of finding the own key
    positive: Tensor  # (B, 1) logits of the own key
    hardest: Tensor  # (B, 1) the largest logit of a key of the queue
    keys: Tensor  # (B, dim), what to enqueue
    queries: Tensor  # (B, dim), divided by the temperature
    queue: Tensor  # (dim, K), the queue itself

    @property
    def negative(self) -> Tensor:
        """(B, K) logits of the keys in the queue as it is when asked: the loss itself never holds them."""
        return self.queries @ self.queue

    @property
    def logits(self) -> Tensor:
        """(B, 1 + K), the own key first: the target is 0 in every row."""
        return torch.cat((self.positive, self.negative), dim=1)

    @property
    def top1(self) -> Tensor:
        """Share of queries whose own key has the largest logit, ()."""
        return (self.positive.detach() > self.hardest).float().mean()


@torch.no_grad()
def held_out_contrast(
    queries: Tensor, keys: Tensor, temperature: float, group: int = 4096, chunk: int = 512
) -> tuple[float, float]:
    """Loss and top-1 of finding each query's own key among the keys of its group: queries and keys (N, dim) in order.

    The queue is no measure of held-out series: its first keys are random numbers, its later ones were made in training
    mode by other weights, so that a loss against it says more about the queue's age than about the encoder. Keys of
    the held-out series themselves make losses of different epochs comparable. Groups of one size do so for data of
    different sizes too, and the cost grows with N, not with its square.
    """
    loss, hits = 0.0, 0
    for q, k in zip(queries.float().split(group), keys.float().split(group), strict=True):
        for rows in torch.arange(len(k), device=k.device).split(chunk):
            logits = q[rows] @ k.T / temperature  # (chunk, group)
            loss += F.cross_entropy(logits, rows, reduction="sum").item()
            hits += (logits.argmax(1) == rows).sum().item()
    return loss / len(keys), hits / len(keys)


def unit(projected: Tensor) -> Tensor:
    """Rows (B, dim) made of length 1, in float32 also under autocast: the queue keeps them for many steps."""
    return F.normalize(projected.float(), dim=1)


def projection_head(num_features: int, dim: int, mlp: bool) -> nn.Module:
    """What stands in for the decoder: Linear (v1), or Linear, ReLU, Linear (v2)."""
    if not mlp:
        return nn.Linear(num_features, dim)
    return nn.Sequential(nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, dim))


class MoCo(nn.Module):
    """Query and key encoder and the queue.

    Args:
        build_encoder: makes a network with ``num_features`` and a ``decoder`` to be replaced by the projection head.
        dim: width of queries and keys.
        K: keys in the queue; any number not below the (global) batch.
        m: momentum of the key encoder. T: temperature of the logits.
        mlp: the v2 head.
        bn_splits: batch normalisation over that many sub-batches, the key batch shuffled (section 3.3 of MoCo),
            which gives one device what MoCo does with several.
    """

    def __init__(
        self,
        build_encoder: Callable[[], nn.Module],
        dim: int = 128,
        K: int = 65536,
        m: float = 0.999,
        T: float = 0.07,
        mlp: bool = False,
        bn_splits: int = 1,
    ):
        super().__init__()
        self.K, self.m, self.T, self.bn_splits = K, m, T, bn_splits
        self.encoder_q, self.encoder_k = build_encoder(), build_encoder()
        for encoder in (self.encoder_q, self.encoder_k):
            encoder.decoder = projection_head(encoder.num_features, dim, mlp)
            split_batchnorm(encoder, bn_splits)
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.encoder_k.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, K), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, view_q: tuple, view_k: tuple) -> Contrast:
        """Contrast the queries of one view of a batch with the keys of the other."""
        return self.compare(self.encode_queries(view_q), self.encode_keys(view_k))

    def compare(self, queries: Tensor, keys: Tensor) -> Contrast:
        """Contrast queries (B, dim) with their keys (B, dim) and the queue."""
        queries = queries / self.T
        positive = (queries * keys).sum(1, keepdim=True)  # (B, 1)
        others, hardest = QueueLogSumExp.apply(queries, self.queue)
        loss = (torch.logaddexp(positive, others) - positive).mean()  # cross-entropy against target 0
        return Contrast(loss, positive, hardest, keys, queries, self.queue)

    def encode_queries(self, view: tuple) -> Tensor:
        """Queries (B, dim) of a view, of length 1."""
        return unit(self.encoder_q(view))

    @torch.no_grad()
    def encode_keys(self, view: tuple) -> Tensor:
        """Keys (B, dim) of a view; in training from a shuffled batch if its BN statistics are of sub-batches."""
        rank, ranks = rank_and_size()
        if not self.training or self.bn_splits * ranks == 1:
            return unit(self.encoder_k(view))
        view = [None if part is None else gather(part) for part in view]  # of all ranks
        count = len(view[0])
        order = shared_permutation(count, view[0].device)
        mine = order.chunk(ranks)[rank]
        shuffled = unit(self.encoder_k(tuple(None if part is None else part[mine] for part in view)))
        return gather(shuffled)[order.argsort()].chunk(ranks)[rank]

    @torch.no_grad()
    def update_key_encoder(self) -> None:
        """key <- m key + (1 - m) query, parameters only."""
        torch._foreach_lerp_(list(self.encoder_k.parameters()), list(self.encoder_q.parameters()), 1 - self.m)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """The batch's keys, of all ranks, replace the oldest of the queue."""
        keys = gather(keys)
        slots = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % self.K
        self.queue[:, slots] = keys.T.to(self.queue.dtype)
        self.queue_ptr.add_(len(keys)).remainder_(self.K)
