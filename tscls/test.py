"""Test a classifier as it is, without training: a run of main_tscls.py, a checkpoint, a pre-training on labels.

    python -m tscls.test --model results/P_LabelsSTNet_RC_2019 --datapath data/US-sim --out results/untuned

Each year's eval split is predicted. The folder then holds what main_tscls.py leaves of a test, so that it is a row in
its tables (python -m utils.report). The classes of the data must be those of the classifier.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets.catalog import Selection, open_classmap, open_eval
from datasets.inseason import until
from tscls import inseason, prior
from tscls.classifier import find_checkpoint, load_classifier
from tscls.evaluation import check_classes, evaluate, told_prior
from tscls.inseason import choose_day, left_out
from tscls.prior import check_prior
from tscls.resume import told_file, told_series
from utils import options
from utils.errors import Parser, UsageError, exit_cleanly
from utils.precision import AMP, Precision
from utils.results.folders import State, claim, recorded
from utils.results.logs import RunLog
from utils.results.runs import is_pretraining
from utils.runtime import distributed


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m tscls.test", description=__doc__, formatter_class=options.HelpFormatter)
    add = parser.add_argument
    add("--model", required=True, metavar="RUN", help="run folder, or a checkpoint file")
    add("--datapath", required=True, help="data root, in the published layout or of stores")
    add("--years", type=int, nargs="+", default=[2019], help="years to test on")
    add("--regions", nargs="+", metavar="SITE", help="only these sites")
    add("--out", required=True, type=Path, metavar="FOLDER", help="folder for scores, tables and pictures")
    add("--overwrite", action="store_true", help="replace what is in --out")
    add("--draws", type=options.at_least(0), metavar="K", help="mean of K random draws, 0: all observations at once")
    prior.add_option(parser)
    inseason.add_option(parser)
    add("-d", "--device", default=None, help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
    add("--amp", choices=AMP, default=None, help="mixed precision (default: bf16 on a GPU that supports it, else off)")
    args = parser.parse_args(argv)
    if is_pretraining(args.out):
        raise UsageError(f"--out {args.out}: names in P_ are those of pre-trainings; give another")
    return args


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(argv)
    world = distributed.start(args.device)
    precision = Precision(args.amp, world.device)
    advice = "give a run folder of main_tscls.py, of main_moco.py --pretext labels, or a checkpoint in one"
    classifier = load_classifier(args.model, world.device, advice=advice)
    if args.draws is not None:
        classifier.draws = args.draws
    check_prior(args.prior, classifier.shares, classifier.classmap, args.model)
    classes = classifier.num_classes - 1
    classmap = open_classmap(args.datapath, classes)
    check_classes(classifier, classmap, args.model, args.datapath, "give data of the same class map")
    selection = Selection(nclasses=classes, regions=args.regions)
    whole = {year: open_eval(args.datapath, year, selection) for year in args.years}
    classifier.until, told = choose_day(classifier.until, args.until_doy, args.model)
    sets = {year: until(series, classifier.until) for year, series in whole.items()}
    if world.is_main:
        for line in (*told, *left_out(whole, sets, classifier.until)):
            print(line)
    model = find_checkpoint(args.model)
    described = {"model": classifier.name, "pretrained": str(model), "num": 0, "year": args.years[0]}
    described |= {"out": str(args.out), "seed": classifier.seed, "until_doy": classifier.until}
    same = {"model": told_file(model), "draws": classifier.draws, "years": args.years, "regions": args.regions}
    same |= {"data": told_series(list(sets.values())), "prior": told_prior(args.prior)}
    same["until_doy"] = classifier.until
    place_options = {"suffix": None, "overwrite": args.overwrite, "elsewhere": "another --out"}
    with claim(lambda _: args.out, same, world, **place_options) as place:
        if place.state is State.FINISHED:
            if world.is_main:
                print(f"{place.folder}: this test is there and finished; --overwrite repeats it")
            return world.finish()
        log = None
        if world.is_main:
            place.enter(None)
            log = RunLog(args.out, recorded(vars(args)) | described | {"identity": same})
        tested = {"train_year": args.years[0], "regions": args.regions or [], "prior": args.prior}
        evaluate(classifier, sets, args.out, world, precision, log=log, **tested)
        if world.is_main:
            place.finish()
    world.finish()


if __name__ == "__main__":
    main()
