"""Two random views of each series, between which SITS-MoCo learns to be invariant (Xu et al. 2024, method section)."""

from __future__ import annotations

from typing import NamedTuple

from datasets.draws import Source
from datasets.transforms import ModelInput, Series, model_input, remove, spectral_noise, temporal_shift


class Augmentation(NamedTuple):
    """How strongly the views differ; the defaults are the published strength."""

    noise_probability: float = 0.15
    noise_scale: float = 0.5  # in units of a band's standard deviation
    removal_probability: float = 0.15


PUBLISHED = Augmentation()
STRONGER = Augmentation(noise_probability=0.3, noise_scale=1.0, removal_probability=0.4)  # --aug-plus


def view(
    series: Series, generator: Source, *, size: int, method: str, augmentation: Augmentation = PUBLISHED
) -> ModelInput:
    """One random view: temporal shift, spectral noise, removal of observations, to ``size`` observations."""
    series = temporal_shift(series, generator)
    series = spectral_noise(series, generator, augmentation.noise_probability, augmentation.noise_scale)
    series = remove(series, generator, augmentation.removal_probability)
    return model_input(series, size, method, generator)


def two_views(
    series: Series, generator: Source, *, size: int, method: str, augmentation: Augmentation = PUBLISHED
) -> tuple[ModelInput, ModelInput]:
    """Two views (query, key) of a batch of series, independent of each other."""
    options = {"size": size, "method": method, "augmentation": augmentation}
    return view(series, generator, **options), view(series, generator, **options)
