"""The vocabulary in which tables are declared: one declaration serves ingestion, checks, dbt sources, docs and tests.

How a file is read or a rule is enforced does not belong here (see `ingestion`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import polars as pl


class Kind(Enum):
    """What a column holds; money, minutes, km and kWh are numbers whose `unit` says so."""

    ID = "id"
    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    FLAG = "flag"
    DATE = "date"
    TIMESTAMP = "timestamp"

    @property
    def dtype(self) -> pl.DataType:
        """The polars type in which accepted values are kept (timestamps in UTC)."""
        return _DTYPES[self]

    @property
    def sql_type(self) -> str:
        """The portable SQL type of the same values."""
        return _SQL_TYPES[self]


_DTYPES: dict[Kind, pl.DataType] = {
    Kind.ID: pl.String(),
    Kind.TEXT: pl.String(),
    Kind.NUMBER: pl.Float64(),
    Kind.INTEGER: pl.Int64(),
    Kind.FLAG: pl.Boolean(),
    Kind.DATE: pl.Date(),
    Kind.TIMESTAMP: pl.Datetime("us", "UTC"),
}
_SQL_TYPES: dict[Kind, str] = {
    Kind.ID: "varchar",
    Kind.TEXT: "varchar",
    Kind.NUMBER: "double",
    Kind.INTEGER: "bigint",
    Kind.FLAG: "boolean",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamp with time zone",
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: The name in files and in SQL.
        kind: What it holds.
        description: One sentence that a newcomer understands, with the unit where there is one.
        key: Part of the table's key.
        required: Must be present in a file and filled in each row. Key columns may be optional: an empty value is then
            a value like any other ("everywhere", "all").
        low: Smallest value allowed, inclusive.
        high: Largest value allowed, inclusive.
        choices: The only values allowed, if any.
        references: `domain.table` whose key of one column must hold the value (checked once that table has rows).
        personal: Names or describes a natural person; stays out of marts, reports and logs.
        past: A moment that had come when the file was written: not after it, and not before the year 2000, where clocks begin
            that have lost their time.
        veto: An optional flag that only a plain yes may set: a value that cannot be read counts as a no, rather than leaving an
            earlier yes in force, and of rows of a file with one key that contradict one another, one that does not say yes counts.
    """

    name: str
    kind: Kind
    description: str
    key: bool = False
    required: bool = True
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    references: str | None = None
    personal: bool = False
    past: bool = False
    veto: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the interface, landed or decided.

    Attributes:
        domain: `common`, `retail`, `manufacturing`, `logistics` or `all`.
        name: The folder's name under the domain.
        description: What a row is.
        columns: In the order of the published contract.
        time_column: When the row happened, for point-in-time reading and freshness; None for master data.
        any_of: Groups of optional columns of which at least one must be filled.
        ordered: Pairs of columns of times, where both are filled the second not before the first.
        extra_columns: Whether columns that the contract does not name are kept (as text) rather than ignored.
        by_day: Whether accepted rows are kept by the day of `time_column`, which belongs to the key: what lands touches its own
            days only. For tables that grow by many rows an hour.
        doubt: Columns, the customer's id first, by which a row that breaks the contract may still be told whom it is about. Such
            rows are remembered, since they may have taken back a consent, until a good row with the same values lands later.
    """

    domain: str
    name: str
    description: str
    columns: tuple[Column, ...]
    time_column: str | None = None
    any_of: tuple[tuple[str, ...], ...] = ()
    ordered: tuple[tuple[str, str], ...] = ()
    extra_columns: bool = False
    by_day: bool = False
    doubt: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """`domain.table`, as people and reports write it."""
        return f"{self.domain}.{self.name}"

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the key columns."""
        return tuple(column.name for column in self.columns if column.key)

    @property
    def day_column(self) -> str:
        """Name of the day that the rows of a table `by_day` are kept by: `measured_on` for `measured_at`."""
        return f"{(self.time_column or '').removesuffix('_at')}_on"

    @property
    def told(self) -> tuple[str, ...]:
        """Columns whose texts are kept of rows in doubt: those of `doubt`, and those with choices."""
        return (
            (*self.doubt, *(c.name for c in self.columns if c.choices and c.name not in self.doubt))
            if self.doubt
            else ()
        )

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Column names and polars types, in order."""
        return {column.name: column.kind.dtype for column in self.columns}

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.full_name} has no column {name!r}")

    def empty(self) -> pl.DataFrame:
        """A frame with the contract's columns and no rows."""
        return pl.DataFrame(schema=self.schema)


def key(name: str, description: str, kind: Kind = Kind.ID, **more: Any) -> Column:
    """A required key column."""
    return Column(name, kind, description, key=True, **more)


def required(name: str, kind: Kind, description: str, **more: Any) -> Column:
    """A required column outside the key."""
    return Column(name, kind, description, **more)


def optional(name: str, kind: Kind, description: str, **more: Any) -> Column:
    """A column that files may leave out or leave empty."""
    return Column(name, kind, description, required=False, **more)
