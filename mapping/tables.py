"""The results of an assessment as tables: for files, for the screen and for the report."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from mapping.areas import Accuracy
from mapping.legend import Entry

TOO_FEW = "too few samples"


class Result(NamedTuple):
    """An assessment of C classes, in the order of `entries`: those that occur in the map or the reference.

    matrix (C, C): samples, rows map, columns reference; pixels (C,) int64 and hectares (C,): of the map; notes:
    sentences on how to read the figures; left_out: what did not count, by reason.
    """

    entries: list[Entry]
    matrix: np.ndarray
    pixels: np.ndarray
    hectares: np.ndarray
    accuracy: Accuracy
    notes: list[str]
    left_out: dict[str, int]

    @property
    def samples(self) -> np.ndarray:
        """Samples in each class of the map, (C,)."""
        return self.matrix.sum(axis=1)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]


def class_table(result: Result) -> pd.DataFrame:
    """classes.csv: a row a class, blank where a figure is undefined; …_ci95 is the half width of the 95 % interval.

    `code` is blank for a class of the reference alone that was given as text.
    """
    accuracy = result.accuracy
    codes = pd.array([entry.code if entry.code >= 0 else pd.NA for entry in result.entries], dtype="Int64")
    return pd.DataFrame(
        {
            "code": codes,
            "name": result.names,
            "samples": result.samples,
            "pixels": result.pixels,
            "mapped_ha": result.hectares,
            "area_ha": accuracy.area_ha,
            "area_ci95_ha": accuracy.area_ci95_ha,
            "users": accuracy.users,
            "users_ci95": accuracy.users_ci95,
            "producers": accuracy.producers,
            "producers_ci95": accuracy.producers_ci95,
            "f1": accuracy.f1,
            "f1_ci95": accuracy.f1_ci95,
        }
    )


def matrix_table(result: Result) -> pd.DataFrame:
    """matrix.csv: samples, a row a class of the map and a column a class of the reference, by name."""
    table = pd.DataFrame(result.matrix, columns=result.names)
    table.insert(0, "map", result.names)
    return table


def overall(result: Result) -> dict:
    """overall.json: figures of the whole map, None where undefined."""
    accuracy = result.accuracy
    figures = {name: getattr(accuracy, name) for name in ("oa", "oa_ci95", "kappa", "kappa_ci95", "macro_f1")}
    return {
        **{name: None if np.isnan(value) else float(value) for name, value in figures.items()},
        "samples": int(result.matrix.sum()),
        "coverage": accuracy.coverage,
        "pixels": int(result.pixels.sum()),
        "hectares": float(result.hectares.sum()),
        "left_out": result.left_out,
        "notes": result.notes,
    }


def readable(result: Result) -> pd.DataFrame:
    """The table of the classes as strings, for people."""
    accuracy, rows = result.accuracy, []
    samples = result.samples
    for number, entry in enumerate(result.entries):
        if not result.pixels[number]:
            few = "not in the map"
        else:
            few = TOO_FEW if accuracy.too_few[number] else ""
        rows.append(
            {
                "class": entry.name,
                "samples": f"{samples[number]:,}",
                "mapped ha": f"{result.hectares[number]:,.0f}",
                "area ha": interval(accuracy.area_ha[number], accuracy.area_ci95_ha[number], ",.0f", few),
                "user's": interval(accuracy.users[number], accuracy.users_ci95[number], ".4f", few),
                "producer's": interval(accuracy.producers[number], accuracy.producers_ci95[number], ".4f", few),
                "F1": interval(accuracy.f1[number], accuracy.f1_ci95[number], ".4f", few),
            }
        )
    return pd.DataFrame(rows)


def interval(value: float, half: float, form: str, why: str = "") -> str:
    """'0.8800 ± 0.0740'; without a half width '0.8800 (why)'; without a value why, or – without a reason."""
    if np.isnan(value):
        return why or "–"
    text = f"{value:{form}}"
    if np.isnan(half):
        return f"{text} ({why})" if why else text
    return f"{text} ± {half:{form}}"


def headline(result: Result) -> str:
    """OA, kappa and macro F1 in one line."""
    accuracy = result.accuracy
    kappa, macro_f1 = interval(accuracy.kappa, accuracy.kappa_ci95, ".4f"), interval(accuracy.macro_f1, np.nan, ".4f")
    oa = interval(accuracy.oa, accuracy.oa_ci95, ".4f")
    return f"OA {oa}, kappa {kappa}, macro F1 {macro_f1}, {result.matrix.sum():,} samples"
