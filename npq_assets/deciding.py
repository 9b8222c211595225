"""What `npq run` does: take new files in, settle the as-of day, run the job, and say what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from npq_assets.errors import NpqError
from npq_assets.periods import latest_as_of
from npq_assets.runs import Outcome, Runner
from npq_assets.settings import Home

FIRST_AS_OF = date(2000, 1, 1)


@dataclass
class Decider:
    """Decides on one home, as often as asked; keeps the loaded graph between runs.

    Attributes:
        home: The home.
        domain: `everything` or one system.
        say: Takes one line of progress at a time.
    """

    home: Home
    domain: str = "everything"
    say: Callable[[str], None] | None = None
    _runner: Runner | None = field(default=None, repr=False)

    @property
    def runner(self) -> Runner:
        """The graph, loaded when first needed."""
        if self._runner is None:
            self._runner = Runner(self.home)
        return self._runner

    def latest(self) -> date:
        """Takes new files in and returns the day to decide for."""
        self.runner.run("ingest", progress=self.say).raise_for_failure()
        return latest_as_of(self.home)

    def decide(self, as_of: date) -> Outcome:
        """Runs the domain's job as of a day.

        Raises:
            NpqError: The day lies outside the calendar.
            RunError: A step or a blocking check failed.
        """
        if not FIRST_AS_OF <= as_of <= date.today() + timedelta(days=1):
            raise NpqError(f"--as-of {as_of}: decisions are made for days from {FIRST_AS_OF} to tomorrow")
        outcome = self.runner.run(self.domain, as_of, self.say)
        outcome.raise_for_failure()
        return outcome


def require_landing(home: Home) -> None:
    """Raises NpqError if nothing has ever landed in this home."""
    if not home.landing.is_dir():
        raise NpqError(f"{home.landing}: no such folder; land files as <domain>/<table>/<name>.csv, or run npq demo")


def decide(home: Home, domain: str, as_of: date | None, say: Callable[[str], None]) -> None:
    """Runs a domain as of a day (else the latest) and prints the summary."""
    require_landing(home)
    # Behind the check: a home that was mistyped must not wait for the libraries.
    from npq_assets.reporting.summary import summary_table
    from npq_assets.retail.output import read_summary

    started = time.monotonic()
    decider = Decider(home, domain, say)
    day = as_of or decider.latest()
    say(f"Deciding as of {day} in {home.root}")
    outcome = decider.decide(day)
    say(summary_table(read_summary(home, day), home.report(day), time.monotonic() - started))
    say(f"Run {outcome.run_id}; look at it with: npq dev --home {home.root}")


def build_docs(home: Home) -> Path:
    """Builds the warehouse and writes dbt docs; returns the page."""
    runner = Runner(home)
    runner.run("documentation").raise_for_failure()
    return home.root / "docs" / "dbt.html"
