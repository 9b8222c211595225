"""The sensors on new files: a run for exactly the raw tables that they touch and what the warehouse makes of them.

Tables that are kept by day have a sensor of their own: a live stream lands a file a minute, and what it is worth waking for is
less than all that can be decided.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg
from dagster._core.definitions.asset_selection import AssetSelection
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from npq_assets.contracts import LANDING
from npq_assets.errors import NpqError
from npq_assets.ingestion import LandedFile, landing_files
from npq_assets.ingestion.assets import raw_key
from npq_assets.ingestion.store import Places, Registry
from npq_assets.orchestration import HomeResource
from npq_assets.periods import latest_as_of
from npq_assets.settings import Home

_STREAMED = {name for name, table in LANDING.items() if table.by_day}
# Files that the listener writes appear whole; any other must look the same at two ticks.
_WHOLE = "/live/"


def landing_sensor(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Starts `job` for the tables whose landing files are new or changed since the cursor.

    The cursor holds each file's identity (size and modification time) as last acted upon, and as last seen.
    """

    @dg.sensor(name="new_landing_files", job=job, minimum_interval_seconds=30)
    def new_landing_files(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        cursor = json.loads(context.cursor) if context.cursor else {}
        files = [file for file in landing_files(home.home) if f"{file.domain}.{file.table}" not in _STREAMED]
        result = changes(cursor, {str(f.path): f"{f.size}:{f.mtime_ns}" for f in files})
        tables = sorted({f"{f.domain}.{f.table}" for f in files if str(f.path) in result.ready} & set(LANDING))
        encoded = json.dumps(result.cursor, sort_keys=True)
        if not tables:
            context.update_cursor(encoded)
            waiting = f"; {result.settling} still settling" if result.settling else ""
            return dg.SkipReason(f"No new landing files{waiting}.")
        raw = dg.AssetSelection.assets(*[raw_key(LANDING[name]) for name in tables])
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=hashlib.sha256(encoded.encode()).hexdigest()[:16],
                    asset_selection=_resolved(context, raw | (raw.downstream() & job.selection), raw),
                    tags={"npq/tables": ",".join(tables)},
                )
            ],
            cursor=encoded,
        )

    return new_landing_files


def telemetry_sensor(job: UnresolvedAssetJobDefinition, judged: Sequence[dg.AssetKey]) -> dg.SensorDefinition:
    """Starts of `job` what new telemetry touches: its raw table, what the warehouse makes of it, and `judged` behind that.

    Which files are new is asked of the raw table's own memory, so that neither a cursor grows with every file of a stream nor a
    run that failed loses one. The cursor only remembers what was asked for last, not to ask twice while the run waits.
    """
    models = AssetSelection.key_prefixes(["staging"], ["intermediate"], ["marts"])

    @dg.sensor(name="new_telemetry", job=job, minimum_interval_seconds=60)
    def new_telemetry(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        cursor = json.loads(context.cursor) if context.cursor else {}
        new = untaken(home.home)
        present = {file.name: f"{file.size}:{file.mtime_ns}" for file in new}
        ready = [f for f in new if _WHOLE in f.name or cursor.get("seen", {}).get(f.name) == present[f.name]]
        asked = hashlib.sha256(json.dumps(sorted((f.name, present[f.name]) for f in ready)).encode()).hexdigest()[:16]
        seen = {name: identity for name, identity in present.items() if _WHOLE not in name}
        encoded = json.dumps({"seen": seen, "asked": asked if ready else cursor.get("asked", "")}, sort_keys=True)
        if not ready or cursor.get("asked") == asked:
            context.update_cursor(encoded)
            return dg.SkipReason("No new telemetry." if not ready else "Asked for; the run has not taken it in yet.")
        tables = sorted({f"{f.domain}.{f.table}" for f in ready})
        raw = dg.AssetSelection.assets(*[raw_key(LANDING[name]) for name in tables])
        wanted = raw | (raw.downstream() & models) | dg.AssetSelection.assets(*judged)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=asked,
                    partition_key=_day(home.home).isoformat(),
                    asset_selection=_resolved(context, wanted, raw),
                    tags={"npq/tables": ",".join(tables)},
                )
            ],
            cursor=encoded,
        )

    return new_telemetry


def untaken(home: Home) -> list[LandedFile]:
    """Files of tables kept by day that the raw table does not know of."""
    places = Places(home.landing, home.raw, home.quarantine)
    known = {name: Registry.read(places.registry(LANDING[name])).seen for name in _STREAMED}
    return [
        file
        for file in landing_files(home)
        if (name := f"{file.domain}.{file.table}") in _STREAMED
        and not known[name].get(file.name, "").startswith(f"{file.size}:{file.mtime_ns}:")
    ]


def _day(home: Home) -> date:
    """The day to judge for: the one after the last that any row tells of, tomorrow at the latest."""
    try:
        return min(latest_as_of(home), date.today() + timedelta(days=1))
    except NpqError:
        return date.today()


def _resolved(context: dg.SensorEvaluationContext, wanted: AssetSelection, alone: AssetSelection) -> list[dg.AssetKey]:
    """Keys of the wanted assets, in order; outside a repository, where nobody knows what is behind them, of some alone."""
    graph = context.repository_def.asset_graph if context.repository_def else None
    return sorted(wanted.resolve(graph) if graph else alone.resolve([]), key=lambda key: tuple(key.path))


class Changes:
    """What changed since a cursor.

    Attributes:
        ready: Files to take in now.
        settling: How many files changed since the last tick and are left for the next.
        cursor: The next cursor.
    """

    def __init__(self, ready: set[str], settling: int, cursor: dict[str, dict[str, str]]) -> None:
        self.ready = ready
        self.settling = settling
        self.cursor = cursor


def changes(cursor: dict[str, dict[str, str]], present: dict[str, str]) -> Changes:
    """Compares the files present with a cursor; a file counts when two ticks saw the same size and time.

    Args:
        cursor: `done` (identity by path, as acted upon) and `seen` (as seen at the last tick).
        present: Identity by path, now.
    """
    done, seen = cursor.get("done", {}), cursor.get("seen", {})
    new = {path for path, identity in present.items() if done.get(path) != identity}
    ready = {path for path in new if seen.get(path) == present[path]}
    return Changes(
        ready,
        len(new - ready),
        {
            "done": {path: done[path] for path in present if path in done} | {path: present[path] for path in ready},
            "seen": dict(present),
        },
    )
