"""The way back from an alert on a machine: to the hours that raised it, its price, and the landed readings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl

from npq_assets.contracts import LANDING
from npq_assets.ingestion.days import DayPlaces, waiting_rows
from npq_assets.manufacturing.monitoring import AHEAD, OTHERS, UNKNOWN, load_monitoring
from npq_assets.settings import Home

TELEMETRY = LANDING["manufacturing.telemetry"]
_HOURS, _READINGS = 6, 6


def explain_alert(home: Home, row: dict[str, Any]) -> str:
    """What was seen, what it puts at risk, the hours and the landed readings behind it."""
    lines = [
        f"Decision {row['decision_id']}: alert {row['alert_id']} ({row['kind'].replace('_', ' ')}) on {row['machine_id']}, "
        f"as of {row['as_of']}",
        f"  seen         {row['reason']}",
        f"  open since   {row['opened_at']:%Y-%m-%d %H:%M} UTC, {row['age_hours']:.0f} hours; score {row['score']:.1f}",
        f"  to do        {row['action']} ({row['owner']})",
        f"  at risk      {row['money_at_risk']:.2f} over the next seven days",
    ]
    watched = load_monitoring(home, row["as_of"])
    if watched is not None and "right" in watched.facts and row["kind"] == "level":
        facts = watched.facts
        lines.append(
            f"  because      a failure is taken to follow {facts['right']:.0%} of such alerts within a week "
            f"({facts['evidence']} earlier ones)"
        )
    if row["kind"] == OTHERS and watched is not None:
        listed = watched.rows["alert_id"]
        rest = watched.state.filter(pl.col("closed_at").is_null() & ~pl.col("alert_id").is_in(listed.to_list()))
        lines += [
            f"    {r['machine_id']}: {r['reason']} ({r['money_at_risk']:.2f})" for r in rest.iter_rows(named=True)
        ]
    if row["kind"] not in (OTHERS, UNKNOWN, AHEAD):
        lines += _hours(home, row)
    lines.append(f"  inputs       snapshot {row['input_snapshot']}, made of these landed rows:")
    return "\n".join([*lines, *_readings(home, row)])


def _sensors(row: dict[str, Any]) -> list[str]:
    return str(row["sensors"] or "").split(", ")


def _hours(home: Home, row: dict[str, Any]) -> list[str]:
    place = home.mart("manufacturing", "sensor_hour")
    if not place.exists():
        return []
    at = pl.col("hour_start").dt.convert_time_zone("UTC")
    mine = (
        pl.scan_parquet(place)
        .filter(
            (pl.col("machine_id") == row["machine_id"]) & (pl.col("sensor") == _sensors(row)[0]) & (at < row["as_of"])
        )
        .with_columns(at.alias("hour_start"))
        .sort("hour_start")
    )
    around = pl.col("hour_start").is_between(row["opened_at"] - timedelta(days=1), row["opened_at"] + timedelta(days=1))
    hours = mine.filter(around).tail(2 * _HOURS).collect()
    lines = [f"  hours        {_sensors(row)[0]} around the opening: mean, lowest, highest, readings"]
    return lines + [
        f"    {r['hour_start']:%Y-%m-%d %H:%M} {r['value']:>12.3f} {r['lowest']:>12.3f} {r['highest']:>12.3f} {r['readings']:>6}"
        for r in hours.iter_rows(named=True)
    ]


def _readings(home: Home, row: dict[str, Any]) -> list[str]:
    if row["kind"] == AHEAD:
        return [f"    in {home.quarantine / TELEMETRY.domain / TELEMETRY.name}, with file, line and text"]
    if row["kind"] == UNKNOWN:
        rows = waiting_rows(DayPlaces(TELEMETRY, home.raw, home.quarantine)).filter(
            pl.col("machine_id") == row["machine_id"]
        )
    else:
        folder = (
            home.raw_table(TELEMETRY.domain, TELEMETRY.name) / f"{TELEMETRY.day_column}={row['opened_at']:%Y-%m-%d}"
        )
        places = sorted(folder.glob("*.parquet"))
        if not places:
            return ["    none of that day: nothing was read"]
        rows = (
            pl.scan_parquet(places, hive_partitioning=False)
            .filter((pl.col("machine_id") == row["machine_id"]) & pl.col("sensor").is_in(_sensors(row)))
            .filter(pl.col("measured_at") >= row["opened_at"])
            .collect()
        )
    rows = rows.sort("measured_at", "sensor").head(_READINGS)
    return [
        f"    {r['source_file']}:{r['source_line']}  {r['measured_at']:%Y-%m-%dT%H:%M:%SZ} {r['sensor']} {r['value']:g}"
        for r in rows.iter_rows(named=True)
    ] or ["    none of that day: nothing was read"]
