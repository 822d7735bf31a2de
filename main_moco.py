"""Pre-train an encoder of Sentinel-2 series by SITS-MoCo, without labels.

python main_moco.py transformer --rc --use-doy --useall --mlp
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import nn

from datasets.catalog import Selection
from datasets.simulate import ensure_default
from datasets.store import SeriesSet
from moco.loader import add_view_options, augmentation_of, two_views
from models import NETWORKS, build_model, canonical_name, model_class
from pretraining import PRETEXTS, add_arguments, needs_labels
from pretraining.data import HeldOutViews, PretrainingData, open_pool
from pretraining.progress import EpochBar, end_epoch, log_step
from pretraining.resume import ADVICE, UNTRAINED, describe, identity, load, load_weights
from pretraining.step import TrainingStep, compile_step, is_compiling_wanted
from tscls.probe import EpochProbe
from utils import options
from utils.checkpoint import load_checkpoint
from utils.errors import Parser, UsageError, exit_cleanly
from utils.options import AUTO
from utils.precision import Precision
from utils.results.folders import Place, State, claim, recorded
from utils.results.keeper import Keeper
from utils.results.logs import RunLog
from utils.results.losses import LossWatch, bad_batch
from utils.results.naming import DOY_NOTICE, pretraining_name
from utils.results.resume import Saved, find_saved, hint, how_to_continue
from utils.results.state import RunState
from utils.runtime import distributed, watchdog
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams, seed_everything
from utils.runtime.signals import Requests
from utils.schedule import Schedule

DATAPATH = "data/US-sim"

PATIENCE = 10  # epochs without a better held-out loss
FEW_STEPS = 10  # of an epoch; with fewer the user is told


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("model", help=f"the encoder: {', '.join(NETWORKS)}")
    options.add_data(parser, DATAPATH, num_help="series to draw, without --useall")
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
    options.check_place(args, is_test=args.evaluate)
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
    fingerprint = series.fingerprint(with_labels=needs_labels(args.pretext))
    return RunState(
        pretext,
        build_optimizer(args, pretext),
        Precision(args.amp, world.device, args.clip_grad),
        world,
        identity=identity(vars(args), f"of {len(series)} series, {fingerprint}"),
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
            means = run.means()
            speed = bar.close()
            held_out = evaluate(run, data)
            probed = probe(run.module.encoder_q, run.epoch) if log else {}
            is_best = end_epoch(run, means, speed | probed, held_out, log)
            keeper.after_epoch(*["model_best.pth"] * is_best, is_last=run.is_last(args.epochs, args.patience))
            run.begin_epoch()


def evaluate(run: RunState, data: PretrainingData) -> dict[str, float]:
    """Held-out loss and figures, on views that are the same every time."""
    run.module.eval()
    run.world.average_statistics(run.module)
    return run.module.evaluate(HeldOutViews(run.module.views, data), run.precision, run.world)


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
    has_labels = needs_labels(args.pretext)
    selection = Selection(args.num, args.nclasses, args.seed, args.useall, skip_bad=args.skip_bad)
    with world.main_first():
        ensure_default(args.datapath)
        series = open_pool(args.datapath, args.year, selection, has_labels=has_labels)
    labels = Selection(args.probe_num, args.nclasses, args.seed, skip_bad=args.skip_bad)
    probe = EpochProbe(args.probe, args.year, labels, every=args.probe_every, rc=args.rc)
    streams = RandomStreams(args.seed, world.device, world.rank)
    data = PretrainingData(series, args.batchsize, streams, world, args.workers, has_labels=has_labels)
    run = build_run(args, series, data.steps_per_epoch, world)
    if world.is_main:
        tell(args, series, data)
    if args.evaluate:
        return evaluate_saved(args, run, data)

    ends = {"epochs": args.epochs, "patience": args.patience}  # which a run that is resumed may raise
    wanted = run.identity if args.resume else run.identity | ends
    place_options = {"suffix": args.suffix, "overwrite": args.overwrite, "resume": args.resume}
    with claim(partial(run_folder, args, run.module), wanted, world, **place_options) as place:
        saved, note = find_saved(args.resume, place.folder, ADVICE)
        if saved:
            load(run, saved)
        if (told := already_done(args, run, place, saved)) is not None:
            if world.is_main:
                print(told)
            return world.finish()
        if world.is_main and note:
            print(note, flush=True)
        step = TrainingStep(run.module, run.optimizer, run.precision)
        if is_compiling_wanted(args.compile, world):
            compile_step(step, data.example(), world, is_required=args.compile)
        with world.main_first():
            kept = recorded(vars(args)) | {"identity": run.identity | ends}
            log = open_log(place, saved, kept, run.epoch) if world.is_main else None
        watchdog.set_hint(partial(hint, place.folder, saved.path if saved else None))
        watch = LossWatch(partial(bad_batch, data.series_of, data.steps_per_epoch, place.folder))
        keeper = Keeper(run, log and log.folder, requests, world, args.save_minutes, before=watch.finish)
        train(args, run, step, data, streams, log, probe, watch, keeper)
        if log:
            log.close()
            place.finish()
            print(f"best held-out loss {run.best:.4f}: {place.folder / 'model_best.pth'}")
    world.finish()


def evaluate_saved(args: argparse.Namespace, run: RunState, data: PretrainingData) -> None:
    """Print the held-out loss of --resume, or of the run's best."""
    folder = run_folder(args, run.module, args.suffix)
    saved, _ = find_saved(args.resume, folder, ADVICE)
    path = saved.path if saved else folder / "model_best.pth"
    load_weights(run, saved or Saved(path, load_checkpoint(path, UNTRAINED)))
    scores = evaluate(run, data)
    if run.world.is_main:
        told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(f"{path}: held-out {told} on {len(data.held_out_positions):,} series")
    run.world.finish()


def already_done(args: argparse.Namespace, run: RunState, place: Place, saved: Saved | None) -> str | None:
    """Why there is nothing to train, or None."""
    if place.state is State.FINISHED and (saved is None or args.resume != AUTO):
        return f"{place.folder}: this run is there and finished; --overwrite repeats it"
    if saved is None or not run.is_finished(args.epochs, args.patience):
        return None
    if run.world.is_main and place.state is State.UNFINISHED:  # it was killed when nothing but the mark was missing
        place.finish()
    flag = f"-e {args.epochs}" if run.epoch >= args.epochs else f"--patience {args.patience}"
    return f"{saved.path}: nothing to train, {run.epoch} epochs are done ({flag}); to continue, raise it"


def run_folder(args: argparse.Namespace, pretext: nn.Module, suffix: str | None) -> Path:
    """The folder of the run, by the published naming."""
    return Path(args.logdir) / pretraining_name(
        pretext.run_name + pretext.encoder_q.run_name,
        num=None if args.useall else args.num,
        seed=args.seed,
        rc=args.rc,
        year=args.year,
        use_doy=args.use_doy,
        suffix=suffix,
    )


def open_log(place: Place, saved: Saved | None, kept: dict, epoch: int) -> RunLog:
    """The log of the run in its folder, from an epoch on if it is resumed."""
    place.enter(saved)
    return RunLog(place.folder, kept, resume_epoch=epoch if saved else None)


def tell(args: argparse.Namespace, series: SeriesSet, data: PretrainingData) -> None:
    """Say what the run is trained on, and what is odd about it."""
    held_out = len(data.held_out_positions)
    print(f"{series.store!r}: training on {len(data.train_positions):,}, {held_out:,} held out")
    if data.steps_per_epoch < FEW_STEPS:
        few = f"{data.steps_per_epoch} step{'s' if data.steps_per_epoch > 1 else ''} an epoch"
        print(f"-b {args.batchsize}: only {few}, from which little is learned; lower -b, and --moco-k with it")


if __name__ == "__main__":
    main()
