"""What a check says of a plan, in words that the Dagster UI and the report both take. How to judge a plan is each system's own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """The result of a check: its name, whether it passed, whether it blocks, and a line that says why."""

    name: str
    passed: bool
    blocking: bool
    detail: str
