"""The way back from a decision: to its numbers, its forecast, its model, its inputs and the landed rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any

import polars as pl

from npq_assets.contracts import DECISIONS, LANDING, Table
from npq_assets.errors import NpqError
from npq_assets.evaluation.ledger import EXPECTED
from npq_assets.evaluation.sources import SOURCES, Source
from npq_assets.manufacturing.explaining import explain_alert
from npq_assets.settings import Home

PAIR = ["site_id", "product_id"]
ALERTS = "manufacturing.machine_alerts"
ORDERS = "retail.replenishment_orders"
LEDGER = DECISIONS["all.ledger"]
_STAMPS = ("decision_id", "as_of", "input_snapshot")
# A decision may be several rows: all lots of a product, say.
_ROWS_SHOWN = 8


def explain(home: Home, decision_id: str) -> str:
    """The way of any decision back to the landed rows, as text for people.

    Raises:
        NpqError: No decision of this home has the id.
    """
    name, rows = _find(home, decision_id)
    first = rows.row(0, named=True)
    if name == ALERTS:
        return explain_alert(home, first)
    as_of = first["as_of"]
    if name == ORDERS:
        parts = [
            f"Decision {decision_id}: order {first['quantity']:g} of {first['product_id']} for {first['site_id']}, "
            f"taken as of {as_of}, on the shelf on {first['arrives_on']}",
            f"  why          {first['reason']}",
        ]
    else:
        kind = name.split(".")[1].replace("_", " ")
        more = f" ({rows.height} rows, the first {_ROWS_SHOWN})" if rows.height > _ROWS_SHOWN else ""
        parts = [f"Decision {decision_id}: {kind}, taken as of {as_of}{more}", *_decided(rows.head(_ROWS_SHOWN))]
    parts += _account(home, first)
    if name == ORDERS:
        parts += [*_forecast(home, as_of, {column: first[column] for column in PAIR}), *_moved(home, first)]
    parts.append(f"  inputs       snapshot {first['input_snapshot']}, made of these landed rows:")
    return "\n".join([*parts, *_landed(home, SOURCES[name], rows, as_of)])


def _find(home: Home, decision_id: str) -> tuple[str, pl.DataFrame]:
    """The decision's table and its rows, the latest day first."""
    orders = sorted(home.decision_folder(*ORDERS.split(".")).glob("as_of=*/*.parquet"), reverse=True)
    for name, table in DECISIONS.items():
        if table is LEDGER:
            continue
        for file in _files(home, table):
            rows = pl.scan_parquet(file, hive_partitioning=False).filter(pl.col("decision_id") == decision_id).collect()
            if rows.height:
                return name, rows
    where = f"see the column decision_id in {orders[0].with_suffix('.csv')}" if orders else "run npq run first"
    raise NpqError(f"no decision {decision_id!r} in {home.root}; {where}")


def _files(home: Home, table: Table) -> list[Any]:
    return sorted(home.decision_folder(table.domain, table.name).glob(f"as_of=*/{table.name}.parquet"), reverse=True)


def _decided(rows: pl.DataFrame) -> Iterator[str]:
    """What was decided, a line a row, and why."""
    for row in rows.iter_rows(named=True):
        told = ("reason", "sentence", "body", "draft", *_STAMPS)
        values = ", ".join(f"{k} {_shown(v)}" for k, v in row.items() if v is not None and k not in told)
        yield f"  decided      {values}"
        why = row.get("reason") or row.get("sentence")
        if why:
            yield f"  why          {why}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)


def _account(home: Home, found: dict[str, Any]) -> list[str]:
    place = home.decisions(LEDGER.domain, LEDGER.name, found["as_of"])
    if not place.exists():
        return []
    rows = pl.read_parquet(place, hive_partitioning=False).filter(pl.col("decision_id") == found["decision_id"])
    if rows.is_empty():
        return []
    row = rows.row(0, named=True)
    lines = [
        f"  bound        nothing could be expected to cost less than {row['lower_bound']:.2f} "
        f"(gap {row['gap']:.2%}, {row['solver']}, {row['status']})",
        f"  model        version {row['model_version']}",
    ]
    if row["realized_cost"] is None:
        lines.append("  realized     not yet known")
    else:
        others = (("naive_realized_cost", "the naive rule"), ("hindsight_cost", "the best in hindsight"))
        known = [f"{words} {row[name]:.2f}" for name, words in others if row[name] is not None]
        if row.get("basis") == EXPECTED:
            known.append("by expectation: the shelf ran out, demand was at least what was sold")
        lines.append("; ".join([f"  realized     {row['realized_cost']:.2f}", *known]))
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


def _landed(home: Home, sources: tuple[Source, ...], decided: pl.DataFrame, as_of: date) -> list[str]:
    """The landed rows behind a decision, by table: how many count, and the latest of them with file and line."""
    lines: list[str] = []
    for source in sources:
        rows = _rows(home, source, decided, as_of)
        if rows is None or rows.is_empty():
            continue
        shown = rows.tail(source.last)
        if rows.height > shown.height:
            lines.append(f"    {source.table}: {rows.height:,} rows, the latest:")
        # What describes a person stays where it landed.
        columns = [c.name for c in LANDING[source.table].columns if not c.personal and c.name in rows.columns]
        for row in shown.iter_rows(named=True):
            values = ", ".join(f"{k} {_shown(row[k])}" for k in columns if row[k] is not None)
            lines.append(f"    {row['source_file']}:{row['source_line']}  {values}")
    return lines or ["    none is left"]


def _rows(home: Home, source: Source, decided: pl.DataFrame, as_of: date) -> pl.DataFrame | None:
    """The rows of a source that the decision may have looked at, the latest last."""
    place = home.raw_table(*source.table.split("."))
    if not place.exists():
        return None
    files = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    if not files:
        return None
    frame = pl.scan_parquet(files, hive_partitioning=False)
    names = frame.collect_schema().names()
    if any(column not in names for column in source.on.values()):
        return None
    if source.on:
        keys = decided.select(pl.col(mine).alias(theirs) for mine, theirs in source.on.items()).unique()
        frame = frame.join(keys.lazy(), on=list(source.on.values()), how="semi")
    if source.time is not None and source.time in names:
        frame = frame.filter(_known(source, frame.collect_schema()[source.time], as_of)).sort(
            source.time, maintain_order=True
        )
    return frame.collect()


def _known(source: Source, kind: Any, as_of: date) -> pl.Expr:
    opening: date | datetime = as_of if kind == pl.Date else datetime.combine(as_of, time(0), UTC)
    column = pl.col(str(source.time))
    if source.known == "before":
        return column < opening
    if source.known == "by":
        return column <= opening
    return column >= opening if source.known == "from" else pl.lit(True)
