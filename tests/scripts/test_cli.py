"""The scripts as a user runs them: in a shell, on real series, with the published names and defaults."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import main_moco
import main_tscls
from models import ESTIMATORS, NETWORKS
from tests.conftest import SHARED, needs_shared
from tests.support.runs import BOTH, checkpoint, rows, train

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def shell(*argv: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, *map(str, argv)], cwd=cwd, env=environment, capture_output=True, text=True)


# ---- runs


def test_pretraining_and_fine_tuning_in_a_shell(data_root, tmp_path):
    """From another folder, into ./results there."""
    common = ["--rc", "--datapath", data_root, "--sequencelength", 20, "-e", 1, "-d", "cpu"]
    flags = ["--use-doy", "--useall", "--mlp", "-b", 16, "--moco-k", 256]
    pretrained = shell(REPOSITORY / "main_moco.py", "transformer", *flags, *common, cwd=tmp_path)
    assert pretrained.returncode == 0, pretrained.stderr
    best = "results/P_MoCoV2TransformerModel_RC_2019_doy/model_best.pth"
    assert (tmp_path / best).is_file() and best in pretrained.stdout
    tuned = shell(REPOSITORY / "main_tscls.py", "stnet", "-n", 50, "--pretrained", best, *common, cwd=tmp_path)
    assert tuned.returncode == 0, tuned.stderr
    assert f"{best}: took 37 tensors" in tuned.stdout and "F_Mo_STNet_R50_RC_2019_Seed111" in tuned.stdout
    assert checkpoint(tmp_path / "results" / "F_Mo_STNet_R50_RC_2019_Seed111")["model"]["name"] == "stnet"


def test_the_python_of_the_documentation_runs(tmp_path, monkeypatch):
    """docs/data.md writes a data root of arrays, README predicts with a classifier that was trained on it."""
    pages = (REPOSITORY / "docs" / "data.md", REPOSITORY / "README.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    writing, reading = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(writing, {})
    folder = train(Path("data/mine"), Path("results"))
    for said, here in {"results/F_TR_STNet_R3000_RC_2019_Seed111": folder, "data/US-sim": "data/mine"}.items():
        assert reading.count(said) == 1
        reading = reading.replace(said, str(here))
    names: dict = {}
    exec(reading, names)
    assert names["labels"].shape == (600,) and set(names["labels"].tolist()) <= set(range(21))


def test_a_mistake_in_a_shell(tmp_path):
    done = shell("main_tscls.py", "stnet", "--datapath", "no/where", "-d", "cpu", "-l", tmp_path / "out")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@needs_shared
def test_real_series(tmp_path, capsys):
    toy = SHARED / "us-toy"
    common = f"--rc --datapath {toy} -l {tmp_path} -e 1 -d cpu"
    main_moco.main(f"transformer --use-doy --useall --mlp -b 128 --moco-k 256 {common}".split())
    assert "training on 270, 30 held out" in capsys.readouterr().out
    best = tmp_path / "P_MoCoV2TransformerModel_RC_2019_doy" / "model_best.pth"
    main_tscls.main(f"stnet -n 200 --pretrained {best} {common}".split())
    main_tscls.main(f"transformer --use-doy -n 200 {common}".split())
    printed = capsys.readouterr().out
    assert printed.count("train 180, valid 20, eval 100 series of 2019") == 2
    for name in ("F_Mo_STNet_R200_RC_2019_Seed111", "T_TransformerModel_R200_RC_2019_Seed111_doy"):
        assert rows(tmp_path / name, "testlog.csv")[0]["series"] == "100"


def test_pictures_are_drawn(data_root, tmp_path):
    pytest.importorskip("matplotlib")
    folder = train(data_root, tmp_path)
    assert (folder / "confusion_matrix.png").stat().st_size > 10_000
    assert (folder / "learning_curve.png").exists() and (tmp_path / "comparison.png").exists()


# ---- the command line


@BOTH
def test_help_tells_defaults(script, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for told in ("(default: data/US-sim)", "111", "(default: 3000)", "(default: 2019)", "(default: 70)", "stnet"):
        assert told in shown


@pytest.mark.parametrize("name", [n.upper() for n in NETWORKS + ESTIMATORS])
def test_names_of_models_in_any_case(name):
    assert main_tscls.get_args([name]).models == [name.lower()]


def test_defaults_are_those_that_were_published():
    args = vars(main_moco.get_args(["transformer"]))
    published = {
        "num": 3000, "nclasses": 20, "sequencelength": 70, "year": 2019, "workers": 0, "epochs": 100, "start_epoch": 0,
        "warmup_epochs": 0, "batchsize": 512, "learning_rate": 1e-3, "schedule": [], "momentum": 0.9,
        "weight_decay": 1e-4, "print_freq": 10, "seed": 111, "logdir": "./results", "moco_dim": 128, "moco_k": 65536,
        "moco_m": 0.999, "moco_t": 0.07, "mlp": False, "aug_plus": False, "cos": False, "use_doy": False, "rc": False,
        "useall": False, "evaluate": False, "resume": None,
    }  # fmt: skip
    assert {key: args[key] for key in published} == published
    args = vars(main_tscls.get_args(["stnet"]))
    published = {"num": 3000, "nclasses": 20, "sequencelength": 70, "year": 2019, "workers": 0, "logdir": "./results"}
    assert {key: args[key] for key in published} == published
    assert args["years"] == list(main_tscls.YEARS) and args["seeds"] == list(main_tscls.SEEDS)
    assert args["datapath"] == main_tscls.DATAPATH == main_moco.DATAPATH


def test_short_forms():
    words = "stnet -n 5 -c 4 -seq 30 -j 1 -e 2 -b 8 -lr 0.1 -l out -s x -p 3 -d cpu"
    args = main_tscls.get_args(words.split())
    assert (args.num, args.nclasses, args.sequencelength, args.workers, args.epochs) == (5, 4, 30, 1, 2)
    assert (args.batchsize, args.learning_rate, args.logdir, args.suffix, args.print_freq) == (8, 0.1, "out", "x", 3)
