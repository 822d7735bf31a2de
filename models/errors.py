"""Errors that users can cause."""

from __future__ import annotations

from utils.errors import UsageError


class ModelError(UsageError):
    """A model cannot be built from, or run on, the user's input; the message is one line."""
