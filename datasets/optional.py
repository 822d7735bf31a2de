"""Libraries that only some commands need, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from datasets.errors import DataError


def need(name: str, what: str = "this") -> ModuleType:
    """Import module `name` of requirements-geo.txt; DataError "`what` needs `name`: …" where it is not installed.

    A submodule is named whole (`rasterio.warp`). An ImportError from inside an installed library is passed on.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        library = name.partition(".")[0]
        if (error.name or "").partition(".")[0] != library:
            raise
        raise DataError(f"{what} needs {library}: pip install -r requirements-geo.txt") from None
