"""Two random views of each series, between which SITS-MoCo learns to be invariant (Xu et al. 2024, method section)."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from datasets.draws import Source
from datasets.transforms import (
    SHIFT_PROBABILITY,
    ModelInput,
    Series,
    model_input,
    remove,
    spectral_noise,
    temporal_shift,
)
from utils import options


class Augmentation(NamedTuple):
    """How strongly the views differ; the defaults are the published strength."""

    noise_probability: float = 0.15
    noise_scale: float = 0.5  # in units of a band's standard deviation
    removal_probability: float = 0.15
    shift_probability: float = SHIFT_PROBABILITY


PUBLISHED = Augmentation()
STRONGER = Augmentation(noise_probability=0.3, noise_scale=1.0, removal_probability=0.4)  # --aug-plus
STEPS = {"shift": "temporal shift", "noise": "spectral noise", "removal": "removal of observations"}


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """The options of the views: a stronger preset, the strength of each step, and each step left out."""
    add = parser.add_argument
    add("--aug-plus", action="store_true", help="views that differ more: twice the noise, removal of 40 %%")
    for name, what in STEPS.items():
        published = getattr(PUBLISHED, f"{name}_probability")
        either = parser.add_mutually_exclusive_group().add_argument
        either(f"--no-{name}", action="store_true", help=f"views without {what}")
        either(
            f"--{name}-probability", type=options.fraction, metavar="P",
            help=f"probability of {what} in a view (published: {published})",
        )  # fmt: skip
    add(
        "--noise-scale", type=options.positive, metavar="SD",
        help=f"size of the noise in standard deviations of a band (published: {PUBLISHED.noise_scale})",
    )  # fmt: skip


def augmentation_of(settings: dict, default: Augmentation = PUBLISHED) -> Augmentation:
    """What the options of ``add_view_options`` say, by name; ``default`` where they say nothing."""
    chosen = STRONGER if settings["aug_plus"] else default
    chosen = chosen._replace(**{name: settings[name] for name in chosen._fields if settings[name] is not None})
    return chosen._replace(**{f"{name}_probability": 0.0 for name in STEPS if settings[f"no_{name}"]})


def view(
    series: Series, generator: Source, *, size: int, method: str, augmentation: Augmentation = PUBLISHED
) -> ModelInput:
    """One random view: temporal shift, spectral noise, removal of observations, to ``size`` observations."""
    series = temporal_shift(series, generator, augmentation.shift_probability)
    series = spectral_noise(series, generator, augmentation.noise_probability, augmentation.noise_scale)
    series = remove(series, generator, augmentation.removal_probability)
    return model_input(series, size, method, generator)


def two_views(
    series: Series, generator: Source, *, size: int, method: str, augmentation: Augmentation = PUBLISHED
) -> tuple[ModelInput, ModelInput]:
    """Two views (query, key) of a batch of series, independent of each other."""
    options = {"size": size, "method": method, "augmentation": augmentation}
    return view(series, generator, **options), view(series, generator, **options)
