"""The command line: a mistake in it is one line, and so is a value out of range."""

from __future__ import annotations

from argparse import ArgumentTypeError
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import download, simulate
from utils import checkpoint, options, report
from utils.errors import Parser, UsageError


def parse(*words: str):
    parser = Parser()
    options.add_data(parser, "data", num_help="series")
    options.add_training(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-e 0", "argument -e/--epochs: 0 is below 1; see --help"),
        ("-b many", "argument -b/--batchsize: invalid whole number value: 'many'; see --help"),
        ("-lr -1", "argument -lr/--learning-rate: -1 is not a positive number; see --help"),
        ("--weight-decay -1", "argument --weight-decay: -1 is below 0 or not finite; see --help"),
        ("--epoch", "argument -e/--epochs: expected one argument; see --help"),
        ("--fast", "unrecognized arguments: --fast; see --help"),
        (
            "-s a/b",
            "argument -s/--suffix: 'a/b' cannot be in a folder name; use letters, digits and _ - + = , @ .; see --help",
        ),
    ],
)
def test_a_mistake_is_one_line(words, expected):
    with pytest.raises(UsageError) as error:
        parse(*words.split())
    assert str(error.value) == expected


@given(text=st.text(max_size=40) | st.text("ab_-+=,@.9", max_size=110))
def test_a_suffix_is_a_part_of_a_file_name_or_refused(text):
    try:
        part = options.file_name_part(text)
    except ArgumentTypeError as error:
        assert text.endswith(".") or len(text) > 100 or not all(c.isalnum() or c in "_-+=,@." for c in text) or (
            len(text.encode()) > 100
        ), error  # fmt: skip
        return
    assert part == text and Path(f"T_{part}").name == f"T_{part}" and len(part.encode()) <= 100
    assert not set(part) & set(' /\\:*?"<>|\n\0')


@pytest.mark.parametrize("text", ["a b/c", "a b", "..", "a\\b", "x.", "a\nb", "é" * 51, "*", "$HOME", "a:b"])
def test_suffixes_that_no_folder_can_have_are_refused(text):
    with pytest.raises(UsageError, match="argument -s/--suffix: "):
        parse("-s", text)


@pytest.mark.parametrize("text", ["v1.5", "lr=0.1", "long_run-2", "a+b", "été", ""])
def test_usual_suffixes_are_taken(text):
    assert parse("-s", text).suffix == text


def test_the_help_of_an_option_of_the_recipe_says_whose_default_holds(capsys):
    parser = Parser(formatter_class=options.HelpFormatter)
    parser.add_argument("--init", default="published", help="initialisation")
    parser.add_argument("--epochs", default=100, help="passes")
    options.leave_to_recipe(parser, ["init", "epochs"])
    text = " ".join(parser.format_help().split())
    assert "initialisation (default: the recipe's; published in --recipe published)" in text
    assert "passes (default: the recipe's; 100 in --recipe published)" in text and "None" not in text
    assert vars(parser.parse_args([])) == {"init": None, "epochs": None}


def test_a_fraction_is_from_0_to_1():
    assert [options.fraction(text) for text in ("0", "0.999", "1")] == [0, 0.999, 1]
    for text in ("-0.1", "1.1", "nan"):
        with pytest.raises(ArgumentTypeError, match=f"{text} is not between 0 and 1"):
            options.fraction(text)


@pytest.mark.parametrize("main", [report.main, checkpoint.main, download.main, simulate.main])
def test_programs_end_with_one_line(main, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["program", "--fast"])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.endswith("; see --help\n") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "is_test", "told"),
    [
        ("-s auto --overwrite", False, "--suffix auto keeps the run that is there, --overwrite replaces it; give one"),
        ("-s auto", True, "--suffix auto is for a new run; give the suffix of the run to test, or none"),
        ("-s auto", False, None), ("-s x --overwrite", False, None), ("--overwrite", True, None),
    ],
)  # fmt: skip
def test_flags_of_the_folder_that_do_not_go_together(words, is_test, told):
    with pytest.raises(UsageError, match=told) if told else nullcontext():
        options.check_place(parse(*words.split()), is_test)


def test_options_that_differ_are_told_one_by_one():
    here = {"num": 3, "rc": True, "new": 1, "schedule": [], "model": "stnet", "same": 2, "batchsize": None}
    there = {"num": 4, "rc": False, "schedule": [1], "model": "rf", "same": 2, "old": 1, "batchsize": 8}
    assert options.differences(here, there, "there") == (
        "-n 3 here, 4 there; with --rc here, without --rc there; --schedule [] here, [1] there;"
        " model stnet here, rf there; -b not given here, 8 there"
    )
    assert options.differences({"epochs": 1}, {"epochs": 2}) == "-e 1 here, 2 in the checkpoint"
