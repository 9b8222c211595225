"""From landing files to raw tables and quarantine; nothing is lost, and the same file twice changes nothing."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from npq_assets.contracts import LANDING, Table
from npq_assets.ingestion.files import LandedFile
from npq_assets.ingestion.files import landing_files as files_in
from npq_assets.ingestion.store import Places, Registry, TableBalance, balance_of, take_in
from npq_assets.settings import Home

_LOG = logging.getLogger(__name__)


def landing_files(home: Home) -> list[LandedFile]:
    """All landed files of known tables, oldest first."""
    return files_in(home.landing)


def ingest(
    home: Home, tables: Iterable[Table] | None = None, log: Callable[[str], None] | None = None
) -> dict[str, TableBalance]:
    """Takes new files in and brings the raw tables and the quarantine up to date.

    Args:
        home: The home.
        tables: Which tables; else all of the contract.
        log: Takes remarks, a line each.

    Returns:
        The balance by `domain.table`. Every table has its raw file afterwards, also if nothing landed.
    """
    places = Places(home.landing, home.raw, home.quarantine)
    return take_in(places, list(tables if tables is not None else LANDING.values()), log or _LOG.info)


def validate(home: Home, log: Callable[[str], None] | None = None) -> dict[str, TableBalance]:
    """The balance that `ingest` would arrive at; changes nothing in the home."""
    with tempfile.TemporaryDirectory(prefix="npq-validate-") as folder:
        scratch = Path(folder)
        state = home.raw / ".state"
        if state.exists():
            (scratch / "raw" / ".state").mkdir(parents=True)
            for place in state.glob("*.json"):
                (scratch / "raw" / ".state" / place.name).write_bytes(place.read_bytes())
        places = Places(home.landing, scratch / "raw", scratch / "quarantine", borrowed=home.raw)
        return take_in(places, list(LANDING.values()), log or _LOG.info)


def balances(home: Home) -> dict[str, TableBalance]:
    """The balances as of the last `ingest`, without looking at any file."""
    places = Places(home.landing, home.raw, home.quarantine)
    found = {}
    for table in LANDING.values():
        registry = Registry.read(places.registry(table))
        if registry.put_together:
            found[table.full_name] = balance_of(registry, waiting=0, unchanged=True)
    return found


__all__ = ["LandedFile", "TableBalance", "balances", "ingest", "landing_files", "validate"]
