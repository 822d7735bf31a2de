"""What the tests of maps share."""

from __future__ import annotations

import pytest

from utils.results import figures


@pytest.fixture
def no_figures(monkeypatch):
    """Pictures take most of the time of a small map."""
    monkeypatch.setattr(figures, "available", lambda: False)
