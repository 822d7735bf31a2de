"""A classifier at work: from series to log-probabilities or features, without labels and in constant memory.

classifier = load_classifier("results/T_STNet_R3000_RC_2019_Seed111")  # or a file, model_best.pth
for log_probability in classifier.predict(SeriesSet.whole(Store.open("data/mine/2019/unlabelled"))):
    print(log_probability.argmax(1))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets import bands
from datasets.batches import open_series, split_batches
from datasets.classmap import ClassMap
from datasets.inseason import cut
from datasets.store import SeriesSet
from datasets.transforms import LENGTH_METHODS, ModelInput, Series
from models import ESTIMATORS, ModelError, Network, SeriesEstimator, build_estimator, build_model
from tscls.checkpoints import LARGEST, check_normalisation, saved_day, saved_network
from tscls.estimators import load_estimator, save_estimator
from tscls.inputs import Way
from tscls.prior import corrected
from tscls.trust import TEMPERATURES, cooled
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from utils.precision import Precision
from utils.runtime.seeding import make_generator

BATCH = 512  # series that the model sees together, at most
OBSERVATIONS = 1 << 16  # the same, counted in observations: long series make smaller batches
CHUNK = 16 * BATCH  # series sorted by length together, and given back together
LEAST = 1e-6  # probability that a scikit-learn classifier gives a class at least, so that its logarithm is finite
SUFFIXES = (".pth", ".skops")  # of a network's checkpoint, of a scikit-learn classifier's
FILES = tuple(f"model_best{suffix}" for suffix in SUFFIXES)  # in a run folder


class Classifier:
    """A network or a scikit-learn classifier, with all that it takes to use it.

    Attributes:
        model: the network (its device is where it computes) or the trained estimator.
        classmap: names, codes and colours of the classes; None where they are not known.
        way: how series become its input, by ``sequencelength`` (S) and ``length_method``.
        draws: 0 predicts from all observations of a series, in one pass without randomness (``Way.whole``); K averages
            K random draws of S of them, which ``seed`` fixes.
        until: the day that series are cut after (``datasets.inseason``), in training as in use; None: they are whole.
        temperature: that log-probabilities are divided by (``tscls.trust``); 1 leaves them as they are.
        shares: those of the classes in training (C,); None where they are not known.
        there: shares (C,) of the place that is classified, for which predictions are corrected (``tscls.prior``).
    """

    def __init__(
        self,
        model: Network | SeriesEstimator,
        classmap: ClassMap | None,
        sequencelength: int,
        length_method: str,
        *,
        draws: int = 0,
        seed: int = 111,
    ):
        self.model, self.classmap, self.draws, self.seed = model, classmap, draws, seed
        self.way = Way(sequencelength, length_method, model.takes_any_length)
        self.until: int | None = None
        self.temperature = 1.0
        self.shares: np.ndarray | None = None
        self.there: np.ndarray | None = None

    @property
    def is_network(self) -> bool:
        return isinstance(self.model, Network)

    @property
    def name(self) -> str:
        """Of the model, in the registry."""
        return self.model.arguments["name"] if self.is_network else self.model.name

    @property
    def device(self) -> torch.device:
        """Where the model computes; scikit-learn is on the CPU."""
        return next(self.model.parameters()).device if self.is_network else torch.device("cpu")

    @property
    def num_classes(self) -> int:
        """Outputs, "Other" counted."""
        return self.model.arguments["num_classes"] if self.is_network else self.classmap.num_classes

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes; their ids where there is no class map."""
        return self.classmap.names if self.classmap else tuple(map(str, range(self.num_classes)))

    @property
    def num_parameters(self) -> int | None:
        """Weights of a network."""
        return sum(p.numel() for p in self.model.parameters()) if self.is_network else None

    def predict(
        self,
        series: SeriesSet,
        *,
        draws: int | None = None,
        temperature: float | None = None,
        batch_size: int | None = None,
        precision: Precision | None = None,
        rank: int = 0,
    ) -> Iterator[Tensor]:
        """Log-probabilities of the series, in their order: (B, classes) float32 on the CPU, one piece after another.

        ``draws`` and ``temperature`` in place of the classifier's own; ``precision``: the mixed precision of networks
        (default: none); processes that predict parts of one set give their ``rank``, so that their draws differ.
        Without draws equal series have equal predictions; in another batch up to rounding (1e-5 of a logit).

        Raises:
            DataError: a series has no observation up to the day ``until``.
        """
        pieces = self._run(series, self._log_probability, _mean_probability, draws, batch_size, precision, rank)
        temperature = self.temperature if temperature is None else temperature
        return (self._adjusted(piece, temperature) for piece in pieces)

    def embed(
        self,
        series: SeriesSet,
        *,
        draws: int | None = None,
        batch_size: int | None = None,
        precision: Precision | None = None,
        rank: int = 0,
    ) -> Iterator[Tensor]:
        """What a network's decoder is given, (B, features), in pieces as those of ``predict``.

        Raises:
            ModelError: the model is an estimator of scikit-learn, which has no features.
        """
        if not self.is_network:
            raise ModelError(f"{self.name} has no features: only networks do")

        def features(model: Network, inputs: ModelInput) -> Tensor:
            return model.features(inputs)

        return self._run(series, features, lambda drawn: drawn.mean(0), draws, batch_size, precision, rank)

    @torch.no_grad()
    def _run(
        self,
        series: SeriesSet,
        compute: Callable[[Network | SeriesEstimator, ModelInput], Tensor],
        mean: Callable[[Tensor], Tensor],
        draws: int | None,
        batch_size: int | None,
        precision: Precision | None,
        rank: int,
    ) -> Iterator[Tensor]:
        series = cut(series, self.until)
        draws, batch_size = self.draws if draws is None else draws, batch_size or BATCH
        chunk = max(1, CHUNK // batch_size) * batch_size
        precision = precision or Precision("off", self.device)
        model = self.model.eval().for_inference(precision.dtype) if self.is_network else self.model
        reader, lengths = open_series(series, self.device), series.lengths
        generator = make_generator(self.seed, "evaluation", rank, device=self.device)
        for start in range(0, len(series), chunk):
            positions = np.arange(start, min(start + chunk, len(series)))
            batches = split_batches(positions, batch_size) if draws else by_length(positions, lengths, batch_size)
            parts = []
            for batch, gathered in zip(batches, reader.stream(batches), strict=True):
                with precision.autocast():
                    if draws:
                        drawn = (self.way.drawn(gathered, generator) for _ in range(draws))
                        part = mean(torch.stack([compute(model, inputs) for inputs in drawn]))
                    else:
                        part = compute(model, self.way.whole(trim(gathered, int(lengths[batch].max()))))
                parts.append(part.float().cpu())
            yield torch.cat(parts)[np.argsort(np.concatenate(batches))]

    def _adjusted(self, log_probability: Tensor, temperature: float) -> Tensor:
        """At a temperature, and for the class shares of the place."""
        log_probability = cooled(log_probability, temperature)
        return log_probability if self.there is None else self.corrected(log_probability, self.there)

    def corrected(self, log_probability: Tensor, there: np.ndarray) -> Tensor:
        """Predictions (B, classes) for class shares ``there`` (C,), from those without."""
        return torch.from_numpy(corrected(log_probability.double().numpy(), self.shares, there)).float()

    def _log_probability(self, model: Network | SeriesEstimator, inputs: ModelInput) -> Tensor:
        """(B, classes)."""
        if self.is_network:
            return model(inputs).float().log_softmax(-1)
        probability = torch.from_numpy(model.predict_proba(inputs.x.numpy(), self.num_classes)).clamp(min=LEAST)
        return (probability / probability.sum(1, keepdim=True)).log().float()

    def settings(self) -> dict:
        """What ``load_classifier`` needs beside the weights."""
        settings = {
            "model": self.model.arguments if self.is_network else {"name": self.name},
            "sequencelength": self.way.sequencelength,
            "length_method": self.way.method,
            "draws": self.draws,
            "seed": self.seed,
            "normalisation": bands.normalisation(),
        }
        if self.classmap:
            settings["classmap"] = self.classmap.as_dict()
        if self.shares is not None:
            settings["shares"] = self.shares.tolist()
        if self.until is not None:
            settings["until_doy"] = self.until
        if self.temperature != 1:
            settings["temperature"] = self.temperature
        return settings

    def save(self, path: str | Path, **more) -> None:
        """Write a checkpoint that ``load_classifier`` reads; ``more`` goes into that of a network beside it."""
        if self.is_network:
            save_checkpoint(path, {"model_state": self.model.state_dict(), **more, **self.settings()})
        else:
            save_estimator(path, self.model, self.settings())


def _mean_probability(drawn: Tensor) -> Tensor:
    """Logarithm of the mean probability of log-probabilities (draws, B, classes)."""
    return drawn.logsumexp(0) - math.log(len(drawn))


def by_length(positions: np.ndarray, lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Batches of positions, the longest series first: alike in length, and of OBSERVATIONS padded ones at most."""
    order = positions[np.argsort(-lengths[positions], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        size = max(1, min(batch_size, OBSERVATIONS // int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


def trim(series: Series, longest: int) -> Series:
    """Without the padding that no series of the batch needs."""
    return Series(series.values[:, :longest], series.doy[:, :longest], series.length)


def fresh_classifier(
    name: str,
    classmap: ClassMap,
    length_method: str,
    *,
    sequencelength: int = 70,
    use_doy: bool = False,
    init: str = "published",
    draws: int = 0,
    seed: int = 111,
) -> Classifier:
    """An untrained classifier by the name of its model; a network on the CPU, started as ``build_model`` does."""
    if name in ESTIMATORS:
        model = build_estimator(name, seed=seed)
    else:
        model = build_model(
            name, num_classes=classmap.num_classes, sequencelength=sequencelength, use_doy=use_doy, init=init
        )
    return Classifier(model, classmap, sequencelength, length_method, draws=draws, seed=seed)


def load_classifier(
    path: str | Path,
    device: str | torch.device | None = None,
    *,
    model: str | dict | None = None,
    classmap: ClassMap | None = None,
    advice: str = "give a run folder of main_tscls.py, or a checkpoint in one",
) -> Classifier:
    """The classifier of a run folder of main_tscls.py or of a checkpoint file, ours or a published one.

    A pre-training on labels (``--pretext labels``) is one too.

    Published checkpoints hold neither model nor class map. The model is inferred from the tensors (STNet where they
    could be the Transformer's), unless ``model`` names it, or gives the arguments of ``build_model`` as a dict;
    ``classmap`` is None unless given.

    Args:
        device: where a network computes (default: a GPU if there is one).
        advice: what to do where there is no such file.

    Raises:
        CheckpointError: no such file, one that holds other objects, or one that was trained on other input.
    """
    path = find_checkpoint(path)
    is_estimator = path.suffix == ".skops" and path.is_file()
    saved = load_estimator(path) if is_estimator else load_checkpoint(path, advice)
    check_normalisation(saved.get("normalisation"), path)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        classmap = classmap or ("classmap" in saved and ClassMap.from_dict(saved["classmap"])) or None
        built = _estimator(saved, classmap) if is_estimator else saved_network(saved, path, model).to(device)
        size, method = _sequencelength(saved, built), saved.get("length_method", "pad")
        draws, seed = int(saved.get("draws", 0)), int(saved.get("seed", 111))
        temperature, shares = float(saved.get("temperature", 1)), saved.get("shares")
        shares = None if shares is None else np.array(shares, np.float64)
        if not TEMPERATURES[0] <= temperature <= TEMPERATURES[1]:
            raise ValueError(f"temperature {temperature}")
        if method not in LENGTH_METHODS or not 0 <= draws <= LARGEST or not 1 <= size <= LARGEST:
            raise ValueError(f"length_method {method!r}, sequencelength {size}, draws {draws}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError | ModelError):
            raise
        raise CheckpointError(f"{path}: its settings are damaged ({error}); train it again") from None
    loaded = Classifier(built, classmap, size, method, draws=draws, seed=seed)
    loaded.temperature, loaded.shares, loaded.until = temperature, shares, saved_day(saved, path)
    if shares is not None and (shares.shape != (loaded.num_classes,) or not (shares > 0).all()):
        raise CheckpointError(f"{path}: its settings are damaged (class shares); train it again")
    if classmap and classmap.num_classes != loaded.num_classes:
        raise CheckpointError(f"{path}: has {loaded.num_classes} outputs, the class map {classmap.num_classes} classes")
    return loaded


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint of a run folder; the path of a file as it is."""
    path = Path(path)
    if path.is_file() or path.suffix in SUFFIXES:
        return path
    return next((path / name for name in FILES if (path / name).is_file()), path / FILES[0])


def _estimator(saved: dict, classmap: ClassMap) -> SeriesEstimator:
    name = saved["model"]["name"]
    if name not in ESTIMATORS or classmap is None:
        raise ValueError(f"model {name!r}")
    return SeriesEstimator(name, saved["estimator"])


def _sequencelength(saved: dict, model: Network | SeriesEstimator) -> int:
    """The S of the training; earlier checkpoints have it among the model's arguments."""
    if "sequencelength" in saved:
        return int(saved["sequencelength"])
    return int(model.arguments["sequencelength"])
