"""Two views of each series: what SITS-MoCo learns to be invariant to (Xu et al. 2024, the method section)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Generator, Tensor

from datasets.draws import Source, draw_all, handing_out, plan
from datasets.transforms import ModelInput, Series, model_input, remove, spectral_noise, temporal_shift


class Augmentation(NamedTuple):
    """How strongly the views differ: the published strength, unless told otherwise."""

    noise_probability: float = 0.15
    noise_scale: float = 0.5  # in units of a band's standard deviation
    removal_probability: float = 0.15


PUBLISHED = Augmentation()
STRONGER = Augmentation(noise_probability=0.3, noise_scale=1.0, removal_probability=0.4)  # --aug-plus


def view(series: Series, size: int, method: str, generator: Source, augmentation: Augmentation) -> ModelInput:
    """One random view: temporal shift, spectral noise, removal of observations, to ``size`` observations."""
    series = temporal_shift(series, generator)
    series = spectral_noise(series, generator, augmentation.noise_probability, augmentation.noise_scale)
    series = remove(series, generator, augmentation.removal_probability)
    return model_input(series, size, method, generator)


def two_views(
    series: Series, size: int, method: str, generator: Source, augmentation: Augmentation = PUBLISHED
) -> tuple[ModelInput, ModelInput]:
    """Two views (query, key) of a batch of series, independent of each other."""
    return (
        view(series, size, method, generator, augmentation),
        view(series, size, method, generator, augmentation),
    )


class CompiledViews:
    """``views`` of (series, generator) compiled: the same random numbers, drawn before, and the same views to rounding.

    The gather from a store on the device stays outside: a CUDA graph would copy the whole store with every batch.
    """

    def __init__(self, views: Callable[..., tuple[ModelInput, ModelInput]], compiler: Callable):
        self.views, self.plans = views, {}
        self.compiled = compiler(self.of_numbers)

    def of_numbers(self, series: Series, numbers: list[Tensor]) -> tuple[ModelInput, ModelInput]:
        """What is compiled: it draws nothing itself."""
        return self.views(series, generator=handing_out(numbers))

    def __call__(self, series: Series, generator: Generator) -> tuple[ModelInput, ModelInput]:
        shape, device = series.values.shape, series.values.device
        if shape not in self.plans:
            shadow = Series(*(part.to("meta") for part in series))
            self.plans[shape] = plan(lambda source: self.views(shadow, generator=source))
        return self.compiled(series, draw_all(self.plans[shape], device, generator))
