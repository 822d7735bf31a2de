"""What a run leaves in its folder: args.json, one CSV row an epoch, TensorBoard scalars."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from utils.errors import UsageError
from utils.files import as_json, make_folder, write_csv, write_text
from utils.results.tensorboard import Scalars


class RunLog:
    """The folder of one run. ``rows`` are the rows of trainlog.csv so far."""

    def __init__(self, folder: str | Path, args: dict, *, resume_epoch: int | None = None):
        """Make the folder, or resume in it: rows from epoch ``resume_epoch`` on are dropped."""
        self.folder = Path(folder)
        make_folder(self.folder)
        self.rows = [] if resume_epoch is None else rows_before(resume_epoch, self.folder / "trainlog.csv")
        self.write_json("args.json", args)
        self.tensorboard = Scalars(self.folder)

    def epoch(self, row: dict) -> None:
        """Append the row of an epoch; its numbers also become scalars."""
        self.rows.append({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
        write_rows(self.folder / "trainlog.csv", self.rows)
        for name, value in row.items():
            if name != "epoch":
                self.tensorboard.add(name.replace("_", "/", 1), value, row["epoch"])
        self.tensorboard.flush()

    def scalars(self, group: str, values: dict, step: int) -> None:
        """TensorBoard scalars ``group/name`` at a step."""
        for name, value in values.items():
            self.tensorboard.add(f"{group}/{name}", value, step)

    def write_json(self, name: str, content) -> None:
        write_text(self.folder / name, as_json(content))

    def close(self) -> None:
        self.tensorboard.close()


def rows_before(epoch: int, path: Path) -> list[dict]:
    """The rows of a trainlog.csv before an epoch; UsageError if a row has no epoch number."""
    rows = read_rows(path)
    try:
        return [row for row in rows if int(row["epoch"]) < epoch]
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{path}: a row has no number in the column 'epoch'; move the file away to resume") from None


def read_rows(path: Path) -> list[dict]:
    """The rows of a CSV log as dicts of strings; none if there is no file.

    By the csv module, not pandas: cells stay the text that they are, also in rows that are shorter or longer than the
    header, which pandas refuses or shifts.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: cell for name, cell in row.items() if name is not None} for row in rows]  # None: beyond the header


def write_rows(path: Path, rows: list[dict]) -> None:
    """Replace a CSV log, whole or not at all; it has the columns of all rows, and empty cells for missing values."""
    write_csv(path, pd.DataFrame(rows, dtype=object))
