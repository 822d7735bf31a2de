"""Mixed precision by default where the hardware computes in it."""

from __future__ import annotations

import pytest
import torch

from utils.precision import has_bf16


@pytest.mark.parametrize(("capability", "expected"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_emulated_bfloat16_does_not_count(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bf16(torch.device("cuda", 0)) is expected
    assert not has_bf16(torch.device("cpu"))
