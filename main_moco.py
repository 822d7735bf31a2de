"""Pre-train an encoder of Sentinel-2 series by SITS-MoCo, without labels.

python main_moco.py transformer --rc --use-doy --useall --mlp
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import nn

from datasets.catalog import Selection, open_unlabelled
from datasets.simulate import ensure_default
from datasets.store import SeriesSet
from moco.loader import add_view_options, augmentation_of, two_views
from models import NETWORKS, build_model, canonical_name, model_class
from pretraining import PRETEXTS, add_arguments
from pretraining.data import PretrainingData
from pretraining.progress import EpochBar
from pretraining.resume import ADVICE, UNTRAINED, describe, load, load_weights
from pretraining.step import TrainingStep, compile_step, is_compiling_wanted
from tscls.probe import EpochProbe
from utils import options
from utils.checkpoint import load_checkpoint
from utils.errors import Parser, UsageError, exit_cleanly
from utils.precision import Precision
from utils.results.keeper import Keeper
from utils.results.logs import RunLog
from utils.results.losses import LossWatch, bad_batch, check_finite
from utils.results.naming import DOY_NOTICE, pretraining_name
from utils.results.resume import AUTO, Saved, arguments, enter_folder, find_saved, hint, how_to_continue
from utils.results.state import RunState
from utils.runtime import distributed, watchdog
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams, make_generator, seed_everything
from utils.runtime.signals import Requests
from utils.schedule import Schedule, applied_rate

DATAPATH = "data/US-sim"

PATIENCE = 10  # epochs without a better held-out loss
FEW_STEPS = 10  # of an epoch; with fewer the user is told

# Options that do not decide what a run computes. For the data, their fingerprint is compared instead.
NOT_IDENTITY = frozenset(
    "datapath year num useall nclasses workers epochs start_epoch print_freq device logdir suffix amp compile"
    " resume save_minutes evaluate patience probe probe_every probe_num".split()
)


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("model", help=f"the encoder: {', '.join(NETWORKS)}")
    options.add_data(parser, DATAPATH, num_help="unlabelled series to draw, without --useall")
    options.add_training(parser)
    add = parser.add_argument
    add("--pretext", choices=PRETEXTS, default="moco", help="what the encoder learns from")
    add("--start-epoch", type=options.at_least(0), default=0, help="number of the first epoch")
    add("--optimizer", choices=("adam", "sgd"), default="adam", help="what updates the query encoder")
    add("--momentum", type=options.fraction, default=0.9, help="of sgd")
    add("--cos", action="store_true", help="cosine schedule of the learning rate")
    add("--evaluate", action="store_true", help="only print the held-out loss of --resume (or of the run's best)")
    add("--seed", type=int, default=111, help="of everything random")
    add("--moco-dim", type=options.at_least(1), default=128, help="width of queries and keys")
    add("--moco-k", type=options.at_least(1), default=65536, help="keys in the queue")
    add("--moco-m", type=options.fraction, default=0.999, help="momentum of the key encoder")
    add("--moco-t", type=options.positive, default=0.07, help="temperature")
    add("--mlp", action="store_true", help="MoCo v2: an MLP as projection head")
    add("--bn-splits", type=options.at_least(1), default=1, help="sub-batches of the shuffled batch normalisation")
    add("--patience", type=options.at_least(1), default=PATIENCE, help="epochs without a better held-out loss")
    add_view_options(parser)
    add_arguments(parser)
    EpochProbe.add_arguments(parser)
    args = parser.parse_args(argv)
    args.model = canonical_name(args.model)
    if args.model not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise UsageError(f"{args.model} is no network: main_tscls.py trains it, here choose one of {known}")
    if args.cos and args.schedule:
        raise UsageError("--cos and --schedule are alternatives; give one of them")
    if args.moco_k < args.batchsize:
        raise UsageError(
            f"--moco-k {args.moco_k} is below the batch of {args.batchsize}: the queue must hold a batch of keys;"
            " raise --moco-k or lower -b"
        )
    if args.batchsize % args.bn_splits or args.batchsize // args.bn_splits < 2 <= args.bn_splits:
        raise UsageError(
            f"--bn-splits {args.bn_splits}: a batch of {args.batchsize} cannot be divided into that many equal parts"
            " of at least 2 series"
        )
    return args


def identity(args: argparse.Namespace, series: SeriesSet) -> dict:
    """What decides what a run computes, by option: a checkpoint with other values is not resumed."""
    kept = {name: value for name, value in vars(args).items() if name not in NOT_IDENTITY}
    if args.amp:  # else the device decides
        kept["amp"] = args.amp
    if args.cos:  # the schedule stretches over all epochs
        kept["epochs"] = args.epochs
    return kept | {"data": f"of {len(series)} series, {series.fingerprint()}"}


def build_run(args: argparse.Namespace, series: SeriesSet, steps_per_epoch: int, world: World) -> RunState:
    """A run at its beginning: encoder, pretext, optimizer."""
    seed_everything(args.seed)
    length_method = "rc" if args.rc else "pad"
    encoder = build_model(
        args.model,
        num_classes=args.nclasses + 1,  # of the classifier that is built from the checkpoint's "model"
        sequencelength=args.sequencelength,
        use_doy=args.use_doy,
        init="torch",
    )
    augmentation = augmentation_of(vars(args))
    views = partial(two_views, size=args.sequencelength, method=length_method, augmentation=augmentation)
    pretext = PRETEXTS[args.pretext](encoder, views, vars(args)).to(world.device)
    return RunState(
        pretext,
        build_optimizer(args, pretext),
        Precision(args.amp, world.device, args.clip_grad),
        world,
        identity=identity(args, series),
        describe=partial(describe, pretext, length_method),
        steps_per_epoch=steps_per_epoch,
        start_epoch=args.start_epoch,
    )


def build_optimizer(args: argparse.Namespace, pretext: nn.Module) -> torch.optim.Optimizer:
    """What --optimizer says, for all that is trained of the pretext."""
    parameters = [p for p in pretext.parameters() if p.requires_grad]
    common = {"lr": args.learning_rate, "weight_decay": args.weight_decay, "fused": True}
    if args.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=args.momentum, **common)
    return torch.optim.Adam(parameters, **common)


def train(
    args: argparse.Namespace,
    run: RunState,
    step: TrainingStep,
    data: PretrainingData,
    streams: RandomStreams,
    log: RunLog | None,
    probe: EpochProbe,
    watch: LossWatch,
    keeper: Keeper,
) -> None:
    """Train to the last epoch, or until the held-out loss no longer improves."""
    world = run.world
    schedule = Schedule(
        args.learning_rate, data.steps_per_epoch, args.epochs, args.warmup_epochs, args.schedule, args.cos
    )
    with step.parallel(world), keeper.requests.deferred():
        while not run.is_finished(args.epochs, args.patience):
            run.module.train()
            bar = EpochBar(run.epoch, run.step, data.steps_per_epoch, is_shown=world.is_main)
            for series in data.train(run.epoch, run.step):
                streams.seek(run.epoch, run.step)
                schedule.apply(run.optimizer, run.steps_done)
                figures = step(series, streams.augment)
                run.add_step(figures)
                watch.add(figures["loss"], run.epoch, run.step)
                bar.update(len(series.length) * world.size)
                is_log_step = run.steps_done % args.print_freq == 0
                if is_log_step:
                    log_step(run, figures, bar, log)
                if is_log_step or world.size == 1:  # it is a collective
                    keeper.after_step()
            watch.finish()
            means = epoch_means(run)
            speed = bar.close()
            held_out = evaluate(run, data, args.seed)
            probed = probe(run.module.encoder_q, run.epoch) if log else {}
            is_best = end_epoch(run, means, speed | probed, held_out, log)
            keeper.after_epoch(*["model_best.pth"] * is_best, is_last=run.is_last(args.epochs, args.patience))
            run.begin_epoch()


def evaluate(run: RunState, data: PretrainingData, seed: int) -> dict[str, float]:
    """Held-out loss and figures, on views that are the same every time."""
    run.module.eval()
    run.world.average_statistics(run.module)
    generator = make_generator(seed, "held-out", run.world.rank, device=run.world.device)
    views = (run.module.views(series, generator) for series in data.held_out())
    return run.module.evaluate(views, run.precision, run.world)


def epoch_means(run: RunState) -> dict[str, float]:
    """Means of the epoch's losses and figures over steps and ranks."""
    world = run.world
    return {
        name: world.all_reduce_sum_(total.clone()).item() / world.size / run.step for name, total in run.sums.items()
    }


def end_epoch(run: RunState, means: dict, more: dict, held_out: dict, log: RunLog | None) -> bool:
    """Log an epoch; returns whether it is the best so far.

    ``means`` and ``held_out`` have loss and figures by name; ``more`` are further columns, the speed among them.
    """
    check_finite(held_out["loss"], "the held-out loss", run.epoch)
    row = {"epoch": run.epoch, "lr": applied_rate(run.optimizer)}
    row |= {f"train_{name}": value for name, value in means.items()} | more
    row |= {f"valid_{name}": value for name, value in held_out.items()}
    is_best = run.end_epoch(held_out["loss"])
    if log:
        log.epoch(row)
        told = ", ".join(f"{name} {means[name]:.4f} (held out {value:.4f})" for name, value in held_out.items())
        print(f"epoch {run.epoch}: {told}, {more['series_per_s']:,.0f} series/s", flush=True)
    return is_best


def log_step(run: RunState, figures: dict[str, torch.Tensor], bar: EpochBar, log: RunLog | None) -> None:
    """Show the step's loss on the progress bar and in TensorBoard."""
    values = {name: value.item() for name, value in figures.items()}
    bar.show(f"loss {values['loss']:.3f}, {bar.rate:,.0f} series/s")
    if log:
        log.scalars("step", values | {"series_per_s": bar.rate}, run.steps_done)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    world = distributed.start(args.device)
    with Requests(how_to_continue("main_moco.py", argv)).heard() as requests:
        pretrain(args, world, requests)


def pretrain(args: argparse.Namespace, world: World, requests: Requests) -> None:
    """Do what the command line says."""
    if args.batchsize % world.size:
        raise UsageError(f"-b {args.batchsize} cannot be divided among {world.size} ranks; give a multiple")
    if args.use_doy and not model_class(args.model).uses_doy_flag:
        args.use_doy = False
        if world.is_main:
            print(f"{args.model}: --use-doy changes nothing ({DOY_NOTICE})")
    if args.resume and args.resume != AUTO:
        load_checkpoint(args.resume, ADVICE)  # before data are simulated
    with world.main_first():
        ensure_default(args.datapath)
        series = open_unlabelled(args.datapath, args.year, num=None if args.useall else args.num, seed=args.seed)
    labels = Selection(args.probe_num, args.nclasses, args.seed)
    probe = EpochProbe(args.probe, args.year, labels, every=args.probe_every, rc=args.rc)
    streams = RandomStreams(args.seed, world.device, world.rank)
    data = PretrainingData(series, args.batchsize, streams, world, args.workers)
    run = build_run(args, series, data.steps_per_epoch, world)
    folder = Path(args.logdir) / run_name(args, run.module)
    saved, note = find_saved(args.resume, folder, ADVICE)
    if world.is_main:
        tell(args, series, data)

    if args.evaluate:
        path = saved.path if saved else folder / "model_best.pth"
        load_weights(run, saved or Saved(path, load_checkpoint(path, UNTRAINED)))
        scores = evaluate(run, data, args.seed)
        if world.is_main:
            told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            print(f"{path}: held-out {told} on {len(data.held_out_positions):,} series")
        return world.finish()

    if saved:
        load(run, saved)
        if world.is_main and note:
            print(note, flush=True)
        if run.is_finished(args.epochs, args.patience):
            if world.is_main:
                flag = f"-e {args.epochs}" if run.epoch >= args.epochs else f"--patience {args.patience}"
                print(f"{saved.path}: nothing to train, {run.epoch} epochs are done ({flag}); to continue, raise it")
            return world.finish()
    step = TrainingStep(run.module, run.optimizer, run.precision)
    if is_compiling_wanted(args.compile, world):
        compile_step(step, data.example(), world, is_required=args.compile)
    with world.main_first():
        log = open_log(args, folder, saved, run.epoch) if world.is_main else None
    watchdog.set_hint(partial(hint, folder, saved.path if saved else None))
    watch = LossWatch(partial(bad_batch, data.series_of, data.steps_per_epoch, folder))
    keeper = Keeper(run, log.folder if log else None, requests, world, args.save_minutes, before=watch.finish)
    train(args, run, step, data, streams, log, probe, watch, keeper)
    if log:
        log.close()
        print(f"best held-out loss {run.best:.4f}: {folder / 'model_best.pth'}")
    world.finish()


def run_name(args: argparse.Namespace, pretext: nn.Module) -> str:
    return pretraining_name(
        pretext.run_name + pretext.encoder_q.run_name,
        num=None if args.useall else args.num,
        seed=args.seed,
        rc=args.rc,
        year=args.year,
        use_doy=args.use_doy,
        suffix=args.suffix,
    )


def open_log(args: argparse.Namespace, folder: Path, saved: Saved | None, epoch: int) -> RunLog:
    """The log of the run; --resume auto replaces that of one that was killed before it saved a state."""
    enter_folder(folder, saved)
    return RunLog(
        folder, arguments(vars(args)), resume_epoch=epoch if saved else None, again=args.resume == AUTO
    )  # fmt: skip


def tell(args: argparse.Namespace, series: SeriesSet, data: PretrainingData) -> None:
    """Say what the run is trained on, and what is odd about it."""
    held_out = len(data.held_out_positions)
    print(f"{series.store!r}: training on {len(data.train_positions):,}, {held_out:,} held out")
    if data.steps_per_epoch < FEW_STEPS:
        few = f"{data.steps_per_epoch} step{'s' if data.steps_per_epoch > 1 else ''} an epoch"
        print(f"-b {args.batchsize}: only {few}, from which little is learned; lower -b, and --moco-k with it")


if __name__ == "__main__":
    main()
