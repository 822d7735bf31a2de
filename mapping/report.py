"""The report of an assessment: one HTML file with its pictures in it, which needs nothing else to be read."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path

import pandas as pd

from mapping.tables import Result, headline, readable
from utils.files import write_text

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
p.headline { font-size: 1.15rem; font-weight: 600 }
div.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
td.hit { background: #eef4ee; font-weight: 600 }
span.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border: 1px solid #999 }
img { max-width: 100%; height: auto }
"""

TERMS = (
    ("mapped ha", "pixels of the class in the map times their area."),
    ("area ha", "estimated area of the class on the ground: the mapped one, corrected by the errors in the sample."),
    ("user's", "user's accuracy: the fraction of the class in the map that is of the class on the ground."),
    ("producer's", "producer's accuracy: the fraction of the class on the ground that the map shows as such."),
    ("±", "half the width of the 95 % interval, 1.96 standard errors. Accuracies, areas and their intervals after"
     " Olofsson et al. 2014, Remote Sensing of Environment 148, 42-57; F1 and kappa by the delta method."),
)  # fmt: skip


def write_report(path: Path, result: Result, pictures: Mapping[str, Path], facts: Mapping[str, str]) -> None:
    """Write the report. pictures: title -> PNG file, embedded; facts: what was compared, as name -> value."""
    parts = [
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Accuracy of {escape(facts['map'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>Accuracy and areas of {escape(facts['map'])}</h1>",
        f'<p class="headline">{escape(headline(result))}</p>',
        *(f"<p>{escape(note)}</p>" for note in result.notes),
        "<h2>Classes</h2>", _table(readable(result), result),
        "<ul>", *(f"<li><b>{escape(term)}</b>: {escape(text)}</li>" for term, text in TERMS), "</ul>",
        *(f'<h2>{escape(title)}</h2><p><img alt="{escape(title)}" src="{_embedded(file)}"></p>'
          for title, file in pictures.items()),
        "<h2>Error matrix in samples</h2><p>Rows: class in the map; columns: class in the reference.</p>",
        _matrix(result),
        "<h2>What was compared</h2>", _facts(facts, result),
        "</body></html>",
    ]  # fmt: skip
    write_text(path, "\n".join(parts) + "\n")


def _embedded(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _row(cells: list[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _table(cells: pd.DataFrame, result: Result) -> str:
    rows = []
    for entry, values in zip(result.entries, cells.to_numpy().tolist(), strict=True):
        first, *others = map(escape, values)
        rows.append(_row([_swatch(entry.colour) + first, *others]))
    return f'<div class="wide"><table>{_row([*map(escape, cells)], "th")}{"".join(rows)}</table></div>'


def _swatch(colour: tuple[int, int, int] | None) -> str:
    return "" if colour is None else f'<span class="swatch" style="background:rgb{colour}"></span>'


def _matrix(result: Result) -> str:
    rows = []
    for number, (name, counts) in enumerate(zip(result.names, result.matrix.tolist(), strict=True)):
        cells = [f'<td{" class=hit" if place == number else ""}>{count:,}</td>' for place, count in enumerate(counts)]
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return f'<div class="wide"><table>{_row(["map", *map(escape, result.names)], "th")}{"".join(rows)}</table></div>'


def _facts(facts: Mapping[str, str], result: Result) -> str:
    left = {f"left out, {reason}": f"{count:,}" for reason, count in result.left_out.items()}
    return f"<table>{''.join(_row([escape(name), escape(value)]) for name, value in {**facts, **left}.items())}</table>"
