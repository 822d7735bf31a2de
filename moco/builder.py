"""Momentum contrast on series: the pretext ``MoCo``.

K. He, H. Fan, Y. Wu, S. Xie and R. Girshick, "Momentum contrast for unsupervised visual representation learning",
CVPR 2020 (v1); X. Chen, H. Fan, R. Girshick and K. He, "Improved baselines with momentum contrastive learning",
2020 (v2, the MLP head). A training step is Algorithm 1 of He et al., in the order of SITS-MoCo (Xu et al. 2024):

    view_q, view_k = moco.views(series, generator)     # two random views of a batch
    moco.before_step()                                 # key encoder <- m * key encoder + (1 - m) * query encoder
    contrast = moco(view_q, view_k)                    # q = f_q(view_q), k = f_k(view_k), both of length 1
                                                       # logits = [q.k | q.queue] / T, cross-entropy against 0
    contrast.loss.backward()                           # no gradient for the keys
    optimizer.step()
    moco.after_step(contrast)                          # the batch's keys replace the oldest of the queue

The methods of ``MoCo`` stand in this order. In training ``forward`` updates the running statistics of batch
normalisation; all other side effects are in ``before_step`` and ``after_step``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from datasets.transforms import ModelInput, Series
from moco.batchnorm import split_batchnorm
from moco.loss import QueueLogSumExp
from utils.runtime.distributed import World, gather, rank_and_size, shared_permutation

if TYPE_CHECKING:
    from utils.precision import Precision


class Contrast(NamedTuple):
    """Queries compared with their keys and with the queue."""

    loss: Tensor  # (), mean cross-entropy of [positive | negative] against 0
    positive: Tensor  # (B, 1) logit of the own key
    hardest: Tensor  # (B, 1) largest logit of a key in the queue
    keys: Tensor  # (B, dim), to be enqueued
    queries: Tensor  # (B, dim), divided by the temperature
    queue: Tensor  # (dim, K), the queue itself

    @property
    def negative(self) -> Tensor:
        """(B, K) logits of the keys that are in the queue now. The loss is computed without them."""
        return self.queries @ self.queue

    @property
    def logits(self) -> Tensor:
        """(B, 1 + K), the own key first, so that the target is 0 in every row."""
        return torch.cat((self.positive, self.negative), dim=1)

    @property
    def figures(self) -> dict[str, Tensor]:
        """What a log reports beside the loss: top1, the fraction of queries whose own key has the largest logit."""
        return {"top1": (self.positive.detach() > self.hardest).float().mean()}


class MoCo(nn.Module):
    """Query encoder, key encoder and queue, trained to find the key of each query.

    Args:
        encoder: a network with ``num_features`` and a ``decoder``, which is replaced by the projection head.
        augment: makes two views, each the model input of the whole batch, of (series, generator).
        dim: width of queries and keys.
        K: number of keys in the queue; not below the global batch.
        m: momentum of the key encoder. T: temperature of the logits.
        mlp: the MLP head of v2.
        bn_splits: batch normalisation over that many sub-batches, with the key batch shuffled (He et al., section 3.3),
            which gives one device what MoCo does on several.
    """

    name = "moco"

    def __init__(
        self,
        encoder: nn.Module,
        augment: Callable[[Series, Generator], tuple[ModelInput, ModelInput]] | None = None,
        *,
        dim: int = 128,
        K: int = 65536,
        m: float = 0.999,
        T: float = 0.07,
        mlp: bool = False,
        bn_splits: int = 1,
    ):
        super().__init__()
        self.augment, self.dim, self.K, self.m, self.T = augment, dim, K, m, T
        self.mlp, self.bn_splits = mlp, bn_splits
        encoder.decoder = projection_head(encoder.num_features, dim, mlp)
        split_batchnorm(encoder, bn_splits)
        self.encoder_q = encoder
        self.encoder_k = copy.deepcopy(encoder).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, K), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @property
    def run_name(self) -> str:
        """The pretext in names of run folders."""
        return f"MoCoV{2 if self.mlp else 1}"

    def identity(self) -> dict:
        """The settings of the pretext, by which a checkpoint is recognised."""
        return {name: getattr(self, name) for name in ("dim", "K", "m", "T", "mlp", "bn_splits")}

    # ---- a training step, in its order

    def views(self, series: Series, generator: Generator) -> tuple[ModelInput, ModelInput]:
        """Two random views of each series, for the query and for the key."""
        return self.augment(series, generator)

    def before_step(self) -> None:
        """Let the key encoder follow the query encoder."""
        self.update_key_encoder()

    @torch.no_grad()
    def update_key_encoder(self) -> None:
        """key <- m * key + (1 - m) * query; parameters only, as published."""
        torch._foreach_lerp_(list(self.encoder_k.parameters()), list(self.encoder_q.parameters()), 1 - self.m)

    def forward(self, view_q: tuple, view_k: tuple) -> Contrast:
        """Contrast the queries of one view of a batch with the keys of the other."""
        return self.contrast(self.encode_queries(view_q), self.encode_keys(view_k))

    def encode_queries(self, view: tuple) -> Tensor:
        """Queries (B, dim) of a view, of length 1."""
        return unit(self.encoder_q(view))

    @torch.no_grad()
    def encode_keys(self, view: tuple) -> Tensor:
        """Keys (B, dim) of a view, of length 1.

        In training, where batch normalisation sees sub-batches or several ranks, the key batch is shuffled over them.
        """
        rank, ranks = rank_and_size()
        if not self.training or self.bn_splits * ranks == 1:
            return unit(self.encoder_k(view))
        view = [None if part is None else gather(part) for part in view]  # of all ranks
        count = len(view[0])
        order = shared_permutation(count, view[0].device)
        own = order.chunk(ranks)[rank]
        shuffled = unit(self.encoder_k(tuple(None if part is None else part[own] for part in view)))
        return gather(shuffled)[order.argsort()].chunk(ranks)[rank]

    def contrast(self, queries: Tensor, keys: Tensor) -> Contrast:
        """Compare queries (B, dim) with their keys (B, dim) and with the queue."""
        queries = queries / self.T
        positive = (queries * keys).sum(1, keepdim=True)  # (B, 1)
        negatives, hardest = QueueLogSumExp.apply(queries, self.queue)
        loss = (torch.logaddexp(positive, negatives) - positive).mean()  # cross-entropy against target 0
        return Contrast(loss, positive, hardest, keys, queries, self.queue)

    def after_step(self, contrast: Contrast) -> None:
        """Put the batch's keys into the queue."""
        self.enqueue(contrast.keys)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys in the queue by these keys (B, dim), of all ranks."""
        keys = gather(keys)
        slots = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % self.K
        self.queue[:, slots] = keys.T.to(self.queue.dtype)
        self.queue_ptr.add_(len(keys)).remainder_(self.K)

    # ---- held-out series

    @torch.no_grad()
    def evaluate(self, views: Iterable[tuple], precision: Precision, world: World) -> dict[str, float]:
        """Loss and top1 of pairs of views of the held-out series; changes nothing."""
        queries, keys = [], []
        for view_q, view_k in views:
            with precision.autocast():
                queries.append(self.encode_queries(view_q))
                keys.append(self.encode_keys(view_k))
        queries, keys = (world.all_gather(torch.cat(part)) for part in (queries, keys))
        return dict(zip(("loss", "top1"), held_out_contrast(queries, keys, self.T), strict=True))


def projection_head(num_features: int, dim: int, mlp: bool) -> nn.Module:
    """What replaces the decoder: Linear (v1), or Linear, ReLU, Linear (v2)."""
    if not mlp:
        return nn.Linear(num_features, dim)
    return nn.Sequential(nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, dim))


def unit(projected: Tensor) -> Tensor:
    """Scale rows (B, dim) to length 1, in float32 also under autocast: the queue keeps them for many steps."""
    return F.normalize(projected.float(), dim=1)


@torch.no_grad()
def held_out_contrast(
    queries: Tensor, keys: Tensor, temperature: float, group: int = 4096, chunk: int = 512
) -> tuple[float, float]:
    """Loss and top-1 of finding each query's key among the keys of its group; queries and keys (N, dim) in one order.

    The queue is not used: its first keys are random numbers and its later ones come from other weights in training
    mode, so a loss against it depends more on the age of the queue than on the encoder. With keys of the held-out
    series, losses of different epochs are comparable. Groups of one size make them comparable between data of
    different sizes, and the cost grows with N, not with its square.
    """
    loss, hits = 0.0, 0
    for q, k in zip(queries.float().split(group), keys.float().split(group), strict=True):
        for rows in torch.arange(len(k), device=k.device).split(chunk):
            logits = q[rows] @ k.T / temperature  # (chunk, group)
            loss += F.cross_entropy(logits, rows, reduction="sum").item()
            hits += (logits.argmax(1) == rows).sum().item()
    return loss / len(keys), hits / len(keys)
