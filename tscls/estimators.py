"""The run of a scikit-learn classifier, with the outside of main_tscls.py's run of a network."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.catalog import Splits
from datasets.classmap import ClassMap
from datasets.store import SeriesSet, join
from models import build_estimator
from tscls.inputs import Inputs, length_method
from tscls.recipe import Recipe
from utils.results.logs import RunLog, run_arguments
from utils.results.naming import training_name
from utils.runtime.distributed import World
from utils.runtime.seeding import make_generator


class EstimatorRun:
    """One scikit-learn classifier, one seed: the same as Run for what needs no gradient."""

    def __init__(self, args: Namespace, name: str, seed: int, recipe: Recipe, classmap: ClassMap, world: World):
        self.args, self.name, self.seed, self.recipe, self.is_main = args, name, seed, recipe, world.is_main
        self.world = World(0, 1, torch.device("cpu"))  # every rank does all of it: there is no other way
        self.num_classes, self.parameters = classmap.num_classes, ""
        self.log, self.last_epoch = None, 0
        self.estimator = build_estimator(name, seed=seed)
        self.method = length_method(args, self.estimator)
        self.folder = Path(args.logdir) / training_name(args, self.estimator.run_name, self.method, seed)

    def values(self, series: SeriesSet) -> np.ndarray:
        """Model input x (N, S, 10) of a whole series set."""
        inputs = Inputs(self.args, self.method, series, self.world)
        generator = make_generator(self.seed, "evaluation")
        parts = [inputs.model_input(part, generator).x for part, _ in inputs.stream(inputs.eval_batches())]
        return torch.cat(parts).numpy()

    def fit(self, splits: Splits) -> float:
        """Train on the train split, or with few labels on train and valid, as networks do; returns the seconds."""
        start = time.monotonic()
        series = splits.train if self.recipe.patience else join((splits.train, splits.valid))
        self.estimator.fit(self.values(series), series.labels)
        if self.is_main:
            self.log = RunLog(self.folder, run_arguments(self.args, self.name, self.seed, self.recipe), again=True)
        return time.monotonic() - start

    def predict(self, series: SeriesSet) -> Tensor:
        """Log-probabilities (N, classes): the predicted class has almost all."""
        labels = torch.from_numpy(self.estimator.predict(self.values(series)))
        share = torch.full((len(labels), self.num_classes), 1e-6).scatter_(1, labels[:, None], 1.0)
        return (share / share.sum(1, keepdim=True)).log()
