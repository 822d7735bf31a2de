"""What several test files share: where the optional real data lies, and a small store to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real sample data is not beside this checkout")
