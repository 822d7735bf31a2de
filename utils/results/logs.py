"""What a run leaves in its folder: args.json, a CSV row an epoch, TensorBoard scalars."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from argparse import Namespace
from pathlib import Path

from tscls.recipe import Recipe
from utils.errors import UsageError


class RunLog:
    """The folder of one run. ``rows`` are those of trainlog.csv so far."""

    def __init__(self, folder: str | Path, args: dict, *, resume_epoch: int | None = None, again: bool = False):
        """Make the folder, or go on in it: rows of epochs from ``resume_epoch`` on are dropped.

        An earlier run in its place is kept under another name; ``again`` replaces it if its arguments are the same.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.folder = Path(folder)
        try:
            if resume_epoch is None:
                make_way(self.folder, args if again else None)
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be written ({error.strerror}); give another --logdir") from None
        self.rows = [] if resume_epoch is None else rows_before(resume_epoch, self.folder / "trainlog.csv")
        self.write_json("args.json", args)
        self.writer = SummaryWriter(str(self.folder))

    def epoch(self, row: dict) -> None:
        """Add one epoch's row, its numbers also as scalars."""
        self.rows.append({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
        write_rows(self.folder / "trainlog.csv", self.rows)
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self.writer.flush()

    def scalars(self, group: str, values: dict, step: int) -> None:
        """TensorBoard scalars of one moment."""
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def write_json(self, name: str, content) -> None:
        (self.folder / name).write_text(as_json(content), encoding="utf-8")

    def close(self) -> None:
        self.writer.close()


def run_arguments(args: Namespace, name: str, seed: int, recipe: Recipe) -> dict:
    """What args.json keeps of a training run: the command line, and what it came to."""
    return {**vars(args), "model": name, "seed": seed, "recipe_used": vars(recipe)}


def rows_before(epoch: int, path: Path) -> list[dict]:
    """The rows of a trainlog.csv up to an epoch; UsageError for one that does not number its epochs."""
    rows = read_rows(path)
    try:
        return [row for row in rows if int(row["epoch"]) < epoch]
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{path}: a row has no number in the column 'epoch'; move it away to go on here") from None


def make_way(folder: Path, same: dict | None) -> None:
    """Move what an earlier run left in ``folder`` to NAME.1, NAME.2 …; remove it if its arguments are ``same``."""
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
    """What an args.json holds; None for one that was cut off."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def as_json(content) -> str:
    return json.dumps(content, indent=2, default=str) + "\n"


def read_rows(path: Path) -> list[dict]:
    """The rows of a CSV log, as dicts of strings; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: cell for name, cell in row.items() if name is not None} for row in rows]  # None: more than columns


def write_rows(path: Path, rows: list[dict]) -> None:
    """Replace a CSV log, whole or not at all; it gets the columns of all rows, empty where a row has no such value."""
    columns = dict.fromkeys(name for row in rows for name in row)  # a set that keeps their order
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
