"""What pre-training gains with few labels: every pretext and model, by budget of labels, with 95 % intervals.

python -m benchmarks.label_efficiency --datapath data/US-toy --budgets 50 100 200 --jobs 2 --out docs/label-efficiency

Pre-trains each pretext with one budget (the same number of simulated series, epochs and learning rates tried), trains
every arm with every budget and seed, and tests on the eval split. Writes OUT.csv (a row a run), OUT-gains.csv (paired
differences), OUT.md and OUT.png. A comparison that was interrupted continues with the same command.
"""

from __future__ import annotations

from benchmarks.evidence.arms import BASELINES, PRETEXTS, SCRATCH, Arm, started_from
from benchmarks.evidence.command import compare, get_args
from utils.errors import exit_cleanly

CHECKPOINT = "checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth"
ARMS = {
    **SCRATCH,
    **started_from(PRETEXTS),
    "labels, no real label": Arm(pretraining="labels", is_trained=False),
    **BASELINES,
    "stnet and tempcnn": Arm(members=("moco", "tempcnn")),
}
DEFAULTS = {
    "logdir": "results/label-efficiency",
    "against": list(SCRATCH)[::-1],
    "checkpoint": [f"shipped={CHECKPOINT}"],
    "rates": [3e-4, 1e-3, 3e-3],
}


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    compare(get_args(__doc__, argv, **DEFAULTS), ARMS, PRETEXTS)


if __name__ == "__main__":
    main()
