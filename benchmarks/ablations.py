"""What each part of the pre-training by MoCo is worth: views, queue, momentum, temperature, with 95 % intervals.

python -m benchmarks.ablations --datapath data/US-toy --budgets 100 --jobs 2 --out docs/ablations

Every variant is pre-trained with one budget, fine-tuned and used frozen, and compared with the published settings.
"""

from __future__ import annotations

from benchmarks.evidence.arms import Pretraining, started_from
from benchmarks.evidence.command import compare, get_args
from utils.errors import exit_cleanly

VARIANTS = {
    "moco": (),
    "no shift": ("--no-shift",),
    "no noise": ("--no-noise",),
    "no removal": ("--no-removal",),
    "no augmentation": ("--no-shift", "--no-noise", "--no-removal"),
    "stronger views": ("--aug-plus",),
    "queue of 1,024": ("--moco-k", "1024"),
    "queue of 65,536": ("--moco-k", "65536"),
    "momentum 0.9": ("--moco-m", "0.9"),
    "momentum 0.99": ("--moco-m", "0.99"),
    "temperature 0.2": ("--moco-t", "0.2"),
    "views of 35": ("-seq", "35"),
}
PRETRAININGS = {name: Pretraining(options) for name, options in VARIANTS.items()}
ARMS = started_from(PRETRAININGS)
DEFAULTS = {"logdir": "results/ablations", "against": ["moco", "moco, frozen"], "budgets": [100]}


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    compare(get_args(__doc__, argv, **DEFAULTS), ARMS, PRETRAININGS)


if __name__ == "__main__":
    main()
