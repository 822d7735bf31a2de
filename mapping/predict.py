"""A map from a classifier and images: the class of every pixel, and how sure the classifier is.

    python -m mapping.predict --model results/F_TR_STNet_R3000_RC_2019_Seed111 --images data/scene/images --out map.tif

    map.tif             cloud-optimised GeoTIFF: band 1 class code, band 2 confidence in per cent
    map.tif.aux.xml     names of the classes, for GDAL and QGIS
    map.qml             style for QGIS
    map.png             picture with legend, scale bar and areas

A pixel is classified from all its observations, in one pass without randomness. An interrupted run keeps its finished
windows in map.tif.parts/, and the same command continues it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.classmap import ClassMap, read_classmap
from datasets.images import open_from
from datasets.optional import need
from datasets.preparation.extract import bound_cache
from mapping import quicklook, styles, writing
from mapping.area import Within, crop
from mapping.arguments import get_args
from mapping.cluster import run_cluster
from mapping.identity import PRIOR, digest, identity, model_file
from mapping.legend import Entry
from mapping.parts import Parts, place
from mapping.running import CACHE, Job, MapInterrupted, run_here, run_processes
from mapping.shares import shares_of_map
from mapping.windows import Options, Plan
from tscls.classifier import Classifier, load_classifier
from tscls.inseason import choose_day
from tscls.prior import check_prior
from utils.errors import UsageError, exit_cleanly
from utils.files import FULL, PARTIAL, write_text
from utils.results import figures
from utils.runtime import distributed


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    args = get_args(__doc__, argv)
    bound_cache(CACHE)
    parts = Parts(args.out)
    with _interruptions(parts):
        _refuse_existing(args, parts)
        job, classifier = _prepare(args)
        made_of = identity(job.plan, model_file(args.model), args.images)
        made_of[PRIOR] = shares_of_map(args.prior, job.plan, classifier, parts, made_of)
        job = job._replace(there=made_of[PRIOR].get("shares"))
        job.adjust(classifier)
        if args.merge and not parts.manifest.exists():
            raise UsageError(f"{parts.folder}: no such folder; run the commands with --part before --merge")
        parts.start(made_of, args.overwrite)
        if parts.is_finished():
            parts.remove()
            print(f"{args.out}: is whole already")
            return
        missing = _make(args, job, classifier, parts, digest(made_of))
        if args.part:
            print(f"part {args.part.i} of {args.part.n} is done; when all are, give --merge in place of --part")
            return
        if missing:
            raise UsageError(
                f"{parts.folder}: {len(missing)} of {len(job.plan.windows)} windows are missing (the first is number"
                f" {missing[0]}); run the --part that makes them, or the command without --merge"
            )
        _finish(args, job.plan, parts, made_of)


@contextmanager
def _interruptions(parts: Parts) -> Iterator[None]:
    """Ends with one line and exit code 1 where the map is unfinished for a reason that is no fault of the input."""
    try:
        yield
    except MapInterrupted as error:
        _end(str(error), parts)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _end(f"{error.filename or parts.folder}: {error.strerror}", parts)


def _end(reason: str, parts: Parts) -> None:
    kept = f"; finished windows are kept in {parts.folder}, the same command continues" if parts.folder.exists() else ""
    print(f"error: {reason}{kept}", file=sys.stderr)
    sys.exit(1)


def _refuse_existing(args: argparse.Namespace, parts: Parts) -> None:
    """An earlier map is not replaced without --overwrite; what a run wrote whose parts are still there is."""
    if args.overwrite:
        return
    begun = parts.manifest.exists()
    given = [("--out", args.out, parts.is_finished())]
    given += [("--out", args.out.with_name(name), begun) for name in _beside(args.out)]
    if args.probabilities:
        given.append(("--probabilities", args.probabilities, begun))
    for name, path, ours in given:
        if path.exists() and not ours:
            raise UsageError(f"{name} {path}: exists; give --overwrite to replace it, or another name")


def _prepare(args: argparse.Namespace) -> tuple[Job, Classifier]:
    """Load the model and open the images."""
    elsewhere = args.merge or args.scheduler or args.workers > 1
    world = distributed.start("cpu" if elsewhere else args.device)
    if world.size > 1:
        raise UsageError("python -m mapping.predict is a single process; start it without torchrun, see --workers")
    classmap = read_classmap(args.classes) if args.classes else None
    classifier = load_classifier(args.model, world.device, classmap=classmap)
    if classifier.classmap is None:
        raise UsageError(f"{args.model}: has no class map; give one with --classes FILE, as classmapping20.csv")
    check_prior(args.prior, classifier.shares, classifier.classmap, args.model)
    until, told = choose_day(classifier.until, args.until_doy, args.model)
    images = open_from(args).until(until)
    for line in (*images.notes, *images.skipped, *told):
        print(line)
    box = crop(images.grid, args.bbox, args.bbox_crs)
    within = Within(args.within, images.grid) if args.within else None
    how = Options(args.min_observations, args.smooth, args.probabilities is not None, until)
    plan = Plan(images, box, within, classes_of(classifier.classmap), how, args.window)
    return Job(plan, args.model, args.device, classmap), classifier


def classes_of(classmap: ClassMap) -> tuple[Entry, ...]:
    """The legend of a class map, in the order of the ids."""
    columns = zip(classmap.codes, classmap.names, classmap.colours, strict=True)
    return tuple(Entry(int(code), name, tuple(colour), i) for i, (code, name, colour) in enumerate(columns))


def _make(args: argparse.Namespace, job: Job, classifier: Classifier, parts: Parts, key: str) -> list[int]:
    """Make the windows that are missing, or of those the ones of --part; returns what is missing then."""
    count = len(job.plan.windows)
    missing = parts.missing(count)
    if args.merge:
        return missing
    if len(missing) < count:
        print(f"{parts.folder}: {count - len(missing)} of {count} windows are there already")
    numbers = [number for number in missing if not args.part or number % args.part.n == args.part.i - 1]
    start = time.monotonic()
    with tqdm(total=len(numbers), unit=" windows", desc=f"mapping {args.out}", disable=None) as bar:
        if not numbers:
            return []
        if args.scheduler:
            run_cluster(job, args.scheduler, key, parts, numbers, bar.update)
        elif args.workers > 1:
            run_processes(job, parts, numbers, args.workers, bar.update)
        else:
            run_here(job, classifier, parts, numbers, bar.update)
    pixels = sum(job.plan.windows[number].width * job.plan.windows[number].height for number in numbers)
    print(f"{len(numbers)} windows, {pixels:,} pixels, {pixels / (time.monotonic() - start):,.0f} pixels/s")
    return []


def _beside(out: Path) -> tuple[str, str, str]:
    """Names of the category names, the style and the picture of a map."""
    return f"{out.name}.aux.xml", f"{out.stem}.qml", f"{out.stem}.png"


def _finish(args: argparse.Namespace, plan: Plan, parts: Parts, made_of: dict) -> None:
    """Write all files beside the parts, then give them their names, the map last."""
    out, whole, tags = args.out, parts.folder / args.out.name, _tags(plan, made_of)
    pixels = writing.write_map(plan, parts, whole, tags)
    xml, style, picture = _beside(out)
    write_text(parts.folder / xml, styles.auxiliary_xml(plan.classes))
    write_text(parts.folder / style, styles.qgis_style(plan.classes))
    beside = [xml, style]
    if figures.available():
        quicklook.draw(whole, parts.folder / picture, plan.classes, out.stem)
        beside.append(picture)
    else:
        print("no picture of the map: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
    if args.probabilities:
        unfinished = args.probabilities.with_name(f".{args.probabilities.stem}{PARTIAL}map.tif")
        writing.write_probabilities(plan, parts, unfinished, tags)
        place(unfinished, args.probabilities)
    for name in beside:
        place(parts.folder / name, out.with_name(name))
    parts.finish(whole)
    print(
        f"{out}: {plan.box.grid}, {pixels['classified']:,} pixels classified, {pixels['few']:,} with fewer than"
        f" {plan.options.min_observations} observations, {pixels['outside']:,} outside"
    )


def _tags(plan: Plan, made_of: dict) -> dict[str, str]:
    """What the map says of its making; nothing that differs between two runs of one command."""
    rasterio = need("rasterio", "a map")
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    versions |= {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__}
    told = {
        "MODEL": made_of["model"],
        "IMAGES": {name: file["bytes"] for name, file in made_of["images"].items()},
        "DATES": [day.isoformat() for day in plan.images.dates],
        "OFFSETS": {name: offset for name, (_, offset) in made_of["offsets"].items()},
        "SKIPPED": plan.images.skipped,
        "NOTES": plan.images.notes,
        "OPTIONS": {**made_of["options"], **made_of["values"]},
        "VERSIONS": versions,
    }
    if made_of[PRIOR]:
        told["PRIOR"] = made_of[PRIOR]
    return {key: json.dumps(value, ensure_ascii=False) for key, value in told.items()}


if __name__ == "__main__":
    main()
