"""Starting a trunk from a checkpoint."""

from __future__ import annotations

import pytest
import torch

from datasets import bands
from models import build_model
from tscls.pretrained import start_from
from utils.checkpoint import CheckpointError


def test_a_checkpoint_of_other_input_is_refused(tmp_path):
    source = build_model("stnet")
    content = {"model_state": source.state_dict(), "model": source.arguments}
    torch.save(content | {"normalisation": bands.normalisation() | {"scale": 1.0}}, tmp_path / "other.pth")
    torch.save(content | {"normalisation": bands.normalisation()}, tmp_path / "same.pth")
    with pytest.raises(CheckpointError, match="another scale: 1.0, ours is 0.0001"):
        start_from(build_model("transformer"), tmp_path / "other.pth")
    network = build_model("transformer")
    assert len(start_from(network, tmp_path / "same.pth").names) == 37
    assert torch.equal(network.mlp1[0].lin.weight, source.mlp1[0].lin.weight)


def test_models_of_another_trunk_are_refused(tmp_path):
    source = build_model("lstm")
    torch.save({"model_state": source.state_dict(), "model": source.arguments}, tmp_path / "lstm.pth")
    with pytest.raises(CheckpointError, match="is of lstm; expected a checkpoint of stnet or transformer"):
        start_from(build_model("stnet"), tmp_path / "lstm.pth")
    start_from(build_model("lstm"), tmp_path / "lstm.pth")
