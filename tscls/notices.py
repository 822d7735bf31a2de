"""What main_tscls.py says before it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from datasets.catalog import Splits
from models import model_class
from utils.results.naming import DOY_NOTICE


def idle_flags(
    methods: Mapping[str, str], *, use_doy: bool, interp: bool, rc: bool, pretrained: str | None
) -> Iterator[str]:
    """Which of these flags do nothing for which of the models, and what was decided without one.

    ``methods``: how the series of each model reach length S.
    """
    for name, method in methods.items():
        model = model_class(name)
        if use_doy and not model.uses_doy_flag:
            yield f"{name}: --use-doy changes nothing ({DOY_NOTICE})"
        if interp and not model.interpolates:
            yield f"{name}: --interp is not for it; its series are brought to length by {method}"
        elif pretrained and method != "pad" and not (rc or interp):
            yield f"{name}: series reach length S by {method}, as in {pretrained} (--pad: by padding)"


def series_used(
    splits: Splits,
    seed: int,
    num_classes: int,
    *,
    year: int,
    datapath: str,
    regions: Sequence[str] | None,
    leave_out: str | None,
) -> Iterator[str]:
    """Which series a seed trains and tests on, and whether they are few."""
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in splits._asdict().items())
    sites = f"; {', '.join(regions)} only" if regions else ""
    sites += f"; {leave_out} is left out of training and tested on alone" if leave_out else ""
    yield f"seed {seed}: {sizes} series of {year} from {datapath}{sites}"
    labels = len(splits.train) + len(splits.valid)
    if labels < num_classes:
        yield f"warning: {labels} labelled series for {num_classes} classes, some of which have none; give a larger -n"
