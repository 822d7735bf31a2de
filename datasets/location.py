"""Where data roots lie: the default one beside the scripts, any other where the path says."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

DEFAULT = Path("data") / "US-sim"  # as the command line gives it
REPOSITORY = Path(__file__).resolve().parents[1]


def locate(datapath: str | Path) -> Path:
    """The folder that `datapath` means.

    The default is found from every working directory: it lies beside the scripts, unless the working directory has
    one of its own.
    """
    path = Path(datapath)
    return default_path() if path == DEFAULT and not path.exists() else path


def default_path() -> Path:
    """Where the default data are or will be: beside the scripts, or in the user's cache if that cannot be written."""
    path = REPOSITORY / DEFAULT
    return path if path.exists() or may_write(path) else user_cache_path("sits-moco") / DEFAULT


def may_write(path: Path) -> bool:
    """Whether something can be put in place. The write bits count too: root may write anywhere, and should not."""
    existing = next(parent for parent in path.absolute().parents if parent.exists())
    return bool(existing.stat().st_mode & 0o222) and os.access(existing, os.W_OK)
