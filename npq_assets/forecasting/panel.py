"""Long frames checked once and laid out as dense arrays (series x periods); every failure of input is named here.

Features and models do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        words: Covariate in words -> its vocabulary; its values are positions in it from 1, 0 = none, NaN = unknown word.
        bound: What was sold where the item ran out, a lower bound of demand (n, T), else 0; None: of nothing.
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
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bound: np.ndarray | None = None

    def same_for_all(self, name: str) -> bool:
        """Whether a covariate has one value a date for all series."""
        values = self.known[name]
        some = values[:: max(1, len(values) // 50)]
        with np.errstate(invalid="ignore"):
            return bool(((some == some[:1]) | (np.isnan(some) & np.isnan(some[:1]))).all())

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
            self.words,
            None if self.bound is None else self.bound[:, column:],
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
            self.words,
            None if self.bound is None else self.bound[:, :columns],
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


def _keyed(frame: Frame, what: str, columns: list[str], unique: bool = True) -> pl.DataFrame:
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
    if unique and keys and table.select(pl.struct(keys).is_duplicated().any()).item():
        raise _duplicate(table, keys, what)
    return table


def _duplicate(table: pl.DataFrame, keys: list[str], what: str) -> NpqError:
    row = table.filter(pl.struct(keys).is_duplicated()).select(keys).row(0)
    return NpqError(f"{what}: duplicate rows for {', '.join(map(str, row))}; keep one row a series and period")


def build(
    history: Frame,
    freq: str,
    *,
    future: Frame | None = None,
    static: Frame | None = None,
    available: Frame | None = None,
    horizon: int = 0,
    ids: list[str] | None = None,
    words: Mapping[str, Sequence[str]] | None = None,
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
        words: Vocabularies of covariates in words, as a model learned them; default: the words found.

    Raises:
        NpqError: Columns missing, duplicate keys, y not finite, dates off the grid, empty history.
    """
    # Duplicates show once rows have their places, which costs less than comparing keys.
    table = _keyed(history, "history", ["unique_id", "ds", "y"], unique=False)
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
    present[row, column] = True
    if np.count_nonzero(present) < table.height:
        raise _duplicate(table, ["unique_id", "ds"], "history")
    y[row, column] = np.nan_to_num(values)
    seen = present.any(1)
    first = np.where(seen, present.argmax(1), length)
    observed = present & in_stock
    covariates = [c for c in table.columns if c not in {"unique_id", "ds", "y", "in_stock", "weight"}]
    known, vocabulary = _covariates(
        table, row, column, covariates, future, calendar, freq, lookup, n, length, horizon, start, words or {}
    )
    groups, numeric = _statics(static, lookup, n)
    bound = None
    if ((y > 0) & ~in_stock).any():
        bound = np.where(in_stock, 0.0, np.maximum(y, 0.0)).astype(np.float32)
    y[~observed] = 0.0
    return Panel(names, calendar, start, y, observed, in_stock, first, known, groups, numeric, vocabulary, bound)


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
    words: Mapping[str, Sequence[str]],
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    ahead = None
    if future is not None:
        keys = ["ds"] if "unique_id" not in as_polars(future, "future").columns else ["unique_id", "ds"]
        ahead = _keyed(future, "future", keys)
        calendar.check(ahead["ds"], freq, "future")
        names = list(dict.fromkeys([*names, *[c for c in ahead.columns if c not in {"unique_id", "ds", "y"}]]))
    known: dict[str, np.ndarray] = {}
    vocabulary: dict[str, tuple[str, ...]] = {}
    for name in names:
        values = np.full((n, length + horizon), np.nan, np.float32)
        sources = [frame[name] for frame in (table, ahead) if frame is not None and name in frame.columns]
        if name in words or not all(s.dtype.is_numeric() or s.dtype in (pl.Boolean, pl.Null) for s in sources):
            found = {word for s in sources for word in s.cast(pl.String).drop_nulls().unique().to_list()}
            vocabulary[name] = tuple(words.get(name, sorted(found)))
        learned = vocabulary.get(name)
        if name in table.columns:
            values[row, column] = _numbers(table[name], learned)
        if ahead is not None and name in ahead.columns:
            numbers = _numbers(ahead[name], learned)
            place = calendar.index(ahead["ds"]) - start
            inside = (place >= 0) & (place < length + horizon)
            if "unique_id" in ahead.columns:
                rows = ahead.select("unique_id").join(lookup, on="unique_id", how="left", maintain_order="left")["row"]
                inside &= rows.is_not_null().to_numpy()
                values[rows.fill_null(0).to_numpy()[inside], place[inside]] = numbers[inside]
            else:
                values[:, place[inside]] = numbers[inside][None, :]
        known[name] = values
    return known, vocabulary


def _numbers(series: pl.Series, words: Sequence[str] | None) -> np.ndarray:
    if words is None:
        return series.cast(pl.Float32).fill_null(np.nan).to_numpy()
    # A word that was not learned is unknown, not one of the others.
    text = series.cast(pl.String)
    codes = text.replace_strict(
        list(words), np.arange(1, len(words) + 1, dtype=np.float64), default=np.nan, return_dtype=pl.Float64
    )
    return (
        codes.to_frame("code")
        .with_columns(pl.when(text.is_null()).then(0.0).otherwise(pl.col("code")).cast(pl.Float32).alias("code"))[
            "code"
        ]
        .to_numpy()
    )


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
