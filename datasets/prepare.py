"""Make a data root of a user's own images, labels and tables, or add to one.

    python -m datasets.prepare labelled --images DIR --labels cdl.tif --confidence conf.tif --year 2019 --out data/mine
    python -m datasets.prepare unlabelled --images DIR --year 2019 --count 20000 --out data/mine
    python -m datasets.prepare polygons --images DIR --polygons fields.gpkg --label crop --year 2019 --out data/mine
    python -m datasets.prepare SUBCOMMAND --help
"""

from __future__ import annotations

import argparse
import importlib
import sys

from datasets.preparation.extract import bound_cache
from utils.errors import Parser, exit_cleanly

COMMANDS = {  # modules with HELP, add_arguments(parser) and run(args), imported when chosen
    "labelled": "datasets.preparation.labelled",
    "unlabelled": "datasets.preparation.unlabelled",
    "polygons": "datasets.preparation.polygons",
    "table": "datasets.preparation.table",
    "timesen2crop": "datasets.preparation.timesen2crop",
}
PROGRAM = "python -m datasets.prepare"


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    bound_cache()
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[argv[0]])
        parser = Parser(prog=f"{PROGRAM} {argv[0]}", description=module.HELP)
        module.add_arguments(parser)
        module.run(parser.parse_args(argv[1:]))
        return
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:14}{importlib.import_module(path).HELP}" for name, path in COMMANDS.items()]
        epilog = "\n".join(["subcommands, each with a --help of its own:", *lines])
    else:
        epilog = None
    parser = Parser(
        prog=PROGRAM, description=(__doc__ or "").partition("\n")[0], epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("subcommand", choices=COMMANDS, help="what to make series of")
    parser.parse_args(argv)


if __name__ == "__main__":
    main()
