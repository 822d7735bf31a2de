"""Break the program one line at a time and see a test fail for each: python -m tests.mutants, or make mutants.

Every mutant is made from the syntax tree of a target file: a statement dropped, a comparison or a sign flipped, two
arguments swapped, a keyword left out … It is written to a copy of the tree, and the tests of its file are run there
until one fails. A mutant that passes them all survives: a line that no test needs. The exit code is 1 if one survives
that EQUIVALENT does not explain.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from tests.mutant_targets import EQUIVALENT, TARGETS

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = ("data", "results", "demo-results")  # folders of the tree that are not copied

SKIPPED_FUNCTIONS = ("get_args",)  # flags and their help
SKIPPED_CALLS = ("print", "UsageError", "DataError", "tqdm")  # messages
SKIPPED_KEYWORDS = ("strict", "flush", "fused", "dynamic", "device")  # checks, speed, and what needs a GPU to be seen

SYMMETRIC = ("min", "max", "minimum", "maximum", "logaddexp", "clip")  # calls whose first two arguments may be swapped

COMPARISONS = {  # to the one with its boundary moved, and to its opposite
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
}
DROPPED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Break, ast.Continue)


class Mutant(NamedTuple):
    """One change of a file."""

    target: str
    function: str
    line: int
    source: bytes  # the whole file, changed
    diff: str  # the lines that differ

    @property
    def reason(self) -> str | None:
        """Why it is equivalent to the program, if it is."""
        added = [line[1:].strip() for line in self.diff.splitlines() if line.startswith("+")]
        return next((why for target, line, why in EQUIVALENT if target == self.target and line in added), None)


# ---- making mutants


def mutants_of(root: Path, target: str) -> Iterator[Mutant]:
    """All mutants of a file, in the order of its lines."""
    source = (root / target).read_bytes()
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for function in functions_of(ast.parse(source)):
        for node in nodes_of(function):
            for part, text in changes_of(node):
                first = starts[part.lineno - 1] + part.col_offset
                last = starts[part.end_lineno - 1] + part.end_col_offset
                changed = source[:first] + text.encode() + source[last:]
                if changed != source and is_python(changed):
                    yield Mutant(target, function.name, part.lineno, changed, diff_of(source, changed))


def functions_of(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The functions and methods of a module, those inside others left to the outer ones."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from functions_of(node)
        elif isinstance(node, ast.FunctionDef) and node.name not in SKIPPED_FUNCTIONS:
            yield node


def nodes_of(node: ast.AST) -> Iterator[ast.AST]:
    """What may be changed below a node: neither docstrings, annotations, decorators and defaults, nor messages."""
    if isinstance(node, ast.FunctionDef):
        children: list = node.body[ast.get_docstring(node) is not None :]
    elif isinstance(node, ast.AnnAssign):
        children = [node.value]
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        if child is None or isinstance(child, ast.JoinedStr) or is_message(child):
            continue
        if isinstance(child, ast.keyword) and child.arg in SKIPPED_KEYWORDS:
            continue
        if isinstance(child, ast.stmt | ast.expr):
            yield child
        yield from nodes_of(child)


def is_message(node: ast.AST) -> bool:
    """Whether this is a call that only tells the user something, or the statement of one."""
    call = node.value if isinstance(node, ast.Expr) else node
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in SKIPPED_CALLS


def changes_of(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Parts of a node, and what can stand in their place."""
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield node.test, f"(not ({ast.unparse(node.test)}))"
    for text in other_texts(node):
        yield node, text


def other_texts(node: ast.AST) -> Iterator[str]:
    """What can stand in the place of a node."""
    if isinstance(node, DROPPED):
        yield "pass"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from (f"({changed(node, ops=[other()])})" for other in COMPARISONS[type(node.ops[0])])
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield f"({changed(node, op=OPERATORS[type(node.op)]())})"
    elif isinstance(node, ast.BoolOp):
        yield f"({changed(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield from opposite(node.value)
    elif isinstance(node, ast.Call):
        yield from other_calls(node)
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield changed(node, op=OPERATORS[type(node.op)]())


def opposite(value: bool | int | float) -> Iterator[str]:
    """Another constant: True and False, 0 and 1 for each other, the next whole number."""
    if isinstance(value, bool):
        yield str(not value)
    elif value in (0, 1):
        yield repr(type(value)(1 - value))
    elif isinstance(value, int):
        yield repr(value + 1)


def other_calls(node: ast.Call) -> Iterator[str]:
    """A call with its first two arguments swapped, without one of its keywords, with a loss negated."""
    first_two, name = node.args[:2], ast.unparse(node.func).split(".")[-1]
    is_pair = len(first_two) == 2 and not any(isinstance(argument, ast.Starred) for argument in first_two)
    if is_pair and name not in SYMMETRIC:
        yield changed(node, args=[*reversed(first_two), *node.args[2:]])
    for i in [i for i, keyword in enumerate(node.keywords) if keyword.arg not in SKIPPED_KEYWORDS]:
        yield changed(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
    for i, argument in enumerate(node.args):
        if "loss" in ast.unparse(argument).split(".")[-1] and not isinstance(argument, ast.Constant | ast.Starred):
            negated = ast.UnaryOp(ast.USub(), argument)
            yield changed(node, args=[*node.args[:i], negated, *node.args[i + 1 :]])


def changed(node: ast.AST, **fields: object) -> str:
    """The source of a node with other fields."""
    return ast.unparse(type(node)(**{name: getattr(node, name) for name in node._fields} | fields))


def is_python(source: bytes) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def diff_of(before: bytes, after: bytes) -> str:
    """The lines of a file that were changed."""
    texts = [text.decode().splitlines() for text in (before, after)]
    changes = list(difflib.unified_diff(*texts, n=0, lineterm=""))[3:]
    return "\n".join(line for line in changes if not line.startswith("@@"))


# ---- running the tests on them


def copy_tree(folder: Path) -> Path:
    """A copy of the tree without what tests do not need."""

    def left_out(where: str, names: list[str]) -> set[str]:
        is_top = Path(where) == REPOSITORY
        return {name for name in names if name.startswith(".") or name == "__pycache__" or is_top and name in DATA}

    return Path(shutil.copytree(REPOSITORY, folder, ignore=left_out, symlinks=True))


def warm_up() -> None:
    """Import what the tests import of other packages: a process is forked from this one for every mutant."""
    import geopandas  # noqa: F401
    import hypothesis  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pandas  # noqa: F401
    import pytest  # noqa: F401
    import rasterio.warp  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch._dynamo  # noqa: F401
    import torch.nn.parallel  # noqa: F401
    import tqdm  # noqa: F401
    from torch.utils import tensorboard  # noqa: F401

    torch.set_num_threads(1)


def run_tests(tree: Path, tests: list[str], is_loud: bool) -> None:
    """Run the tests of a tree in this process and end it, with code 0 if all have passed."""
    import pytest

    os.setsid()
    os.chdir(tree)
    if not is_loud:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[0] = str(tree)
    code = 0
    for test in tests:  # one after another, as most mutants fail in the first, and collecting takes time
        code = code or int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--disable-warnings", test]))
    sys.stdout.flush()
    os._exit(code)


def start_tests(tree: Path, target: str, *, is_loud: bool = False) -> multiprocessing.Process:
    tests = [test for test in TARGETS[target] if (tree / test).exists()]
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(tree, tests, is_loud))
    process.start()
    return process


def survivors_of(mutants: list[Mutant], trees: list[Path], seconds: float) -> Iterator[Mutant]:
    """The mutants that no test notices; one that takes longer than ``seconds`` is noticed."""
    waiting, free, running = list(reversed(mutants)), list(trees), {}
    while waiting or running:
        while waiting and free:
            mutant, tree = waiting.pop(), free.pop()
            original = (tree / mutant.target).read_bytes()
            (tree / mutant.target).write_bytes(mutant.source)
            process = start_tests(tree, mutant.target)
            running[process.sentinel] = (process, mutant, tree, original, time.monotonic() + seconds)
        wait(list(running), timeout=1)
        for sentinel, (process, mutant, tree, original, end) in list(running.items()):
            if process.is_alive() and time.monotonic() < end:
                continue
            is_survivor = not process.is_alive() and process.exitcode == 0
            kill_group(process)
            (tree / mutant.target).write_bytes(original)
            free.append(tree)
            del running[sentinel]
            if is_survivor:
                yield mutant


def kill_group(process: multiprocessing.Process) -> None:
    """End a process and those that its tests have started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.join()


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--file", action="append", choices=TARGETS, help="only the mutants of this target; may be repeated")
    add("--function", action="append", metavar="NAME", help="only those of this function or method; may be repeated")
    add("--lines", metavar="A-B", help="only those of these lines of the file")
    add("--jobs", type=int, default=1, help="mutants tested at a time")
    add("--timeout", type=float, default=300, help="seconds after which a mutant counts as noticed")
    add("--list", action="store_true", help="print the mutants and run nothing")
    return parser.parse_args(argv)


def chosen(args: argparse.Namespace) -> list[Mutant]:
    """The mutants that the command line chooses, in the order of TARGETS."""
    targets = [target for target in TARGETS if (REPOSITORY / target).exists() and target in (args.file or TARGETS)]
    first, last = map(int, args.lines.split("-")) if args.lines else (1, sys.maxsize)
    return [
        mutant
        for target in targets
        for mutant in mutants_of(REPOSITORY, target)
        if first <= mutant.line <= last and mutant.function in (args.function or [mutant.function])
    ]


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    mutants = chosen(args)
    if args.list:
        for mutant in mutants:
            print(f"{mutant.target}:{mutant.line} {mutant.function}\n{mutant.diff}")
        print(f"{len(mutants)} mutants")
        return 0
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True  # a mutant may be as long as the file, and as old to the second
    warm_up()
    unexplained = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [copy_tree(Path(folder) / str(job)) for job in range(args.jobs)]
        for target in dict.fromkeys(mutant.target for mutant in mutants):
            start = time.monotonic()
            unchanged = start_tests(trees[0], target, is_loud=True)
            unchanged.join()
            if unchanged.exitcode:
                print(f"{target}: its tests fail as it is; make them pass first", file=sys.stderr)
                return 2
            print(f"{target}: its tests take {time.monotonic() - start:.0f} s", flush=True)
        for mutant in survivors_of(mutants, trees, args.timeout):
            unexplained += mutant.reason is None
            print(f"{mutant.target}:{mutant.line} {mutant.function}\n{mutant.diff}")
            print(f"  survives{f': {mutant.reason}' if mutant.reason else ''}", flush=True)
    print(f"{len(mutants)} mutants, {unexplained} survive that nothing explains")
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())
