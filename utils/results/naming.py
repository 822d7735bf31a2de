"""Names of run folders, as published: P_… pre-trained, T_… trained, F_… fine-tuned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

DOY_NOTICE = "it is for the transformer; stnet always reads the day of year"
LENGTH_WORDS = {"rc": "RC", "pad": "Pad", "interp": "Int"}  # how series are brought to length S
UNSAFE = re.compile(r'[\\/:*?"<>|\x00-\x1f]')  # characters that some system does not allow in a file name


def join_name(*parts: object) -> str:
    """The parts that are not None or empty, joined by '_'; characters that are unsafe in a file name become '-'."""
    return UNSAFE.sub("-", "_".join(str(part) for part in parts if part not in (None, "")))


def pretraining_name(
    learner: str, *, num: int | None, seed: int, rc: bool, year: int, use_doy: bool, suffix: str | None
) -> str:
    """P_MoCoV2TransformerModel_RC_2019_doy; ``learner`` is pretext and encoder, ``num`` None means all series."""
    return join_name(
        f"P_{learner}",
        None if num is None else f"R{num}",
        LENGTH_WORDS["rc" if rc else "pad"],
        year,
        None if num is None else f"Seed{seed}",
        "doy" if use_doy else None,
        suffix,
    )


def training_name(
    model: str,
    *,
    num: int | None,
    seed: int,
    length_method: str,
    year: int,
    use_doy: bool = False,
    pretrained: str | None = None,
    regions: Sequence[str] | None = None,
    leave_out: str | None = None,
    freeze: bool = False,
    until_doy: int | None = None,
    suffix: str | None = None,
) -> str:
    """T_STNet_R3000_RC_2019_Seed111, or F_TR_STNet_… fine-tuned from a checkpoint in a folder MoCoV2_TRSF_doy.

    ``model`` is the ``run_name`` of the model, ``num`` None means all labelled series.
    """
    kind = "T"
    if pretrained:
        words = Path(pretrained).resolve().parent.name.split("_")
        learner = words[1] if len(words) > 1 else words[0]
        kind = "F_" + "+".join(part[:2] for part in learner.split("+"))
    return join_name(
        kind,
        model,
        None if num is None else f"R{num}",
        LENGTH_WORDS[length_method],
        year,
        f"Seed{seed}",
        "doy" if use_doy else None,
        "+".join(regions) if regions else None,
        f"without{leave_out}" if leave_out else None,
        "frozen" if freeze else None,
        None if until_doy is None else f"D{until_doy}",
        suffix,
    )
