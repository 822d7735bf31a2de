"""main_moco.py: what a run leaves, and that every flag does what it says."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace

import pytest
import torch

import main_moco
from moco.builder import MoCo
from moco.loader import PUBLISHED, STRONGER, Augmentation
from models import NETWORKS, build_model
from pretraining.progress import EpochBar
from tests.support.runs import checkpoint, column, newest, pretrain, rows, same, train, weights
from utils.errors import UsageError
from utils.schedule import Schedule

STEPS = 3  # of 60 series 54 are trained on, 16 in a step


@pytest.fixture(scope="module")
def plain(data_root, tmp_path_factory):
    """A run of two epochs with nothing special."""
    return pretrain(data_root, tmp_path_factory.mktemp("results"), "-e", 2, "--rc", "--use-doy", "--mlp")


# ---- what a run leaves


def test_the_files_of_a_run(plain):
    assert plain.name == "P_MoCoV2TransformerModel_RC_2019_doy"
    names = {file.name for file in plain.iterdir() if not file.name.startswith("events.out.tfevents.")}
    assert names == {"args.json", "finished", "model_best.pth", "model_last.pth", "model_last.prev.pth", "trainlog.csv"}
    args = json.loads((plain / "args.json").read_text())
    assert (args["model"], args["moco_k"], args["rc"], args["seed"]) == ("transformer", 64, True, 111)


def test_the_log_has_a_row_an_epoch(plain):
    logged = rows(plain)
    assert [row["epoch"] for row in logged] == ["0", "1"]
    assert set(logged[0]) == {"epoch", "lr", "train_loss", "train_top1", "valid_loss", "valid_top1"}
    assert all(0 < float(row["train_loss"]) < math.log(65) * 3 for row in logged)
    for seconds, rate in zip(column(plain, "seconds"), column(plain, "series_per_s"), strict=True):
        assert seconds * rate == pytest.approx(STEPS * 16, rel=0.01)
    assert all(0 <= float(row[name]) <= 1 for row in logged for name in ("train_top1", "valid_top1"))


def test_a_checkpoint_tells_what_it_is(plain):
    saved = checkpoint(plain)
    assert saved["model"]["name"] == "transformer" and saved["model"]["sequencelength"] == 20
    assert saved["model"]["num_classes"] == 21
    assert saved["pretext"] == "moco"
    assert saved["moco"] == {"dim": 128, "K": 64, "m": 0.999, "T": 0.07, "mlp": True, "bn_splits": 1}
    assert saved["length_method"] == "rc" and len(saved["normalisation"]["mean"]) == 10
    assert saved["val_loss_min"] == pytest.approx(min(column(plain, "valid_loss")), rel=1e-5)
    prefixes = {name.split(".")[0] for name in saved["model_state"]}
    assert prefixes == {"encoder_q", "encoder_k", "queue", "queue_ptr"}
    assert checkpoint(plain, "model_last.pth")["epoch"] == 1
    assert weights(plain)["queue_ptr"].item() == 2 * STEPS * 16 % 64


def test_the_best_epoch_is_kept(data_root, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 4.0, 2.0, 2.0, 1.0])
    monkeypatch.setattr(MoCo, "evaluate", lambda *given: {"loss": next(losses), "top1": 0.5})
    folder = pretrain(data_root, tmp_path, "-e", 9, "--patience", 3)
    assert column(folder, "valid_loss") == [3, 2, 4, 2, 2]  # stops after 3 epochs that were not better
    assert checkpoint(folder)["epoch"] == 1 and checkpoint(folder)["val_loss_min"] == 2
    last = checkpoint(folder, "model_last.pth")
    assert (last["epoch"], last["not_improved_count"]) == (4, 3)


# ---- the same again


def test_the_same_seed_gives_the_same_run(data_root, plain, tmp_path):
    again = pretrain(data_root, tmp_path, "-e", 2, "--rc", "--use-doy", "--mlp", "-j", 2)
    assert rows(again) == rows(plain) and same(weights(again), weights(plain))


def test_another_seed_gives_another_run(data_root, plain, tmp_path):
    other = pretrain(data_root, tmp_path, "-e", 2, "--rc", "--use-doy", "--mlp", "--seed", 112)
    assert column(other, "train_loss") != column(plain, "train_loss")


# ---- every flag does what it says


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ((), {}),
        (("--cos",), {"cosine": True}),
        (("--schedule", 1, 2), {"milestones": [1, 2]}),
        (("--warmup-epochs", 1.5), {"warmup_epochs": 1.5}),
        (("--warmup-epochs", 1, "--cos"), {"warmup_epochs": 1, "cosine": True}),
    ],
)
def test_the_learning_rate_follows_its_schedule(data_root, tmp_path, flags, options):
    folder = pretrain(data_root, tmp_path, "-e", 3, "-lr", 0.01, *flags)
    schedule = Schedule(0.01, STEPS, 3, **options)
    expected = [schedule.rate(epoch * STEPS + STEPS - 1) for epoch in range(3)]  # of the last step of each epoch
    assert column(folder, "lr") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"weight_decay": 1e-4, "betas": (0.9, 0.999)}),
        (("--weight-decay", 0.3), {"weight_decay": 0.3}),
        (("--optimizer", "sgd"), {"momentum": 0.9, "weight_decay": 1e-4}),
        (("--optimizer", "sgd", "--momentum", 0.5, "--weight-decay", 0.3), {"momentum": 0.5, "weight_decay": 0.3}),
    ],
)
def test_the_optimizer_is_the_one_asked_for(data_root, tmp_path, flags, expected):
    folder = pretrain(data_root, tmp_path, *flags)
    (group,) = checkpoint(folder, "model_last.pth")["training"]["optimizer"]["param_groups"]
    assert {key: group[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"dim": 128, "m": 0.999, "T": 0.07, "mlp": False}),
        (("--moco-dim", 16, "--moco-m", 0.5, "--moco-t", 0.2, "--mlp"), {"dim": 16, "m": 0.5, "T": 0.2, "mlp": True}),
        (("--moco-k", 50), {"K": 50}),  # no multiple of the batch
    ],
)
def test_the_moco_flags(data_root, tmp_path, flags, expected):
    folder = pretrain(data_root, tmp_path, *flags)
    saved = checkpoint(folder)
    assert {key: saved["moco"][key] for key in expected} == expected
    moco = saved["moco"]
    assert saved["model_state"]["queue"].shape == (moco["dim"], moco["K"])
    assert ("encoder_q.decoder.2.weight" in saved["model_state"]) == moco["mlp"]
    assert folder.name.startswith(f"P_MoCoV{1 + moco['mlp']}TransformerModel_Pad")


def test_nclasses_sizes_the_classifier_that_the_checkpoint_describes(data_root, tmp_path):
    saved = checkpoint(pretrain(data_root, tmp_path, "-c", 5))
    assert build_model(**saved["model"]).decoder[-1].out_features == 6


def test_momentum_of_one_keeps_the_key_encoder_and_of_none_follows_the_queries(data_root, tmp_path):
    fixed = weights(pretrain(data_root, tmp_path / "one", "--moco-m", 1, "-e", 2))
    short = weights(pretrain(data_root, tmp_path / "short", "--moco-m", 1))
    following = weights(pretrain(data_root, tmp_path / "none", "--moco-m", 0))
    query, key = (f"encoder_{letter}.mlp1.0.lin.weight" for letter in "qk")
    assert torch.equal(fixed[key], short[key])  # as they were in the beginning
    assert (short[query] - short[key]).abs().max() > 2e-3  # three steps of Adam, 1e-3 each
    assert 0 < (following[query] - following[key]).abs().max() < 1.5e-3  # one step behind


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"size": 20, "method": "pad", "augmentation": PUBLISHED}),
        (("--rc",), {"method": "rc"}),
        (("--sequencelength", 12), {"size": 12}),
        (("--aug-plus",), {"augmentation": STRONGER}),
        (("--no-shift",), {"augmentation": PUBLISHED._replace(shift_probability=0)}),
        (("--aug-plus", "--no-noise"), {"augmentation": STRONGER._replace(noise_probability=0)}),
        (("--no-removal", "--noise-scale", 0.7), {"augmentation": Augmentation(0.15, 0.7, 0, 0.5)}),
        (
            ("--noise-probability", 0.1, "--removal-probability", 0.2, "--shift-probability", 0.3),
            {"augmentation": Augmentation(0.1, 0.5, 0.2, 0.3)},
        ),
    ],
)
def test_the_views_are_made_as_asked_for(data_root, tmp_path, monkeypatch, flags, expected):
    seen = views_seen(monkeypatch)
    pretrain(data_root, tmp_path, *flags)
    assert len(seen) == STEPS + 1  # and the held-out series
    assert all({key: options[key] for key in expected} == expected for options in seen)


def test_a_step_is_left_out_or_given_a_probability(data_root, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        pretrain(data_root, tmp_path, "--no-noise", "--noise-probability", 0.1)
    assert "not allowed with argument --no-noise" in capsys.readouterr().err


def views_seen(monkeypatch) -> list[dict]:
    """Of every pair of views that will be made: the options, and the seed of its random numbers."""
    seen, views = [], main_moco.two_views

    def spy(series, generator, **options):
        seen.append(options | {"seed": generator.initial_seed()})
        return views(series, generator, **options)

    monkeypatch.setattr(main_moco, "two_views", spy)
    return seen


def test_every_step_has_views_of_its_own_and_held_out_series_always_the_same(data_root, tmp_path, monkeypatch):
    seen = views_seen(monkeypatch)
    pretrain(data_root, tmp_path, "-e", 3)
    seeds = [options["seed"] for options in seen]
    held_out = seeds[STEPS :: STEPS + 1]
    assert len(seeds) == 3 * (STEPS + 1) and len(set(held_out)) == 1
    assert len(set(seeds)) == 3 * STEPS + 1


@pytest.mark.parametrize(
    "flags", [("--bn-splits", 4), ("--use-doy",), ("--rc",), ("--aug-plus",), ("--amp", "bf16"), ("--moco-t", 0.5)]
)
def test_flags_change_the_numbers(data_root, tmp_path, flags):
    usual, other = pretrain(data_root, tmp_path / "usual"), pretrain(data_root, tmp_path / "other", *flags)
    assert column(usual, "train_loss") != column(other, "train_loss")
    assert weights(usual).keys() == weights(other).keys()


def test_bf16_is_close_to_float32(data_root, tmp_path):
    usual, other = pretrain(data_root, tmp_path / "usual"), pretrain(data_root, tmp_path / "other", "--amp", "bf16")
    assert column(other, "train_loss") == pytest.approx(column(usual, "train_loss"), rel=0.05)
    assert weights(other)["queue"].dtype == torch.float32


def test_the_number_of_series(data_root, tmp_path, capsys):
    main_moco.main(f"stnet -n 40 -e 1 --moco-k 64 -b 16 -d cpu --datapath {data_root} -l {tmp_path} -s x".split())
    assert newest(tmp_path).name == "P_MoCoV1STNet_R40_Pad_2019_Seed111_x"
    assert "training on 36, 4 held out" in capsys.readouterr().out


def test_a_batch_larger_than_the_data_is_the_data(data_root, tmp_path):
    folder = pretrain(data_root, tmp_path, "-b", 60)
    assert weights(folder)["queue_ptr"].item() == 54


def test_a_batch_of_one(data_root, tmp_path):
    folder = pretrain(data_root, tmp_path, "-b", 1, "--moco-k", 7)
    assert weights(folder)["queue_ptr"].item() == 54 % 7


def test_print_freq_is_the_number_of_steps_between_logged_losses(data_root, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shown = []
    for frequency in (1, 2):
        folder = pretrain(data_root, tmp_path / str(frequency), "-e", 2, "-p", frequency)
        events = event_accumulator.EventAccumulator(str(folder)).Reload()
        shown.append([event.step for event in events.Scalars("step/loss")])
        assert {"train/loss", "valid/loss", "lr", "train/top1", "step/series_per_s"} <= set(events.Tags()["scalars"])
    assert shown == [[1, 2, 3, 4, 5, 6], [2, 4, 6]]  # counted over the run, not within an epoch


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_held_out_loss_that_is_no_number_ends_the_run(loss):
    run = SimpleNamespace(epoch=4)
    with pytest.raises(UsageError, match=f"the held-out loss became {loss} in epoch 4; lower -lr"):
        main_moco.end_epoch(run, {"loss": 1.0}, {}, {"loss": loss}, None)


def test_the_bar_of_an_epoch_is_told_its_steps_and_series(data_root, tmp_path, monkeypatch):
    """54 series in batches of 16 are 3 steps; every second step of the run is shown."""
    made = []

    class Told(EpochBar):
        def __init__(self, epoch, step, steps, *, is_shown):
            super().__init__(epoch, step, steps, is_shown=is_shown)
            made.append(((epoch, step, steps, is_shown), []))

        def update(self, series):
            super().update(series)
            made[-1][1].append(series)

        def show(self, text):
            assert re.fullmatch(r"loss \d+\.\d{3}, [\d,]+ series/s", text)
            made[-1][1].append("shown")

    monkeypatch.setattr(main_moco, "EpochBar", Told)
    folder = pretrain(data_root, tmp_path, "-e", 2, "-p", 2)
    assert made == [((0, 0, 3, True), [16, 16, "shown", 16]), ((1, 0, 3, True), [16, "shown", 16, 16, "shown"])]
    for seconds, rate in zip(column(folder, "seconds"), column(folder, "series_per_s"), strict=True):
        assert seconds * rate == pytest.approx(48, rel=1e-3)


# ---- every network


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_pretrains_and_is_fine_tuned(data_root, tmp_path, capsys, name):
    folder = pretrain(data_root, tmp_path, "--rc", "--mlp", model=name.upper())
    assert folder.name.startswith("P_MoCoV2")
    capsys.readouterr()
    tuned = train(data_root, tmp_path, "--rc", "--pretrained", folder / "model_best.pth", model=name)
    trunk = [n for n in weights(tuned, "model_best.pth") if not n.startswith("decoder.")]
    assert f"took {len(trunk)} tensors" in capsys.readouterr().out
    assert tuned.name.startswith("F_Mo_") and len(rows(tuned, "testlog.csv")) == 1


def test_few_steps_an_epoch_are_reported(data_root, tmp_path, capsys):
    pretrain(data_root, tmp_path, "-b", 16, model="tempcnn")  # of 54 series
    assert "-b 16: only 3 steps an epoch, from which little is learned" in capsys.readouterr().out
    pretrain(data_root, tmp_path, "-b", 5, "--overwrite", model="tempcnn")
    assert "little is learned" not in capsys.readouterr().out
