"""How decisions leave npq: contract files for people and systems, and an outbox that acts only when told to.

Both are idempotent: the same decisions written again are the same bytes, and an order handed on once is not handed on
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import polars as pl

from npq_assets.contracts import Table
from npq_assets.errors import RunError
from npq_assets.settings import Home
from npq_assets.storage import write_csv_for_people, write_parquet


def conform(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """`frame` with exactly the contract's columns, types and key order.

    Raises:
        RunError: A column is missing, a required value is null or not finite, or a key is there twice.
    """
    missing = [column.name for column in table.columns if column.required and column.name not in frame.columns]
    if missing:
        raise RunError(f"decisions {table.full_name}: column {missing[0]} is missing")
    out = frame.select(
        (pl.col(c.name) if c.name in frame.columns else pl.lit(None).alias(c.name)).cast(c.kind.dtype)
        for c in table.columns
    )
    for column in table.columns:
        values = out[column.name]
        if column.required and values.null_count():
            row = out.row(int(values.is_null().arg_true()[0]), named=True)
            raise RunError(f"decisions {table.full_name}: {column.name} is empty for {_key_text(row, table)}")
        if values.dtype == pl.Float64 and bool((~values.drop_nulls().is_finite()).any()):
            raise RunError(f"decisions {table.full_name}: {column.name} is not a finite number in some row")
    twice = out.filter(out.select(table.key).is_duplicated())
    if twice.height:
        raise RunError(f"decisions {table.full_name}: {_key_text(twice.row(0, named=True), table)} is there twice")
    return out.sort(table.key)


def _key_text(row: dict[str, object], table: Table) -> str:
    return ", ".join(f"{name}={row[name]}" for name in table.key)


def write_decisions(home: Home, table: Table, as_of: date, frame: pl.DataFrame) -> Path:
    """Writes a day's decisions as Parquet, and as CSV beside it; returns the Parquet file."""
    decided = conform(frame, table)
    place = home.decisions(table.domain, table.name, as_of)
    write_parquet(decided, place)
    write_csv_for_people(decided, place.with_suffix(".csv"))
    return place


def read_decisions(home: Home, table: Table, as_of: date) -> pl.DataFrame:
    """A day's decisions; an empty frame if there are none."""
    place = home.decisions(table.domain, table.name, as_of)
    return pl.read_parquet(place) if place.exists() else table.empty()


class Publisher(Protocol):
    """Hands decisions to the world outside."""

    def publish(self, table: Table, as_of: date, decisions: pl.DataFrame) -> Sequence[str]:
        """Hands on those decisions that were not handed on before; returns their ids."""
        ...


@dataclass(frozen=True)
class FilePublisher:
    """Hands decisions on as CSV files that another system picks up.

    Attributes:
        folder: Where the files go: `<domain>/<table>/as_of=<date>.csv`.
    """

    folder: Path

    def publish(self, table: Table, as_of: date, decisions: pl.DataFrame) -> Sequence[str]:
        """Writes one file a day; a day that was published before is only written again if its decisions changed."""
        place = self.folder / table.domain / table.name / f"as_of={as_of.isoformat()}.csv"
        sent = self.folder / table.domain / table.name / f".as_of={as_of.isoformat()}.parquet"
        known = set(pl.read_parquet(sent)["decision_id"]) if sent.exists() else set()
        new = [key for key in decisions["decision_id"].to_list() if key not in known]
        if new or not place.exists():
            write_csv_for_people(decisions, place)
            write_parquet(pl.DataFrame({"decision_id": sorted(known | set(new))}), sent)
        return new


@dataclass(frozen=True)
class DryRun:
    """Publishes nothing and says what it would have published."""

    def publish(self, table: Table, as_of: date, decisions: pl.DataFrame) -> Sequence[str]:
        """Returns no id: nothing was handed on."""
        return []


def publisher_of(home: Home) -> Publisher:
    """The outbox of a home: files if `publish = true` in npq.toml, else a dry run."""
    return FilePublisher(home.root / "outbox") if home.settings.publish else DryRun()
