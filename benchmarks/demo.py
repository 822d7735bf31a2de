"""The main job in miniature, on simulated data: pre-train, fine-tune, compare, map. ``make demo`` runs it.

    python -m benchmarks.demo

A short pre-training shows the first command at work; the comparison is of STNet trained from scratch, from that short
pre-training and from the shipped checkpoint, with few labels of US-sim. Last comes a map of a simulated scene.
"""

from __future__ import annotations

import time
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

import main_moco
import main_tscls
from benchmarks.demo_map import make_map
from benchmarks.label_efficiency import CHECKPOINT
from utils.errors import Parser, exit_cleanly
from utils.report import write_comparison

LOGDIR = "demo-results"
PRETRAINING = "transformer --rc --use-doy --mlp -n 3000 -b 128 --moco-k 2048 -e 3 --overwrite"
TRAINING = "stnet --rc -n 100 --seeds 111 222 --overwrite"


def say(command: str) -> None:
    print(f"\n$ python {command}", flush=True)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    Parser(
        prog="python -m benchmarks.demo", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    ).parse_args(argv)
    start = time.monotonic()
    say(f"main_moco.py {PRETRAINING} -l {LOGDIR}")
    main_moco.main([*PRETRAINING.split(), "-l", LOGDIR])
    short = f"{LOGDIR}/P_MoCoV2TransformerModel_R3000_RC_2019_Seed111_doy/model_best.pth"
    for options in ([], ["--pretrained", short], ["--pretrained", CHECKPOINT]):
        say(f"main_tscls.py {TRAINING} -l {LOGDIR} {' '.join(options)}")
        main_tscls.main([*TRAINING.split(), "-l", LOGDIR, *options])
    print("\nSTNet with 100 labels of simulated series\n")
    print(write_comparison(LOGDIR, LOGDIR))
    print(f"\nfigure: {LOGDIR}/comparison.png")
    picture = make_map(Path(LOGDIR, "map"), CHECKPOINT, say)
    print(f"\nmap beside the truth: {picture}; {time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main()
