"""Which class a user's label is: the class map of a preparation, and labels by it."""

from __future__ import annotations

import colorsys
import re
from pathlib import Path

import numpy as np

from datasets.classmap import CDL20, ClassMap, read_classmap
from datasets.errors import DataError
from datasets.preparation.labels import Legend

AUTO, TOP = "auto", 20
NOTHING = Legend({}, {})
SHOWN = 10  # labels that a message names


def choose_classmap(
    choice: str | None, root: Path, labels: np.ndarray, *, top: int = TOP, legend: Legend = NOTHING
) -> tuple[ClassMap, str]:
    """The class map for labels (N,), whole numbers or text, and a line that says which it is.

    `choice` is a file, "auto" for the `top` most frequent labels, or None: the map that `root` has; in a new root
    CDL's 20 classes for codes, and for text if it has a name of theirs, else "auto".
    """
    if choice == AUTO:
        return frequent(labels, top, legend), f"classes: the {top} most frequent labels at most"
    if choice is not None:
        return read_classmap(Path(choice)), f"classes: {choice}"
    there = [path for path in sorted(root.glob("classmapping*.csv")) if re.fullmatch(r"classmapping\d+.csv", path.name)]
    if len(there) > 1:
        raise DataError(f"{root}: has several class maps; choose one with --classes, such as {there[0]}")
    if there:
        return read_classmap(there[0]), f"classes: {there[0]}, which is there already"
    if is_text(labels) and (label_of(np.unique(labels), CDL20) == CDL20.num_classes - 1).all():
        return frequent(labels, top, legend), f"classes: the {top} most frequent labels at most"
    return CDL20, "classes: the 20 of the Cropland Data Layer"


def frequent(labels: np.ndarray, top: int, legend: Legend = NOTHING) -> ClassMap:
    """The `top` most frequent labels as classes 0, 1, …, ties in the order of the labels.

    Codes are the labels themselves, or 1, 2, … for text. Names and colours are those of the legend, else "code 5" and
    colours apart from each other.
    """
    if top < 1:
        raise DataError(f"--top {top}; expected 1 or more")
    values, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:top]
    text, classes = is_text(labels), []
    for number, value in enumerate(values[order].tolist()):
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number / len(order), 0.65, 0.9))
        if text:
            classes.append((value, number + 1, (red, green, blue)))
        else:
            name, colour = legend.names.get(value, f"code {value}"), legend.colours.get(value, (red, green, blue))
            classes.append((name, value, colour))
    return ClassMap.of(classes)


def label_of(labels: np.ndarray, classmap: ClassMap) -> np.ndarray:
    """Class ids (N,) int64 of codes, or of text: names of classes in any case, else codes written out; "Other" last."""
    if not is_text(labels):
        return classmap.label_of(labels)
    names = {name.strip().casefold(): number for number, name in enumerate(classmap.names[:-1])}
    codes = {str(code): number for number, code in enumerate(classmap.codes[:-1])}
    values, which = np.unique(labels, return_inverse=True)
    other = classmap.num_classes - 1
    ids = [names.get(value.strip().casefold(), codes.get(value.strip(), other)) for value in values.tolist()]
    return np.array(ids, dtype=np.int64)[which]


def check_known(labels: np.ndarray, ids: np.ndarray, classmap: ClassMap, where: Path) -> None:
    """DataError if any label is "Other" (--strict)."""
    unknown, counts = np.unique(labels[ids == classmap.num_classes - 1], return_counts=True)
    if len(unknown):
        order = np.argsort(-counts, kind="stable")[:SHOWN]
        shown = ", ".join(f"{unknown[i]} ({counts[i]:,})" for i in order)
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise DataError(
            f"{where}: labels that are not in the class map: {shown}{more}; add them with --classes FILE, or leave out"
            " --strict to take them as Other"
        )


def is_text(labels: np.ndarray) -> bool:
    """Whether labels are text and not codes."""
    return np.asarray(labels).dtype.kind in "OUS"
