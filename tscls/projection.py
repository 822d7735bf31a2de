"""Embeddings in a plane, as a picture in the colours of the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from datasets.classmap import ClassMap
from utils.errors import UsageError
from utils.results import figures

METHODS = ("pca", "tsne", "umap")
SAMPLE = 3000  # series in a picture, at most
NEIGHBOURS = 30  # perplexity of t-SNE


class Sample:
    """Features of up to SAMPLE series, evenly spaced among ``total`` that come one piece after another."""

    def __init__(self, total: int):
        self.positions = np.unique(np.linspace(0, total - 1, min(total, SAMPLE), dtype=np.int64))
        self.features: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.seen = 0

    def add(self, labels: np.ndarray | None, features: np.ndarray) -> None:
        """The next series: labels (B,) or None, features (B, F)."""
        chosen = (
            self.positions[(self.positions >= self.seen) & (self.positions < self.seen + len(features))] - self.seen
        )
        self.features.append(features[chosen])
        self.labels.append(np.full(len(chosen), -1) if labels is None else labels[chosen])
        self.seen += len(features)


def check(method: str, path: Path) -> None:
    """UsageError where the picture cannot be made."""
    if not figures.available():
        raise UsageError("--picture needs matplotlib: pip install matplotlib")
    if path.suffix != ".png" or not path.parent.is_dir():
        raise UsageError(f"--picture {path}: expected a name in .png in a folder that exists")
    if method == "umap":
        _umap()


def _umap():
    try:
        import umap
    except ImportError:
        raise UsageError("--projection umap needs umap-learn: pip install umap-learn, or choose pca or tsne") from None
    return umap


def project(features: np.ndarray, method: str) -> np.ndarray:
    """Features (N, F) in a plane, (N, 2), by one of METHODS; the same every time."""
    if method == "umap":
        return _umap().UMAP(random_state=0).fit_transform(features)
    if method == "tsne":
        perplexity = min(NEIGHBOURS, (len(features) - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    return PCA(2, random_state=0).fit_transform(features)


def draw(sample: Sample, method: str, path: Path, classmap: ClassMap | None, title: str) -> None:
    """A point a series, coloured and named by class; gray where there are no labels.

    Raises:
        UsageError: fewer than three series.
    """
    features, labels = np.concatenate(sample.features), np.concatenate(sample.labels)
    if len(features) < 3:
        raise UsageError(f"--picture: {len(features)} series; expected at least 3")
    points = project(features, method)
    figure = figures.new_figure(8, 6)
    axes = figure.subplots()
    for label in np.unique(labels):
        chosen = labels == label
        name, colour = _looks(int(label), classmap)
        axes.scatter(*points[chosen].T, s=8, color=colour, label=f"{name} ({chosen.sum():,})", linewidths=0)
    axes.set(xlabel=f"{method} 1", ylabel=f"{method} 2", title=figures.wrap(title, 90))
    axes.set_aspect("equal", "datalim")
    axes.title.set_fontsize(9)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, markerscale=2)
    figures.save(figure, path)


def _looks(label: int, classmap: ClassMap | None) -> tuple[str, object]:
    if label < 0:
        return "no label", "#888888"
    if classmap is None or label >= classmap.num_classes:
        return f"class {label}", f"C{label % 10}"
    return classmap.names[label], np.array(classmap.colours[label]) / 255
