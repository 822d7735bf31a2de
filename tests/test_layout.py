"""The structure of the code: which folder imports which, and no circles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pretraining", "tscls", "mapping", "moco", "models", "datasets", "utils")
MAY_IMPORT = {
    "main_moco": {"pretraining", "moco", "tscls.probe", "datasets", "models", "utils"},
    "main_tscls": {"tscls", "datasets", "models", "utils"},
    "pretraining": {"pretraining", "moco", "datasets", "models", "utils"},
    "tscls": {"tscls", "datasets", "models", "utils"},
    "mapping": {"mapping", "tscls", "datasets", "models", "utils"},
    "moco": {"moco", "datasets", "utils"},
    "models": {"models", "utils.errors"},
    "datasets": {
        "datasets",
        "utils.errors",
        "utils.files",
        "utils.locks",
        "utils.runtime.ahead",
        "utils.runtime.limited",
    },
    "utils": {"utils"},
}
FILES = sorted(
    path
    for place in (*PACKAGES, "main_moco.py", "main_tscls.py")
    for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
)


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path, *, with_types: bool = True) -> set[str]:
    """Modules of ours that a file imports, in functions too; ``with_types``: also those that only type checkers see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = set(ast.walk(tree))
    for node in ast.walk(tree):
        if not with_types and _is_type_checking(node):
            nodes -= set(ast.walk(node))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
    return {name for name in found if name in MODULES}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_imports_only_what_lies_below_it(path):
    allowed = MAY_IMPORT[module_of(path).split(".")[0]]
    for name in imports_of(path):
        assert any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed), f"{path} imports {name}"


def test_no_files_import_each_other_in_a_circle():
    graph = {name: imports_of(path, with_types=False) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())
