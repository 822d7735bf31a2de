"""The last part of the demo: a map of a small simulated scene, its accuracy, and a picture of it beside the truth.

The commands are those of the README for one's own images. ``python -m benchmarks.demo`` runs them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import main_tscls
from datasets import prepare, simulate
from mapping import assess, predict

SITE = "--site Harvey --year 2019"
RUN = "F_TR_STNet_R100_RC_2019_Seed111"
COMMANDS = {  # {0}: the folder of the demo's map; {1}: the pre-trained checkpoint
    "-m datasets.simulate": (simulate.main, "--scene {0}/scene --size 240 " + SITE),
    "-m datasets.prepare": (
        prepare.main,
        "labelled --images {0}/scene/images --labels {0}/scene/cdl.tif --confidence {0}/scene/confidence.tif"
        " --out {0}/data " + SITE,
    ),
    "main_tscls.py": (main_tscls.main, "stnet --rc -n 100 --datapath {0}/data -l {0} --pretrained {1}"),
    "-m mapping.predict": (predict.main, "--model {0}/" + RUN + " --images {0}/scene/images --out {0}/map.tif"),
    "-m mapping.assess": (
        assess.main,
        "--map {0}/map.tif --reference {0}/scene/truth.tif --blocks {0}/data --out {0}/assessment",
    ),
}


def make_map(folder: Path, checkpoint: str, say: Callable[[str], None]) -> Path:
    """Make the map in `folder`, in place of that of an earlier demo; returns the picture of map and truth."""
    shutil.rmtree(folder, ignore_errors=True)
    for program, (main, options) in COMMANDS.items():
        options = options.format(folder, checkpoint)
        say(f"{program} {options}")
        main(options.split())
    return folder / "assessment" / "map.png"
