"""What a run leaves in its folder: args.json, one CSV row an epoch, TensorBoard scalars."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from pathlib import Path

import pandas as pd

from utils.errors import UsageError
from utils.files import atomic_write, write_text


class RunLog:
    """The folder of one run. ``rows`` are the rows of trainlog.csv so far."""

    def __init__(self, folder: str | Path, args: dict, *, resume_epoch: int | None = None, again: bool = False):
        """Make the folder, or resume in it: rows from epoch ``resume_epoch`` on are dropped.

        An earlier run of the same name is kept as NAME.1, NAME.2 …; with ``again`` one of equal arguments is replaced.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.folder = Path(folder)
        try:
            if resume_epoch is None:
                set_aside(self.folder, args if again else None)
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be written ({error.strerror}); give another --logdir") from None
        self.rows = [] if resume_epoch is None else rows_before(resume_epoch, self.folder / "trainlog.csv")
        self.write_json("args.json", args)
        self.writer = SummaryWriter(str(self.folder))

    def epoch(self, row: dict) -> None:
        """Append the row of an epoch; its numbers also become scalars."""
        self.rows.append({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
        write_rows(self.folder / "trainlog.csv", self.rows)
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self.writer.flush()

    def scalars(self, group: str, values: dict, step: int) -> None:
        """TensorBoard scalars ``group/name`` at a step."""
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def write_json(self, name: str, content) -> None:
        write_text(self.folder / name, as_json(content))

    def close(self) -> None:
        self.writer.close()


def rows_before(epoch: int, path: Path) -> list[dict]:
    """The rows of a trainlog.csv before an epoch; UsageError if a row has no epoch number."""
    rows = read_rows(path)
    try:
        return [row for row in rows if int(row["epoch"]) < epoch]
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{path}: a row has no number in the column 'epoch'; move the file away to resume") from None


def set_aside(folder: Path, same: dict | None) -> None:
    """Rename an earlier run's ``folder`` to NAME.1, NAME.2 …; remove it if its arguments are ``same``."""
    kept = folder / "args.json"
    if not kept.is_file():
        return
    if same is not None and _arguments(kept) == json.loads(as_json(same)):
        shutil.rmtree(folder)
        return
    number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}.{number}"))
    print(f"{folder} held another run, which is kept as {folder.name}.{number}")


def _arguments(file: Path) -> dict | None:
    """The content of an args.json; None if it is truncated."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def as_json(content) -> str:
    return json.dumps(content, indent=2, default=str) + "\n"


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
    with atomic_write(path) as partial:
        pd.DataFrame(rows, dtype=object).to_csv(partial, index=False, lineterminator="\n")
