"""The two scripts on two processes that torchrun would start, without its start-up time.

    python -m tests.support.ranks JOBS.json      # with RANK, WORLD_SIZE … in the environment

JOBS.json is a list of [script, arguments, port]; each process runs them one after another.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from utils import report

REPOSITORY = Path(__file__).resolve().parents[2]


def run_on_two(jobs: list[tuple[str, list]], folder: Path, seconds: float = 120) -> None:
    """Run (script, arguments) jobs on two gloo processes; AssertionError with what they printed if one fails."""
    with ExitStack() as sockets:  # all at once, or two jobs may get the same port
        ports = [sockets.enter_context(socket.socket()) for _ in jobs]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        numbered = [
            (script, list(map(str, argv)), port.getsockname()[1])
            for (script, argv), port in zip(jobs, ports, strict=True)
        ]
    (folder / "jobs.json").write_text(json.dumps(numbered))
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.ranks", str(folder / "jobs.json")],
            cwd=REPOSITORY,
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)


def main() -> None:
    report._pictures = lambda: False  # they take most of the time of a small run
    for script, argv, port in json.loads(Path(sys.argv[1]).read_text()):
        os.environ["MASTER_PORT"] = str(port)
        importlib.import_module(script).main(argv)


if __name__ == "__main__":
    main()
