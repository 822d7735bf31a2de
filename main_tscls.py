"""Train or fine-tune classifiers of Sentinel-2 series on few labels, test them, compare them.

python main_tscls.py stnet --rc --pretrained checkpoints/pretrained/MoCoV2_TRSF_doy/model_best.pth
"""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

from datasets.catalog import Selection, Splits, open_classmap, open_eval, open_labelled
from datasets.simulate import ensure_default
from models import ESTIMATORS, INITS, NETWORKS, build_model, canonical_name, model_class
from tscls.classifier import fresh_classifier, load_classifier
from tscls.evaluation import evaluate
from tscls.inputs import length_method
from tscls.pretrained import notes, start_from
from tscls.recipe import FEW_LABELS, RECIPES, Recipe, choose_recipe
from tscls.resume import ADVICE, check_state, finished_tests, identity, state_for
from tscls.training import check_batch, fit, fit_estimator
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.metrics import SCORES, readable
from utils.precision import Precision
from utils.report import write_comparison
from utils.results.logs import RunLog
from utils.results.naming import DOY_NOTICE, training_name
from utils.results.resume import AUTO, arguments, enter_folder, find_saved, hint, how_to_continue
from utils.runtime import distributed, watchdog
from utils.runtime.distributed import World
from utils.runtime.seeding import seed_everything
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
    add("--pretrained", metavar="PATH", help="start the trunk from this checkpoint")
    add("--freeze", action="store_true", help="train the decoder alone")
    add("--eval", action="store_true", help="no training: test what the run saved, with the settings it was saved with")
    add("--years", type=int, nargs="+", help="years to test on (default: YEARS, or --year if it is not one)")
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
    if args.eval and args.resume:
        raise UsageError("--eval trains nothing and --resume continues training; give one of them")
    if args.rc and args.pad:
        raise UsageError("--rc and --pad are two ways to length S; give one of them")
    if args.pretrained and set(args.models) & set(ESTIMATORS):
        raise UsageError(f"--pretrained is for the networks ({', '.join(NETWORKS)}): leave out {', '.join(ESTIMATORS)}")
    return args


def length_methods(args: Namespace) -> dict[str, str]:
    """How series reach length S, by model; UsageError where one cannot be built, or start from --pretrained."""
    methods, flags = {}, {"rc": args.rc, "pad": args.pad, "interp": args.interp}
    for name in args.models:
        pretrained = None
        if name in NETWORKS:
            network = build_model(name, sequencelength=args.sequencelength, use_doy=args.use_doy)
            pretrained = start_from(network, args.pretrained).length_method if args.pretrained else None
        methods[name] = length_method(model_class(name).interpolates, pretrained=pretrained, **flags)
    return methods


def folder_of(args: Namespace, name: str, method: str, seed: int) -> Path:
    """The run folder of one model and seed."""
    model = model_class(name)
    run_name = name.upper() if name in ESTIMATORS else model.run_name
    shown = {key: getattr(args, key) for key in ("year", "pretrained", "regions", "leave_out", "freeze", "suffix")}
    shown |= {"num": None if args.useall else args.num, "use_doy": args.use_doy and model.uses_doy_flag}
    return Path(args.logdir) / training_name(run_name, seed=seed, length_method=method, **shown)


def check(args: Namespace, methods: dict[str, str], world: World) -> None:
    """UsageError for what else can be wrong with the command line, before data are opened or simulated."""
    Precision(args.amp, world.device)
    if args.batchsize:
        check_batch(args.batchsize, world)
    if args.resume not in (None, AUTO):
        check_state(args.resume, args.models, args.seeds)
    for seed in args.seeds if args.eval else ():
        for name, method in methods.items():
            load_classifier(folder_of(args, name, method, seed), "cpu", advice=UNTRAINED)


def notices(args: Namespace, methods: dict[str, str]) -> None:
    """Say which of the flags do nothing for which of the models, and what was decided without one."""
    if len(set(args.seeds)) < len(args.seeds):
        print("--seeds: one is given more than once; it is run once")
    for name, method in methods.items():
        model = model_class(name)
        if args.use_doy and not model.uses_doy_flag:
            print(f"{name}: --use-doy changes nothing ({DOY_NOTICE})")
        if args.interp and not model.interpolates:
            print(f"{name}: --interp is not for it; its series are brought to length by {method}")
        elif args.pretrained and method != "pad" and not (args.rc or args.interp):
            print(f"{name}: series reach length S by {method}, as in {args.pretrained} (--pad: by padding)")


def announce(args: Namespace, seed: int, splits: Splits, num_classes: int) -> None:
    """Say which series a seed trains and tests on, and whether they are few."""
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in splits._asdict().items())
    sites = f"; {', '.join(args.regions)} only" if args.regions else ""
    sites += f"; {args.leave_out} is left out of training and tested on alone" if args.leave_out else ""
    print(f"seed {seed}: {sizes} series of {args.year} from {args.datapath}{sites}")
    labels = len(splits.train) + len(splits.valid)
    if labels < num_classes:
        print(f"warning: {labels} labelled series for {num_classes} classes, some of which have none; give a larger -n")


def recipe_of(args: Namespace, splits: Splits) -> Recipe:
    """How the models are trained on these labels."""
    labels, given = len(splits.train) + len(splits.valid), {key: getattr(args, key) for key in LEFT_TO_RECIPE}
    return choose_recipe(args.recipe, labels, milestones=tuple(args.schedule), draws=args.draws, **given)


def identity_of(args: Namespace, name: str, method: str, seed: int, recipe: Recipe, splits: Splits) -> dict:
    """What decides what the run of one model and seed computes."""
    kept = {key: getattr(args, key) for key in ("nclasses", "sequencelength", "freeze", "clip_grad")}
    if model_class(name).uses_doy_flag:
        kept["use_doy"] = args.use_doy
    if args.amp:  # else the device decides
        kept["amp"] = args.amp
    parts = (splits.train, splits.valid)
    return identity(recipe, parts, args.pretrained, model=name, seed=seed, length_method=method, **kept)


def train(
    args: Namespace, same: dict, recipe: Recipe, data: tuple, folder: Path, world: World, requests: Requests
) -> tuple[RunLog | None, float]:
    """Train the model of identity ``same`` and save it in its run folder, or resume that.

    Returns the RunLog, or None on ranks other than 0, and the seconds that it took, in all processes together.
    """
    (classmap, splits, _), start = data, time.monotonic()
    name, method, seed = (same[key] for key in ("model", "length_method", "seed"))
    settings = {"model": name, "seed": seed, "length_method": method, "recipe_used": vars(recipe), "identity": same}
    saved, note = find_saved(state_for(args.resume, name, seed), folder, ADVICE)
    watchdog.set_hint(partial(hint, folder, saved and saved.path))

    def open_log(resume_epoch: int | None) -> RunLog | None:
        if not world.is_main:
            return None
        if note:
            print(note, flush=True)
        enter_folder(folder, saved)
        return RunLog(folder, arguments(vars(args)) | settings, resume_epoch=resume_epoch, again=True)

    seed_everything(seed)
    model = {"sequencelength": args.sequencelength, "use_doy": args.use_doy, "init": recipe.init}
    classifier = fresh_classifier(name, classmap, method, draws=recipe.draws, seed=seed, **model)
    if name in ESTIMATORS:
        return fit_estimator(classifier, splits, recipe, open_log), time.monotonic() - start
    if args.pretrained:
        taken = start_from(classifier.model, args.pretrained)
        if world.is_main:
            print(*notes(classifier.model, taken, args.pretrained), sep="\n")
    flags = {"is_frozen": args.freeze, "is_compiled": bool(args.compile), "workers": args.workers, "identity": same}
    flags |= {"saved": saved, "requests": requests, "save_minutes": args.save_minutes, "print_freq": args.print_freq}
    precision = Precision(args.amp, world.device, args.clip_grad)
    log = fit(classifier, splits, recipe, folder, open_log, precision, world, **flags)
    return log, time.monotonic() - start + (saved.content["training"].get("seconds", 0) if saved else 0)


def run(args: Namespace, name: str, method: str, seed: int, data: tuple, world: World, requests: Requests) -> Path:
    """Train one model with one seed, unless --eval, and test what its run folder then holds; returns the folder.

    With --resume a run that is finished is kept, and its scores are printed.
    """
    classmap, splits, sets = data
    folder, log, seconds = folder_of(args, name, method, seed), None, None
    if not args.eval:
        recipe = recipe_of(args, splits)
        same = identity_of(args, name, method, seed, recipe, splits)
        tests = world.gather_objects(finished_tests(folder, same, sets) if args.resume else None)[0]
        if tests is None:
            log, seconds = train(args, same, recipe, data, folder, world, requests)
        for year, row in (tests or {}).items() if world.is_main else ():
            scores = {key: float(value) for key, value in row.items() if key in SCORES}
            print(f"{folder.name}, {year}: {readable(scores)} (finished before)", flush=True)
        sets = {year: series for year, series in sets.items() if year not in (tests or {})}
        if not sets:
            return folder
    world.barrier()
    classifier = load_classifier(folder, world.device)
    if classifier.classmap and classifier.classmap.names != classmap.names:
        raise UsageError(
            f"{folder}: its classes are not those of {args.datapath}; give the -c that it was trained with"
        )
    if args.draws is not None:
        classifier.draws = args.draws
    tested = {"train_year": args.year, "regions": args.regions or ([args.leave_out] if args.leave_out else [])}
    precision = Precision(args.amp, world.device)
    evaluate(classifier, sets, folder, world, precision, train_seconds=seconds, log=log, **tested)
    return folder


@exit_cleanly
def main(argv: list[str] | None = None) -> list[Path]:
    """Train, test and compare as the command line says; returns the run folders."""
    args = get_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    world = distributed.start(args.device)
    with Requests(how_to_continue("main_tscls.py", argv)).heard() as requests:
        return run_all(args, world, requests)


def run_all(args: Namespace, world: World, requests: Requests) -> list[Path]:
    """All models with all seeds, one after another, and their comparison."""
    methods = length_methods(args)
    check(args, methods, world)
    with world.main_first():
        ensure_default(args.datapath)
        classmap = open_classmap(args.datapath, args.nclasses)
    if world.is_main:
        notices(args, methods)
    folders = []
    for seed in dict.fromkeys(args.seeds):
        with world.main_first():
            selection = Selection(args.num, args.nclasses, seed, args.useall, args.regions, args.leave_out)
            splits = open_labelled(args.datapath, args.year, selection)
            others = {year: open_eval(args.datapath, year, selection) for year in args.years if year != args.year}
        sets = {year: others.get(year, splits.eval) for year in args.years}
        if world.is_main:
            announce(args, seed, splits, classmap.num_classes)
        folders += [run(args, *one, seed, (classmap, splits, sets), world, requests) for one in methods.items()]
    if world.is_main:
        print(f"\n{write_comparison(folders, args.logdir)}")
    world.finish()
    return folders


if __name__ == "__main__":
    main()
