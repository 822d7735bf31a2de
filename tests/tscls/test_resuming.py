"""main_tscls.py: which runs are continued, kept or refused, and what stops one."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import torch

import main_tscls
from datasets.catalog import Selection, open_eval, open_labelled
from datasets.storefiles import write_checksums
from tests.support.layout import store_of, write_root
from tests.support.runs import SMALL, calls_of, checkpoint, column, refused, rows, same, train, weights
from tscls import runs, training
from tscls.recipe import PUBLISHED
from tscls.resume import finished_tests, identity, state_for, told_series
from utils.errors import UsageError
from utils.results import keeper, losses

pytestmark = pytest.mark.usefixtures("no_pictures")
PUBLISHED_FLAGS = ("--rc", "--recipe", "published", "-e", 3)
STEPS = 3  # of 45 series, 16 in a step


@pytest.fixture(scope="module")
def whole(data_root, tmp_path_factory, no_pictures) -> Path:
    return train(data_root, tmp_path_factory.mktemp("whole"), *PUBLISHED_FLAGS)


def signalled(monkeypatch, step: int, number: int) -> None:
    """From now on this process gets a signal in that step."""
    shift, steps = training.temporal_shift, []

    def hear(*given):
        steps.append(1)
        if len(steps) == step:
            signal.raise_signal(number)
        return shift(*given)

    monkeypatch.setattr(training, "temporal_shift", hear)


def is_like(folder: Path, other: Path) -> bool:
    """Whether two runs ended alike, to the bit."""
    states = [checkpoint(one, "model_last.pth") for one in (folder, other)]
    moments = [[part["exp_avg"] for part in one["training"]["optimizer"]["state"].values()] for one in states]
    return (
        all(rows(folder, name) == rows(other, name) for name in ("trainlog.csv", "testlog.csv"))
        and all(same(weights(folder, name), weights(other, name)) for name in ("model_best.pth", "model_last.pth"))
        and all(map(torch.equal, *moments))
    )


# ---- stopped and continued


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 2), (signal.SIGTERM, 3), (signal.SIGTERM, 7)])
def test_a_signal_ends_the_run_after_the_step_and_the_command_told_continues(
    data_root, tmp_path, monkeypatch, capsys, whole, number, step
):
    with monkeypatch.context() as patch:
        signalled(patch, step, number)
        with pytest.raises(SystemExit) as ended:
            train(data_root, tmp_path, *PUBLISHED_FLAGS)
    line = capsys.readouterr().err
    where = f"epoch {(step - 1) // STEPS} after step {(step - 1) % STEPS + 1}"
    assert ended.value.code == 128 + number and line.count("\n") == 1
    assert line.startswith(f"stopped in {where}; continue with: python main_tscls.py stnet -n 50")
    assert not (tmp_path / whole.name / "testlog.csv").exists()
    (folder,) = main_tscls.main(shlex.split(line.split("main_tscls.py ")[1]))
    assert is_like(folder, whole)
    assert f"resuming from {folder / 'model_last.pth'}" in capsys.readouterr().out


def test_a_signal_in_the_last_validation_ends_the_run_before_its_test(data_root, tmp_path, monkeypatch, capsys, whole):
    score, count = training.scores_on, []

    def hear(*given, **more):
        count.append(1)
        if len(count) == 3:
            signal.raise_signal(signal.SIGTERM)
        return score(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(training, "scores_on", hear)
        with pytest.raises(SystemExit, match="143"):
            train(data_root, tmp_path, *PUBLISHED_FLAGS)
    assert capsys.readouterr().err.startswith("stopped after epoch 2; continue with: ")
    assert is_like(train(data_root, tmp_path, *PUBLISHED_FLAGS, "--resume", "auto"), whole)


def test_a_signal_outside_of_training_ends_it_at_once_and_training_is_not_repeated(
    data_root, tmp_path, monkeypatch, capsys, whole
):
    with monkeypatch.context() as patch:
        patch.setattr(main_tscls, "evaluate", lambda *given, **more: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit, match="143"):
            train(data_root, tmp_path, *PUBLISHED_FLAGS)
    assert capsys.readouterr().err.startswith("stopped; continue with: python main_tscls.py stnet")
    shifts = calls_of(training, "temporal_shift", monkeypatch)
    assert is_like(train(data_root, tmp_path, *PUBLISHED_FLAGS, "--resume", "auto"), whole) and not shifts


def test_sigusr1_saves_and_goes_on(data_root, tmp_path, monkeypatch, capsys, whole):
    signalled(monkeypatch, 2, signal.SIGUSR1)
    saved = calls_of(keeper, "save_checkpoint", monkeypatch)
    folder = train(data_root, tmp_path, *PUBLISHED_FLAGS)
    assert f"saved {folder / 'model_last.pth'} in epoch 0 after step 2\n" in capsys.readouterr().out
    assert [content["training"]["is_whole"] for _, content in saved] == [False, True, True, True]
    assert is_like(folder, whole)


def test_the_state_is_saved_as_often_as_asked(data_root, tmp_path, monkeypatch):
    saved = calls_of(keeper, "save_checkpoint", monkeypatch)
    train(data_root, tmp_path, *PUBLISHED_FLAGS, "--save-minutes", 1e-9)
    assert [content["training"]["step"] for _, content in saved] == [1, 2, 3, 3] * 3
    del saved[:]
    train(data_root, tmp_path / "0", *PUBLISHED_FLAGS, "--save-minutes", 0)
    assert [content["training"]["step"] for _, content in saved] == [3, 3, 3]


def test_the_time_of_all_processes_is_reported(data_root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signalled(patch, 4, signal.SIGINT)
        with pytest.raises(SystemExit):
            train(data_root, tmp_path, *PUBLISHED_FLAGS)
    (path,) = tmp_path.glob("*/model_last.pth")
    content = checkpoint(path.parent, path.name)
    assert 0 < content["training"]["seconds"] < 60
    content["training"]["seconds"] = 1000.0
    torch.save(content, path)
    folder = train(data_root, tmp_path, *PUBLISHED_FLAGS, "--resume", "auto")
    assert 1000 < column(folder, "train_seconds", "testlog.csv")[0] < 1060
    assert 1000 < checkpoint(folder, "model_last.pth")["training"]["seconds"] < 1060


def test_a_run_that_stopped_for_want_of_progress_stays_stopped(data_root, tmp_path, monkeypatch):
    flags = ("--rc", "--recipe", "published", "-e", 60, "-lr", 0.3, "--init", "torch")
    folder = train(data_root, tmp_path, *flags)
    (folder / "testlog.csv").unlink()
    before, shifts = rows(folder), calls_of(training, "temporal_shift", monkeypatch)
    train(data_root, tmp_path, *flags, "--resume", "auto")
    assert len(before) < 60 and rows(folder) == before and not shifts and (folder / "testlog.csv").exists()


def test_a_path_continues_that_run_of_a_list_in_its_own_folder(data_root, tmp_path, monkeypatch, capsys):
    flags = ("--rc", "-e", 2, "--seeds", 1, 2)
    expected = train(data_root, tmp_path / "whole", *flags)
    with monkeypatch.context() as patch:
        signalled(patch, 9, signal.SIGTERM)  # of 3 steps an epoch
        with pytest.raises(SystemExit, match="143"):
            train(data_root, tmp_path / "part", *flags)
    path = tmp_path / "part" / expected.name / "model_last.pth"
    assert not (path.parent / "model_best.pth").exists()
    capsys.readouterr()
    folder = train(data_root, tmp_path / "moved", *flags, "--resume", path)
    assert is_like(folder, expected) and f"resuming from {path}" in capsys.readouterr().out
    first = expected.name.replace("Seed2", "Seed1")
    assert is_like(tmp_path / "moved" / first, tmp_path / "whole" / first)


# ---- finished runs


def test_finished_runs_of_a_list_are_kept_and_their_scores_told(data_root, tmp_path, monkeypatch, capsys):
    argv = ["stnet", "svm", "--rc", "-n", 50, "-e", 1, *SMALL, "--datapath", data_root, "-l", tmp_path]
    argv = list(map(str, argv))
    folders = main_tscls.main([*argv, "--seeds", "1", "2"])
    printed = capsys.readouterr().out.splitlines()
    before = {file: file.read_bytes() for folder in folders for file in folder.iterdir()}
    shutil.rmtree(folders[2])
    fitted = calls_of(runs, "fit", monkeypatch)
    again = main_tscls.main([*argv, "--seeds", "1", "2", "3", "--resume", "auto", "-j", "1", "-p", "3"])
    told = capsys.readouterr().out.splitlines()
    assert again[:4] == folders and len(again) == 6 and len(fitted) == 2
    finished = [line for line in told if line.endswith(" (finished before)")]
    assert [line.split(",")[0] for line in finished] == [folders[i].name for i in (0, 1, 3)]
    assert all(line.removesuffix(" (finished before)") in printed for line in finished)
    kept = {file: content for file, content in before.items() if file.parent != folders[2]}
    assert {file: file.read_bytes() for file in kept} == kept
    assert rows(folders[2], "testlog.csv")[0]["oa"] == told_oa(before, folders[2])


def told_oa(files: dict[Path, bytes], folder: Path) -> str:
    header, row = files[folder / "testlog.csv"].decode().splitlines()
    return dict(zip(header.split(","), row.split(","), strict=False))["oa"]


@pytest.mark.parametrize("model", ["stnet", "svm"])
def test_a_further_year_is_only_tested(data_root, tmp_path, monkeypatch, model):
    first = rows(train(data_root, tmp_path, "-e", 1, model=model), "testlog.csv")
    trained, tested = calls_of(main_tscls, "train", monkeypatch), calls_of(main_tscls, "evaluate", monkeypatch)
    folder = train(data_root, tmp_path, "-e", 1, "--years", 2019, 2020, "--resume", "auto", model=model)
    again = rows(folder, "testlog.csv")
    assert again[:1] == first and [row["year"] for row in again] == ["2019", "2020"] and not trained
    assert [list(sets) for _, sets, *_ in tested] == [[2020]] and (folder / "test_conf_mat_2020.npy").exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_a_run_of_an_earlier_version_is_kept_and_can_be_tested(data_root, tmp_path, capsys):
    folder = train(data_root, tmp_path, "-e", 1, model="svm")
    told = json.loads((folder / "args.json").read_text())
    del told["identity"]
    (folder / "args.json").write_text(json.dumps(told))
    (folder / "finished").unlink()
    argv = ["svm", "-n", 50, "-e", 1, *SMALL, "--datapath", data_root, "-l", tmp_path]
    for flags in ((), ("--resume", "auto")):
        line = refused(main_tscls, [*argv, *flags], capsys)
        assert line.startswith(f"{folder}: holds another run: its args.json is damaged or of an earlier version; give")
    train(data_root, tmp_path, "-e", 1, "--eval", "--years", 2020, model="svm")
    assert [row["year"] for row in rows(folder, "testlog.csv")] == ["2019", "2020"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("-lr", 0.1), "-lr 0.1 here, 0.001 there"),
        (("-b", 9), "-b 9 here, 16 there"),
        (("-e", 2), "-e 2 here, 1 there; --warmup-epochs 0.1 here, 0.05 there"),
        (("--weight-decay", 0.5), "--weight-decay 0.5 here, 0.0001 there"),
        (("--schedule", 1), "--schedule [1] here, [] there"),
        (("--init", "published"), "--init published here, torch there"),
        (("--draws", 2), "--draws 2 here, 0 there"),
        (("--clip-grad", 1), "--clip-grad 1.0 here, not given there"),
        (("-seq", 12), "--sequencelength 12 here, 20 there"),
    ],
)
def test_other_options_are_refused_by_name(data_root, tmp_path, capsys, once, flags, told):
    """In the folder of a finished run; and by the state of one that is not."""
    logdir, name = once
    argv = ["stnet", "-n", 50, "-e", 1, *SMALL, *flags, "--datapath", data_root, "--resume"]
    line = refused(main_tscls, [*argv, "auto", "-l", logdir], capsys)
    assert line == f"{logdir / name}: holds another run: {told}; give --suffix X or auto, or --overwrite to replace it"
    path = logdir / name / "model_last.pth"
    line = refused(main_tscls, [*argv, path, "-l", tmp_path], capsys)
    told = told.replace("there", "in the checkpoint")
    assert line == f"{path}: {told}; give the flags and the data it had" and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def once(data_root, tmp_path_factory, no_pictures) -> tuple[Path, str]:
    """The logdir and the name of a finished run."""
    logdir = tmp_path_factory.mktemp("once")
    return logdir, train(data_root, logdir, "-e", 1).name


def test_other_labels_are_refused_and_other_test_series_are_tested_when_asked(tmp_path, capsys):
    root = write_root(tmp_path / "root")
    folder = train(root, tmp_path / "runs", "-e", 1)
    before = rows(folder, "testlog.csv")
    eval_store = open_eval(root, 2019).store
    series = [eval_store.series(i) for i in range(len(eval_store))]
    arrays = [torch.cat([torch.tensor(b), torch.tensor(d)[:, None]], 1).numpy() for b, d in series]
    shutil.rmtree(root / "2019" / "eval")
    store_of(root / "2019" / "eval", arrays, [(label + 1) % 15 for label in eval_store.labels])
    argv = ["stnet", "-n", 50, "-e", 1, *SMALL, "--datapath", root, "-l", tmp_path / "runs"]
    assert "was tested on other series of 2019: of " in refused(main_tscls, argv, capsys)
    assert rows(folder, "testlog.csv") == before
    train(root, tmp_path / "runs", "-e", 1, "--eval")
    assert rows(folder, "testlog.csv")[0]["data"] != before[0]["data"]
    index = root / "2019" / "train" / "index.csv"
    text = index.read_text().splitlines()
    index.write_text(
        "\n".join([text[0], *(line.replace("0", "1", 1) if line.startswith("0,") else line for line in text[1:])])
    )
    write_checksums(root / "2019" / "train")
    assert "holds another run: data of 50 series, " in refused(main_tscls, argv, capsys)


def test_a_path_of_no_run_of_the_list_is_refused(data_root, tmp_path, capsys, once):
    logdir, name = once
    argv = ["-n", 50, "-e", 1, *SMALL, "--datapath", data_root, "-l", tmp_path, "--resume"]
    path = logdir / name / "model_last.pth"
    for other in (["tempcnn"], ["stnet", "--seeds", 1]):
        line = refused(main_tscls, [*other, *argv, path], capsys)
        assert line == f"{path}: is of stnet --seeds 111, which is none of the runs asked for"
    line = refused(main_tscls, ["stnet", *argv, logdir / name / "model_best.pth"], capsys)
    assert line.endswith(
        "not the state of a run of main_tscls.py; give the model_last.pth of a run folder of main_tscls.py, or auto"
    )
    line = refused(main_tscls, ["stnet", *argv, "auto", "--eval"], capsys)
    assert line == "--eval trains nothing and --resume continues training; give one of them"
    assert state_for(None, "stnet", 1) is None and state_for("auto", "stnet", 1) == "auto"
    assert state_for(str(path), "stnet", 111) == str(path)
    assert state_for(str(path), "stnet", 1) == state_for(str(path), "lstm", 111) == "auto"


# ---- identity


def test_the_identity_names_what_decides(data_root, tmp_path):
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    parts = (splits.train, splits.valid)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "best.pth").write_bytes(b"weights")
    found = identity(PUBLISHED, parts, str(tmp_path / "runs" / "best.pth"), model="stnet", seed=3)
    data = told_series(parts)
    assert found == {
        "model": "stnet", "seed": 3, "recipe": "published", "init": "published", "batchsize": 512, "epochs": 100,
        "learning_rate": 1e-3, "weight_decay": 1e-4, "warmup_epochs": 0, "draws": 1, "schedule": [],
        "pretrained": "runs/best.pth (9a129038)", "data": data,
    }  # fmt: skip
    assert data.startswith("of 110 series, ") and len(data) == len("of 110 series, ") + 16
    assert identity(PUBLISHED, parts, None)["pretrained"] is None
    assert told_series(parts[:1]) != told_series(parts[1:]) and told_series(parts) != told_series(parts[::-1])
    empty = splits.valid.take([])
    assert told_series((splits.train, empty)).startswith("of 90 series, ")


def test_a_year_is_finished_when_it_was_tested_on_the_same_series(data_root, tmp_path):
    series = open_eval(data_root, 2019)
    assert finished_tests(tmp_path, {2019: series}) == {}
    lines = [f'{year},"{told}"' for year, told in ((2019, told_series([series])), (2020, "of 1 series"))]
    (tmp_path / "testlog.csv").write_text("\n".join(["year,data", *lines]) + "\n")
    assert finished_tests(tmp_path, {2019: series, 2021: series})[2019]["year"] == "2019"
    assert list(finished_tests(tmp_path, {2021: series, 2019: series})) == [2019]
    told = rf"was tested on other series of 2020: {told_series([series])} here, of 1 series there; --eval replaces"
    with pytest.raises(UsageError, match=told):
        finished_tests(tmp_path, {2020: series, 2019: series})
    (tmp_path / "testlog.csv").write_text("year,oa\n2019,0.5\n")  # of an earlier version
    assert list(finished_tests(tmp_path, {2019: series})) == [2019]
    (tmp_path / "testlog.csv").write_text("year,oa\nx,0.5\n")
    with pytest.raises(UsageError, match="testlog.csv: a row has no number in the column 'year'"):
        finished_tests(tmp_path, {2019: series})


# ---- a loss that is no number


@pytest.mark.parametrize("is_late", [False, True])
def test_the_series_of_a_batch_whose_loss_is_no_number_are_told(
    data_root, tmp_path, capsys, monkeypatch, once, is_late
):
    """The state before stays, and can be resumed."""
    entropy, steps = training.cross_entropy, []

    def spoilt(logits, labels):
        steps.append(labels)
        return entropy(logits, labels) * (float("nan") if len(steps) == 5 else 1)

    argv = ["stnet", "-n", 50, "-e", 3, *SMALL, "--datapath", data_root, "-l", tmp_path]
    with monkeypatch.context() as patch:
        if is_late:  # as on a GPU, from which losses arrive when they are waited for
            patch.setattr(losses, "copy_to_host", lambda value: (lambda: False, lambda: None, value))
        patch.setattr(training, "cross_entropy", spoilt)
        line = refused(main_tscls, argv, capsys)
    folder = tmp_path / once[1]
    assert line == (
        f"the loss became nan in epoch 1, step 2 of 3; its series are in {folder / 'bad_batch.json'}; the last good"
        f" state is {folder / 'model_last.pth'}; lower -lr, or give --clip-grad"
    )
    told = json.loads((folder / "bad_batch.json").read_text())
    splits = open_labelled(data_root, 2019, Selection(use_all=True))
    labels = {"train": splits.train.store.labels, "valid": splits.valid.store.labels}
    found = [int(labels[Path(one["source"]).name][one["row"]]) for one in told["series"]]
    assert (told["epoch"], told["step"], told["loss"]) == (1, 2, "nan") and found == steps[4].tolist()
    assert checkpoint(folder, "model_last.pth")["epoch"] == 0
    whole = train(data_root, tmp_path / "whole", "-e", 3)
    assert is_like(train(data_root, tmp_path, "-e", 3, "--resume", "auto"), whole)


def test_a_state_with_weights_that_are_no_numbers_is_not_saved(data_root, tmp_path, capsys, monkeypatch):
    """A loss that is a number can have a gradient that is none; here in the last step of the first epoch."""
    step, steps = training.Precision.backward_and_step, []

    def spoilt(precision, loss, optimizer):
        step(precision, loss, optimizer)
        steps.append(1)
        if len(steps) == 6:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][3].flatten()[0] = float("nan")

    monkeypatch.setattr(training.Precision, "backward_and_step", spoilt)
    argv = ["stnet", "-n", 50, "-e", 3, *SMALL, "--datapath", data_root, "-l", tmp_path]
    line = refused(main_tscls, argv, capsys)
    assert line.startswith("weights became infinite or not a number (") and "in epoch 1, by step 3 of 3;" in line
    (path,) = tmp_path.glob("*/model_last.pth")
    assert checkpoint(path.parent, path.name)["epoch"] == 0


def test_clip_grad_changes_the_run_and_keeps_a_wild_one_finite(data_root, tmp_path, monkeypatch):
    norms, clip = [], torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: norms.append((clip(*given), given[1])))
    folder = train(data_root, tmp_path, "--clip-grad", 0.5, "-e", 1)
    assert [limit for _, limit in norms] == [0.5] * 3 and max(norm for norm, _ in norms) > 0.5
    assert not same(weights(folder), weights(train(data_root, tmp_path / "usual", "-e", 1)))
    assert json.loads((folder / "args.json").read_text())["identity"]["clip_grad"] == 0.5
