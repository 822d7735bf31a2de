"""Runs of the two scripts that die by SIGKILL at a chosen moment, in processes forked from a warm one.

python -m tests.support.kills      # reads a list of jobs a line, replies with their exit codes
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
# Where lines are counted: what trains, tests, logs and saves, not what reads options and data.
FILES = {
    "keeper",
    "state",
    "logs",
    "resume",
    "folders",
    "losses",
    "files",
    "checkpoint",
    "training",
    "evaluation",
    "step",
    "report",
}
SCRIPTS = {"main_moco", "main_tscls"}


class Death(NamedTuple):
    """How a process dies: before a "line" of our files, in a "save" of a checkpoint, or at a "rename" of a file.

    Attributes:
        count: of lines, saves or renames, from 1.
        rank: of the process that dies so; its peer is killed then.
    """

    kind: str
    count: int
    rank: int = 0


class Server:
    """A process that has imported everything, and forks one for each job."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.kills"],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, argv: Sequence[object], folder: Path, death: Death | None = None, port: int = 0) -> int:
        """Run a script to its end, with a ``port`` as two processes; returns the exit code, the same for both.

        What they print is added to ``folder``/printed-RANK, and the number of lines that they have executed is in
        ``folder``/lines.
        """
        folder.mkdir(parents=True, exist_ok=True)
        jobs = []
        for rank in range(2 if port else 1):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            own = death if death is not None and death.rank == rank else None
            place = {name: str(value) for name, value in place.items()} if port else {}
            jobs.append([script, list(map(str, argv)), str(folder), own, place])
        print(json.dumps(jobs), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


# ---- in the warm process


def serve() -> None:
    for name in (*SCRIPTS, "torch.utils.tensorboard", "skops.io", "sklearn.svm", "torch._dynamo"):
        importlib.import_module(name)
    for line in sys.stdin:
        pids = [fork(*job) for job in json.loads(line)]
        print(wait_for(pids), flush=True)


def fork(*job: object) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(*job)
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_for(pids: list[int], seconds: float = 60) -> int:
    """The exit code of one that fails, by a signal if one does, which the others do not survive; 0 if none fails."""
    living, codes, end = set(pids), [0], time.monotonic() + seconds
    while living:
        has_failed = any(codes)  # and then another may be the cause, so look once more before they are killed
        for pid in list(living):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                living.remove(pid)
                codes.append(os.waitstatus_to_exitcode(status))
        if has_failed or time.monotonic() > end:
            codes.append(0 if has_failed else -signal.SIGALRM)
            for pid in living:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    return min(codes) or max(codes)


# ---- in a forked process


def work(script: str, argv: list[str], folder: str, death: list | None, place: dict[str, str]) -> None:
    """Run a script, and die in it."""
    import torch

    from utils import report

    printed = os.open(f"{folder}/printed-{place.get('RANK', 0)}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1), os.dup2(printed, 2)
    os.environ.update(place)
    torch.set_num_threads(1)
    report._pictures = lambda: False
    counted = [0]
    arm(Death(*death) if death else Death("line", 0), counted)
    importlib.import_module(script).main(argv)
    sys.settrace(None)
    (Path(folder) / "lines").write_text(str(counted[0]))


def arm(death: Death, counted: list[int]) -> None:
    """Have this process die as told, and count what it counts until then."""

    def count(*_) -> bool:
        counted[0] += 1
        return counted[0] == death.count

    def on_line(frame, event, _):
        if event == "line" and count():
            die()
        return on_line

    def on_call(frame, event, _):
        path = Path(frame.f_code.co_filename)
        return on_line if path.stem in FILES | SCRIPTS and path.is_relative_to(REPOSITORY) else None

    def half_saved(path, content):
        if path.suffix != ".pth" or not count():
            return write(path, content)
        write(path, content[: len(content) // 2])
        die()

    def renamed(source, target):
        is_due = count()
        if is_due and death.count % 2:
            die()
        replace(source, target)
        if is_due:
            die()

    write, replace = Path.write_bytes, os.replace
    if death.kind == "line":
        known: dict = {}

        def on_call_of_known(frame, event, argument):
            code = frame.f_code
            if code not in known:
                known[code] = on_call(frame, event, argument)
            return known[code]

        sys.settrace(on_call_of_known)
    elif death.kind == "save":
        Path.write_bytes = half_saved
    else:
        os.replace = renamed


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve()
