"""Train or fine-tune classifiers of Sentinel-2 series on few labels, test them, compare them.

python main_tscls.py stnet --rc --pretrained checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth
"""

from __future__ import annotations

import logging
import math
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets import bands
from datasets.batches import even_batches, split_batches
from datasets.catalog import Selection, Splits, open_classmap, open_eval, open_labelled
from datasets.classmap import ClassMap
from datasets.simulate import ensure_default
from datasets.store import SeriesSet, join
from datasets.transforms import temporal_shift
from models import ESTIMATORS, INITS, NETWORKS, build_model, canonical_name, model_class
from tscls.estimators import EstimatorRun
from tscls.evaluation import test
from tscls.inputs import Inputs, length_method, predict
from tscls.recipe import FEW_LABELS, RECIPES, Recipe, choose_recipe
from utils import options
from utils.checkpoint import load_checkpoint, load_pretrained, load_weights, save_checkpoint
from utils.errors import Parser, UsageError, exit_cleanly
from utils.metrics import SCORES, score
from utils.precision import Precision
from utils.report import write_comparison
from utils.results.logs import RunLog, run_arguments
from utils.results.naming import DOY_NOTICE, training_name
from utils.results.progress import Progress
from utils.runtime import distributed
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams, seed_everything
from utils.schedule import Schedule, applied_rate

DATAPATH = "data/US-sim"
YEARS = (2019,)  # tested on
SEEDS = (111,)

SAME_TRUNK = ("stnet", "transformer")  # each starts from a checkpoint of the other
LEFT_TO_RECIPE = ("init", "epochs", "batchsize", "learning_rate", "weight_decay", "warmup_epochs")  # unless given


def get_args(argv: list[str] | None = None) -> Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument(
        "models", nargs="+", metavar="model", help=f"one or more of {', '.join((*NETWORKS, *ESTIMATORS))}"
    )
    options.add_data(parser, DATAPATH, num_help="labelled series, train and valid together")
    options.add_training(parser)
    add = parser.add_argument
    add("--interp", action="store_true", help="rf, svm, gbt, tempcnn, lstm: interpolate to a regular grid of days")
    add("--recipe", choices=RECIPES, default="auto", help=f"auto: few-label up to {FEW_LABELS:,} labels")
    add("--init", choices=INITS, default="published", help="how fresh weights start")
    options.leave_to_recipe(parser, LEFT_TO_RECIPE)
    add("--pretrained", metavar="PATH", help="start the trunk from this checkpoint")
    add("--freeze", action="store_true", help="train the decoder alone")
    add("--eval", action="store_true", help="no training: test the run's model_best.pth")
    add("--years", type=int, nargs="+", default=None, help=f"years to test on (default: {YEARS}, or else --year)")
    add("--seeds", type=int, nargs="+", default=list(SEEDS), help="one run for each")
    add("--regions", nargs="+", metavar="SITE", help="only these sites")
    add("--leave-out", metavar="SITE", help="train without this site and test on it alone")
    args = parser.parse_args(argv)
    args.years = args.years or (list(YEARS) if args.year in YEARS else [args.year])
    args.models = list(dict.fromkeys(canonical_name(name) for name in args.models))
    if args.batchsize == 1:
        raise UsageError("-b 1: batch normalisation needs at least 2 series in a batch")
    if args.freeze and not args.pretrained:
        raise UsageError("--freeze trains the decoder alone and needs a trunk: give one with --pretrained")
    for name in ("pretrained", "eval"):
        if getattr(args, name) and set(args.models) & set(ESTIMATORS):
            raise UsageError(f"--{name} is for the networks ({', '.join(NETWORKS)}): leave out {', '.join(ESTIMATORS)}")
    return args


def recipe_of(args: Namespace, num_labels: int) -> Recipe:
    """The recipe for so many labelled series, with what the command line says in its place."""
    recipe = choose_recipe(args.recipe, num_labels, **{name: getattr(args, name) for name in LEFT_TO_RECIPE})
    return replace(recipe, cosine=recipe.cosine and not args.schedule)


def trunks_for(name: str) -> tuple[str, ...]:
    """Models whose checkpoints this one can start from."""
    return SAME_TRUNK if name in SAME_TRUNK else (name,)


def check_pretrained(args: Namespace) -> None:
    """Find out before the first model is trained whether all can start from the checkpoint."""
    for name in args.models:
        load_pretrained(build_model(name, sequencelength=args.sequencelength), args.pretrained, trunks_for(name))


class Run:
    """One network, one seed: trains, keeps the best, predicts."""

    def __init__(self, args: Namespace, name: str, seed: int, recipe: Recipe, classmap: ClassMap, world: World):
        seed_everything(seed)
        self.args, self.seed, self.recipe, self.classmap, self.world = args, seed, recipe, classmap, world
        self.network = build_model(
            name,
            num_classes=classmap.num_classes,
            sequencelength=args.sequencelength,
            use_doy=args.use_doy,
            init=self.recipe.init,
        )
        self.precision = Precision(args.amp, world.device)
        self.method = length_method(args, self.network)
        self.folder = Path(args.logdir) / training_name(
            args, self.network.run_name, self.method, seed, reads_doy=self.network.uses_doy_flag
        )
        if args.pretrained:
            self.take_trunk(args.pretrained)
        self.network.to(world.device)
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self.draws, self.log, self.last_epoch = 1, None, 0

    def take_trunk(self, path: str) -> None:
        """Start the trunk from a checkpoint, of the same model or of one with the same trunk."""
        own = self.network.arguments
        taken = load_pretrained(self.network, path, trunks_for(own["name"]))
        if self.world.is_main:
            reads_doy = own["name"] == "stnet" or own["use_doy"]
            if taken.model.get("name") == "transformer" and taken.model["use_doy"] != reads_doy:
                print(f"{path}: its day encoding is of {'days' if not reads_doy else 'positions'}, this model's is not")
            print(f"{path}: took {len(taken.names)} tensors")
            if taken.missing:
                print(f"not in it, and left as initialised: {', '.join(taken.missing)}")

    def freeze_trunk(self, is_frozen: bool) -> None:
        """Train the decoder alone, or everything; a frozen trunk also keeps its running statistics."""
        self.network.train().requires_grad_(not is_frozen)
        if is_frozen:
            self.network.eval().decoder.train().requires_grad_(True)

    def checkpoint(self, epoch: int, best: float, not_improved: int) -> dict:
        return {
            "model_state": self.network.state_dict(),
            "epoch": epoch,
            "val_loss_min": best,
            "not_improved_count": not_improved,
            "model": self.network.arguments,
            "classmap": self.classmap.as_dict(),
            "length_method": self.method,
            "draws": self.draws,
            "normalisation": bands.normalisation(),
        }

    def load_best(self) -> None:
        """Take the weights of the run's model_best.pth."""
        path = self.folder / "model_best.pth"
        checkpoint = load_checkpoint(path, "train this run first (leave out --eval), or give the flags it had")
        load_weights(self.network, checkpoint["model_state"], path)
        self.draws = checkpoint.get("draws", 1)

    def prepare(self, series: SeriesSet) -> None:
        """Make ready to train on a set of series."""
        args, world, recipe = self.args, self.world, self.recipe
        if recipe.batchsize < 2 * world.size:
            raise UsageError(f"-b {recipe.batchsize}: {world.size} ranks need at least 2 series each in a batch")
        self.inputs = Inputs(args, self.method, series, world)
        self.freeze_trunk(args.freeze)  # before the ranks agree on what gets gradients
        # by default not: short runs do not repay it; without CUDA graphs, as an epoch's last batch is of another size
        self.model = torch.compile(self.network, dynamic=False) if args.compile else self.network
        if world.size > 1:
            self.model = world.parallel(self.model)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            parameters, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        steps = len(self.batches(np.arange(len(series))))
        self.schedule = Schedule(
            recipe.learning_rate, steps, recipe.epochs, recipe.warmup_epochs, args.schedule, recipe.cosine
        )
        self.streams = RandomStreams(self.seed, world.device, world.rank)

    def fit(self, splits: Splits) -> float:
        """Train, watching the valid split unless the recipe trains on it too; returns the seconds it took."""
        args, world, recipe, start = self.args, self.world, self.recipe, time.monotonic()
        self.prepare(splits.train if recipe.patience else join((splits.train, splits.valid)))
        valid = Inputs(args, self.method, splits.valid, world) if recipe.patience else None
        self.draws = recipe.draws
        kept = run_arguments(args, self.network.arguments["name"], self.seed, recipe)
        self.log = RunLog(self.folder, kept, again=True) if world.is_main else None
        best, not_improved = math.inf, 0
        progress = Progress(self.folder.name, recipe.epochs, world.is_main)
        for epoch in progress:
            self.last_epoch = epoch
            means = self.train_epoch(epoch, progress)
            row = {"epoch": epoch, "lr": applied_rate(self.optimizer), **means}
            world.average_statistics(self.network)
            if valid is not None:
                scores = score(predict(self.network, valid, self.seed, self.precision), splits.valid.labels)
                row |= {f"valid_{name}": scores[name] for name in ("loss", *SCORES)}
                not_improved = 0 if scores["loss"] < best else not_improved + 1
                best = min(best, scores["loss"])
                if not math.isfinite(scores["loss"]):
                    raise UsageError(f"the validation loss became {scores['loss']} in epoch {epoch}; lower -lr")
            if self.log:
                self.log.epoch(row)
                if not_improved == 0:
                    save_checkpoint(self.folder / "model_best.pth", self.checkpoint(epoch, best, not_improved))
            is_last = epoch + 1 == recipe.epochs or recipe.patience is not None and not_improved >= recipe.patience
            progress.epoch(row, is_last)
            if is_last:
                break
        self.model = self.network  # a parallel model that outlives the group of ranks may wait for it for ever
        return time.monotonic() - start

    def batches(self, order: np.ndarray) -> list[np.ndarray]:
        """Batches of an epoch; each gives every rank the two series that batch normalisation needs."""
        if self.recipe.is_even:
            return even_batches(order, self.recipe.batchsize)
        return split_batches(order, self.recipe.batchsize, smallest=2 * self.world.size)

    def train_epoch(self, epoch: int, progress: Progress) -> dict:
        """One pass over the training series; returns its means for the log."""
        model, inputs = self.model, self.inputs
        model.train()
        self.freeze_trunk(self.args.freeze)
        start, augment = time.monotonic(), self.streams.augment
        sums = torch.zeros(3, dtype=torch.float64, device=self.world.device)  # loss, hits, series
        batches = self.batches(self.streams.order(epoch, len(inputs)))
        for step, (series, labels) in enumerate(inputs.stream(batches)):
            share = len(labels) * self.world.size / len(batches[step])  # the ranks' means are averaged, shares or not
            self.streams.seek(epoch, step)
            self.schedule.apply(self.optimizer, epoch * len(batches) + step)
            with self.precision.autocast():
                logits = model(inputs.model_input(temporal_shift(series, augment), augment))
                loss = nn.functional.cross_entropy(logits, labels)
            self.precision.backward_and_step(loss * share, self.optimizer)
            hits = (logits.argmax(1) == labels).sum()
            sums += torch.stack((loss.detach().double() * len(labels), hits, sums.new_tensor(len(labels))))
            position = epoch * len(batches) + step + 1
            if position % self.args.print_freq == 0:
                rate = sums[2].item() / (time.monotonic() - start)
                progress.step(epoch, step + 1, len(batches), loss.item(), rate)
                if self.log:
                    self.log.scalars("step", {"loss": loss.item()}, position)
        loss, hits, seen = self.world.all_reduce_sum_(sums).tolist()
        if not math.isfinite(loss):
            raise UsageError(f"the loss became {loss} in epoch {epoch}; lower -lr")
        seconds = time.monotonic() - start
        return {"train_loss": loss / seen, "train_oa": hits / seen, "seconds": seconds, "series_per_s": seen / seconds}

    def predict(self, series: SeriesSet) -> Tensor:
        """Log-probabilities (N, classes) of a series set, of the network that is tested."""
        inputs = Inputs(self.args, self.method, series, self.world)
        return predict(self.network, inputs, self.seed, self.precision, self.draws)


def open_sets(args: Namespace, seed: int) -> tuple[Splits, dict[int, SeriesSet]]:
    """The labelled series of a run, and the eval split of every year to test on."""
    selection = Selection(args.num, args.nclasses, seed, args.useall, args.regions, args.leave_out)
    splits = open_labelled(args.datapath, args.year, selection)
    others = {year: open_eval(args.datapath, year, selection) for year in args.years if year != args.year}
    return splits, {year: others.get(year, splits.eval) for year in args.years}


def notices(args: Namespace) -> None:
    """Say which of the flags do nothing for which of the models."""
    for name in args.models:
        model = model_class(name)
        if args.use_doy and not model.uses_doy_flag:
            print(f"{name}: --use-doy changes nothing ({DOY_NOTICE})")
        if args.interp and not model.interpolates:
            print(f"{name}: --interp is not for it; its series are brought to length by {length_method(args, model)}")


@exit_cleanly
def main(argv: list[str] | None = None) -> list[Path]:
    """Train, test and compare as the command line says; returns the run folders."""
    args = get_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    world = distributed.start(args.device)
    with world.main_first():
        ensure_default(args.datapath)
        classmap = open_classmap(args.datapath, args.nclasses)
    if world.is_main:
        notices(args)
    if args.pretrained:
        check_pretrained(args)
    folders = []
    for seed in args.seeds:
        with world.main_first():
            splits, sets = open_sets(args, seed)
        recipe = recipe_of(args, len(splits.train) + len(splits.valid))
        if world.is_main:
            sizes = ", ".join(f"{name} {len(part):,}" for name, part in splits._asdict().items())
            print(f"seed {seed}: {sizes} series of {args.year} from {args.datapath}")
        for name in args.models:
            run = (EstimatorRun if name in ESTIMATORS else Run)(args, name, seed, recipe, classmap, world)
            seconds = None if args.eval else run.fit(splits)
            world.barrier()
            if name in NETWORKS:
                run.load_best()
            test(run, sets, seconds, list(classmap.names), world.is_main)
            folders.append(run.folder)
    if world.is_main:
        print(f"\n{write_comparison(folders, args.logdir)}")
    world.finish()
    return folders


if __name__ == "__main__":
    main()
