"""Where data roots lie: the default one beside the scripts, any other where the path says."""

from __future__ import annotations

from pathlib import Path

DEFAULT = Path("data") / "US-sim"  # as the command line gives it
REPOSITORY = Path(__file__).resolve().parents[1]


def locate(datapath: str | Path) -> Path:
    """The folder that `datapath` means.

    The default is found from every working directory: it lies beside the scripts, unless the working directory has
    one of its own.
    """
    path = Path(datapath)
    return REPOSITORY / DEFAULT if path == DEFAULT and not path.exists() else path
