"""The errors of this package that a user can cause."""

from __future__ import annotations

from utils.errors import UsageError


class ModelError(UsageError):
    """A model cannot be built from, or run on, what the user gave; the message is one line."""
