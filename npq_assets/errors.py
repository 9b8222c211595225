"""The two kinds of failure a user meets, each one readable line; anything else is a bug of ours."""

from __future__ import annotations


class NpqError(Exception):
    """Unusable input or arguments (exit code 2); the message names the place and the remedy."""


class Unavailable(NpqError):
    """A decision for which something essential has not landed: it is skipped with this reason, and the rest goes on."""


class RunError(NpqError):
    """A run or a blocking check failed (exit code 1)."""
