"""The command line: a mistake in it is one line, and what is out of range is one."""

from __future__ import annotations

import pytest

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
        ("--weight-decay -1", "argument --weight-decay: -1 is below 0, or no number; see --help"),
        ("--epoch", "argument -e/--epochs: expected one argument; see --help"),
        ("--fast", "unrecognized arguments: --fast; see --help"),
    ],
)
def test_a_mistake_is_one_line(words, expected):
    with pytest.raises(UsageError) as error:
        parse(*words.split())
    assert str(error.value) == expected


@pytest.mark.parametrize("main", [report.main, checkpoint.main, download.main, simulate.main])
def test_programs_end_with_that_line(main, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["program", "--fast"])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.endswith("; see --help\n") and error.count("\n") == 1
