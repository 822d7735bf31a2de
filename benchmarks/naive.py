"""The straightforward pre-training step that benchmarks/throughput.py compares with.

What one writes first from the papers: every sample augmented by itself in NumPy inside a torch DataLoader, stock
nn.TransformerEncoder, keys and queue side by side in one matrix of logits, a loop over the parameters for the momentum.
It follows the same method, and its losses have the same distribution; only the speed differs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from datasets.bands import DN_SCALE, MEAN, STD
from datasets.store import SeriesSet
from models.layers import DayEncoding, PointwiseMLP


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
    chosen = np.sort(draw.choice(kept, size, replace=len(kept) < size))
    return torch.from_numpy(x[chosen]), torch.zeros(size, dtype=torch.bool), torch.from_numpy(doy[chosen])


class Views(Dataset):
    """Two views of one series after the other."""

    def __init__(self, series: SeriesSet, size: int, seed: int):
        self.series, self.size, self.draw = series, size, np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, row: int):
        bands, doy = self.series.store.series(self.series.rows[row])
        x = ((bands * DN_SCALE - MEAN) / STD).astype(np.float32)
        doy = doy.astype(np.int64)
        return view(x, doy, self.size, self.draw), view(x, doy, self.size, self.draw)


class Encoder(nn.Module):
    """The Transformer of SITS-MoCo from stock parts, with the MLP head of MoCo v2."""

    def __init__(self, dim: int):
        super().__init__()
        self.mlp, self.inlayernorm, self.days = PointwiseMLP(), nn.LayerNorm(128), DayEncoding(128)
        self.dropout = nn.Dropout(0.2)
        layer = nn.TransformerEncoderLayer(128, 16, 128, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(128), enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, dim))

    def forward(self, x: Tensor, mask: Tensor, doy: Tensor) -> Tensor:
        x = self.dropout(self.inlayernorm(self.mlp(x)) + self.days(doy))
        x = self.encoder(x, src_key_padding_mask=mask)
        real = (~mask).unsqueeze(-1)
        return F.normalize(self.head((x * real).sum(1) / real.sum(1)), dim=1)


class NaiveStep:
    """One training step of MoCo v2, written down plainly."""

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


def batches(series: SeriesSet, size: int, batchsize: int, seed: int) -> DataLoader:
    """Shuffled batches of pairs of views, made by this process."""
    return DataLoader(Views(series, size, seed), batchsize, shuffle=True, drop_last=True)
