"""Both scripts on data with bad series, and on splits that share series."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import main_tscls
from datasets.store import Store
from pretraining import resume
from tests.support.layout import long_series, save_unlabelled, store_of, write_published_root
from tests.support.runs import pretrain, rows


@pytest.fixture
def bad_root(data_root, tmp_path):
    """The small root, with a fill value in series 4 of eval, and eval series 0 to 2 in train."""
    root = shutil.copytree(data_root, tmp_path / "root")
    shutil.rmtree(root / "2019" / "eval")
    series, train = long_series([i % 15 for i in range(12)], seed=5), Store.open(root / "2019" / "train")
    for i in range(3):
        bands, doy = train.series(i)
        series[i] = np.column_stack([bands, doy])
    series[4][1, 3] = -9999
    store_of(root / "2019" / "eval", series, [i % 15 for i in range(12)])
    return root


def arguments(root, tmp_path, *more) -> list[str]:
    words = ("rf", "--rc", "--datapath", root, "-l", tmp_path / "results", "--useall", "-seq", 20, *more)
    return [str(word) for word in words]


def test_main_tscls_ends_at_a_bad_series_or_leaves_it_out_and_tells_of_a_leak(bad_root, tmp_path, capsys, no_pictures):
    with pytest.raises(SystemExit, match="2"):
        main_tscls.main(arguments(bad_root, tmp_path))
    line = capsys.readouterr().err
    assert "2019/eval: series 4, observation 1: red1 is -9999" in line and "leave them out with --skip-bad" in line
    assert line.count("\n") == 1 and not (tmp_path / "results").exists()
    (folder,) = main_tscls.main(arguments(bad_root, tmp_path, "--skip-bad"))
    told = capsys.readouterr().out
    assert "eval 11 series" in told
    assert "warning: 3 of 11 series of eval (2019) are in train or valid too, so the scores are too good" in told
    assert np.load(folder / "test_conf_mat.npy").sum() == 11 and len(rows(folder, "testlog.csv")) == 1


def test_splits_that_share_nothing_are_not_warned_of(data_root, tmp_path, capsys, no_pictures):
    main_tscls.main(arguments(data_root, tmp_path, "--years", 2019, 2020))
    assert "warning" not in capsys.readouterr().out


def test_main_moco_leaves_bad_series_out(tmp_path, capsys):
    root = write_published_root(tmp_path / "root")
    series = long_series([0] * 40, seed=0)
    series[7][0, 2] = np.nan
    save_unlabelled(root / "2019" / "npy" / "Unsupervised_mini_All.npy", series)
    with pytest.raises(SystemExit, match="2"):
        pretrain(root, tmp_path, "-e", 1)
    assert "series 7, observation 0: red is nan" in capsys.readouterr().err
    pretrain(root, tmp_path, "-e", 1, "--skip-bad")
    assert "39 series" in capsys.readouterr().out
    assert "skip_bad" in resume.NOT_IDENTITY  # the data's fingerprint tells instead
