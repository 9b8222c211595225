"""What manufacturing keeps between its steps.

Plans and schedules are stored under the hash of their inputs: an unchanged day is read, not solved again.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from npq_assets.errors import NpqError
from npq_assets.evaluation.ledger import decision_id, ledger_rows
from npq_assets.manufacturing.drivers import DriverFindings, driver_rows, find_drivers
from npq_assets.manufacturing.forecast import Backtest, ProductionForecast, forecast_production
from npq_assets.manufacturing.inputs import forecast_folder, plan_folder
from npq_assets.manufacturing.plan import ProductionPlan
from npq_assets.manufacturing.schedule import JobSchedule, dispatch_list
from npq_assets.settings import Home
from npq_assets.storage import fingerprint, write_csv_for_people, write_json, write_parquet
from npq_assets.version import code_version

_FRAMES = ("lots", "accounts", "naive_lots", "stock", "late", "worth", "load", "setups")
# Kept since later than the others: plans stored before have none.
_ADDED = ("setups",)


def save_skipped(home: Home, as_of: date, reason: str) -> None:
    """Notes why nothing was decided for a day, and withdraws what was planned for it before."""
    (plan_folder(home, as_of) / "plan.json").unlink(missing_ok=True)
    (plan_folder(home, as_of) / "schedule.json").unlink(missing_ok=True)
    write_json({"reason": reason}, plan_folder(home, as_of) / "skipped.json")


def load_skipped(home: Home, as_of: date) -> str | None:
    """Why nothing was decided for a day; None if something was, or nobody tried."""
    facts = read_facts(plan_folder(home, as_of) / "skipped.json")
    return str(facts["reason"]) if facts else None


def save_plan(home: Home, as_of: date, plan: ProductionPlan, inputs_hash: str) -> None:
    """Writes the plan's frames; the JSON beside them last, so that it vouches for the rest."""
    folder = plan_folder(home, as_of)
    (folder / "skipped.json").unlink(missing_ok=True)
    for name in _FRAMES:
        write_parquet(getattr(plan, name), folder / f"{name}.parquet")
    write_json({"inputs": inputs_hash, **plan.facts}, folder / "plan.json")


def load_plan(home: Home, as_of: date, inputs_hash: str | None = None) -> ProductionPlan | None:
    """The stored plan of a day; None if there is none, or none of these inputs."""
    folder = plan_folder(home, as_of)
    facts = read_facts(folder / "plan.json")
    if facts is None or (inputs_hash is not None and facts["inputs"] != inputs_hash):
        return None
    frames = {
        name: pl.read_parquet(place, hive_partitioning=False)
        for name in _FRAMES
        if (place := folder / f"{name}.parquet").exists() or name not in _ADDED
    }
    return ProductionPlan(**frames, facts=facts)


def latest_planned(home: Home) -> date:
    """The latest day with a production plan.

    Raises:
        NpqError: There is none.
    """
    places = sorted((home.root / "plans" / "manufacturing").glob("as_of=*/plan.json"))
    if not places:
        raise NpqError(f"{home.root}: no production plan was made yet; npq run makes it")
    return date.fromisoformat(places[-1].parent.name.removeprefix("as_of="))


def read_facts(place: Path) -> dict[str, Any] | None:
    """A JSON file's content; None if it does not exist."""
    if not place.exists():
        return None
    content: dict[str, Any] = json.loads(place.read_text())
    return content


def save_schedule(home: Home, as_of: date, schedule: JobSchedule, inputs_hash: str) -> None:
    """Writes the schedule's frames, and the JSON that vouches for them last."""
    folder = plan_folder(home, as_of)
    write_parquet(schedule.rows, folder / "schedule_rows.parquet")
    write_parquet(schedule.jobs, folder / "schedule_jobs.parquet")
    write_parquet(schedule.accounts, folder / "schedule_accounts.parquet")
    write_json({"inputs": inputs_hash, **schedule.facts}, folder / "schedule.json")


def load_schedule(home: Home, as_of: date, inputs_hash: str | None = None) -> JobSchedule | None:
    """The stored schedule of a day; None if there is none, or none of these inputs."""
    folder = plan_folder(home, as_of)
    facts = read_facts(folder / "schedule.json")
    if facts is None or (inputs_hash is not None and facts["inputs"] != inputs_hash):
        return None
    rows, jobs, accounts = (
        pl.read_parquet(folder / f"schedule_{name}.parquet", hive_partitioning=False)
        for name in ("rows", "jobs", "accounts")
    )
    return JobSchedule(rows, jobs, accounts, facts)


def write_dispatch_lists(home: Home, as_of: date, rows: pl.DataFrame) -> list[Path]:
    """One CSV a machine below the schedule's decisions: `dispatch/<machine>.csv`; machines without work have none."""
    folder = home.decisions("manufacturing", "job_schedule", as_of).parent / "dispatch"
    written = []
    for machine in sorted(set(rows["machine_id"])):
        # Two machines never share a file, whatever their names.
        place = folder / f"{machine.replace('%', '%25').replace('/', '%2F')}.csv"
        write_csv_for_people(dispatch_list(rows, machine), place)
        written.append(place)
    for stale in set(folder.glob("*.csv")) - set(written):
        stale.unlink()
    return written


def accounts_of(home: Home, as_of: date) -> list[pl.DataFrame]:
    """Ledger rows of a day's plan and schedule."""
    plan, schedule = load_plan(home, as_of), load_schedule(home, as_of)
    found = []
    if plan is not None:
        found.append(ledger_rows("manufacturing", "production_plan", plan.accounts, plan.facts))
    if schedule is not None and schedule.accounts.height:
        found.append(ledger_rows("manufacturing", "job_schedule", schedule.accounts, schedule.facts))
    return found


def _drivers_folder(home: Home, monday: date) -> Path:
    return home.root / "plans" / "manufacturing" / "drivers" / f"week={monday.isoformat()}"


def findings_of(home: Home, as_of: date) -> tuple[DriverFindings, bool]:
    """What moves output, scrap and energy as of the Monday of a day's week, and whether that was read from the store."""
    monday = as_of - timedelta(days=as_of.weekday())
    production = pl.read_parquet(home.mart("manufacturing", "production_day")).filter(pl.col("produced_on") < monday)
    sensors = pl.read_parquet(home.mart("manufacturing", "sensor_day")).filter(pl.col("measured_on") < monday)
    machines = pl.read_parquet(home.mart("manufacturing", "machines"))
    products = pl.read_parquet(home.mart("common", "products"))
    rows, factors = driver_rows(production, machines, products, sensors, monday)
    # Sums that the database took in another order differ in their last bits; the same rows must give the same findings.
    rows = rows.with_columns(pl.selectors.float().round_sig_figs(9)).sort(rows.columns)
    wanted = fingerprint(rows, code_version())
    folder = _drivers_folder(home, monday)
    facts = read_facts(folder / "drivers.json")
    stored = facts is not None and facts["inputs"] == wanted
    if not stored:
        new = find_drivers(rows, factors)
        write_parquet(new.findings, folder / "findings.parquet")
        write_parquet(new.summary, folder / "summary.parquet")
        write_json({"inputs": wanted}, folder / "drivers.json")
    found = load_findings(home, as_of)
    assert found is not None
    ids = [
        decision_id(as_of, "manufacturing", "driver_findings", (target, factor), wanted)
        for target, factor in found.findings.select("target", "factor").iter_rows()
    ]
    stamped = found.findings.with_columns(
        pl.Series("decision_id", ids, dtype=pl.String),
        pl.lit(as_of).alias("as_of"),
        pl.lit(wanted).alias("input_snapshot"),
    )
    return DriverFindings(stamped, found.summary), stored


def load_findings(home: Home, as_of: date) -> DriverFindings | None:
    """The stored findings of a day's week; None if there are none."""
    folder = _drivers_folder(home, as_of - timedelta(days=as_of.weekday()))
    if not (folder / "drivers.json").exists():
        return None
    frames = (pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False) for name in ("findings", "summary"))
    return DriverFindings(*frames)


def forecast_of(home: Home, as_of: date) -> tuple[ProductionForecast, bool]:
    """The production forecast as of the Monday of a day's week, and whether it was read from the store."""
    monday = as_of - timedelta(days=as_of.weekday())
    orders = (
        pl.read_parquet(home.mart("manufacturing", "customer_orders"))
        .filter(pl.col("ordered_on") < monday)
        .select("order_id", "product_id", "quantity", "ordered_on", "due_on")
        .sort("order_id")
    )
    lines = (
        pl.read_parquet(home.mart("manufacturing", "routings"))
        .join(pl.read_parquet(home.mart("manufacturing", "machines")).select("machine_id", "line"), on="machine_id")
        .sort("product_id", "operation", "machine_id")
        .unique("product_id", keep="first", maintain_order=True)
        .select("product_id", "line")
    )
    wanted = fingerprint(orders, lines, code_version())
    folder = forecast_folder(home, as_of)
    facts = read_facts(folder / "forecast.json")
    if facts is not None and facts["inputs"] == wanted:
        stored = load_forecast(home, as_of)
        assert stored is not None
        return stored, True
    found = forecast_production(orders, dict(lines.iter_rows()), monday)
    write_parquet(found.weeks, folder / "weeks.parquet")
    write_parquet(found.lines, folder / "lines.parquet")
    if found.backtest is not None:
        write_parquet(found.backtest.rows, folder / "backtest.parquet")
    write_json({"inputs": wanted, **found.facts}, folder / "forecast.json")
    return found, False


def load_forecast(home: Home, as_of: date) -> ProductionForecast | None:
    """The stored production forecast of a day's week; None if there is none."""
    folder = forecast_folder(home, as_of)
    facts = read_facts(folder / "forecast.json")
    if facts is None:
        return None
    weeks, lines = (pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False) for name in ("weeks", "lines"))
    backtest = (
        Backtest.of(pl.read_parquet(folder / "backtest.parquet", hive_partitioning=False))
        if "earned" in facts
        else None
    )
    return ProductionForecast(weeks, lines, backtest, facts["skipped"])
