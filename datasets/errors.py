"""The one error of this package that a user can cause."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used: the message is one line saying what, where, what was expected and what to do."""
