"""What pre-training buys with few labels: budgets x seeds x {scratch, pretrained, frozen}, on the eval split.

    python -m benchmarks.label_efficiency --datapath data/US-toy --budgets 50 100 200 --out docs/label-efficiency

Writes OUT.csv, OUT.md and OUT.png (overall accuracy against labels, mean and standard deviation over seeds).
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch

import main_tscls
from utils.errors import Parser, exit_cleanly
from utils.files import make_folder, write_csv, write_text
from utils.metrics import SCORES
from utils.report import markdown
from utils.results.figures import new_figure, save, with_spread
from utils.results.runs import read_run

CHECKPOINT = "checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth"
ARMS = {
    "scratch": ["--init", "published"],
    "scratch, torch init": ["--init", "torch"],
    "pretrained": ["--pretrained"],
    "pretrained, frozen": ["--pretrained", "--freeze"],
    "published recipe, scratch": ["--recipe", "published"],
    "published recipe, pretrained": ["--recipe", "published", "--pretrained"],
}


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--datapath", default=main_tscls.DATAPATH, help="data root with labels")
    add("--year", type=int, default=2019)
    add("--model", default="stnet")
    add("--pretrained", default=CHECKPOINT, metavar="PATH", help=f"checkpoint to fine-tune from (default {CHECKPOINT})")
    add("--budgets", type=int, nargs="+", default=[50, 100, 300], help="labelled series, train and valid together")
    add("--seeds", type=int, nargs="+", default=[111, 222, 333, 444, 555])
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=f"of: {'; '.join(ARMS)}")
    add("--jobs", type=int, default=1, help="runs at a time, each on one core")
    add("--logdir", default="results/label-efficiency", help="folder for the runs")
    add("--out", default="results/label-efficiency/summary", help="path of table and figure, without extension")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, arm: str, budget: int, seed: int) -> dict:
    """Train and test one arm with one budget and seed; a row of the results."""
    logdir = Path(args.logdir) / arm.replace(", ", "-").replace(" ", "-")
    options = [part for flag in ARMS[arm] for part in ((flag, args.pretrained) if flag == "--pretrained" else (flag,))]
    doy = "--use-doy" if args.model == "transformer" else ""
    common = f"{args.model} --rc {doy} -n {budget} --year {args.year} --years {args.year} --seeds {seed}".split()
    if args.jobs > 1:
        torch.set_num_threads(1)
    (folder,) = main_tscls.main([*common, "--datapath", args.datapath, "--logdir", str(logdir), *options])
    scores = read_run(folder).tests.iloc[0]
    return {"arm": arm, "labels": budget, "seed": seed, **{name: scores[name] for name in SCORES}}


def run_all(args: argparse.Namespace) -> pd.DataFrame:
    """Every arm, budget and seed, several at a time; a row each."""
    plan = [(args, *what) for what in itertools.product(args.arms, args.budgets, args.seeds)]
    if args.jobs == 1:
        return pd.DataFrame(itertools.starmap(run, plan))
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pd.DataFrame(pool.map(run, *zip(*plan, strict=True)))


def table(results: pd.DataFrame) -> str:
    """Overall accuracy, mean and standard deviation over seeds, arms x labels, as Markdown."""
    stats = results.groupby(["arm", "labels"], sort=False)["oa"].agg(["mean", "std"])
    budgets = sorted(results["labels"].unique())
    arms = results["arm"].unique()
    cells = {"": arms}
    for n in budgets:
        cells[f"{n} labels"] = [with_spread(*stats.loc[(arm, n)]) for arm in arms]
    return markdown(pd.DataFrame(cells))


def figure(results: pd.DataFrame, path: Path) -> None:
    """Overall accuracy against the number of labels, a line an arm, error bars of one standard deviation."""
    picture = new_figure(8, 4.6)
    axes = picture.subplots()
    budgets = sorted(results["labels"].unique())
    arms = list(results["arm"].unique())
    for i, arm in enumerate(arms):
        stats = results[results["arm"] == arm].groupby("labels")["oa"].agg(["mean", "std"]).fillna(0)
        places = [budgets.index(n) + 0.03 * (i - (len(arms) - 1) / 2) for n in stats.index]
        style = "--" if arm.startswith("published") else "-"
        axes.errorbar(places, stats["mean"], stats["std"], marker="o", capsize=3, linestyle=style, label=arm)
    axes.set_xticks(range(len(budgets)), [str(n) for n in budgets])
    axes.set_xlabel("labelled series (train and valid together)")
    axes.set_ylabel("overall accuracy")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    save(picture, path)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    out = Path(args.out)
    make_folder(out.parent)
    results = run_all(args)
    write_csv(f"{out}.csv", results, float_format="%.4f")
    text = table(results)
    write_text(f"{out}.md", text + "\n")
    print(f"\n{args.model} on the eval split of {args.datapath}, {len(args.seeds)} seeds, overall accuracy\n\n{text}")
    try:
        figure(results, Path(f"{out}.png"))
    except ImportError:
        print("no figure: it needs matplotlib (pip install matplotlib)")


if __name__ == "__main__":
    main()
