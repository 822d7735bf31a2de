"""A straightforward implementation of pre-training and fine-tuning, the baseline of the other benchmarks.

Each sample is made separately in NumPy inside a torch DataLoader; the encoder is a stock nn.TransformerEncoder; keys
and queue form one matrix of logits; a loop over the parameters updates the key encoder. The method is the same, and
the losses have the same distribution; only the speed differs.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import cohen_kappa_score, confusion_matrix, f1_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from datasets.bands import BLUE, DN_SCALE, GREEN, MEAN, NIR, RED, STD, SWIR1, SWIR2
from datasets.catalog import Splits, open_unlabelled
from datasets.store import SeriesSet
from models.layers import DayEncoding, PointwiseMLP, classification_head

# -- samples -----------------------------------------------------------------------------------------------------------


def temporal_shift(x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    if draw.random() >= 0.5:
        return x
    return np.roll(x, int(np.clip(0.3 * draw.standard_normal(), -1, 1) * 6), axis=0)


def spectral_noise(x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    x = x.copy()
    for observation in np.flatnonzero(draw.random(len(x)) < 0.15):
        sign = 1 if draw.random() < 0.5 else -1
        x[observation] += sign * np.abs(draw.normal(0, 0.5, x.shape[1]))
    return x


def view(x: np.ndarray, doy: np.ndarray, size: int, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One view of a standardised series x (T, 10): values (size, 10), mask (size,), doy (size,)."""
    x = spectral_noise(temporal_shift(x, draw), draw)
    kept = np.flatnonzero(draw.random(len(x)) >= 0.15)
    if not len(kept):
        kept = draw.integers(len(x), size=1)
    chosen = choice(kept, size, draw)
    return torch.from_numpy(x[chosen]), torch.zeros(size, dtype=torch.bool), torch.from_numpy(doy[chosen])


def choice(positions: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
    return np.sort(draw.choice(positions, size, replace=len(positions) < size))


def vegetation_weight(x: np.ndarray) -> np.ndarray:
    """Weight (T,) of the observations of a series of reflectance (T, 10)."""
    cloud = x[:, BLUE] + x[:, GREEN] + x[:, RED] > 0.32
    dark = x[:, NIR] + x[:, SWIR1] + x[:, SWIR2] < 0.35
    ndvi = (x[:, NIR] - x[:, RED]) / (x[:, NIR] + x[:, RED] + 1e-8)
    ndvi[cloud | dark] = -1
    weight = np.exp(np.clip(ndvi, -1, 1))
    return weight / weight.sum()


def read(series: SeriesSet, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance (T, 10) and days (T,) of one series."""
    bands, doy = series.store.series(series.rows[row])
    return (bands * DN_SCALE).astype(np.float32), doy.astype(np.int64)


def standardise(x: np.ndarray) -> np.ndarray:
    return ((x - MEAN) / STD).astype(np.float32)


class Views(Dataset):
    """Two views of each series."""

    def __init__(self, series: SeriesSet, size: int, seed: int):
        self.series, self.size, self.draw = series, size, np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, row: int):
        x, doy = read(self.series, row)
        x = standardise(x)
        return view(x, doy, self.size, self.draw), view(x, doy, self.size, self.draw)


class Labelled(Dataset):
    """Model input and label of each series; in training with the temporal shift."""

    def __init__(self, series: SeriesSet, size: int, seed: int, is_trained_on: bool):
        self.series, self.size, self.is_trained_on = series, size, is_trained_on
        self.draw = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, row: int):
        x, doy = read(self.series, row)
        if self.is_trained_on:
            x = temporal_shift(x, self.draw)
        chosen = choice(np.arange(len(x)), self.size, self.draw)
        weight = vegetation_weight(x)[chosen]
        parts = standardise(x[chosen]), np.zeros(self.size, dtype=bool), doy[chosen], weight / weight.sum()
        return tuple(map(torch.from_numpy, parts)), int(self.series.labels[row])


# -- networks ----------------------------------------------------------------------------------------------------------


class Trunk(nn.Module):
    """The Transformer of SITS-MoCo from stock modules."""

    def __init__(self):
        super().__init__()
        self.mlp, self.inlayernorm, self.days = PointwiseMLP(), nn.LayerNorm(128), DayEncoding(128)
        self.dropout = nn.Dropout(0.2)
        layer = nn.TransformerEncoderLayer(128, 16, 128, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(128), enable_nested_tensor=False)

    def encode(self, x: Tensor, mask: Tensor, doy: Tensor) -> Tensor:
        x = self.dropout(self.inlayernorm(self.mlp(x)) + self.days(doy))
        return self.encoder(x, src_key_padding_mask=mask)


class Encoder(Trunk):
    """The trunk with the MLP head of MoCo v2."""

    def __init__(self, dim: int):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, dim))

    def forward(self, x: Tensor, mask: Tensor, doy: Tensor) -> Tensor:
        x, real = self.encode(x, mask, doy), (~mask).unsqueeze(-1)
        return F.normalize(self.head((x * real).sum(1) / real.sum(1)), dim=1)


class STNet(Trunk):
    """The trunk with the classifier, on observations pooled by their vegetation weight."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.decoder = classification_head(128, num_classes)

    def forward(self, x: Tensor, mask: Tensor, doy: Tensor, weight: Tensor) -> Tensor:
        weight = self.dropout(weight)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-8)
        return self.decoder((self.encode(x, mask, doy) * weight.unsqueeze(-1)).sum(1))


# -- what is timed -----------------------------------------------------------------------------------------------------


class NaiveStep:
    """One training step of MoCo v2."""

    def __init__(
        self, queue_length: int, device: torch.device, dim: int = 128, momentum: float = 0.999, T: float = 0.07
    ):
        self.device, self.momentum, self.T, self.pointer = device, momentum, T, 0
        self.encoder_q, self.encoder_k = Encoder(dim).to(device), Encoder(dim).to(device)
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.queue = F.normalize(torch.randn(dim, queue_length, device=device), dim=0)
        self.optimizer = torch.optim.Adam(self.encoder_q.parameters(), 1e-3, weight_decay=1e-4)

    def __call__(self, view_q: list[Tensor], view_k: list[Tensor]) -> Tensor:
        view_q, view_k = ([part.to(self.device) for part in view] for view in (view_q, view_k))
        queries = self.encoder_q(*view_q)
        with torch.no_grad():
            for key, query in zip(self.encoder_k.parameters(), self.encoder_q.parameters(), strict=True):
                key.mul_(self.momentum).add_(query, alpha=1 - self.momentum)
            keys = self.encoder_k(*view_k)
        logits = torch.cat(((queries * keys).sum(1, keepdim=True), queries @ self.queue.clone()), dim=1) / self.T
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        slots = torch.arange(self.pointer, self.pointer + len(keys), device=self.device) % self.queue.shape[1]
        self.queue[:, slots] = keys.T
        self.pointer = int(slots[-1]) + 1
        return loss.detach()


def pretraining(args: Namespace, root: Path, year: int, device: torch.device, dim: int) -> Callable[[], None]:
    """A function that does args.steps training steps, reading data included."""
    views = Views(open_unlabelled(root, year), args.sequencelength, args.seed)
    step = NaiveStep(args.moco_k, device, dim)

    def endless() -> Iterator:
        while True:
            yield from DataLoader(views, args.batchsize, shuffle=True, drop_last=True)

    upcoming = endless()

    def steps() -> None:
        for _ in range(args.steps):
            step(*next(upcoming))

    return steps


def training(splits: Splits, num_classes: int, size: int, batch: int, device: torch.device) -> Callable[[], None]:
    """A function that trains one epoch on the train split and keeps the overall accuracy."""
    model = STNet(num_classes).to(device)
    loader = DataLoader(Labelled(splits.train, size, 0, is_trained_on=True), batch, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4)

    def epoch() -> None:
        model.train()
        losses, hits = [], 0
        for inputs, labels in loader:
            labels = labels.to(device)
            logits = model(*(part.to(device) for part in inputs))
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits += (logits.argmax(1) == labels).sum().item()

    return epoch


def testing(splits: Splits, num_classes: int, size: int, batch: int, device: torch.device) -> Callable[[], None]:
    """A function that predicts the eval split and computes the scores."""
    model = STNet(num_classes).to(device).eval()
    loader = DataLoader(Labelled(splits.eval, size, 0, is_trained_on=False), batch)

    @torch.no_grad()
    def test() -> None:
        truth, predicted = [], []
        for inputs, labels in loader:
            logits = model(*(part.to(device) for part in inputs))
            F.cross_entropy(logits, labels.to(device)).item()
            truth.append(labels.numpy())
            predicted.append(logits.argmax(1).cpu().numpy())
        truth, predicted = np.concatenate(truth), np.concatenate(predicted)
        confusion_matrix(truth, predicted), cohen_kappa_score(truth, predicted)
        f1_score(truth, predicted, average="macro"), f1_score(truth, predicted, average="weighted")

    return test
