"""What `npq demo` does: the sample company through the whole graph, and what came of it in a table."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from npq_assets.company.landing import write_sample
from npq_assets.deciding import Decider
from npq_assets.errors import NpqError
from npq_assets.reporting.summary import summary_table
from npq_assets.retail.output import read_summary
from npq_assets.settings import Home

_MARK = "sample-company.txt"


def run_demo(home: Home, *, scale: float, days: int, seed: int, say: Callable[[str], None]) -> None:
    """Makes the sample company in `home` and decides for its next day.

    Raises:
        NpqError: The home holds somebody else's landing files.
    """
    mark = home.root / _MARK
    wanted = f"scale={scale:g} days={days} seed={seed}\n"
    if home.landing.exists() and any(home.landing.iterdir()) and not mark.exists():
        raise NpqError(f"{home.landing}: holds files that are not the sample company's; give another --home")
    started = time.monotonic()
    say(f"Making the sample company in {home.root} …")
    if mark.exists() and mark.read_text() != wanted:
        for part in (
            "landing",
            "raw",
            "quarantine",
            "warehouse",
            "marts",
            "forecasts",
            "plans",
            "decisions",
            "reports",
        ):
            shutil.rmtree(home.root / part, ignore_errors=True)
    home.root.mkdir(parents=True, exist_ok=True)
    mark.write_text(wanted)
    sample = write_sample(home.landing, scale=scale, days=days, seed=seed)
    say(
        f"  {sample.total_rows:,} rows in {sample.files} files: {sample.n_stores} stores, {sample.n_products} products, "
        f"to {sample.as_of} ({time.monotonic() - started:.1f} s)"
    )
    say(f"Running the whole graph as of {sample.as_of} …")
    outcome = Decider(home, "everything", say).decide(sample.as_of)
    say(summary_table(read_summary(home, sample.as_of), home.report(sample.as_of), time.monotonic() - started))
    say(f"Run {outcome.run_id}. See the graph with: make dev")
