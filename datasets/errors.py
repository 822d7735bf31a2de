"""The errors of this package that a user can cause, in the data and on the command line."""

from __future__ import annotations

import argparse


class DataError(ValueError):
    """Data that cannot be used: the message is one line saying what, where, what was expected and what to do."""


class Parser(argparse.ArgumentParser):
    """A mistake on the command line is a DataError: one line, without the usage."""

    def error(self, message: str):
        raise DataError(f"{message}; see --help")
