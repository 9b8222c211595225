"""The mistakes that real files have: cells that break the contract, rows sent twice, typing errors put right later.

Only the sample company makes them; what becomes of them is decided by `ingestion`.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import polars as pl

from npq_assets.contracts import Column, Kind, Table

# Tables whose every row the demo needs whole are left clean of repeats, not of broken rows.
BROKEN_ROWS = 3
REPEATED_ROWS = 2


@dataclass(frozen=True)
class Dirt:
    """Lines to add at the end of a file.

    Attributes:
        lines: CSV text, each line ended.
        broken: How many of them break the contract.
        repeated: How many repeat a row of the same file.
    """

    lines: str
    broken: int
    repeated: int


def dirt_for(table: Table, frame: pl.DataFrame) -> Dirt:
    """Broken and repeated rows for a file of `table` that holds `frame`; none for short files."""
    if frame.height < 8:
        return Dirt("", 0, 0)
    step = frame.height // 8
    rows = frame[[step * (k + 1) for k in range(BROKEN_ROWS + REPEATED_ROWS)]]
    cells = list(csv.reader(io.StringIO(rows.write_csv(include_header=False, datetime_format=TIMESTAMP_FORMAT))))
    present = [column for column in table.columns if column.name in frame.columns]
    breakable = [column for column in present if _broken_value(column) is not None]
    # The last columns first: quantities and dates are mistyped more often than ids.
    breakable.sort(key=lambda column: column.kind in (Kind.ID, Kind.TEXT))
    broken = cells[:BROKEN_ROWS]
    for k, row in enumerate(broken):
        column = breakable[k % len(breakable)]
        value = _broken_value(column)
        assert value is not None
        row[frame.columns.index(column.name)] = value if k < len(breakable) else ""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows(broken + cells[BROKEN_ROWS:])
    return Dirt(buffer.getvalue(), len(broken), len(cells) - len(broken))


TIMESTAMP_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def _broken_value(column: Column) -> str | None:
    """A value that `column` cannot hold, or None if every text is as good as another."""
    if column.kind in (Kind.NUMBER, Kind.INTEGER):
        return "-7" if column.required and column.low is not None and column.low >= 0 else "n/a"
    if column.kind is Kind.DATE:
        return "2025-02-31"
    if column.kind is Kind.TIMESTAMP:
        return "yesterday"
    if column.kind is Kind.FLAG:
        return "perhaps"
    if column.choices:
        return "unheard-of"
    return "" if column.required else None
