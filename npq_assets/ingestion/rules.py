"""From rows of text to rows of the contract's types, each good or with the reason why not.

Types, ranges, choices, empty keys; rules between rows and tables (same keys, foreign keys) are in `store`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from npq_assets.contracts import Column, Kind, Table
from npq_assets.ingestion.reader import BROKEN, LINE, RAW

REASON = "__reason"
TORN = "__torn"
SAID = "__said_"
CLOCK = "set the clock right"
_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "是", "1.0"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "否", "0.0"), False),
}
_LONGEST = 4_000
_OFFSET = r"(?:Z|z|[+-]\d{2}:?\d{2})$"
_EXPECTED = {
    Kind.NUMBER: "a number (no thousands separators)",
    Kind.INTEGER: "a whole number",
    Kind.FLAG: "1/0, true/false or yes/no",
    Kind.DATE: "a date; write YYYY-MM-DD",
    Kind.TIMESTAMP: "a timestamp; write YYYY-MM-DDTHH:MM:SSZ",
}


EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Clocks that have lost their time begin long before."""
AHEAD = timedelta(minutes=10)
"""By how much a clock may run ahead of the one that dates files."""


def judge(
    rows: pl.DataFrame, table: Table, *, comma: bool = False, written: datetime | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Parts rows of text into accepted rows, typed, and broken rows with the reason.

    Args:
        rows: As `reader.read_rows` yields them.
        table: The contract.
        comma: Numbers may carry a decimal comma.
        written: When the file was written; None where nobody knows.

    Returns:
        Accepted: the contract's columns (absent ones null), further text columns, `__line`. Broken: `__line`, `__raw`,
        `__reason`; of tables with `doubt` also `__torn` (its fields are anybody's guess) and the texts told, as `__said_<name>`.
    """
    extra = [name for name in rows.columns if name not in table.schema and name not in (LINE, RAW, BROKEN)]
    present = [column for column in table.columns if column.name in rows.columns]
    texts = [_clean(column.name) for column in present] + [_clean(name) for name in extra]
    rows = rows.with_columns(texts)
    values, reasons = [], [pl.col(BROKEN)]
    for column in table.columns:
        if column not in present:
            values.append(pl.lit(None, column.kind.dtype).alias(column.name))
            continue
        value = _typed(column, comma)
        values.append(value.alias(column.name))
    typed = rows.select(LINE, *values, *extra)
    checked = pl.concat(
        [
            rows.select(RAW, BROKEN, *[pl.col(c.name).alias(f"__text_{c.name}") for c in present]),
            typed,
        ],
        how="horizontal",
    )
    for column in table.columns:
        if column in present and column.veto:
            continue
        if column in present:
            reasons.append(_reason(column, written))
        elif column.required:
            reasons.append(pl.lit(f"{column.name} is missing"))
    for group in table.any_of:
        empty = pl.all_horizontal(pl.col(name).is_null() for name in group)
        reasons.append(pl.when(empty).then(pl.lit(f"one of {', '.join(group)} must be filled")))
    for first, later in table.ordered:
        wrong = pl.format("{} {} is before {} {}; correct one of them", pl.lit(later), later, pl.lit(first), first)
        reasons.append(pl.when(pl.col(later) < pl.col(first)).then(wrong))
    checked = checked.with_columns(pl.coalesce(reasons).alias(REASON))
    good = checked.filter(pl.col(REASON).is_null()).select(*table.schema, *extra, LINE)
    bad = checked.filter(pl.col(REASON).is_not_null())
    if not table.doubt:
        return good, bad.select(LINE, RAW, REASON)
    here = {column.name for column in present}
    torn = pl.col(BROKEN).is_not_null()
    said = [
        pl.when(~torn).then(pl.col(f"__text_{name}") if name in here else pl.lit(None, pl.String)).alias(SAID + name)
        for name in table.told
    ]
    return good, bad.select(LINE, RAW, REASON, torn.alias(TORN), *said)


def read_as_no(rows: pl.DataFrame, table: Table) -> list[tuple[int, str]]:
    """Line and column of the values that cannot be read and count as a no (see `Column.veto`)."""
    found = []
    for column in table.columns:
        if column.veto and column.name in rows.columns:
            text = pl.col(column.name).str.strip_chars()
            unread = (text != "") & ~text.str.to_lowercase().is_in(list(_FLAGS))
            found += [(line, column.name) for line in rows.filter(unread)[LINE].to_list()]
    return sorted(found)


def _clean(name: str) -> pl.Expr:
    text = pl.col(name).str.strip_chars()
    return pl.when(text != "").then(text).alias(name)


def _typed(column: Column, comma: bool) -> pl.Expr:
    text = pl.col(column.name)
    match column.kind:
        case Kind.ID | Kind.TEXT:
            return text
        case Kind.NUMBER:
            return _number(text, comma)
        case Kind.INTEGER:
            number = _number(text, comma)
            return (
                pl.when((number == number.round()) & (number.abs() < 2**53)).then(number).cast(pl.Int64, strict=False)
            )
        case Kind.FLAG:
            # What cannot be read must not pass for a yes, nor leave an earlier one in force.
            unreadable = pl.when(text.is_not_null()).then(pl.lit(False)) if column.veto else None
            return text.str.to_lowercase().replace_strict(_FLAGS, default=unreadable, return_dtype=pl.Boolean)
        case Kind.DATE:
            return _date(text)
        case Kind.TIMESTAMP:
            return _timestamp(text)


def _number(text: pl.Expr, comma: bool) -> pl.Expr:
    if comma:
        text = (
            pl.when(text.str.contains(".", literal=True)).then(text).otherwise(text.str.replace(",", ".", literal=True))
        )
    number = text.cast(pl.Float64, strict=False)
    plain = text.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    return pl.when(plain & number.is_finite()).then(number)


def _date(text: pl.Expr) -> pl.Expr:
    # What a spreadsheet makes of a date: slashes, single digits, a time of midnight.
    plain = text.str.replace(r"[T ]0{1,2}:00(:00(\.0+)?)?(Z|[+]00:?00)?$", "").str.replace_all("/", "-", literal=True)
    shaped = pl.when(plain.str.contains(r"^\d{4}-\d{1,2}-\d{1,2}$")).then(plain)
    day = shaped.str.to_date("%Y-%m-%d", strict=False)
    return pl.when(day.dt.year().is_between(1900, 2200)).then(day)


def _timestamp(text: pl.Expr) -> pl.Expr:
    offset = text.str.extract(f"({_OFFSET})", 1)
    sign = pl.when(offset.str.starts_with("-")).then(-1).otherwise(1)
    hours = offset.str.extract(r"^[+-](\d{2})", 1).cast(pl.Int64, strict=False).fill_null(0)
    minutes = offset.str.extract(r"^[+-]\d{2}:?(\d{2})$", 1).cast(pl.Int64, strict=False).fill_null(0)
    shift = pl.duration(minutes=sign * (hours * 60 + minutes))
    has_time = text.str.contains(r"\d[T ]\d")
    local = pl.when(has_time).then(text.str.replace(r"\s*" + _OFFSET, "")).otherwise(text)
    local = local.str.replace(" ", "T", literal=True).str.replace_all("/", "-", literal=True)
    local = (
        pl.when(~local.str.contains("T", literal=True))
        .then(local + "T00:00:00")
        .when(local.str.contains(r"T\d{1,2}:\d{2}$"))
        .then(local + ":00")
        .otherwise(local)
    )
    shaped = pl.when(local.str.contains(r"^\d{4}-\d{1,2}-\d{1,2}T\d{1,2}:\d{2}:\d{2}(\.\d{1,9})?$")).then(local)
    moment = shaped.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    utc = pl.when(has_time & offset.is_not_null()).then(moment - shift).otherwise(moment)
    return pl.when(utc.dt.year().is_between(1900, 2200)).then(utc).dt.replace_time_zone("UTC")


def _reason(column: Column, written: datetime | None) -> pl.Expr:
    name, text, value = column.name, pl.col(f"__text_{column.name}"), pl.col(column.name)
    shown = text.str.slice(0, 60)
    reason: Any = pl.when(text.str.len_chars() > _LONGEST).then(pl.lit(f"{name} is longer than {_LONGEST} characters"))
    if column.required:
        reason = reason.when(text.is_null()).then(pl.lit(f"{name} is empty"))
    if column.kind in _EXPECTED:
        reason = reason.when(text.is_not_null() & value.is_null()).then(
            pl.format("{} '{}' is not {}", pl.lit(name), shown, pl.lit(_EXPECTED[column.kind]))
        )
    if column.low is not None:
        reason = reason.when(value < column.low).then(
            pl.format("{} {} is below {}", pl.lit(name), shown, pl.lit(f"{column.low:g}"))
        )
    if column.high is not None:
        reason = reason.when(value > column.high).then(
            pl.format("{} {} is above {}", pl.lit(name), shown, pl.lit(f"{column.high:g}"))
        )
    if column.choices:
        reason = reason.when(text.is_not_null() & ~value.is_in(list(column.choices))).then(
            pl.format("{} '{}' is not one of {}", pl.lit(name), shown, pl.lit(", ".join(column.choices)))
        )
    if column.past:
        wrong = value < EARLIEST if written is None else (value < EARLIEST) | (value > written + AHEAD)
        reason = reason.when(wrong).then(
            pl.format(
                "{} '{}' is not a time at which the file could know of it; {}", pl.lit(name), shown, pl.lit(CLOCK)
            )
        )
    expression: pl.Expr = reason
    return expression


def quickly(
    rows: pl.DataFrame, table: Table, *, written: datetime | None = None
) -> tuple[pl.DataFrame, pl.Series] | None:
    """Types rows whose values are written in the plainest way, many times faster than `judge`.

    Args:
        rows: The contract's columns that the file has, as text or in the types of a Parquet file.
        table: The contract.
        written: When the file was written; None where nobody knows.

    Returns:
        The contract's columns, typed, and which rows are right; the other rows may be right as well, or not: `judge` knows,
        and it gives the same values. None if some column needs `judge` altogether.
    """
    if table.any_of:
        return None
    values, fits = [], []
    for column in table.columns:
        if column.name not in rows.columns:
            if column.required:
                return None
            values.append(pl.lit(None, column.kind.dtype).alias(column.name))
            continue
        quick = _quick(column, rows.schema[column.name])
        if quick is None:
            return None
        value, fit = quick
        given = pl.col(column.name).is_not_null()
        if column.low is not None:
            fit &= value >= column.low
        if column.high is not None:
            fit &= value <= column.high
        if column.choices:
            fit &= value.is_in(list(column.choices))
        if column.past:
            fit &= value >= EARLIEST
            if written is not None:
                fit &= value <= written + AHEAD
        values.append(value.alias(column.name))
        fits.append(
            ((given & fit) if column.required else (~given | fit)).fill_null(False).alias(f"__fits_{column.name}")
        )
    typed = rows.select(*values, *fits)
    for first, later in table.ordered:
        ordered = (pl.col(later) >= pl.col(first)).fill_null(True)
        typed = typed.with_columns(ordered.alias(f"__fits_{first}_{later}"))
    names = [name for name in typed.columns if name.startswith("__fits_")]
    return typed.select(list(table.schema)), typed.select(pl.all_horizontal(names).alias("fits"))["fits"]


def _quick(column: Column, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr] | None:
    """A column's value, and whether it can be trusted; None for kinds and types that need `judge`."""
    source = pl.col(column.name)
    text = dtype == pl.String
    match column.kind:
        case Kind.ID | Kind.TEXT if text:
            plain = source.str.len_bytes().is_between(1, _LONGEST) & (source.str.strip_chars() == source)
            return source, plain
        case Kind.NUMBER if text or dtype == pl.Float64:
            number = source.cast(pl.Float64, strict=False)
            return number, number.is_finite()
        case Kind.TIMESTAMP if text:
            moment = source.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", strict=False)
            return moment.dt.replace_time_zone("UTC"), moment.is_not_null() & (source.str.len_bytes() == 20) & _known(
                moment
            )
        case Kind.TIMESTAMP if isinstance(dtype, pl.Datetime):
            moment = source.dt.convert_time_zone("UTC") if dtype.time_zone else source.dt.replace_time_zone("UTC")
            moment = moment.dt.cast_time_unit("us")
            return moment, _known(moment)
    return None


def _known(moment: pl.Expr) -> pl.Expr:
    return moment.dt.year().is_between(1900, 2200)
