"""The sensor on new files: a run for exactly the raw tables that they touch and what the warehouse makes of them."""

import hashlib
import json

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from npq_assets.contracts import LANDING
from npq_assets.ingestion import landing_files
from npq_assets.ingestion.assets import raw_key
from npq_assets.orchestration import HomeResource


def landing_sensor(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Starts `job` for the tables whose landing files are new or changed since the cursor.

    The cursor holds each file's identity (size and modification time) as last acted upon, and as last seen.
    """

    @dg.sensor(name="new_landing_files", job=job, minimum_interval_seconds=30)
    def new_landing_files(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        cursor = json.loads(context.cursor) if context.cursor else {}
        result = changes(cursor, {str(f.path): f"{f.size}:{f.mtime_ns}" for f in landing_files(home.home)})
        tables = sorted(
            {f"{f.domain}.{f.table}" for f in landing_files(home.home) if str(f.path) in result.ready} & set(LANDING)
        )
        encoded = json.dumps(result.cursor, sort_keys=True)
        if not tables:
            context.update_cursor(encoded)
            waiting = f"; {result.settling} still settling" if result.settling else ""
            return dg.SkipReason(f"No new landing files{waiting}.")
        raw = dg.AssetSelection.assets(*[raw_key(LANDING[name]) for name in tables])
        graph = context.repository_def.asset_graph if context.repository_def else None
        keys = sorted(
            (raw | (raw.downstream() & job.selection)).resolve(graph) if graph else raw.resolve([]),
            key=lambda key: tuple(key.path),
        )
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=hashlib.sha256(encoded.encode()).hexdigest()[:16],
                    asset_selection=keys,
                    tags={"npq/tables": ",".join(tables)},
                )
            ],
            cursor=encoded,
        )

    return new_landing_files


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
