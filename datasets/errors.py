"""The errors of this package that a user can cause."""

from __future__ import annotations

from utils.errors import UsageError


class DataError(UsageError):
    """Data that cannot be used: the message is one line that says what, where, what was expected and what to do."""
