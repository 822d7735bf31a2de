"""Testing a trained classifier: what it leaves in its run's folder, and prints."""

from __future__ import annotations

import json
import time

import numpy as np

from datasets.store import SeriesSet
from utils.metrics import SCORES, score
from utils.report import write_run_report
from utils.results.logs import read_rows, write_rows


def test(run, sets: dict[int, SeriesSet], seconds: float | None, names: list[str], is_main: bool) -> None:
    """Test on each year's series and leave scores, confusion matrices and pictures in the run's folder.

    ``run`` has args, folder, parameters, log (or None), last_epoch and predict(series). ``seconds`` is what training
    took; None keeps what testlog.csv says, and its rows of other years.
    """
    args, log = run.args, run.folder / "testlog.csv"
    known = {int(row["year"]): row for row in read_rows(log)} if seconds is None else {}
    rows = dict(known)
    for year, series in sets.items():
        start = time.monotonic()
        scores = score(run.predict(series), series.labels)
        rows[year] = {
            "year": year,
            "regions": "+".join(args.regions or ([args.leave_out] if args.leave_out else [])),
            **{name: scores[name] for name in (*SCORES, "loss")},
            "series": len(series),
            "series_per_s": len(series) / (time.monotonic() - start),
            "train_seconds": next((row["train_seconds"] for row in known.values()), "") if seconds is None else seconds,
            "parameters": run.parameters,
        }
        if not is_main:
            continue
        tag = "" if year == args.year or len(sets) == 1 and not known else f"_{year}"
        np.save(run.folder / f"test_conf_mat{tag}.npy", scores["confusion_matrix"])
        np.save(run.folder / f"test_class_f1{tag}.npy", scores["class_f1"])
        if run.log:
            run.log.scalars(f"test_{year}", {name: scores[name] for name in SCORES}, run.last_epoch)
        print(f"{run.folder.name}, {year}: " + ", ".join(f"{name} {scores[name]:.4f}" for name in SCORES), flush=True)
    if is_main:
        (run.folder / "classes.json").write_text(json.dumps(names) + "\n", encoding="utf-8")
        write_rows(log, list(rows.values()))
        if run.log:
            run.log.close()
        write_run_report(run.folder)
