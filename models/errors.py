"""The error class of this room."""


class ModelError(ValueError):
    """A model cannot be built from, or run on, what the user gave; the message is one line."""
