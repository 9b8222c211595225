"""What retail keeps between its steps, and the numbers that a summary of a day needs.

Plans are stored under the hash of their inputs: an unchanged day is read, not solved again.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from npq_assets.retail.demand import DemandForecast
from npq_assets.retail.plan import ReplenishmentPlan
from npq_assets.settings import Home
from npq_assets.storage import write_json, write_parquet


def forecast_folder(home: Home, as_of: date) -> Path:
    """Where a day's forecast lies."""
    return home.forecasts("retail", as_of)


def plan_folder(home: Home, as_of: date) -> Path:
    """Where a day's plan lies."""
    return home.root / "plans" / "retail" / f"as_of={as_of.isoformat()}"


def save_forecast(home: Home, as_of: date, forecast: DemandForecast, inputs_hash: str) -> None:
    """Writes quantiles and scenarios; the JSON beside them last, so that it vouches for the rest."""
    folder = forecast_folder(home, as_of)
    write_parquet(forecast.frame.with_columns(pl.lit(as_of).alias("as_of")), folder / "forecast.parquet")
    (plan_folder(home, as_of) / "skipped.json").unlink(missing_ok=True)
    n, samples, horizon = forecast.scenarios.shape
    flat = pl.DataFrame(
        {"values": forecast.scenarios.astype(np.float32).reshape(n, samples * horizon)},
        schema={"values": pl.Array(pl.Float32, samples * horizon)},
    )
    write_parquet(flat, folder / "scenarios.parquet")
    own = forecast.engine_scenarios.astype(np.float32).reshape(len(forecast.overridden), samples * horizon)
    write_parquet(
        pl.DataFrame(
            {"row": forecast.overridden, "values": own},
            schema={"row": pl.Int64, "values": pl.Array(pl.Float32, samples * horizon)},
        ),
        folder / "engine_scenarios.parquet",
    )
    write_json(
        {
            "inputs": inputs_hash,
            "shape": [n, samples, horizon],
            "model_version": forecast.model_version,
            "model_trained_as_of": forecast.model_trained_as_of.isoformat(),
        },
        folder / "forecast.json",
    )


def save_explanation(home: Home, as_of: date, explained: pl.DataFrame) -> None:
    """Writes what moved the forecasts of the pairs with most at stake."""
    write_parquet(explained, forecast_folder(home, as_of) / "explanation.parquet")


def load_explanation(home: Home, as_of: date) -> pl.DataFrame | None:
    """What moved the forecasts that were explained; None if none were."""
    place = forecast_folder(home, as_of) / "explanation.parquet"
    return pl.read_parquet(place, hive_partitioning=False) if place.exists() else None


def save_skipped(home: Home, as_of: date, reason: str) -> None:
    """Notes why nothing was decided for a day, and withdraws what was planned for it before."""
    for stale in (forecast_folder(home, as_of) / "forecast.json", plan_folder(home, as_of) / "plan.json"):
        stale.unlink(missing_ok=True)
    write_json({"reason": reason}, plan_folder(home, as_of) / "skipped.json")


def load_skipped(home: Home, as_of: date) -> str | None:
    """Why nothing was decided for a day; None if something was, or nobody tried."""
    facts = _read_json(plan_folder(home, as_of) / "skipped.json")
    return str(facts["reason"]) if facts else None


def load_forecast(home: Home, as_of: date, inputs_hash: str | None = None) -> DemandForecast | None:
    """The stored forecast of a day; None if there is none, or none of these inputs."""
    folder = forecast_folder(home, as_of)
    facts = _read_json(folder / "forecast.json")
    if facts is None or (inputs_hash is not None and facts["inputs"] != inputs_hash):
        return None
    values = pl.read_parquet(folder / "scenarios.parquet")["values"].to_numpy()
    own = pl.read_parquet(folder / "engine_scenarios.parquet")
    return DemandForecast(
        pl.read_parquet(folder / "forecast.parquet").drop("as_of"),
        values.reshape(facts["shape"]).astype(np.float64),
        facts["model_version"],
        date.fromisoformat(facts["model_trained_as_of"]),
        own["row"].to_numpy(),
        own["values"].to_numpy().reshape(own.height, *facts["shape"][1:]).astype(np.float64),
    )


def save_plan(home: Home, as_of: date, plan: ReplenishmentPlan, inputs_hash: str) -> None:
    """Writes orders, prices of the limits and facts; the JSON last."""
    folder = plan_folder(home, as_of)
    write_parquet(plan.orders, folder / "orders.parquet")
    write_parquet(plan.overrides, folder / "overrides.parquet")
    write_parquet(plan.result.duals, folder / "duals.parquet")
    write_parquet(plan.result.relaxation, folder / "relaxation.parquet")
    write_json({"inputs": inputs_hash, **plan.facts}, folder / "plan.json")


def load_plan(home: Home, as_of: date, inputs_hash: str | None = None) -> tuple[pl.DataFrame, dict[str, Any]] | None:
    """Orders and facts of a stored plan; None if there is none, or none of these inputs."""
    facts = _read_json(plan_folder(home, as_of) / "plan.json")
    if facts is None or (inputs_hash is not None and facts["inputs"] != inputs_hash):
        return None
    return pl.read_parquet(plan_folder(home, as_of) / "orders.parquet"), facts


def load_duals(home: Home, as_of: date) -> pl.DataFrame:
    """What one more unit of each shared limit is worth, per the stored plan."""
    return pl.read_parquet(plan_folder(home, as_of) / "duals.parquet")


def _read_json(place: Path) -> dict[str, Any] | None:
    if not place.exists():
        return None
    content: dict[str, Any] = json.loads(place.read_text())
    return content


def read_summary(home: Home, as_of: date) -> pl.DataFrame:
    """A row a kind of decision of a day, from the ledger; see `reporting.summary.summary_frame`."""
    from npq_assets.contracts import DECISIONS
    from npq_assets.publishing import read_decisions
    from npq_assets.reporting.summary import summary_frame

    return summary_frame(read_decisions(home, DECISIONS["all.ledger"], as_of))
