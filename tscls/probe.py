"""Probes: what frozen features of an encoder tell about classes, without fine-tuning.

    python -m tscls.probe --pretrained results/P_MoCoV2TransformerModel_RC_2019_doy/model_best.pth -n 100

Fits a k-nearest-neighbour classifier and a logistic regression to the features of labelled series of train, and tests
them on another split. Two more figures tell whether the features have collapsed: their standard deviation and their
effective rank. main_moco.py measures the same while it pre-trains (--probe).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from datasets.catalog import Selection, open_labelled
from datasets.inseason import until
from datasets.store import SeriesSet
from models import NETWORKS, Network, build_model
from tscls import inseason
from tscls.checkpoints import saved_day
from tscls.classifier import Classifier
from tscls.inputs import length_method
from tscls.pretrained import notes, start_from
from utils import options
from utils.checkpoint import load_checkpoint
from utils.errors import Parser, UsageError, exit_cleanly
from utils.runtime import distributed

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

NEIGHBOURS = 5
SPLITS = ("valid", "eval")
FIGURES = {"knn": "OA kNN", "linear": "OA linear", "std": "std", "rank": "rank"}


class Probe(NamedTuple):
    """Labelled series by which encoders are probed: fitted to ``train``, tested on ``test``."""

    train: SeriesSet
    test: SeriesSet
    length_method: str

    def __call__(self, network: Network) -> dict[str, float]:
        """Overall accuracy of both classifiers (``knn``, ``linear``), and ``std`` and ``rank`` of the features.

        The network is in evaluation mode afterwards; its weights and torch's random numbers stay as they were.
        """
        size = network.arguments["sequencelength"]
        classifier = Classifier(network, None, size, self.length_method)
        train, test = (torch.cat(list(classifier.embed(part))).numpy() for part in (self.train, self.test))
        return {
            **accuracies(train, self.train.labels, test, self.test.labels),
            **spread(np.concatenate((train, test))),
        }


def open_probe(
    root: str | Path,
    year: int,
    selection: Selection,
    *,
    length_method: str,
    split: str = "valid",
    until_doy: int | None = None,
) -> Probe:
    """The train part of the selected labelled series, and a whole split to test on, up to a day.

    Raises:
        DataError: there are no such series. UsageError: those to fit to are all of one class.
    """
    train = open_labelled(root, year, selection).train
    whole = open_labelled(root, year, selection._replace(use_all=True))
    if len(np.unique(train.labels)) < 2:
        raise UsageError(f"{root}: the {len(train)} series to fit a probe to are of one class; give more")
    return Probe(until(train, until_doy), until(getattr(whole, split), until_doy), length_method)


def accuracies(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Overall accuracy on features ``test`` (M, F) of classifiers fitted to features ``train`` (N, F)."""
    from sklearn.neighbors import KNeighborsClassifier

    nearest = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine")
    models = {"knn": nearest, "linear": logistic_regression()}
    return {name: float(model.fit(train, labels).score(test, truth)) for name, model in models.items()}


def logistic_regression() -> Pipeline:
    """The linear probe: logistic regression of standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def spread(features: np.ndarray) -> dict[str, float]:
    """Measures of collapse of features (N, F): both are near 0 and 1 where all series have the same.

    std: mean standard deviation of the features scaled to length 1, times the root of F (about 1 where they are spread
    evenly; Chen and He 2021, section 4.1). rank: effective rank of the centred features, exp of the entropy of their
    singular values (Roy and Vetterli 2007).
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    singular = np.linalg.svd(features - features.mean(0), compute_uv=False)
    weight = singular / max(singular.sum(), 1e-12)
    entropy = -(weight * np.log(np.maximum(weight, 1e-12))).sum()
    return {"std": float(unit.std(0).mean() * np.sqrt(features.shape[1])), "rank": float(np.exp(entropy))}


class EpochProbe:
    """Probes an encoder after every n-th epoch of its pre-training, on valid. Without a root it does nothing."""

    def __init__(self, root: str | None, year: int, selection: Selection, *, every: int, rc: bool):
        method = "rc" if rc else "pad"
        self.probe = open_probe(root, year, selection, length_method=method) if root else None
        self.every = every

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--probe", metavar="ROOT", help="data root whose labelled series frozen features are probed on")
        add("--probe-every", type=options.at_least(1), default=1, metavar="N", help="epochs between two probes")
        add("--probe-num", type=options.at_least(10), default=300, metavar="N", help="labels that a probe is fitted to")

    def __call__(self, network: Network, epoch: int) -> dict[str, float]:
        """Columns for the log of this epoch, which are printed too."""
        if self.probe is None or (epoch + 1) % self.every:
            return {}
        found = self.probe(network)
        print(f"probe: {', '.join(f'{what} {found[name]:.3f}' for name, what in FIGURES.items())}", flush=True)
        return {f"probe_{name}": value for name, value in found.items()}


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m tscls.probe", description=__doc__, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--pretrained", required=True, metavar="PATH", help="checkpoint whose encoder is probed")
    add("--model", choices=NETWORKS, help="network that takes its weights (default: as the checkpoint says, or stnet)")
    add("--split", choices=SPLITS, default="eval", help="where the probes are tested")
    add("--seeds", type=int, nargs="+", default=[111], help="of the draw of labels, a probe each")
    options.add_data(parser, "data/US-sim", num_help="labelled series to draw; nine tenths of them are fitted to")
    inseason.add_option(parser)
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    return parser.parse_args(argv)


def table(rows: Sequence[dict[str, float]], seeds: Sequence[int]) -> str:
    """A row a seed, and the mean with its standard deviation over seeds."""
    found = pd.DataFrame(rows, index=pd.Index(seeds, name="seed"))[list(FIGURES)].rename(columns=FIGURES)
    text = found.map("{:.3f}".format)
    if len(found) > 1:
        text.loc["mean"] = [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(found.mean(), found.std(), strict=True)]
    return text.to_string()


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    world = distributed.start(args.device)
    content = load_checkpoint(args.pretrained, "give a checkpoint of main_moco.py or main_tscls.py")
    saved = content.get("model") or {}
    day, told = inseason.choose_day(saved_day(content, args.pretrained), args.until_doy, args.pretrained)
    use_doy = args.use_doy or bool(saved.get("use_doy"))
    network = build_model(args.model or saved.get("name", "stnet"), sequencelength=args.sequencelength, use_doy=use_doy)
    taken = start_from(network, args.pretrained)
    print(*notes(network, taken, args.pretrained), *told, sep="\n")
    method = length_method(network.interpolates, rc=args.rc, pretrained=taken.length_method)
    rows = []
    for seed in args.seeds:
        selection = Selection(args.num, args.nclasses, seed, args.useall)
        options = {"length_method": method, "split": args.split, "until_doy": day}
        probe = open_probe(args.datapath, args.year, selection, **options)
        rows.append(probe(network.to(world.device)))
    print(f"fitted to {len(probe.train):,} series, tested on {len(probe.test):,} of {args.split}")
    print(table(rows, args.seeds))


if __name__ == "__main__":
    main()
