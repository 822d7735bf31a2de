"""Where the checkout, the data and the results lie: read-only, with spaces, with letters that are not ASCII."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support.disk import make_read_only, small_disk
from tests.support.ranks import REPOSITORY
from tests.support.runs import SMALL

FOLDERS = ("main_moco.py", "main_tscls.py", "pretraining", "tscls", "moco", "models", "datasets", "utils")


def test_a_read_only_checkout_and_odd_names_work(data_root, tmp_path):
    """Both scripts, from a checkout that nobody can write to, with data and results in 'a café'."""
    odd = tmp_path / "a café\u0301 – 数据"
    shutil.copytree(data_root, odd / "my data")
    with small_disk(tmp_path / "check out ü", "20m") as checkout:
        for name in FOLDERS:
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, checkout / name)
        make_read_only(checkout)
        common = [*SMALL, "-e", "1", "--rc", "--datapath", str(odd / "my data"), "-l", str(odd / "my results")]
        best = odd / "my results" / "P_MoCoV1TransformerModel_RC_2019" / "model_best.pth"
        for words in (
            ["main_moco.py", "transformer", "--useall", "--moco-k", "64"],
            ["main_tscls.py", "stnet", "-n", "50", "--pretrained", str(best)],
        ):
            done = subprocess.run(
                [sys.executable, str(checkout / words[0]), *words[1:], *common],
                cwd=odd, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    assert (odd / "my results" / "F_Mo_STNet_R50_RC_2019_Seed111" / "finished").exists()
    assert (odd / "my results" / "comparison.csv").exists()


def test_without_optional_packages_the_scripts_do_their_job(data_root, tmp_path):
    """No TensorBoard, no matplotlib, none of requirements-geo.txt: a line for each of the first two."""
    missing = "tensorboard matplotlib rasterio affine geopandas pyogrio xarray h5py zarr shapely pyproj"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing.split()}))\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *given: None if name in {missing.split()} else find(name, *given)\n"
        "import main_moco, main_tscls\n"
        "moco, tscls = eval(sys.argv[1])\n"
        "main_moco.main(moco); main_tscls.main(tscls)\n"
    )
    common = [*SMALL, "-e", "1", "--datapath", str(data_root), "-l", str(tmp_path)]
    argv = [["transformer", "--useall", "--moco-k", "64", *common], ["stnet", "rf", "-n", "50", *common]]
    done = subprocess.run(
        [sys.executable, "-c", code, repr(argv)],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "not installed" in line]
    assert lines == [
        "no logs for TensorBoard: it is not installed (pip install tensorboard)",
        "no pictures: matplotlib is not installed (pip install matplotlib)",
    ]
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} >= {".pth", ".skops", ".csv", ".npy"}
    assert not [file for file in tmp_path.rglob("*") if "tfevents" in file.name or file.suffix == ".png"]
