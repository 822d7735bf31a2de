"""The seam for pretexts: another one is a module and a line in the registry."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pretraining import PRETEXTS
from tests.support import shared_losses
from tests.support.ranks import run_on_two
from tests.support.runs import SMALL, checkpoint, column, pretrain, rows, same, train, weights
from tscls import test as test_command
from utils.runtime.distributed import World


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


RUNS = {
    "simclr": ("P_SimCLRTransformerModel_RC_2019_doy", "F_Si_STNet", "train_top1"),
    "barlow": ("P_BarlowTransformerModel_RC_2019_doy", "F_Ba_STNet", "train_agreement"),
    "bert": ("P_BERTTransformerModel_RC_2019_doy", "F_BE_STNet", "train_restored"),
    "labels": ("P_LabelsTransformerModel_RC_2019_doy", "F_La_STNet", "train_accuracy"),
    "supcon": ("P_SupConTransformerModel_RC_2019_doy", "F_Su_STNet", None),
    "moco+labels": ("P_MoCoV1+LabelsTransformerModel_RC_2019_doy", "F_Mo+La_STNet", "train_labels_accuracy"),
    "moco+bert": ("P_MoCoV1+BERTTransformerModel_RC_2019_doy", "F_Mo+BE_STNet", "train_bert_restored"),
}


@pytest.mark.parametrize("pretext", RUNS)
def test_a_pretext_learns_resumes_exactly_and_is_fine_tuned(data_root, tmp_path, pretext, capsys):
    name, tuned_name, figure = RUNS[pretext]
    flags = ("--pretext", pretext, "--rc", "--use-doy", "-lr", "0.003")
    whole = pretrain(data_root, tmp_path / "whole", *flags, "-e", 6)
    assert whole.name == name
    assert column(whole, "valid_loss")[-1] < column(whole, "valid_loss")[0]
    assert figure is None or column(whole, figure)[-1] > column(whole, figure)[0]
    part = pretrain(data_root, tmp_path / "part", *flags, "-e", 2)
    resumed = pretrain(data_root, tmp_path / "part", *flags, "-e", 6, "--resume", part / "model_last.pth")
    assert rows(resumed) == rows(whole) and same(weights(resumed), weights(whole))
    assert checkpoint(whole)["pretext"] == pretext
    capsys.readouterr()
    tuned = train(data_root, tmp_path / "tuned", "--rc", "--pretrained", whole / "model_best.pth")
    is_classifier = "labels" in pretext  # whose decoder is taken too
    taken = [key for key in weights(tuned, "model_best.pth") if is_classifier or not key.startswith("decoder.")]
    told = capsys.readouterr().out
    assert tuned.name.startswith(tuned_name) and f"took {len(taken)} tensors" in told
    assert ("the decoder's among them" in told) == is_classifier


OPTIONS = {
    "simclr": "--simclr-t", "barlow": "--barlow-weight", "bert": "--bert-noise", "supcon": "--supcon-t",
    "moco+bert": "--sum-weight",
}  # fmt: skip


@pytest.mark.parametrize("pretext", OPTIONS)
def test_other_settings_of_a_pretext_are_not_resumed(data_root, tmp_path, pretext, capsys):
    flags = ("--pretext", pretext, "--rc", "--use-doy")
    path = pretrain(data_root, tmp_path, *flags) / "model_last.pth"
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, *flags, "-e", 2, "--resume", path, OPTIONS[pretext], 0.25)
    assert f"{OPTIONS[pretext]} 0.25 here" in capsys.readouterr().err


@pytest.mark.parametrize("pretext", RUNS)
def test_a_pretext_trains_in_bf16_and_with_padding(data_root, tmp_path, pretext):
    folder = pretrain(data_root, tmp_path, "--pretext", pretext, "--use-doy", "--amp", "bf16", "-e", 2)
    assert all(abs(loss) < 1e4 for loss in column(folder, "train_loss") + column(folder, "valid_loss"))


def test_bert_refuses_a_network_without_features_of_observations(data_root, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, "--pretext", "bert", "--rc", model="tempcnn")
    assert "choose transformer or stnet" in capsys.readouterr().err


@pytest.fixture(scope="module")
def of_two_ranks(data_root, tmp_path_factory):
    """What two processes have left: losses and gradients of each, and a run of every pretext."""
    folder = tmp_path_factory.mktemp("ranks")
    flags = ("--rc", "--use-doy", "--useall", "-e", 2, "--moco-k", 64, *SMALL, "--datapath", data_root, "-l", folder)
    flags = (*flags, "--probe", data_root, "--probe-num", 40)  # which one rank measures, while the other waits
    runs = [("main_moco", ["transformer", "--pretext", name, *flags]) for name in RUNS]
    test = ["--model", folder / RUNS["labels"][0], "--datapath", data_root, "--out", folder / "tested", "-d", "cpu"]
    run_on_two([("tests.support.shared_losses", [folder]), *runs, ("tscls.test", test)], folder)
    return folder


def test_two_ranks_have_the_loss_and_the_gradient_of_one_process(of_two_ranks):
    """The loss is over the batches of both, and the gradient what DDP makes of theirs."""
    for rank in range(2):
        found = torch.load(of_two_ranks / f"{rank}.pth")
        assert found.keys() == shared_losses.PRETEXTS.keys()
        for name, (loss, gradient) in found.items():
            expected = shared_losses.computed(name, World())
            assert loss.item() == pytest.approx(expected[0].item(), rel=1e-5)
            torch.testing.assert_close(gradient, expected[1], rtol=1e-4, atol=1e-6)


def test_pretexts_train_on_two_ranks(of_two_ranks):
    for folder in (of_two_ranks / name for name, _, _ in RUNS.values()):
        assert len(rows(folder)) == 2 and all(loss < 1e4 for loss in column(folder, "valid_loss"))
        assert all(0 < accuracy <= 1 for accuracy in column(folder, "probe_linear"))


def test_two_ranks_test_a_checkpoint_like_one(data_root, of_two_ranks, tmp_path):
    run = of_two_ranks / RUNS["labels"][0]
    test_command.main(["--model", str(run), "--datapath", str(data_root), "--out", str(tmp_path / "out"), "-d", "cpu"])
    (one,), (two,) = rows(tmp_path / "out", "testlog.csv"), rows(of_two_ranks / "tested", "testlog.csv")
    assert float(one.pop("loss")) == pytest.approx(float(two.pop("loss")), rel=1e-5)
    assert one == two
