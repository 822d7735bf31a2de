"""Tables as text."""

from __future__ import annotations

import pandas as pd


def aligned(cells: pd.DataFrame) -> str:
    """Strings as a plain-text table: first column flush left, the others right.

    Two blanks between columns; pandas' to_string leaves one, which does not tell names of several words apart.
    """
    lines = [list(cells.columns), *cells.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        for first, *rest in lines
    ]
    return "\n".join("  ".join(line) for line in padded)


def markdown(cells: pd.DataFrame) -> str:
    """Strings as a Markdown table. (pandas' to_markdown needs a further package, tabulate.)"""
    rule = ["---", *["---:"] * (len(cells.columns) - 1)]
    lines = [list(cells.columns), rule, *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
