"""What a run leaves in its folder: args.json, a CSV row an epoch, TensorBoard scalars."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from utils.errors import UsageError


class RunLog:
    """The folder of one run. ``rows`` are those of trainlog.csv so far."""

    def __init__(self, folder: str | Path, args: dict, *, resume_epoch: int = 0):
        """Make the folder, or go on in it: rows of epochs from ``resume_epoch`` on are dropped."""
        from torch.utils.tensorboard import SummaryWriter

        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot be written ({error.strerror}); give another --logdir") from None
        self.write_json("args.json", args)
        self.rows = [row for row in read_rows(self.folder / "trainlog.csv") if int(row["epoch"]) < resume_epoch]
        for stale in () if resume_epoch else self.folder.glob("events.out.tfevents.*"):
            stale.unlink()
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
        (self.folder / name).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")

    def close(self) -> None:
        self.writer.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of a CSV log, as dicts of strings; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict]) -> None:
    """Replace a CSV log, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
