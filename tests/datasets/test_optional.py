import sys

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.optional import need


def test_an_installed_library_is_returned():
    assert need("numpy") is np
    assert need("numpy.linalg") is np.linalg


def test_a_missing_library_is_one_line_that_says_how_to_install_it():
    with pytest.raises(DataError) as error:
        need("not_a_library.part", "reading images")
    assert str(error.value) == "reading images needs not_a_library: pip install -r requirements-geo.txt"


def test_a_broken_library_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("import what_it_needs_itself\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs_itself"):
        need("broken_library")
    sys.modules.pop("broken_library", None)
