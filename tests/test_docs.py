"""The documentation: its commands are accepted by the programs, its links lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from utils.errors import Parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "checkpoints").rglob("README.md"))
LAUNCHERS = ("python", "torchrun", "srun", "OMP_NUM_THREADS=2")


class Parsed(BaseException):
    """Raised in place of doing the work, once a command line has been accepted."""


def commands() -> list[tuple[str, str]]:
    """(page, command line) of every line in a code block that starts one of our programs."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                if line.split(" ")[0] in LAUNCHERS and re.search(r"main_\w+\.py|-m \w+\.\w+", line):
                    found.append((page.name, line))
    return found


def program(line: str) -> tuple[str, list[str]]:
    """Module and arguments of a command line."""
    words = shlex.split(line.removesuffix(" &"), comments=True)
    if "-m" in words:
        place = words.index("-m") + 1
        return words[place], words[place + 1 :]
    place = next(i for i, word in enumerate(words) if word.endswith(".py"))
    return words[place].removesuffix(".py"), words[place + 1 :]


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_programs_accept_the_commands_of_the_documentation(page, line, monkeypatch, capsys):
    name, arguments = program(line)
    parse = Parser.parse_args

    def parse_only(self, *given, **options):
        parse(self, *given, **options)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", parse_only)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    try:
        importlib.import_module(name).main()
    except Parsed:
        return
    except SystemExit as ended:
        pytest.fail(f"exit code {ended.code}: {capsys.readouterr().err}")
    pytest.fail(f"{name} parsed no arguments")


def test_there_are_commands():
    assert len(commands()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", text):
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for name, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", text):
        if "://" not in name:
            other = (page.parent / name).read_text(encoding="utf-8") if name else text
            headings = re.findall(r"^#+ (.*)$", other, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name} links to the heading #{anchor}"
