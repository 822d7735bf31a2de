"""The training step of pre-training: what main_moco.py does with every batch, and what is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from datasets.transforms import Series
from moco.builder import Contrast, MoCo
from moco.loader import CompiledViews

if TYPE_CHECKING:
    from utils.precision import Precision


class TrainingStep:
    """Two views of a batch, contrast, backward, update, enqueue: Algorithm 1 of MoCo.

    ``views`` makes the two views of (series, generator); ``precision`` says how to compute. Nothing in a step waits for
    a GPU. Compiled, it may be replayed from CUDA graphs, whose outputs live in memory that the next step writes to: so
    nothing of them is kept, and what a step returns is a copy.
    """

    def __init__(self, moco: MoCo, views: Callable[..., tuple], optimizer: Optimizer, precision: Precision):
        self.moco, self.optimizer, self.precision = moco, optimizer, precision
        self.plain_views, self.is_compiled = views, False
        self.views, self.model = views, moco  # as they are called: maybe compiled, the model maybe one of several ranks

    def __call__(self, series: Series, generator: Generator) -> Tensor:
        """Train on a batch of series; returns loss and top-1, (2,), on the device."""
        self.begin()
        return self.on_views(*self.views(series, generator=generator))

    def begin(self) -> None:
        """Tell CUDA graphs that the outputs of the step before may be written over.

        It comes before the views. Until it was called once, torch takes each call of a compiled function for the
        beginning of a step, and frees the views before the model has read them.
        """
        if self.is_compiled:
            torch.compiler.cudagraph_mark_step_begin()

    def on_views(self, view_q: tuple, view_k: tuple) -> Tensor:
        """The step from the views on."""
        self.moco.update_key_encoder()
        contrast = self.contrast(view_q, view_k)
        self.precision.step(contrast.loss, self.optimizer)
        self.moco.enqueue(contrast.keys)
        return torch.stack((contrast.loss.detach(), contrast.top1))

    def contrast(self, view_q: tuple, view_k: tuple) -> Contrast:
        """Forward."""
        with self.precision.autocast():
            return self.model(view_q, view_k)

    def compile(self, compiler: Callable) -> None:
        """Have views and model compiled by ``compiler`` (torch.compile with its options) when first called."""
        self.views, self.model = CompiledViews(self.plain_views, compiler), compiler(self.moco)
        self.is_compiled = True

    def uncompile(self) -> None:
        """Be as before ``compile``."""
        self.views, self.model, self.is_compiled = self.plain_views, self.moco, False

    def rehearse(self, series: Series, rounds: int = 3) -> None:
        """Compute gradients of a batch and throw them away; weights, buffers and random numbers stay as they were.

        The first round compiles, the second captures CUDA graphs, the third replays them: what can fail, fails here.
        """
        device = series.values.device
        kept = {name: tensor.clone() for name, tensor in self.moco.state_dict().items()}
        self.moco.train()
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                generator = Generator(device)
                for _ in range(rounds):
                    self.begin()
                    view_q, view_k = self.views(series, generator=generator)
                    contrast = self.contrast(view_q, view_k)
                    contrast.loss.backward()
                    self.optimizer.zero_grad(set_to_none=True)
                    del view_q, view_k, contrast  # alive until here, as in a step: a graph is of what is alive
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.moco.load_state_dict(kept)
