"""The seam for pretexts: another one is a module and a line in the registry."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pretraining import PRETEXTS
from tests.support.runs import checkpoint, column, pretrain, rows, same, train, weights


class Agreement(nn.Module):
    """Draws the features of two views of a series together."""

    name, run_name = "agreement", "Agreement"
    before_step = staticmethod(lambda: None)
    after_step = staticmethod(lambda output: None)

    def __init__(self, encoder: nn.Module, augment, options: dict):
        super().__init__()
        self.encoder_q, self.views = encoder, augment

    def identity(self) -> dict:
        return {}

    def forward(self, first: tuple, second: tuple) -> SimpleNamespace:
        difference = (self.encoder_q.features(first) - self.encoder_q.features(second)).square().mean()
        return SimpleNamespace(loss=difference + 0 * self.encoder_q(first).sum(), figures={"twice": 2 * difference})

    @torch.no_grad()
    def evaluate(self, views, precision, world) -> dict:
        losses = [self(*pair).loss.item() for pair in views]
        return {"loss": sum(losses) / len(losses), "twice": 2 * sum(losses) / len(losses)}


@pytest.fixture
def agreement(monkeypatch):
    monkeypatch.setitem(PRETEXTS, "agreement", Agreement)


FLAGS = ("--pretext", "agreement", "--rc", "--use-doy")


def test_a_pretext_of_another_file_pretrains_resumes_and_is_fine_tuned(data_root, tmp_path, agreement, capsys):
    whole = pretrain(data_root, tmp_path / "whole", *FLAGS, "-e", 3)
    assert whole.name == "P_AgreementTransformerModel_RC_2019_doy"
    assert column(whole, "train_twice") == pytest.approx([2 * loss for loss in column(whole, "train_loss")], rel=1e-4)
    assert column(whole, "valid_loss")[-1] < column(whole, "valid_loss")[0]
    part = pretrain(data_root, tmp_path / "part", *FLAGS, "-e", 1)
    resumed = pretrain(data_root, tmp_path / "part", *FLAGS, "-e", 3, "--resume", part / "model_last.pth")
    assert rows(resumed) == rows(whole) and same(weights(resumed), weights(whole))
    saved = checkpoint(whole)
    assert saved["pretext"] == "agreement" and saved["model"]["name"] == "transformer"
    capsys.readouterr()
    tuned = train(data_root, tmp_path / "tuned", "--rc", "--pretrained", whole / "model_best.pth")
    trunk = [name for name in weights(tuned, "model_best.pth") if not name.startswith("decoder.")]
    assert tuned.name.startswith("F_Ag_STNet") and f"took {len(trunk)} tensors" in capsys.readouterr().out


def test_a_checkpoint_of_another_pretext_is_not_resumed(data_root, tmp_path, agreement, capsys):
    path = pretrain(data_root, tmp_path, *FLAGS) / "model_last.pth"
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, "--rc", "--use-doy", "-e", 2, "--resume", path)
    assert "--pretext moco here, agreement in the checkpoint" in capsys.readouterr().err
