"""Long frames checked once and laid out as dense arrays (series x periods); every failure of input is named here.

Features and models do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from npq_assets.errors import NpqError
from npq_assets.forecasting.calendar import Calendar

Frame = Any  # pandas or polars


@dataclass(frozen=True)
class Panel:
    """Demand of n series over T periods, and what is known about them.

    Attributes:
        ids: Series names, sorted (n).
        calendar: The period grid.
        start: Period number of column 0.
        y: Demand (n, T), 0 where not observed.
        observed: Whether demand was seen (n, T): a row exists and the item was in stock.
        in_stock: False only where a row exists or is named in `available` as out of stock (n, T).
        first: Column of a series' first row (n).
        known: Covariate -> (n, T + H) values, NaN where unknown.
        groups: Static attribute -> (labels, code per series); code -1 where missing.
        numeric: Static numeric attribute -> (n).
    """

    ids: np.ndarray
    calendar: Calendar
    start: int
    y: np.ndarray
    observed: np.ndarray
    in_stock: np.ndarray
    first: np.ndarray
    known: dict[str, np.ndarray] = field(default_factory=dict)
    groups: dict[str, tuple[list[str], np.ndarray]] = field(default_factory=dict)
    numeric: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(series, periods)."""
        return self.y.shape[0], self.y.shape[1]

    def dates(self, columns: np.ndarray) -> pl.Series:
        """Dates of column numbers, also beyond the last."""
        return self.calendar.dates(self.start + np.asarray(columns))

    def since(self, column: int) -> Panel:
        """The same panel from a column on (views, no copies)."""
        return Panel(
            self.ids,
            self.calendar,
            self.start + column,
            self.y[:, column:],
            self.observed[:, column:],
            self.in_stock[:, column:],
            np.maximum(self.first - column, 0),
            {name: values[:, column:] for name, values in self.known.items()},
            self.groups,
            self.numeric,
        )

    def until(self, columns: int) -> Panel:
        """The same panel as it was after its first `columns` periods (views, no copies); covariates stay known."""
        return Panel(
            self.ids,
            self.calendar,
            self.start,
            self.y[:, :columns],
            self.observed[:, :columns],
            self.in_stock[:, :columns],
            self.first,
            self.known,
            self.groups,
            self.numeric,
        )


def as_polars(frame: Frame, what: str) -> pl.DataFrame:
    """A polars frame from polars or pandas.

    Raises:
        NpqError: It is neither.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    if hasattr(frame, "iloc") and hasattr(frame, "columns"):
        return pl.from_pandas(frame.reset_index(drop=True))
    raise NpqError(f"{what}: a pandas or polars DataFrame is needed, not {type(frame).__name__}")


def _keyed(frame: Frame, what: str, columns: list[str]) -> pl.DataFrame:
    table = as_polars(frame, what)
    for column in columns:
        if column not in table.columns:
            raise NpqError(f"{what}: column {column!r} is missing; needed are {', '.join(columns)}")
    changes = []
    if "unique_id" in table.columns:
        changes.append(pl.col("unique_id").cast(pl.String))
    if "ds" in table.columns:
        kind = table.schema["ds"]
        if kind == pl.String:
            changes.append(pl.col("ds").str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False))
        elif kind == pl.Date or isinstance(kind, pl.Datetime):
            changes.append(pl.col("ds").cast(pl.Date))
        else:
            raise NpqError(f"{what}: ds must hold dates, not {kind}")
    table = table.with_columns(changes)
    keys = [column for column in ("unique_id", "ds") if column in table.columns]
    for key in keys:
        if table[key].null_count():
            raise NpqError(f"{what}: {table[key].null_count()} rows have no usable {key}; remove or correct them")
    if keys:
        twice = table.select(pl.struct(keys).is_duplicated())
        if twice.to_series().any():
            row = table.filter(twice.to_series()).select(keys).row(0)
            raise NpqError(f"{what}: duplicate rows for {', '.join(map(str, row))}; keep one row a series and period")
    return table


def build(
    history: Frame,
    freq: str,
    *,
    future: Frame | None = None,
    static: Frame | None = None,
    available: Frame | None = None,
    horizon: int = 0,
    ids: list[str] | None = None,
) -> Panel:
    """Checks the frames and lays them out densely.

    Args:
        history: unique_id, ds, y and numeric or boolean or text covariates that are known ahead.
        freq: See `Calendar.of`.
        future: unique_id, ds and the same covariates (without unique_id: for all series).
        static: unique_id and attributes; text and integers group, floats are numbers.
        available: unique_id, ds, in_stock; absent rows are in stock.
        horizon: Periods after the last for which covariates are laid out.
        ids: Further series to forecast that may have no history.

    Raises:
        NpqError: Columns missing, duplicate keys, y not finite, dates off the grid, empty history.
    """
    table = _keyed(history, "history", ["unique_id", "ds", "y"])
    if not table.schema["y"].is_numeric() and table.schema["y"] != pl.Boolean:
        raise NpqError(f"history: y must be a number, not {table.schema['y']}")
    if not table.height:
        raise NpqError("history: no rows; at least one observation is needed")
    table = table.with_columns(pl.col("y").cast(pl.Float64))
    calendar = Calendar.of(freq, table["ds"])
    stock = None
    if available is not None:
        stock = _keyed(available, "available", ["unique_id", "ds", "in_stock"]).select(
            "unique_id", "ds", pl.col("in_stock").cast(pl.Float64).fill_null(1.0).fill_nan(1.0) > 0
        )
    names = np.unique(np.array(table["unique_id"].unique().to_list() + list(ids or []), dtype=object).astype(str))
    lookup = pl.DataFrame(
        {"unique_id": names.astype(object), "row": np.arange(len(names))},
        schema={"unique_id": pl.String, "row": pl.Int64},
    )
    period = calendar.index(table["ds"])
    start, end = int(period.min()), int(period.max()) + 1
    n, length = len(names), end - start
    row = table.select("unique_id").join(lookup, on="unique_id", how="left", maintain_order="left")["row"].to_numpy()
    column = period - start
    y = np.zeros((n, length))
    present = np.zeros((n, length), bool)
    in_stock = np.ones((n, length), bool)
    if stock is not None and stock.height:
        stock = stock.join(lookup, on="unique_id", how="inner")
        calendar.check(stock["ds"], freq, "available")
        place = calendar.index(stock["ds"]) - start
        inside = (place >= 0) & (place < length)
        in_stock[stock["row"].to_numpy()[inside], place[inside]] = stock["in_stock"].to_numpy()[inside]
    values = table["y"].fill_null(np.nan).to_numpy()
    bad = ~np.isfinite(values) & (in_stock[row, column] | np.isinf(values))
    if bad.any():
        where = int(np.argmax(bad))
        raise NpqError(
            f"history: y of {table['unique_id'][where]} on {table['ds'][where]} is {values[where]} "
            f"({int(bad.sum())} such rows); "
            "leave the row out if demand is unknown"
        )
    y[row, column] = np.nan_to_num(values)
    present[row, column] = True
    seen = present.any(1)
    first = np.where(seen, present.argmax(1), length)
    observed = present & in_stock
    covariates = [c for c in table.columns if c not in {"unique_id", "ds", "y", "in_stock", "weight"}]
    known = _covariates(table, row, column, covariates, future, calendar, freq, lookup, n, length, horizon, start)
    groups, numeric = _statics(static, lookup, n)
    return Panel(names, calendar, start, np.where(observed, y, 0.0), observed, in_stock, first, known, groups, numeric)


def _covariates(
    table: pl.DataFrame,
    row: np.ndarray,
    column: np.ndarray,
    names: list[str],
    future: Frame | None,
    calendar: Calendar,
    freq: str,
    lookup: pl.DataFrame,
    n: int,
    length: int,
    horizon: int,
    start: int,
) -> dict[str, np.ndarray]:
    ahead = None
    if future is not None:
        keys = ["ds"] if "unique_id" not in as_polars(future, "future").columns else ["unique_id", "ds"]
        ahead = _keyed(future, "future", keys)
        calendar.check(ahead["ds"], freq, "future")
        names = list(dict.fromkeys([*names, *[c for c in ahead.columns if c not in {"unique_id", "ds", "y"}]]))
    known: dict[str, np.ndarray] = {}
    for name in names:
        values = np.full((n, length + horizon), np.nan, np.float32)
        text: dict[str, float] | None = None
        if name in table.columns:
            series = table[name]
            if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
                words = set(series.cast(pl.String).drop_nulls().to_list())
                if ahead is not None and name in ahead.columns:
                    words |= set(ahead[name].cast(pl.String).drop_nulls().to_list())
                text = {word: float(i + 1) for i, word in enumerate(sorted(words))}
            values[row, column] = _numbers(series, text)
        if ahead is not None and name in ahead.columns:
            series = ahead[name]
            if text is None and not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
                text = {
                    word: float(i + 1)
                    for i, word in enumerate(sorted(set(series.cast(pl.String).drop_nulls().to_list())))
                }
            place = calendar.index(ahead["ds"]) - start
            inside = (place >= 0) & (place < length + horizon)
            if "unique_id" in ahead.columns:
                rows = ahead.select("unique_id").join(lookup, on="unique_id", how="left", maintain_order="left")["row"]
                inside &= rows.is_not_null().to_numpy()
                values[rows.fill_null(0).to_numpy()[inside], place[inside]] = _numbers(series, text)[inside]
            else:
                values[:, place[inside]] = _numbers(series, text)[inside][None, :]
        known[name] = values
    return known


def _numbers(series: pl.Series, text: Mapping[str, float] | None) -> np.ndarray:
    if text is not None:
        return np.array(
            [text.get(word, 0.0) if word is not None else 0.0 for word in series.cast(pl.String).to_list()], np.float32
        )
    return series.cast(pl.Float32).fill_null(np.nan).to_numpy()


def _statics(
    static: Frame | None, lookup: pl.DataFrame, n: int
) -> tuple[dict[str, tuple[list[str], np.ndarray]], dict[str, np.ndarray]]:
    groups: dict[str, tuple[list[str], np.ndarray]] = {}
    numeric: dict[str, np.ndarray] = {}
    if static is None:
        return groups, numeric
    table = _keyed(static, "static", ["unique_id"]).join(lookup, on="unique_id", how="inner")
    rows = table["row"].to_numpy()
    for name in table.columns:
        if name in {"unique_id", "row", "ds"}:
            continue
        if table.schema[name].is_float():
            values = np.full(n, np.nan)
            values[rows] = table[name].fill_null(np.nan).to_numpy()
            numeric[name] = values
            continue
        words = table[name].cast(pl.String)
        labels = sorted(set(words.drop_nulls().to_list()))
        code = {label: i for i, label in enumerate(labels)}
        codes = np.full(n, -1)
        codes[rows] = [code.get(word, -1) if word is not None else -1 for word in words.to_list()]
        # A level that holds one series a group, or all in one, tells nothing beyond the series or the whole.
        sizes = np.bincount(codes[codes >= 0], minlength=1)
        if len(labels) > 1 and (sizes > 1).any():
            groups[name] = (labels, codes)
    return groups, numeric
