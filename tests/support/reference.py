"""What the two scripts compute, restated plainly: no code of ours but the networks and datasets/transforms.py.

A run is written out as the paper and the README describe it, several ranks one after another, every rate as a number.
The tests compare what a script leaves in its run folder with what these functions return.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.transforms import Series, model_input, remove, spectral_noise, temporal_shift
from models import build_model

SEED, SIZE, BATCH = 111, 20, 16  # of all runs that are compared
RATE = 1e-3  # the published learning rate
DECAY = 0.01  # not the published 1e-4, see start_of_pretraining
EVALUATION_BATCH = 512


def seed_of(*parts: object) -> int:
    """The 56-bit seed of a place in the run."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7], "big")


def generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


class Data:
    """The series of one or more stores, one after another, read by NumPy alone."""

    def __init__(self, *folders: Path):
        self.series: list[tuple[np.ndarray, np.ndarray]] = []
        labels = []
        for folder in folders:
            bands, doy, offsets = (np.load(folder / f"{name}.npy") for name in ("bands", "doy", "offsets"))
            self.series += [(bands[a:b], doy[a:b]) for a, b in zip(offsets, offsets[1:], strict=False)]
            if (folder / "index.csv").exists():
                labels += pd.read_csv(folder / "index.csv")["label"].tolist()
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.series)

    @property
    def width(self) -> int:
        """The longest series."""
        return max(len(doy) for _, doy in self.series)

    def batch(self, rows: Iterable[int], width: int = 0) -> Series:
        """The series of these numbers, padded to ``width`` or to the longest of them."""
        chosen = [self.series[row] for row in rows]
        width = width or max(len(doy) for _, doy in chosen)
        values, days = torch.zeros(len(chosen), width, 10), torch.zeros(len(chosen), width, dtype=torch.long)
        for i, (bands, doy) in enumerate(chosen):
            values[i, : len(doy)] = torch.from_numpy(bands.astype(np.float32)) * 1e-4
            days[i, : len(doy)] = torch.from_numpy(doy.astype(np.int64))
        return Series(values, days, torch.tensor([len(doy) for _, doy in chosen]))


class Outcome(NamedTuple):
    """What a run leaves: a row an epoch for the log, and the whole state after every epoch."""

    rows: list[dict[str, float]]
    states: list[dict[str, Tensor]]


def state_of(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor.clone() for name, tensor in module.state_dict().items()}


def average_statistics(modules: list[nn.Module]) -> None:
    """Give all ranks the mean of their running statistics."""
    for buffers in zip(*(module.named_buffers() for module in modules), strict=True):
        if "running" in buffers[0][0]:
            mean = torch.stack([buffer for _, buffer in buffers]).mean(0)
            for _, buffer in buffers:
                buffer.copy_(mean)


def average_gradients(modules: list[nn.Module], weights: list[float]) -> None:
    """Give all ranks the weighted sum of their gradients."""
    for parameters in zip(*(module.parameters() for module in modules), strict=True):
        if parameters[0].requires_grad:
            gradient = sum(weight * p.grad for weight, p in zip(weights, parameters, strict=True))
            for p in parameters:
                p.grad = gradient.clone()


def cut(order: np.ndarray, size: int, smallest: int) -> list[np.ndarray]:
    """Batches of ``size``; a last one of fewer than ``smallest`` joins the one before it."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] < smallest:
        starts.pop()
    return np.split(order, starts[1:])


def autocast(is_bf16: bool):
    return torch.autocast("cpu", torch.bfloat16) if is_bf16 else contextlib.nullcontext()


# ---- pre-training


def in_sub_batches(norm: nn.BatchNorm1d, splits: int) -> None:
    """Let a batch normalisation compute the statistics of each sub-batch; running statistics are their mean."""
    plain = norm.forward

    def forward(x: Tensor) -> Tensor:
        if not norm.training:
            return plain(x)
        before = norm.running_mean.clone(), norm.running_var.clone()
        parts, means, variances = [], [], []
        for part in x.chunk(splits):
            mean, var = (statistic.clone() for statistic in before)
            parts.append(F.batch_norm(part, mean, var, norm.weight, norm.bias, True, norm.momentum, norm.eps))
            means.append(mean)
            variances.append(var)
        norm.running_mean.copy_(sum(means) / splits)
        norm.running_var.copy_(sum(variances) / splits)
        norm.num_batches_tracked += 1
        return torch.cat(parts)

    norm.forward = forward


def make_encoder(name: str, dim: int, mlp: bool, splits: int, **options) -> nn.Module:
    """A network with the projection head of MoCo v1 or v2 in place of its decoder."""
    encoder = build_model(name, sequencelength=SIZE, init="torch", **options)
    width = encoder.num_features
    head = nn.Linear(width, dim)
    encoder.decoder = nn.Sequential(nn.Linear(width, width), nn.ReLU(), head) if mlp else head
    if splits > 1:
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm1d):
                in_sub_batches(module, splits)
    return encoder


def start_of_pretraining(name: str = "transformer", *, dim: int = 16, K: int = 50, mlp: bool = True, **options) -> dict:
    """A state to start from, in the form of a published checkpoint; query and key encoder differ.

    A bias in front of batch normalisation and that of attention's keys have no gradient but rounding errors, and Adam
    makes whole steps of these. So all biases start far from 0, where a weight decay of DECAY outweighs the errors.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = {}
        for prefix in ("encoder_q.", "encoder_k."):
            encoder = make_encoder(name, dim, mlp, 1, **options)
            for parameter_name, parameter in encoder.named_parameters():
                if parameter_name.endswith("bias"):
                    parameter.data = (0.05 + 0.1 * torch.rand_like(parameter)) * torch.randn_like(parameter).sign()
            state |= state_of(encoder, prefix)
        state |= {"queue": F.normalize(torch.randn(dim, K), dim=0), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"model_state": state, "epoch": -1, "val_loss_min": float("inf"), "not_improved_count": 0}


def two_views(series: Series, method: str, draw: torch.Generator, strength: tuple[float, float, float]) -> list[tuple]:
    """Query and key view: shift, noise, removal, to length, each with new random numbers."""
    probability, scale, removal = strength
    views = []
    for _ in range(2):
        one = spectral_noise(temporal_shift(series, draw), draw, probability, scale)
        views.append(model_input(remove(one, draw, removal), SIZE, method, draw))
    return views


def take(views: list[tuple], rows: Tensor) -> tuple:
    """Some series of the views of all ranks."""
    return tuple(None if parts[0] is None else torch.cat(parts)[rows] for parts in zip(*views, strict=True))


def moco(
    data: Data,
    start: dict,
    *,
    epochs: int = 2,
    name: str = "transformer",
    use_doy: bool = True,
    method: str = "rc",
    mlp: bool = True,
    batch_size: int = BATCH,
    ranks: int = 1,
    splits: int = 1,
    rate: Callable[[int], float] = lambda step: RATE,
    decay: float = DECAY,
    sgd_momentum: float | None = None,
    m: float = 0.999,
    T: float = 0.07,
    strength: tuple[float, float, float] = (0.15, 0.5, 0.15),
    is_bf16: bool = False,
) -> Outcome:
    """Momentum contrast (He et al. 2020, Algorithm 1), each epoch followed by an evaluation."""
    order = torch.randperm(len(data), generator=generator(SEED, "held-out split")).numpy()
    count = max(len(order) // 10, ranks)
    held_out, train = np.sort(order[:count]), np.sort(order[count:])
    state = start["model_state"]
    queue, place, dim = state["queue"].clone(), 0, len(state["queue"])
    encoders_q, encoders_k = [], []
    for prefix, encoders in (("encoder_q.", encoders_q), ("encoder_k.", encoders_k)):
        for _ in range(ranks):
            encoder = make_encoder(name, dim, mlp, splits, use_doy=use_doy)
            encoder.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
            encoders.append(encoder)
    if sgd_momentum is None:
        optimizers = [torch.optim.Adam(q.parameters(), weight_decay=decay) for q in encoders_q]
    else:
        optimizers = [torch.optim.SGD(q.parameters(), 1.0, sgd_momentum, weight_decay=decay) for q in encoders_q]
    outcome = Outcome([], [])
    for epoch in range(epochs):
        shuffled = train[torch.randperm(len(train), generator=generator(SEED, "order", epoch)).numpy()]
        steps = (len(train) - len(train) % ranks) // batch_size
        losses, hits = [], []
        for module in (*encoders_q, *encoders_k):
            module.train()
        for step in range(steps):
            shards = np.array_split(shuffled[step * batch_size : (step + 1) * batch_size], ranks)
            for q, k in zip(encoders_q, encoders_k, strict=True):
                for own, other in zip(k.parameters(), q.parameters(), strict=True):
                    own.data = m * own.data + (1 - m) * other.data
            queries, views_k, permutations, numbers = [], [], [], []
            for rank, q in enumerate(encoders_q):
                draw = generator(SEED, "augment", epoch, step, rank)
                view_q, view_k = two_views(data.batch(shards[rank], data.width), method, draw, strength)
                torch.manual_seed(seed_of(SEED, "dropout", epoch, step, rank))
                with autocast(is_bf16):
                    queries.append(F.normalize(q(view_q).float(), dim=1))
                views_k.append(view_k)
                is_shuffled = ranks * splits > 1
                permutations.append(torch.randperm(batch_size) if is_shuffled else torch.arange(batch_size))
                numbers.append(torch.get_rng_state())
            keys = torch.empty(batch_size, dim)
            for k, rows, numbers_ in zip(encoders_k, permutations[0].chunk(ranks), numbers, strict=True):
                torch.set_rng_state(numbers_)
                with torch.no_grad(), autocast(is_bf16):
                    keys[rows] = F.normalize(k(take(views_k, rows)).float(), dim=1)
            for query, key in zip(queries, keys.chunk(ranks), strict=True):
                with autocast(is_bf16):
                    logits = torch.cat(((query * key).sum(1, keepdim=True), query @ queue), dim=1).float() / T
                of_rank = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
                of_rank.backward()
                losses.append(of_rank.item())
                hits.append((logits.argmax(1) == 0).double().mean().item())
            average_gradients(encoders_q, [1 / ranks] * ranks)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = rate(epoch * steps + step)
                optimizer.step()
                optimizer.zero_grad()
            for key in keys:
                queue[:, place] = key
                place = (place + 1) % queue.shape[1]
        average_statistics(encoders_q)
        average_statistics(encoders_k)
        loss, top1 = contrast_held_out(data, held_out, encoders_q, encoders_k, batch_size, method, T, strength, is_bf16)
        outcome.rows.append(
            {
                "lr": rate(epoch * steps + steps - 1),
                "train_loss": np.mean(losses),
                "train_top1": np.mean(hits),
                "valid_loss": loss,
                "valid_top1": top1,
            }
        )
        both = state_of(encoders_q[0], "encoder_q.") | state_of(encoders_k[0], "encoder_k.")
        outcome.states.append(both | {"queue": queue.clone(), "queue_ptr": torch.tensor([place])})
    return outcome


@torch.no_grad()
def contrast_held_out(
    data: Data,
    held_out: np.ndarray,
    encoders_q: list[nn.Module],
    encoders_k: list[nn.Module],
    batch_size: int,
    method: str,
    T: float,
    strength: tuple[float, float, float],
    is_bf16: bool,
) -> tuple[float, float]:
    """Loss and top-1 of finding the own key among those of all held-out series, of all ranks."""
    ranks, queries, keys = len(encoders_q), [], []
    for rank, (q, k) in enumerate(zip(encoders_q, encoders_k, strict=True)):
        draw = generator(SEED, "held-out", rank)
        for batch in cut(held_out, batch_size, smallest=ranks):
            series = data.batch(np.array_split(batch, ranks)[rank], data.width)
            view_q, view_k = two_views(series, method, draw, strength)
            with autocast(is_bf16):
                queries.append(F.normalize(q.eval()(view_q).float(), dim=1))
                keys.append(F.normalize(k.eval()(view_k).float(), dim=1))
    logits = torch.cat(queries) @ torch.cat(keys).T / T
    own = torch.arange(len(logits))
    return F.cross_entropy(logits, own).item(), (logits.argmax(1) == own).double().mean().item()


# ---- training a classifier


def tscls(
    train: Data,
    valid: Data | None,
    *,
    epochs: int = 2,
    name: str = "stnet",
    use_doy: bool = False,
    init: str = "published",
    trunk: dict[str, Tensor] | None = None,
    is_frozen: bool = False,
    method: str = "pad",
    is_even: bool = False,
    batch_size: int = BATCH,
    ranks: int = 1,
    rate: Callable[[int], float] = lambda step: RATE,
    decay: float = DECAY,
    is_bf16: bool = False,
) -> Outcome:
    """Supervised training, each epoch followed by a validation if there is something to validate on."""
    networks = []
    for _ in range(ranks):
        torch.manual_seed(SEED)
        networks.append(build_model(name, sequencelength=SIZE, use_doy=use_doy, init=init))
        networks[-1].load_state_dict(trunk or {}, strict=False)
        networks[-1].requires_grad_(not is_frozen).decoder.requires_grad_(True)
    optimizers = [
        torch.optim.Adam([p for p in network.parameters() if p.requires_grad], weight_decay=decay)
        for network in networks
    ]
    outcome = Outcome([], [])
    for epoch in range(epochs):
        order = torch.randperm(len(train), generator=generator(SEED, "order", epoch)).numpy()
        batches = cut(order, batch_size, smallest=2 * ranks)
        if is_even:
            batches = np.array_split(order, len(order) // batch_size)
        losses, hits = [], []
        for step, batch in enumerate(batches):
            shards = np.array_split(batch, ranks)
            for rank, (network, shard) in enumerate(zip(networks, shards, strict=True)):
                draw = generator(SEED, "augment", epoch, step, rank)
                inputs = model_input(temporal_shift(train.batch(shard), draw), SIZE, method, draw)
                torch.manual_seed(seed_of(SEED, "dropout", epoch, step, rank))
                network.train(not is_frozen).decoder.train()
                with autocast(is_bf16):
                    logits = network(inputs)
                each = F.cross_entropy(logits.float(), train.labels[shard], reduction="none")
                each.mean().backward()
                losses += each.tolist()
                hits += (logits.argmax(1) == train.labels[shard]).tolist()
            average_gradients(networks, [len(shard) / len(batch) for shard in shards])
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = rate(epoch * len(batches) + step)
                optimizer.step()
                optimizer.zero_grad()
        average_statistics(networks)
        row = {"lr": rate((epoch + 1) * len(batches) - 1), "train_loss": np.mean(losses), "train_oa": np.mean(hits)}
        if valid is not None:
            loss, scores = scores_of(networks[0], valid, method, ranks, is_bf16)
            row |= {"valid_loss": loss} | {f"valid_{score}": value for score, value in scores.items()}
        outcome.rows.append(row)
        outcome.states.append(state_of(networks[0]))
    return outcome


@torch.no_grad()
def scores_of(
    network: nn.Module, data: Data, method: str, ranks: int = 1, is_bf16: bool = False
) -> tuple[float, dict[str, float]]:
    """Loss and scores of one random choice of observations, which the seed fixes."""
    logits = torch.empty(len(data), 21)
    for rank in range(ranks):
        draw = generator(SEED, "evaluation", rank)
        for batch in cut(np.arange(len(data)), EVALUATION_BATCH, smallest=ranks):
            shard = np.array_split(batch, ranks)[rank]
            inputs = model_input(data.batch(shard), SIZE, method, draw)
            with autocast(is_bf16):
                logits[shard] = network.eval()(inputs).float()
    return F.cross_entropy(logits, data.labels).item(), scores_by_hand(data.labels.numpy(), logits.argmax(1).numpy())


def scores_by_hand(true: np.ndarray, predicted: np.ndarray, classes: int = 21) -> dict[str, float]:
    """OA, kappa, macro and weighted F1 from the confusion matrix."""
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (true, predicted), 1)
    support, count, correct = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    f1 = 2 * correct / np.maximum(support + count, 1)
    oa, chance = correct.sum() / matrix.sum(), (support * count).sum() / matrix.sum() ** 2
    weighted = (f1 * support).sum() / matrix.sum()
    return {"oa": oa, "kappa": (oa - chance) / (1 - chance), "macro_f1": f1.mean(), "weighted_f1": weighted}


# ---- comparing


def assert_same_log(found: list[dict], expected: list[dict[str, float]], tolerance: float = 1e-5) -> None:
    """The rows of a trainlog.csv, whose numbers have six digits, are the reference's."""
    assert [int(row["epoch"]) for row in found] == list(range(len(expected)))
    for row, other in zip(found, expected, strict=True):
        numbers = {name: float(value) for name, value in row.items() if name in other}
        np.testing.assert_allclose(
            [numbers[name] for name in other], list(other.values()), rtol=tolerance, atol=tolerance, err_msg=str(other)
        )


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Every tensor, the constant day table aside, is the reference's.

    Where a gradient is as small as its rounding error, Adam steps by that error: one value in a hundred (or one of a
    small tensor) may be further apart, but by less than a whole step of Adam.
    """
    assert found.keys() == expected.keys()
    for name in found:
        if not name.endswith("position_enc.pe"):
            assert found[name].shape == expected[name].shape, name
            apart = ~torch.isclose(found[name], expected[name], rtol=tolerance, atol=tolerance)
            largest = (found[name] - expected[name]).abs().max()
            allowed = max(1, apart.numel() // 100) if found[name].is_floating_point() else 0
            wrong = f"{name}: {apart.sum()} values differ, by up to {largest}"
            assert apart.sum() <= allowed and largest < max(RATE, tolerance), wrong


def fraction_apart(found: dict, expected: dict, start: dict, of: str | tuple[str, ...]) -> float:
    """How far apart two states are, in terms of how far training has moved the weights of this prefix (2-norms)."""
    names = [name for name in found if name.startswith(of) and name.endswith(("weight", "bias"))]
    distance, movement = (
        torch.cat([(found[name] - other[name]).flatten() for name in names]).norm() for other in (expected, start)
    )
    return (distance / movement).item()
