"""Ways to decide on orders: the careful planner's rule beside which every order of ours is shown, and users' own.

A policy sees a view of what was known before a day opened, and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri

from npq_assets.errors import NpqError
from npq_assets.optimization.costs import InventoryCost

Array = NDArray[np.float64]
PAIR = ["site_id", "product_id"]


class RetailView(Protocol):
    """What a policy may see; `retail.inputs.RetailInputs` is one.

    Attributes:
        as_of: The decision is taken before this day opens.
        period: Length of a period.
        history: unique_id, site_id, product_id, period_start, quantity, in_stock; only periods over before `as_of`.
        items: The pairs to decide: unique_id, site_id, product_id, on_hand, lead_time_periods, holding_cost,
            shortage_cost, pack_size, min_order.
        arrivals: Units under way: unique_id, step (periods after `as_of`), quantity.
    """

    @property
    def as_of(self) -> date: ...
    @property
    def period(self) -> Literal["day", "week"]: ...
    @property
    def history(self) -> pl.DataFrame: ...
    @property
    def items(self) -> pl.DataFrame: ...
    @property
    def arrivals(self) -> pl.DataFrame: ...


class Policy(Protocol):
    """Decides how much to order of every pair of a view."""

    def orders(self, view: RetailView) -> pl.DataFrame:
        """site_id, product_id, quantity: one row a pair of the view's items, quantities of 0 or more."""
        ...


def arrivals_by_step(view: RetailView, steps: int) -> Array:
    """Units under way by pair (in the order of the view's items) and period after the as-of day (n, steps)."""
    out = np.zeros((view.items.height, steps))
    row_of = {name: row for row, name in enumerate(view.items["unique_id"])}
    for name, step, quantity in view.arrivals.select("unique_id", "step", "quantity").iter_rows():
        if 0 <= step < steps and name in row_of:
            out[row_of[name], step] += quantity
    return out


def whole_packs(wanted: Array, pack_size: Array, min_order: Array) -> Array:
    """Rounds wanted units to what can be ordered: the nearest whole pack, and the minimum if at least half of it is wanted."""
    packs = np.where(pack_size <= 1, np.round(wanted / pack_size), np.ceil(wanted / pack_size - 1e-9))
    units = np.maximum(packs, 0) * pack_size
    least = np.ceil(min_order / pack_size - 1e-9) * pack_size
    rounded: Array = np.where((units > 0) & (units < least), np.where(units >= 0.5 * least, least, 0.0), units)
    return rounded


@dataclass(frozen=True)
class OrderUpTo:
    """The careful planner's rule: stock projected to the order's arrival, topped up to forecast + z * sd.

    The forecast is a mean of recent sales while in stock (13 weeks, or 28 days) times a seasonal index: week of the year
    from all series together once there is more than a year, or day of the week from the site's sales. z is the normal
    quantile of shortage / (shortage + holding); sd comes from the rule's own recent errors, shrunk towards Poisson's
    (Silver, Pyke and Thomas, Inventory and Production Management, 4th ed., section 7.9).

    Attributes:
        window: Periods of the moving average; None: 13 weeks or 28 days.
        prior: Weight of Poisson's variance, in observations; None: all of it for weeks, 8 for days. Tuned where it costs
            least: on the six past windows of the VN2 challenge (0.861 of the organisers' cost against 0.879 with 8), and on
            the sample company.
    """

    window: int | None = None
    prior: float | None = None

    def orders(self, view: RetailView) -> pl.DataFrame:
        """One order a pair, in whole packs."""
        items = view.items
        lead = items["lead_time_periods"].to_numpy().astype(int)
        reach = int(lead.max(initial=0)) + 1
        forecast, variance = self.forecast(view, reach)
        stock = items["on_hand"].to_numpy().astype(float)
        coming = arrivals_by_step(view, reach)
        rows = np.arange(items.height)
        uncertainty = np.zeros(items.height)
        for step in range(reach):
            here, on_the_way = lead >= step, lead > step
            stock = np.where(here, stock + coming[:, step], stock)
            stock = np.where(on_the_way, np.maximum(stock - forecast[:, step], 0.0), stock)
            if view.period == "day":
                uncertainty = np.where(on_the_way, uncertainty + variance[:, step], uncertainty)
        cost = InventoryCost.of(items["holding_cost"].to_numpy(), items["shortage_cost"].to_numpy())
        z = ndtri(np.clip(cost.critical_ratio, 1e-4, 1 - 1e-4))
        due = forecast[rows, lead]
        target = due + z * np.sqrt(variance[rows, lead] + uncertainty)
        wanted = np.maximum(target - stock, 0.0)
        quantity = whole_packs(
            wanted, items["pack_size"].to_numpy().astype(float), items["min_order"].to_numpy().astype(float)
        )
        return items.select(PAIR).with_columns(pl.Series("quantity", quantity))

    def forecast(self, view: RetailView, reach: int) -> tuple[Array, Array]:
        """Mean and variance of demand, by pair of the view's items and period from the as-of day on (n, reach)."""
        days = 7 if view.period == "week" else 1
        window = self.window or (13 if view.period == "week" else 28)
        ids = view.items["unique_id"].to_list()
        history = view.history
        if history.is_empty():
            return np.zeros((len(ids), reach)), np.zeros((len(ids), reach))
        index = _week_index(history) if view.period == "week" else _weekday_index(history, view)
        last = history["period_start"].max()
        assert isinstance(last, date)
        recent = history.filter(
            pl.col("period_start") > last - timedelta(days=days * window) if window else pl.lit(True)
        )
        recent = index.attach(recent).filter(pl.col("in_stock"))
        level = recent.group_by("unique_id").agg(
            (pl.col("quantity").sum() / pl.col("index").sum()).alias("level")
            if view.period == "day"
            else (pl.col("quantity") / pl.col("index")).mean().alias("level")
        )
        scatter = (
            recent.join(level, on="unique_id")
            .with_columns(error=pl.col("quantity") - pl.col("level") * pl.col("index"))
            .group_by("unique_id")
            .agg(pl.col("error").pow(2).sum().alias("squares"), pl.len().alias("seen"))
        )
        pairs = (
            view.items.select("unique_id", "site_id", "product_id")
            .join(level, on="unique_id", how="left")
            .join(scatter, on="unique_id", how="left")
        )
        base = pairs["level"].fill_null(0.0).to_numpy()
        squares, seen = pairs["squares"].fill_null(0.0).to_numpy(), pairs["seen"].fill_null(0).to_numpy()
        starts = [view.as_of + timedelta(days=days * step) for step in range(reach)]
        mean = base[:, None] * index.ahead(pairs, starts)
        prior = self.prior if self.prior is not None else (1e6 if view.period == "week" else 8.0)
        spread = (squares + prior * np.maximum(base, 0.02)) / (seen + prior)
        scale = np.divide(mean, base[:, None], out=np.ones_like(mean), where=base[:, None] > 0)
        return mean, spread[:, None] * scale


class _Index(Protocol):
    def attach(self, frame: pl.DataFrame) -> pl.DataFrame: ...
    def ahead(self, pairs: pl.DataFrame, starts: list[date]) -> Array: ...


@dataclass(frozen=True)
class _WeekOfYear:
    """Factor by ISO week, from all series together."""

    factor: dict[int, float]

    def attach(self, frame: pl.DataFrame) -> pl.DataFrame:
        week = pl.col("period_start").dt.week().cast(pl.Int64)
        return frame.with_columns(week.replace_strict(self.factor, default=1.0, return_dtype=pl.Float64).alias("index"))

    def ahead(self, pairs: pl.DataFrame, starts: list[date]) -> Array:
        factors = [self.factor.get(start.isocalendar()[1], 1.0) for start in starts]
        return np.tile(np.array(factors), (pairs.height, 1))


def _week_index(history: pl.DataFrame) -> _Index:
    first, last = history["period_start"].min(), history["period_start"].max()
    assert isinstance(first, date) and isinstance(last, date)
    if (last - first).days < 380:
        return _WeekOfYear({})
    total = history.filter(pl.col("in_stock")).group_by("period_start").agg(pl.col("quantity").mean())
    by_week = total.group_by(pl.col("period_start").dt.week().cast(pl.Int64).alias("week")).agg(
        pl.col("quantity").mean()
    )
    mean = float(by_week["quantity"].mean() or 0.0)  # type: ignore[arg-type]
    if mean <= 0:
        return _WeekOfYear({})
    return _WeekOfYear({week: max(quantity / mean, 0.05) for week, quantity in by_week.iter_rows()})


@dataclass(frozen=True)
class _Weekday:
    """Factor by site and day of the week, of mean 1."""

    factor: pl.DataFrame

    def attach(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("period_start").dt.weekday().cast(pl.Int64).alias("weekday")).join(
            self.factor, on=["site_id", "weekday"], how="left"
        )

    def ahead(self, pairs: pl.DataFrame, starts: list[date]) -> Array:
        columns = []
        for start in starts:
            of_day = self.factor.filter(pl.col("weekday") == start.isoweekday())
            columns.append(pairs.join(of_day, on="site_id", how="left", maintain_order="left")["index"].fill_null(1.0))
        return np.stack([column.to_numpy() for column in columns], axis=1)


def _weekday_index(history: pl.DataFrame, view: RetailView) -> _Index:
    recent = history.filter((pl.col("period_start") >= view.as_of - timedelta(days=84)) & pl.col("in_stock"))
    by_day = recent.group_by("site_id", pl.col("period_start").dt.weekday().cast(pl.Int64).alias("weekday")).agg(
        pl.col("quantity").mean().alias("mean")
    )
    grid = (
        history.select("site_id")
        .unique()
        .join(pl.DataFrame({"weekday": list(range(1, 8))}, schema={"weekday": pl.Int64}), how="cross")
    )
    full = grid.join(by_day, on=["site_id", "weekday"], how="left")
    level = pl.col("mean").mean().over("site_id")
    factor = pl.when(level > 0).then(pl.col("mean") / level).otherwise(1.0).fill_null(1.0)
    return _Weekday(full.select("site_id", "weekday", factor.clip(lower_bound=0.05).alias("index")))


@dataclass(frozen=True)
class FunctionPolicy:
    """A user's function `orders(view) -> frame with site_id, product_id, quantity`, checked at every call.

    Attributes:
        name: How it was given.
        function: The function; it may return polars or pandas.
    """

    name: str
    function: Callable[[RetailView], Any]

    def orders(self, view: RetailView) -> pl.DataFrame:
        """The function's orders.

        Raises:
            NpqError: They are not one finite quantity of 0 or more for every pair.
        """
        given = self.function(view)
        frame = given if isinstance(given, pl.DataFrame) else pl.DataFrame(given)
        missing = [name for name in (*PAIR, "quantity") if name not in frame.columns]
        if missing:
            raise NpqError(f"policy {self.name}: returned no column {missing[0]}; return site_id, product_id, quantity")
        if frame.select(PAIR).is_duplicated().any():
            raise NpqError(f"policy {self.name}: returned a pair twice; return one row a pair")
        full = view.items.select(PAIR).join(
            frame.select(*PAIR, pl.col("quantity").cast(pl.Float64)), on=PAIR, how="left", maintain_order="left"
        )
        bad = full.filter(~(pl.col("quantity").is_finite() & (pl.col("quantity") >= 0)).fill_null(False))
        if bad.height:
            row = bad.row(0, named=True)
            raise NpqError(
                f"policy {self.name}: quantity {row['quantity']} for {row['product_id']} at {row['site_id']}; "
                "return a finite number of 0 or more for every pair"
            )
        return full


def load_policy(name: str) -> Policy:
    """The policy called `naive`, or a user's as `module:function`.

    Raises:
        NpqError: There is no such policy, module or function.
    """
    if name == "naive":
        return OrderUpTo()
    module, _, attribute = name.partition(":")
    if not attribute:
        raise NpqError(f"policy {name!r} is unknown; use npq, naive or module:function")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise NpqError(f"policy {name!r} cannot be loaded ({error}); is the module on PYTHONPATH?") from error
    if not callable(function):
        raise NpqError(f"policy {name!r} is not a function")
    return FunctionPolicy(name, function)
