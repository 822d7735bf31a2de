"""The demo's command line."""

from __future__ import annotations

import pytest

from benchmarks import demo


def test_help_does_not_start_the_demo(capsys, monkeypatch):
    monkeypatch.setattr(demo.main_moco, "main", lambda argv: pytest.fail("the demo started"))
    with pytest.raises(SystemExit) as ended:
        demo.main(["--help"])
    assert ended.value.code == 0 and "python -m benchmarks.demo" in capsys.readouterr().out
