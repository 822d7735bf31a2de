"""What the scripts import before they know what to do: nothing slow that the command may not need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.scripts.test_distributed import REPOSITORY

SLOW = ("sklearn", "scipy", "matplotlib", "tensorboard", "rasterio", "skops")

IMPORTED = """
import contextlib, io, json, sys
import {script}
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    {script}.main(["--help"])
assert "--seed" in shown.getvalue()
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


@pytest.mark.parametrize("script", ["main_tscls", "main_moco"])
def test_help_imports_nothing_slow_that_it_does_not_need(script):
    code = IMPORTED.format(script=script)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert script in modules and "numpy" in modules
    assert not modules & set(SLOW)
