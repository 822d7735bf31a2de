"""The random numbers of transforms: drawn where they are used, or all of them before.

torch.compile cannot trace a torch.Generator. To compile a transform, ``plan`` finds out once which numbers it draws for
a batch of some shape, ``draw_all`` draws them by the same calls of the generator, and the transform takes them from
``handing_out`` instead of the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Kind = Callable[..., Tensor]  # torch.rand or torch.randn
Source = torch.Generator | Callable[[Kind, Sequence[int], torch.device], Tensor]


def uniform(shape: Sequence[int], device: torch.device, source: Source) -> Tensor:
    """Numbers from [0, 1)."""
    return _draw(torch.rand, shape, device, source)


def normal(shape: Sequence[int], device: torch.device, source: Source) -> Tensor:
    """Numbers from N(0, 1)."""
    return _draw(torch.randn, shape, device, source)


def _draw(kind: Kind, shape: Sequence[int], device: torch.device, source: Source) -> Tensor:
    if callable(source):  # torch 2.4 cannot compile isinstance of a function
        return source(kind, shape, device)
    return kind(shape, device=device, generator=source)


def plan(transform: Callable[[Source], object]) -> list[tuple[Kind, Sequence[int]]]:
    """The draws of a transform, in order; on the meta device nothing is computed."""
    draws = []

    def note(kind: Kind, shape: Sequence[int], device: torch.device) -> Tensor:
        draws.append((kind, shape))
        return kind(shape, device=device)

    transform(note)
    return draws


def draw_all(draws: list[tuple[Kind, Sequence[int]]], device: torch.device, generator: torch.Generator) -> list[Tensor]:
    """The numbers that a transform with this plan draws."""
    return [kind(shape, device=device, generator=generator) for kind, shape in draws]


def handing_out(numbers: list[Tensor]) -> Source:
    """A source of numbers that were drawn before, each used once; they must not be changed in place."""
    waiting = iter(numbers)
    return lambda kind, shape, device: next(waiting)
