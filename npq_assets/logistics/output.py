"""What logistics keeps between its steps: traffic models by their inputs, plans by the hash of theirs.

Plans are stored under the hash of their inputs: an unchanged day is read, not solved again.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from npq_assets.logistics.plan import RoutePlan
from npq_assets.settings import Home
from npq_assets.storage import write_json, write_parquet, write_text

TERMS = ("sources", "lanes", "demand")
FRAMES = ("routes", "dropped", "risks", "alerts", "sourcing", "worth", "quantiles", "tours", "places")


def plan_folder(home: Home, as_of: date) -> Path:
    """Where a day's plan lies."""
    return home.root / "plans" / "logistics" / f"as_of={as_of.isoformat()}"


def save_skipped(home: Home, as_of: date, reason: str) -> None:
    """Notes why nothing was decided for a day, and withdraws what was planned for it before."""
    (plan_folder(home, as_of) / "plan.json").unlink(missing_ok=True)
    write_json({"reason": reason}, plan_folder(home, as_of) / "skipped.json")


def load_skipped(home: Home, as_of: date) -> str | None:
    """Why nothing was decided for a day; None if something was, or nobody tried."""
    facts = _read_json(plan_folder(home, as_of) / "skipped.json")
    return str(facts["reason"]) if facts else None


def save_plan(home: Home, as_of: date, plan: RoutePlan, places: pl.DataFrame, picture: str, inputs_hash: str) -> None:
    """Writes frames, the map and facts; the JSON last, so that it vouches for the rest."""
    folder = plan_folder(home, as_of)
    # The plan that stood vouches for nothing while frames are being replaced.
    (folder / "plan.json").unlink(missing_ok=True)
    for name in FRAMES:
        write_parquet(places if name == "places" else getattr(plan, name), folder / f"{name}.parquet")
    if plan.terms is not None:
        for name in TERMS:
            place = folder / f"terms_{name}.parquet"
            place.unlink(missing_ok=True)
            if name in plan.terms:
                write_parquet(plan.terms[name], place)
    write_text(picture, folder / "map.svg")
    (folder / "skipped.json").unlink(missing_ok=True)
    write_json({"inputs": inputs_hash, "relaxation": plan.relaxation, **plan.facts}, folder / "plan.json")


def load_plan(
    home: Home, as_of: date, inputs_hash: str | None = None
) -> tuple[dict[str, pl.DataFrame], dict[str, Any]] | None:
    """Frames by name and facts of a stored plan; None if there is none, or none of these inputs."""
    folder = plan_folder(home, as_of)
    facts = _read_json(folder / "plan.json")
    if facts is None or (inputs_hash is not None and facts["inputs"] != inputs_hash):
        return None
    return {name: pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False) for name in FRAMES}, facts


def load_terms(home: Home, as_of: date) -> dict[str, pl.DataFrame] | None:
    """What a day's sourcing was priced with: see `RoutePlan.terms`; None if it is not stored (plans of before it was)."""
    places = {name: plan_folder(home, as_of) / f"terms_{name}.parquet" for name in TERMS}
    if not all(place.exists() for place in places.values()):
        return None
    return {name: pl.read_parquet(place, hive_partitioning=False) for name, place in places.items()}


def load_picture(home: Home, as_of: date) -> str:
    """The map of a day's routes as SVG; empty if there is none."""
    place = plan_folder(home, as_of) / "map.svg"
    return place.read_text(encoding="utf-8") if place.exists() else ""


def logistics_accounts(home: Home, as_of: date) -> list[pl.DataFrame]:
    """The day's ledger rows: a delivery each for routes, an action each for alerts, a site each for sourcing."""
    from npq_assets.evaluation.ledger import ledger_rows

    found = load_plan(home, as_of)
    if found is None:
        return []
    plan, facts = found
    columns = ["decision_id", "as_of", "expected_cost", "naive_expected_cost", "lower_bound", "input_snapshot"]
    driven = pl.concat([plan["routes"].select(columns), plan["dropped"].select(columns)])
    acted = (
        plan["alerts"]
        .drop_nulls("agreed_until")
        .select(
            "decision_id",
            "as_of",
            # What it costs less what lateness it spares, beside saying nothing; at best it spares all.
            (-pl.col("expected_saving")).alias("expected_cost"),
            pl.lit(0.0).alias("naive_expected_cost"),
            (pl.col("action_cost") - pl.col("money_at_risk")).alias("lower_bound"),
            "input_snapshot",
        )
    )
    flow = {**facts, "solver": "CVXPY and HiGHS", "status": facts.get("sourcing_status", ""), "model_version": "none"}
    return [
        ledger_rows("logistics", "routes", driven, facts),
        ledger_rows("logistics", "alerts", acted, facts),
        ledger_rows("logistics", "sourcing", plan["sourcing"].select(columns), flow),
    ]


def _read_json(place: Path) -> dict[str, Any] | None:
    if not place.exists():
        return None
    content: dict[str, Any] = json.loads(place.read_text())
    return content
