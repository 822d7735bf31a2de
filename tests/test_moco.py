"""SITS-MoCo: the golden forward, the queue, the heads, split batch normalisation."""

from __future__ import annotations

import torch
from torch import nn

from moco.builder import MoCo
from models import build_model
from tests.conftest import SHARED, needs_shared

SIZE = 20


def view(count: int, seed: int = 0) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, SIZE, 10, generator=generator)
    doy = torch.randint(1, 367, (count, SIZE), generator=generator).sort(1).values
    return x, None, doy, torch.full((count, SIZE), 1 / SIZE)


def encoder(name: str = "transformer", use_doy: bool = True):
    return lambda: build_model(name, sequencelength=SIZE, use_doy=use_doy)


def state_of(module: nn.Module) -> dict:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@needs_shared
def test_golden_forward():
    golden = torch.load(SHARED / "golden" / "moco.pt", weights_only=True)
    options = {name: golden[name] for name in ("dim", "K", "m", "T")}
    moco = MoCo(lambda: build_model("transformer", use_doy=True), mlp=True, **options)
    moco.load_state_dict(golden["state_dict"])
    moco.eval()
    moco.update_key_encoder()
    contrast = moco((*golden["q"], None), (*golden["k"], None))
    torch.testing.assert_close(contrast.logits, golden["logits"], atol=1e-5, rtol=1e-5)
    expected = nn.functional.cross_entropy(golden["logits"], golden["labels"])
    torch.testing.assert_close(contrast.loss, expected, atol=1e-5, rtol=1e-5)
    moco.enqueue(contrast.keys)
    state = moco.state_dict()
    for name, tensor in golden["key_state_after"].items():
        torch.testing.assert_close(state[name], tensor, atol=1e-5, rtol=1e-5)
