"""What the assets of all systems share: the home as a resource, the as-of partitions, retries, owners.

What an asset computes does not belong here.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl
from filelock import FileLock, Timeout

from npq_assets.settings import Home
from npq_assets.verdicts import Verdict

AS_OF = dg.DailyPartitionsDefinition(start_date="2000-01-01", end_offset=1)
"""Forecasts and decisions are made as of a day, before it opens; tomorrow is the last day that can be planned."""

WAREHOUSE_POOL = "warehouse"
"""Only one step at a time may open the warehouse file."""

RETRY = dg.RetryPolicy(max_retries=2, delay=1.0, backoff=dg.Backoff.EXPONENTIAL)
"""For steps whose failures may pass: a file in motion, a full disk being cleared."""

DAILY_FRESHNESS = dg.FreshnessPolicy.cron(deadline_cron="0 7 * * *", lower_bound_delta=timedelta(hours=4))


def home_lock(home: Home) -> FileLock:
    """The lock that serializes runs on a home; re-entrant within a process, free again when the process dies."""
    home.root.mkdir(parents=True, exist_ok=True)
    return FileLock(str(home.lock), is_singleton=True, thread_local=False)


class HomeResource(dg.ConfigurableResource):
    """The company's home folder, locked for as long as a run (or, with other executors, a step) works on it.

    Attributes:
        root: The folder; empty for NPQ_HOME or ./.npq.
    """

    root: str = ""

    @property
    def home(self) -> Home:
        """The home, with its settings as they stand."""
        return Home.at(self.root or None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["HomeResource"]:
        """Waits until no other run works on this home, then holds it; sensors only look, and do not wait."""
        if context.run is None:
            yield self
            return
        lock = home_lock(self.home)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if context.log:
                context.log.info(f"Another run works on {self.home.root}; waiting for it to end.")
            lock.acquire()
        try:
            yield self
        finally:
            lock.release()


def as_of_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> date:
    """The as-of day of a run: its partition key."""
    return date.fromisoformat(context.partition_key)


def skipped(reason: str) -> dg.MaterializeResult[None]:
    """What an asset yields that could not be computed."""
    return dg.MaterializeResult(metadata={"skipped": reason, "dagster/row_count": 0})


def check_results(key: dg.AssetKey, verdicts: Iterable[Verdict]) -> Iterator[dg.AssetCheckResult]:
    """Verdicts on an asset as Dagster has them."""
    for verdict in verdicts:
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=verdict.name,
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.ERROR if verdict.blocking else dg.AssetCheckSeverity.WARN,
            metadata={"detail": verdict.detail},
        )


def preview(frame: pl.DataFrame, rows: int = 8) -> dg.MarkdownMetadataValue:
    """The first rows of a frame as a Markdown table for the Dagster UI."""
    head = frame.head(rows)

    def cell(value: Any) -> str:
        text = f"{value:,.2f}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")[:80]

    lines = ["| " + " | ".join(head.columns) + " |", "| " + " | ".join("---" for _ in head.columns) + " |"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in head.iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))
