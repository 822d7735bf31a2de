"""Train or fine-tune classifiers of Sentinel-2 series on few labels, test them, compare them.

python main_tscls.py stnet --rc --pretrained checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path

from datasets.catalog import Selection, Splits, open_classmap, open_eval, open_labelled
from datasets.classmap import ClassMap
from datasets.duplicates import leaks
from datasets.inseason import until
from datasets.simulate import ensure_default
from datasets.store import SeriesSet
from models import ESTIMATORS, INITS, NETWORKS, canonical_name, model_class
from tscls import calibration
from tscls.classifier import load_classifier
from tscls.evaluation import check_classes, evaluate, told_prior
from tscls.inseason import day, left_out
from tscls.notices import idle_flags, series_used
from tscls.parallel import check_jobs, folders_of
from tscls.pretrained import has_decoder_for, length_methods
from tscls.prior import CHOICES, add_option, check_prior, read_shares
from tscls.recipe import FEW_LABELS, RECIPES, Recipe, choose_recipe
from tscls.resume import check_state, finished_tests, identity, state_for
from tscls.runs import Run, train
from tscls.training import check_batch
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.metrics import SCORES, readable
from utils.options import AUTO
from utils.precision import Precision
from utils.report import write_comparison
from utils.results.folders import State, claim, locked, recorded
from utils.results.naming import training_name
from utils.results.resume import how_to_continue
from utils.runtime import distributed
from utils.runtime.distributed import World
from utils.runtime.signals import Requests

DATAPATH = "data/US-sim"
YEARS = (2019,)  # tested on
SEEDS = (111,)

LEFT_TO_RECIPE = ("init", "epochs", "batchsize", "learning_rate", "weight_decay", "warmup_epochs")  # unless given
UNTRAINED = "train this run first (leave out --eval), or give the flags it had"


def get_args(argv: list[str] | None = None) -> Namespace:
    parser = Parser(description=__doc__, formatter_class=options.HelpFormatter)
    add, known = parser.add_argument, ", ".join((*NETWORKS, *ESTIMATORS))
    add("models", nargs="+", metavar="model", help=f"one or more of {known}")
    options.add_data(parser, DATAPATH, num_help="labelled series, train and valid together")
    options.add_training(parser)
    add("--pad", action="store_true", help="pad to S, also where --pretrained was trained with --rc")
    add("--interp", action="store_true", help="rf, svm, gbt, tempcnn, lstm: interpolate to a regular grid of days")
    add("--draws", type=options.at_least(0), metavar="K", help="test with the mean of K random draws of S observations")
    add("--recipe", choices=RECIPES, default="auto", help=f"auto: few-label up to {FEW_LABELS:,} labels")
    add("--init", choices=INITS, default="published", help="how fresh weights start")
    options.leave_to_recipe(parser, LEFT_TO_RECIPE)
    add("--pretrained", metavar="PATH", help="start from this checkpoint, its decoder too if it has the same classes")
    add("--new-decoder", action="store_true", help="take the trunk alone from --pretrained")
    add("--calibrate", action="store_true", help=calibration.HELP)
    add("--freeze", action="store_true", help="train the decoder alone")
    add("--eval", action="store_true", help="no training: test what the run saved, with the settings it was saved with")
    add("--years", type=int, nargs="+", help="years to test on (default: YEARS, or --year if it is not one)")
    add("--until-doy", type=day, nargs="+", metavar="D", help="train and test on series up to day D, a run each")
    add("--seeds", type=int, nargs="+", default=list(SEEDS), help="one run for each")
    add("--jobs", type=options.at_least(1), default=1, metavar="N", help="runs at a time, which share the cores")
    add("--regions", nargs="+", metavar="SITE", help="only these sites")
    add("--leave-out", metavar="SITE", help="train without this site and test on it alone")
    add_option(parser)
    args = parser.parse_args(argv)
    args.years = args.years or (list(YEARS) if args.year in YEARS else [args.year])
    args.models = list(dict.fromkeys(canonical_name(name) for name in args.models))
    if args.batchsize == 1:
        raise UsageError("-b 1: batch normalisation needs at least 2 series in a batch")
    if args.freeze and not args.pretrained:
        raise UsageError("--freeze trains the decoder alone and needs a trunk: give one with --pretrained")
    if args.new_decoder and not args.pretrained:
        raise UsageError("--new-decoder takes the trunk alone of a checkpoint: give one with --pretrained")
    options.check_place(args, is_test=args.eval)
    if args.eval and args.resume:
        raise UsageError("--eval trains nothing and --resume continues training; give one of them")
    if args.rc and args.pad:
        raise UsageError("--rc and --pad are two ways to length S; give one of them")
    if args.pretrained and set(args.models) & set(ESTIMATORS):
        raise UsageError(f"--pretrained is for the networks ({', '.join(NETWORKS)}): leave out {', '.join(ESTIMATORS)}")
    return args


def days_of(args: Namespace) -> list[int | None]:
    """The days that series are cut after, a run each; None: they are whole."""
    return list(dict.fromkeys(args.until_doy or [None]))


def folder_of(args: Namespace, name: str, method: str, seed: int, until_doy: int | None, suffix: str | None) -> Path:
    """The run folder of one model, seed and day."""
    model = model_class(name)
    run_name = name.upper() if name in ESTIMATORS else model.run_name
    shown = {key: getattr(args, key) for key in ("year", "pretrained", "regions", "leave_out", "freeze")}
    shown |= {"num": None if args.useall else args.num, "use_doy": args.use_doy and model.uses_doy_flag}
    shown["until_doy"] = until_doy
    return Path(args.logdir) / training_name(run_name, seed=seed, length_method=method, suffix=suffix, **shown)


def check(args: Namespace, methods: dict[str, str], world: World) -> None:
    """UsageError for what else can be wrong with the command line, before data are opened or simulated."""
    Precision(args.amp, world.device)
    check_jobs(args.jobs, world)
    if args.batchsize:
        check_batch(args.batchsize, world)
    if args.resume not in (None, AUTO):
        check_state(args.resume, args.models, args.seeds, days_of(args))
    for (name, method), seed, last in product(methods.items(), args.seeds if args.eval else (), days_of(args)):
        load_classifier(folder_of(args, name, method, seed, last, args.suffix), "cpu", advice=UNTRAINED)


def runs_of(args: Namespace, methods: dict[str, str], classmap: ClassMap, world: World) -> Iterator[Run]:
    """The runs asked for, seed by seed and day by day."""
    source, days = None if args.new_decoder else args.pretrained, days_of(args)
    keeps_decoder = {last: bool(source) and has_decoder_for(classmap.names, last, source) for last in days}
    for seed in dict.fromkeys(args.seeds):
        with world.main_first():
            sites = {"regions": args.regions, "leave_out": args.leave_out}
            selection = Selection(args.num, args.nclasses, seed, args.useall, skip_bad=args.skip_bad, **sites)
            splits = open_labelled(args.datapath, args.year, selection)
            others = {year: open_eval(args.datapath, year, selection) for year in args.years if year != args.year}
        if world.is_main:
            where = {"year": args.year, "datapath": args.datapath, **sites}
            print(*series_used(splits, seed, classmap.num_classes, **where), sep="\n")
            for leak in leaks(splits._asdict(), args.year, others):
                print(f"warning: {leak}")
        labels, given = len(splits.train) + len(splits.valid), {key: getattr(args, key) for key in LEFT_TO_RECIPE}
        given |= {"milestones": tuple(args.schedule), "draws": args.draws}
        whole = {**splits._asdict(), **others}
        for last in days:
            seen = {name: until(series, last) for name, series in whole.items()}
            for line in left_out(whole, seen, last) if world.is_main else ():
                print(line)
            used = Splits(*(seen[name] for name in Splits._fields))
            sets = {year: seen.get(year, used.eval) for year in args.years}
            recipe = choose_recipe(args.recipe, labels, keeps_decoder=keeps_decoder[last], **given)
            for name, method in methods.items():
                state = state_for(args.resume, name, seed, last)
                place = {"suffix": args.suffix, "overwrite": args.overwrite, "resume": state}
                own = {"model": name, "seed": seed, "length_method": method, "until_doy": last}
                own |= {"keeps_decoder": True} if keeps_decoder[last] else {}
                same = identity_of(args, recipe, used, own)
                folder = partial(folder_of, args, name, method, seed, last)
                yield Run(same, recipe, classmap, used, sets, folder, place)


def identity_of(args: Namespace, recipe: Recipe, splits: Splits, own: dict) -> dict:
    """What decides what a run computes; ``own`` is what tells it from the other runs of the command."""
    kept = {key: getattr(args, key) for key in ("nclasses", "sequencelength", "freeze", "clip_grad", "calibrate")}
    if model_class(own["model"]).uses_doy_flag:
        kept["use_doy"] = args.use_doy
    if args.amp:  # else the device decides
        kept["amp"] = args.amp
    return identity(recipe, (splits.train, splits.valid), args.pretrained, **kept, **own)


def run_one(args: Namespace, run: Run, world: World, requests: Requests) -> Path:
    """Train unless the run is finished, and test on the years that it has not been tested on; returns its folder."""
    if args.eval:
        folder = run.name_of(args.suffix)
        with locked(folder) if world.is_main else nullcontext():
            test(args, run, folder, run.sets, world)
        return folder
    with claim(run.name_of, run.identity, world, **run.place) as place:
        if place.state is State.FINISHED:
            prior = told_prior(args.prior)
            tests = finished_tests(place.folder, run.sets, prior) if world.is_main else None
            tests = world.gather_objects(tests)[0]
            if world.is_main:
                print(f"{place.folder}: this run is there and finished; --overwrite repeats it")
                for year, row in tests.items():
                    scores = {key: float(value) for key, value in row.items() if key in SCORES}
                    print(f"{place.folder.name}, {year}: {readable(scores)} (finished before)", flush=True)
            missing = {year: series for year, series in run.sets.items() if year not in tests}
            if missing:
                test(args, run, place.folder, missing, world)
            return place.folder
        given = {
            key: getattr(args, key) for key in ("pretrained", "use_doy", "amp", "workers", "save_minutes", "print_freq")
        }
        given |= {"is_compiled": bool(args.compile), "recorded": recorded(vars(args))}
        log, seconds = train(run, place, world, requests, **given)
        world.barrier()
        test(args, run, place.folder, run.sets, world, train_seconds=seconds, log=log)
        if world.is_main:
            place.finish()
    return place.folder


def test(args: Namespace, run: Run, folder: Path, sets: dict[int, SeriesSet], world: World, **more) -> None:
    """Test the classifier that a run's folder holds; ``more`` is what ``evaluate`` takes of a training."""
    classifier = load_classifier(folder, world.device)
    check_classes(classifier, run.classmap, folder, args.datapath, "give the -c that it was trained with")
    check_prior(args.prior, classifier.shares, classifier.classmap, folder)
    if args.draws is not None:
        classifier.draws = args.draws
    tested = {"train_year": args.year, "regions": args.regions or ([args.leave_out] if args.leave_out else [])}
    tested["prior"] = args.prior
    evaluate(classifier, sets, folder, world, Precision(args.amp, world.device), **tested, **more)


@exit_cleanly
def main(argv: list[str] | None = None) -> list[Path]:
    """Train, test and compare as the command line says; returns the run folders."""
    args = get_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    world = distributed.start(args.device)
    with Requests(how_to_continue("main_tscls.py", argv)).heard() as requests:
        return run_all(args, world, requests)


def run_all(args: Namespace, world: World, requests: Requests) -> list[Path]:
    """All models with all seeds and days, and their comparison."""
    model = {"sequencelength": args.sequencelength, "use_doy": args.use_doy}
    methods = length_methods(args.models, args.pretrained, model, rc=args.rc, pad=args.pad, interp=args.interp)
    check(args, methods, world)
    with world.main_first():
        ensure_default(args.datapath)
        classmap = open_classmap(args.datapath, args.nclasses)
    if args.prior not in CHOICES:
        read_shares(args.prior, classmap)  # before anything is trained
    if world.is_main:
        if len(set(args.seeds)) < len(args.seeds):
            print("--seeds: one is given more than once; it is run once")
        flags = {key: getattr(args, key) for key in ("use_doy", "interp", "rc", "pretrained")}
        for line in idle_flags(methods, **flags):
            print(line)
    runs = list(runs_of(args, methods, classmap, world))
    if world.is_main and not args.eval and args.suffix != AUTO:
        for run in runs:  # before any is trained
            with claim(run.name_of, run.identity, World(), **run.place):
                continue
    folders = folders_of(partial(run_one, args), runs, args.jobs, world, requests)
    if world.is_main:
        print(f"\n{write_comparison(folders, args.logdir)}")
    world.finish()
    return folders


if __name__ == "__main__":
    main()
