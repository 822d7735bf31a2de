"""Pre-train an encoder of Sentinel-2 series by SITS-MoCo, without labels.

python main_moco.py transformer --rc --use-doy --useall --mlp
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.batches import open_series, split_batches
from datasets.catalog import open_unlabelled
from datasets.simulate import ensure_default
from datasets.store import SeriesSet
from moco.builder import MoCo, held_out_contrast
from moco.loader import PUBLISHED, STRONGER, two_views
from models import NETWORKS, build_model, canonical_name
from pretraining import resume as resuming
from pretraining.step import TrainingStep, compile_step, is_compiling_wanted
from utils import options
from utils.checkpoint import save_checkpoint
from utils.errors import Parser, UsageError, exit_cleanly
from utils.precision import Precision
from utils.results.logs import RunLog
from utils.results.naming import DOY_NOTICE, pretraining_name
from utils.runtime import distributed, watchdog
from utils.runtime.distributed import World
from utils.runtime.seeding import RandomStreams, make_generator, seed_everything
from utils.runtime.signals import stop_requests
from utils.schedule import Schedule, applied_rate

DATAPATH = "data/US-sim"

PATIENCE = 10  # epochs without a better held-out loss
HELD_OUT = 0.1  # share of the series that are never trained on
FEW_STEPS = 10  # of an epoch; with fewer the user is told
SAVE_SECONDS = 600  # inside an epoch, model_last.pth is at most this old


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    parser.add_argument("model", help=f"the encoder: {', '.join(NETWORKS)}")
    options.add_data(parser, DATAPATH, num_help="unlabelled series to draw, without --useall")
    options.add_training(parser)
    add = parser.add_argument
    add("--resume", metavar="PATH", help="go on from this checkpoint (model_last.pth: exactly where the run was)")
    add("--start-epoch", type=options.at_least(0), default=0, help="number of the first epoch")
    add("--optimizer", choices=("adam", "sgd"), default="adam", help="what updates the query encoder")
    add("--momentum", type=options.share, default=0.9, help="of sgd")
    add("--cos", action="store_true", help="cosine schedule of the learning rate")
    add("--evaluate", action="store_true", help="only print the held-out loss of --resume (or of the run's best)")
    add("--seed", type=int, default=111, help="of everything random")
    add("--moco-dim", type=options.at_least(1), default=128, help="width of queries and keys")
    add("--moco-k", type=options.at_least(1), default=65536, help="keys in the queue")
    add("--moco-m", type=options.share, default=0.999, help="momentum of the key encoder")
    add("--moco-t", type=options.positive, default=0.07, help="temperature")
    add("--mlp", action="store_true", help="MoCo v2: an MLP as projection head")
    add("--aug-plus", action="store_true", help="views that differ more: twice the noise, removal of 40 %%")
    add("--bn-splits", type=options.at_least(1), default=1, help="sub-batches of the shuffled batch normalisation")
    add("--patience", type=options.at_least(1), default=PATIENCE, help="epochs without a better held-out loss")
    args = parser.parse_args(argv)
    args.model = canonical_name(args.model)
    if args.model not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise UsageError(f"{args.model} is no network: main_tscls.py trains it, here choose one of {known}")
    if args.cos and args.schedule:
        raise UsageError("--cos and --schedule are two ways for the learning rate to fall; give one of them")
    if args.moco_k < args.batchsize:
        raise UsageError(
            f"--moco-k {args.moco_k} is below the batch of {args.batchsize}: the queue must hold a batch of keys;"
            " raise --moco-k or lower -b"
        )
    if args.batchsize % args.bn_splits or args.batchsize // args.bn_splits < 2 <= args.bn_splits:
        raise UsageError(
            f"--bn-splits {args.bn_splits}: a batch of {args.batchsize} cannot be cut into as many equal parts"
            " of at least 2 series"
        )
    return args


class Trainer:
    """A pre-training run: the model, what updates it, and where it is (epoch, step)."""

    def __init__(self, args: argparse.Namespace, series: SeriesSet, world: World):
        self.args, self.world = args, world
        self.train_rows, self.valid_rows = hold_out(series, args.seed, world.size)
        self.reader = open_series(series, world.device, fixed_width=True)
        self.views = partial(
            two_views,
            size=args.sequencelength,
            method="rc" if args.rc else "pad",
            augmentation=STRONGER if args.aug_plus else PUBLISHED,
        )
        self.precision = Precision(args.amp, world.device)
        self.streams = RandomStreams(args.seed, world.device, world.rank)
        self.moco = MoCo(
            partial(
                build_model,
                args.model,
                num_classes=args.nclasses + 1,
                sequencelength=args.sequencelength,
                use_doy=args.use_doy,
                init="torch",
            ),
            args.moco_dim,
            args.moco_k,
            args.moco_m,
            args.moco_t,
            args.mlp,
            args.bn_splits,
        ).to(world.device)
        self.steps = len(split_batches(self.train_rows, args.batchsize, drop_last=True))
        self.schedule = Schedule(
            args.learning_rate, self.steps, args.epochs, args.warmup_epochs, args.schedule, args.cos
        )
        parameters = [p for p in self.moco.parameters() if p.requires_grad]
        if args.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(
                parameters, args.learning_rate, momentum=args.momentum, weight_decay=args.weight_decay, fused=True
            )
        else:
            self.optimizer = torch.optim.Adam(
                parameters, args.learning_rate, weight_decay=args.weight_decay, fused=True
            )
        self.train_step = TrainingStep(self.moco, self.views, self.optimizer, self.precision)
        self.epoch, self.step = args.start_epoch, 0  # where the run is; the step within the epoch
        self.best, self.not_improved = math.inf, 0
        self.is_asked_to_stop: Callable[[], bool] = lambda: False
        self.sums = torch.zeros(2, dtype=torch.float64, device=world.device)  # loss and top-1 of the epoch so far

    def stream(self, batches: list[np.ndarray]):
        """This rank's share of each batch of series, ready on the device."""
        return self.reader.stream([self.world.shard(batch) for batch in batches], self.args.workers)

    def batches(self) -> list[np.ndarray]:
        """The batches of the epoch, of all ranks."""
        order = self.train_rows[self.streams.order(self.epoch, len(self.train_rows))]
        order = order[: len(order) - len(order) % self.world.size]  # equal shares, also of an incomplete batch
        return split_batches(order, self.args.batchsize, drop_last=True)

    def train_epoch(self, log: RunLog | None) -> dict:
        """What is left of the epoch; returns its means for the log."""
        args, world = self.args, self.world
        self.train_step.model.train()
        batches = self.batches()[self.step :]
        start = saved = time.monotonic()
        seen = 0
        bar = tqdm(total=len(batches), desc=f"epoch {self.epoch}", disable=None if log else True, leave=False)
        for series in self.stream(batches):
            self.streams.seek(self.epoch, self.step)
            self.schedule.apply(self.optimizer, self.position())
            scores = self.train_step(series, self.streams.augment)
            self.sums += scores
            self.step += 1
            seen += len(series.length) * world.size
            bar.update()
            is_look = self.position() % args.print_freq == 0
            if is_look:
                self.report(bar, *scores.tolist(), seen / (time.monotonic() - start), log)
            if self.step < self.steps and (is_look or world.size == 1):  # asking the other ranks takes time
                if self.is_to_stop():
                    self.stop(f"stopped in epoch {self.epoch} after step {self.step}", log)
                if world.any_rank(time.monotonic() - saved > SAVE_SECONDS):
                    self.save(log)
                    saved = time.monotonic()
        bar.close()
        loss, top1 = (world.all_reduce_sum_(self.sums.clone()) / world.size / self.step).tolist()
        check_finite(loss, self.epoch)
        seconds = time.monotonic() - start
        return {"train_loss": loss, "train_top1": top1, "seconds": seconds, "series_per_s": seen / seconds}

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Held-out loss and top-1, on views that are the same every time; nothing of the model changes."""
        moco, world = self.moco.eval(), self.world
        world.average_statistics(moco)
        generator = make_generator(self.args.seed, "held-out", world.rank, device=world.device)
        queries, keys = [], []
        for series in self.stream(split_batches(self.valid_rows, self.args.batchsize, smallest=world.size)):
            view_q, view_k = self.views(series, generator=generator)
            with self.precision.autocast():
                queries.append(moco.encode_queries(view_q))
                keys.append(moco.encode_keys(view_k))
        queries, keys = (world.all_gather(torch.cat(part)) for part in (queries, keys))
        return held_out_contrast(queries, keys, moco.T)

    def report(self, bar: tqdm, loss: float, top1: float, rate: float, log: RunLog | None) -> None:
        """The present loss, on the progress bar and in TensorBoard."""
        check_finite(loss, self.epoch)
        bar.set_postfix_str(f"loss {loss:.3f}, {rate:,.0f} series/s")
        if log:
            log.scalars("step", {"loss": loss, "top1": top1, "series_per_s": rate}, self.position())

    def position(self) -> int:
        """Optimizer steps done."""
        return self.epoch * self.steps + self.step

    def run(self, log: RunLog | None) -> None:
        """Train to the last epoch, or until the held-out loss no longer gets better."""
        step, model = self.train_step, self.train_step.model
        if self.world.size > 1:  # the queue is the same on every rank as it is, so nothing is broadcast
            step.model = self.world.parallel(model)
        try:
            with stop_requests() as self.is_asked_to_stop:
                self.train(log)
        finally:
            step.model = model  # a parallel model that outlives the group of ranks may wait for it for ever

    def train(self, log: RunLog | None) -> None:
        args = self.args
        while self.epoch < args.epochs and self.not_improved < args.patience:
            means = self.train_epoch(log)
            row = {"epoch": self.epoch, "lr": applied_rate(self.optimizer), **means}
            row["valid_loss"], row["valid_top1"] = self.evaluate()
            check_finite(row["valid_loss"], self.epoch)
            better = row["valid_loss"] < self.best
            self.best = min(self.best, row["valid_loss"])
            self.not_improved = 0 if better else self.not_improved + 1
            if log:
                log.epoch(row)
                for name in ("model_best.pth", "model_last.pth") if better else ("model_last.pth",):
                    save_checkpoint(log.folder / name, resuming.state(self))
                print(
                    "epoch {epoch}: loss {train_loss:.4f}, held out {valid_loss:.4f}, top-1 {train_top1:.3f},"
                    " held out {valid_top1:.3f}, {series_per_s:,.0f} series/s".format(**row),
                    flush=True,
                )
            self.epoch, self.step = self.epoch + 1, 0
            self.sums.zero_()
            if self.epoch < args.epochs and self.not_improved < args.patience and self.is_to_stop():
                self.stop(f"stopped after epoch {self.epoch - 1}", log)

    def is_to_stop(self) -> bool:
        """Whether any rank was asked to stop: all stop after the same step, or they would wait for each other."""
        return self.world.any_rank(self.is_asked_to_stop())

    def save(self, log: RunLog | None) -> None:
        """Leave a checkpoint inside an epoch; rank 0 writes what all ranks come to together."""
        self.world.average_statistics(self.moco)
        self.world.all_reduce_sum_(self.sums).div_(self.world.size)
        if log:
            save_checkpoint(log.folder / "model_last.pth", resuming.state(self))

    def stop(self, when: str, log: RunLog | None) -> None:
        """End the run, saved; all ranks do so together."""
        if self.step:  # else the end of the epoch has saved
            self.save(log)
        self.world.final_barrier()
        where = f"; go on with --resume {log.folder / 'model_last.pth'}" if log else ""
        raise KeyboardInterrupt(f"{when}{where}")

    def prepare_step(self) -> None:
        """Compile the training step where that is wanted and works."""
        if is_compiling_wanted(self.args.compile, self.world):
            first = self.reader.gather(self.world.shard(self.batches()[0]))
            compile_step(self.train_step, first, self.world, is_required=self.args.compile)


def check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise UsageError(f"the loss became {loss} in epoch {epoch}; lower -lr, or raise --moco-t")


def hold_out(series: SeriesSet, seed: int, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the series to train on, and of those held out, drawn by the seed."""
    order = torch.randperm(len(series), generator=make_generator(seed, "held-out split")).numpy()
    count = max(int(HELD_OUT * len(order)), ranks)
    if len(order) - count < max(2, ranks):
        raise UsageError(f"{series.store.path}: {len(order)} series are too few to pre-train on; expected at least 3")
    return np.sort(order[count:]), np.sort(order[:count])


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    world = distributed.start(args.device)
    if args.batchsize % world.size:
        raise UsageError(f"-b {args.batchsize} cannot be shared equally by {world.size} ranks; give a multiple")
    with world.main_first():
        ensure_default(args.datapath)
        series = open_unlabelled(args.datapath, args.year, num=None if args.useall else args.num, seed=args.seed)
    seed_everything(args.seed)
    trainer = Trainer(args, series, world)
    encoder = trainer.moco.encoder_q
    folder = Path(args.logdir) / pretraining_name(args, encoder.run_name)
    if world.is_main:
        if args.use_doy and not encoder.uses_doy_flag:
            print(f"{args.model}: --use-doy changes nothing ({DOY_NOTICE})")
        print(f"{series.store!r}: training on {len(trainer.train_rows):,}, {len(trainer.valid_rows):,} held out")
        if trainer.steps < FEW_STEPS:
            few = f"{trainer.steps} step{'s' if trainer.steps > 1 else ''} an epoch"
            print(f"-b {args.batchsize}: only {few}, from which little is learned; lower -b, and --moco-k with it")

    if args.evaluate:
        path = args.resume or str(folder / "model_best.pth")
        resuming.load(trainer, path, weights_only=True)
        loss, top1 = trainer.evaluate()
        if world.is_main:
            print(f"{path}: held-out loss {loss:.4f}, top-1 {top1:.4f} on {len(trainer.valid_rows):,} series")
        return world.finish()

    if args.resume:
        resuming.load(trainer, args.resume)
        if trainer.epoch >= args.epochs or trainer.not_improved >= args.patience:
            if world.is_main:
                flag = f"-e {args.epochs}" if trainer.epoch >= args.epochs else f"--patience {args.patience}"
                print(f"{args.resume}: nothing to train, {trainer.epoch} epochs are done ({flag}); to go on, raise it")
            return world.finish()
    trainer.prepare_step()
    with world.main_first():
        log = RunLog(folder, vars(args), resume_epoch=trainer.epoch if args.resume else None) if world.is_main else None
    watchdog.set_hint(partial(resuming.hint, folder, args.resume))
    trainer.run(log)
    if log:
        log.close()
        print(f"best held-out loss {trainer.best:.4f}: {folder / 'model_best.pth'}")
    world.finish()


if __name__ == "__main__":
    main()
