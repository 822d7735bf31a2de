"""A run of main_tscls.py: what it computes, and its training."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets.catalog import Splits
from datasets.classmap import ClassMap
from datasets.store import SeriesSet
from models import ESTIMATORS
from tscls import calibration
from tscls.classifier import fresh_classifier
from tscls.pretrained import notes, start_from
from tscls.recipe import Recipe
from tscls.resume import ADVICE
from tscls.training import fit, fit_estimator
from utils.options import AUTO
from utils.precision import Precision
from utils.results.folders import Place
from utils.results.logs import RunLog
from utils.results.resume import find_saved, hint
from utils.runtime import watchdog
from utils.runtime.distributed import World
from utils.runtime.seeding import seed_everything
from utils.runtime.signals import Requests


class Run(NamedTuple):
    """A run that the command line asks for: of one model and seed, on these series.

    ``identity`` is what decides what it computes, ``sets`` are the series to test on by year, ``name_of(suffix)`` is
    its folder, and ``place`` says what it may do there: the options of ``claim``.
    """

    identity: dict
    recipe: Recipe
    classmap: ClassMap
    splits: Splits
    sets: dict[int, SeriesSet]
    name_of: Callable[[str | None], Path]
    place: dict


def train(
    run: Run,
    place: Place,
    world: World,
    requests: Requests,
    *,
    recorded: dict,
    pretrained: str | None,
    use_doy: bool,
    amp: str | None,
    **options,
) -> tuple[RunLog | None, float]:
    """Train the model of a run and save it in its folder, or resume that.

    ``recorded`` is what args.json says of the command line. The checkpoint ``pretrained``, ``use_doy`` and ``amp`` are
    as given there, the other ``options`` those of ``fit``.

    Returns the RunLog, or None on ranks other than 0, and the seconds that it took, in all processes together.
    """
    start, recipe, same = time.monotonic(), run.recipe, run.identity
    name, seed, method = (same[key] for key in ("model", "seed", "length_method"))
    saved, note = find_saved(run.place["resume"], place.folder, ADVICE)
    watchdog.set_hint(partial(hint, place.folder, saved and saved.path))

    def open_log(resume_epoch: int | None) -> RunLog | None:
        if not world.is_main:
            return None
        if note:
            print(note, flush=True)
        place.enter(saved)
        own = {key: same[key] for key in ("model", "seed", "length_method", "until_doy")}
        own |= {"recipe_used": vars(recipe), "identity": same}
        return RunLog(place.folder, recorded | own, resume_epoch=resume_epoch)

    temperature = float(saved.content.get("temperature", 1)) if saved else 1.0

    def learn(splits: Splits, folder: Path, fold: int = 0) -> RunLog | None:
        """Train on these series, for the run itself or for a fold of its calibration, and save in a folder."""
        seed_everything(seed)
        model = {"sequencelength": same["sequencelength"], "use_doy": use_doy, "init": recipe.init}
        classifier = fresh_classifier(name, run.classmap, method, draws=recipe.draws, seed=seed, **model)
        classifier.until, classifier.temperature = same["until_doy"], 1.0 if fold else temperature
        state, logs = saved, open_log
        if fold:
            state, _ = find_saved(run.place["resume"] and AUTO, folder, ADVICE)
            logs = partial(calibration.open_log, folder, {"model": name, "fold": fold}, world)
        if name in ESTIMATORS:
            return fit_estimator(classifier, splits, recipe, logs)
        if pretrained:
            classes = run.classmap.names if same.get("keeps_decoder") else None
            taken = start_from(classifier.model, pretrained, classes)
            if world.is_main and not fold:
                print(*notes(classifier.model, taken, pretrained), sep="\n")
        flags = {"saved": state, "requests": requests, "is_frozen": same["freeze"], **options}
        flags["identity"] = {**same, "fold": fold} if fold else same
        precision = Precision(amp, world.device, same["clip_grad"])
        return fit(classifier, splits, recipe, folder, logs, precision, world, **flags)

    if same["calibrate"] and not saved:
        predicted = {"world": world, "precision": Precision(amp, world.device)}
        temperature = calibration.held_out_temperature(learn, run.splits, place.folder, seed, **predicted)
    log = learn(run.splits, place.folder)
    calibration.forget(place.folder, world)
    return log, time.monotonic() - start + (saved.content["training"].get("seconds", 0) if saved else 0)
