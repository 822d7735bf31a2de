"""The demo's command line, and the commands of its map."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import demo, demo_map
from utils.errors import Parser
from utils.results.naming import training_name


class Parsed(BaseException):
    """Raised in place of doing the work, once a command line has been accepted."""


def test_help_does_not_start_the_demo(capsys, monkeypatch):
    monkeypatch.setattr(demo.main_moco, "main", lambda argv: pytest.fail("the demo started"))
    with pytest.raises(SystemExit) as ended:
        demo.main(["--help"])
    assert ended.value.code == 0 and "python -m benchmarks.demo" in capsys.readouterr().out


def test_the_demo_ends_with_the_map(capsys, monkeypatch):
    made = []
    monkeypatch.setattr(demo.main_moco, "main", lambda argv: None)
    monkeypatch.setattr(demo.main_tscls, "main", lambda argv: None)
    monkeypatch.setattr(demo, "write_comparison", lambda where, out: "the table")
    monkeypatch.setattr(demo, "make_map", lambda *given: made.append(given) or Path("picture.png"))
    demo.main([])
    assert made == [(Path("demo-results/map"), demo.CHECKPOINT, demo.say)]
    printed = capsys.readouterr().out
    assert printed.index("the table") < printed.index("map beside the truth: picture.png; ")


def test_the_map_is_made_by_commands_that_their_programs_accept(monkeypatch, tmp_path):
    parse, accepted, said = Parser.parse_args, [], []

    def parse_only(self, *given, **options):
        accepted.append(vars(parse(self, *given, **options)))
        raise Parsed

    def until_parsed(main):
        def run(argv):
            with pytest.raises(Parsed):
                main(argv)

        return run

    monkeypatch.setattr(Parser, "parse_args", parse_only)
    commands = {name: (until_parsed(main), options) for name, (main, options) in demo_map.COMMANDS.items()}
    monkeypatch.setattr(demo_map, "COMMANDS", commands)
    folder = tmp_path / "map"
    folder.mkdir()
    (folder / "of an earlier demo").touch()
    assert demo_map.make_map(folder, "encoder.pth", said.append) == folder / "assessment" / "map.png"
    assert not folder.exists()
    scene, data, training, mapped, assessed = accepted
    assert scene["scene"] == folder / "scene" and data["images"] == mapped["images"] == folder / "scene" / "images"
    assert [Path(training["datapath"]), Path(assessed["blocks"])] == [data["out"], data["out"]]
    assert training["pretrained"] == "encoder.pth" and Path(training["logdir"]) == Path(mapped["model"]).parent
    assert assessed["map"] == mapped["out"] and Path(assessed["reference"]) == folder / "scene" / "truth.tif"
    assert [line.split(" ")[0] for line in said] == ["-m", "-m", "main_tscls.py", "-m", "-m"]
    assert said[3].startswith("-m mapping.predict --model ") and Path(assessed["out"]) == folder / "assessment"


def test_the_model_of_the_map_is_that_of_the_training():
    options = {"num": 100, "seed": 111, "length_method": "rc", "year": 2019, "pretrained": demo.CHECKPOINT}
    assert demo_map.RUN == training_name("STNet", **options)
