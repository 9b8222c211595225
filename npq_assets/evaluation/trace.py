"""The way back from a decision: to its numbers, its forecast, its model, its inputs and the landed rows."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.errors import NpqError
from npq_assets.manufacturing.explaining import explain_alert, find_alert
from npq_assets.settings import Home

PAIR = ["site_id", "product_id"]
ORDERS = DECISIONS["retail.replenishment_orders"]
LEDGER = DECISIONS["all.ledger"]


def explain(home: Home, decision_id: str) -> str:
    """The way of a replenishment order, or of an alert on a machine, as text for people.

    Raises:
        NpqError: No decision of this home has the id.
    """
    if (alert := find_alert(home, decision_id)) is not None:
        return explain_alert(home, alert)
    found = _find(home, decision_id)
    as_of = found["as_of"]
    pair = {name: found[name] for name in PAIR}
    parts = [
        f"Decision {decision_id}: order {found['quantity']:g} of {found['product_id']} for {found['site_id']}, "
        f"taken as of {as_of}, on the shelf on {found['arrives_on']}",
        f"  why          {found['reason']}",
        f"  expected     {found['expected_cost']:.2f}; the naive rule orders {found['naive_quantity']:g} "
        f"and is expected to cost {found['naive_expected_cost']:.2f}",
        *_account(home, found),
        *_forecast(home, as_of, pair),
        *_moved(home, found),
        f"  inputs       snapshot {found['input_snapshot']}, made of these landed rows:",
        *_rows(home, found),
    ]
    return "\n".join(parts)


def _find(home: Home, decision_id: str) -> dict[str, Any]:
    files = sorted(home.decision_folder(ORDERS.domain, ORDERS.name).glob("as_of=*/*.parquet"), reverse=True)
    for file in files:
        rows = pl.scan_parquet(file, hive_partitioning=False).filter(pl.col("decision_id") == decision_id).collect()
        if rows.height:
            return rows.row(0, named=True)
    where = f"see the column decision_id in {files[0].with_suffix('.csv')}" if files else "run npq run first"
    raise NpqError(f"no decision {decision_id!r} in {home.root}; {where}")


def _account(home: Home, found: dict[str, Any]) -> list[str]:
    place = home.decisions(LEDGER.domain, LEDGER.name, found["as_of"])
    if not place.exists():
        return []
    rows = pl.read_parquet(place, hive_partitioning=False).filter(pl.col("decision_id") == found["decision_id"])
    if rows.is_empty():
        return []
    row = rows.row(0, named=True)
    lines = [
        f"  bound        no order could be expected to cost less than {row['lower_bound']:.2f} "
        f"(gap {row['gap']:.2%}, {row['solver']}, {row['status']})",
        f"  model        version {row['model_version']}",
    ]
    if row["realized_cost"] is None:
        lines.append("  realized     not yet known (the period of arrival is not over, or the shelf was empty in it)")
    else:
        lines.append(
            f"  realized     {row['realized_cost']:.2f}; the naive rule's order {row['naive_realized_cost']:.2f}, "
            f"the best in hindsight {row['hindsight_cost']:.2f}"
        )
    return lines


def _forecast(home: Home, as_of: date, pair: dict[str, str]) -> list[str]:
    place = home.forecasts("retail", as_of) / "forecast.parquet"
    if not place.exists():
        return []
    unique_id = f"{pair['site_id']}|{pair['product_id']}"
    frame = pl.read_parquet(place, hive_partitioning=False).filter(pl.col("unique_id") == unique_id).sort("ds")
    if frame.is_empty():
        return []
    quantiles = [name for name in frame.columns if name.startswith("q0.")]
    lines = [f"  forecast     method {frame['method'][0]}, from rows up to {frame['cutoff'][0]}:"]
    lines.append("                 " + "".join(f"{name:>9}" for name in ("mean", *quantiles)))
    for row in frame.to_dicts():
        lines.append(f"    {row['ds']}   " + "".join(f"{row[name]:>9.1f}" for name in ("mean", *quantiles)))
    return lines


def _moved(home: Home, found: dict[str, Any]) -> list[str]:
    """What moved the forecast of the period of arrival, as stored with the forecast, else worked out anew."""
    from npq_assets.forecasting.explanation import sentences
    from npq_assets.retail.demand import explain_demand
    from npq_assets.retail.inputs import read_inputs
    from npq_assets.retail.output import load_explanation

    unique_id = f"{found['site_id']}|{found['product_id']}"
    stored = load_explanation(home, found["as_of"])
    rows = stored.filter(pl.col("unique_id") == unique_id) if stored is not None else None
    if rows is None or rows.is_empty():
        try:
            inputs = read_inputs(home, found["as_of"])
        except NpqError:
            return []
        if inputs.snapshot != found["input_snapshot"]:
            return ["  moved by     not told: the inputs have changed since; run npq run for that day again"]
        rows = explain_demand(inputs, [unique_id], home)
    words = sentences(rows.filter(pl.col("ds") == found["arrives_on"]))
    return [f"  moved by     {words[0]}", *[f"                 {line}" for line in words[1:]]] if words else []


_LAST_SALES = 6


def _rows(home: Home, found: dict[str, Any]) -> list[str]:
    as_of = found["as_of"]
    tables = [
        ("retail", "supply_terms", None, 1),
        ("retail", "stock", pl.col("counted_on") <= as_of, 1),
        ("retail", "open_orders", pl.col("arrives_on") >= as_of, 5),
        ("retail", "sales", pl.col("sold_on") < as_of, _LAST_SALES),
        ("retail", "availability", pl.col("sold_on") < as_of, 3),
        ("common", "products", None, 1),
    ]
    lines = []
    for domain, table, known, last in tables:
        place = home.raw_table(domain, table)
        if not place.exists():
            continue
        frame = pl.scan_parquet(place)
        names = frame.collect_schema().names()
        for name in PAIR:
            if name in names:
                frame = frame.filter(pl.col(name) == found[name])
        if known is not None:
            frame = frame.filter(known)
        time = next((name for name in ("counted_on", "sold_on", "arrives_on") if name in names), None)
        rows = (frame.sort(time) if time else frame).tail(last).collect()
        for row in rows.to_dicts():
            values = ", ".join(
                f"{k} {v}" for k, v in row.items() if v is not None and k not in (*PAIR, "source_file", "source_line")
            )
            lines.append(f"    {row['source_file']}:{row['source_line']}  {values}")
    return lines
