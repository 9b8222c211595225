"""Policies lived over the past: rolling windows, each decision with what was known then, every period priced.

Of a day on which an item ran out, what was sold is a lower bound of demand: the day has a draw given that bound, the same for all
policies and charged to all (`forecasting.censoring`); what policies see of the past stays as it landed. Demand of a period without
stock on the shelf in which nothing was sold, and of any week without, is unknown: such periods are lived with no demand and not
charged. The first lead time of a window shows what lay there before the policy came, so scoring starts after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.errors import NpqError
from npq_assets.evaluation.policies import Policy, RetailView
from npq_assets.evaluation.statistics import Difference, paired_difference
from npq_assets.forecasting.censoring import raised
from npq_assets.forecasting.panel import build
from npq_assets.optimization.costs import InventoryCost
from npq_assets.optimization.inventory import step

Array = NDArray[np.float64]
PAIR = ["site_id", "product_id"]
FLOOR = "foresight"


class Past(RetailView, Protocol):
    """A view that can be turned back to what was known at an earlier day."""

    def turned_back(self, as_of: date, on_hand: Array, coming: Array) -> Past:
        """The view before `as_of` opened, with this stock (n) and these units under way by step (n, steps)."""
        ...


@dataclass(frozen=True)
class ReplayResult:
    """What policies would have cost.

    Attributes:
        costs: window (its first as-of day), policy, site_id, product_id, holding, lost_sales, demand, sold.
        reference: The policy that the others are compared with.
        skipped: What could not be replayed, or only with demand that was drawn, and why.
    """

    costs: pl.DataFrame
    reference: str
    skipped: tuple[str, ...] = field(default=())

    @property
    def policies(self) -> list[str]:
        """Names, the reference first, the floor last."""
        names = self.costs["policy"].unique(maintain_order=True).to_list()
        return sorted(names, key=lambda name: (name != self.reference, name == FLOOR))

    def compare(self, policy: str) -> Difference:
        """A policy against the reference over all windows, paired by window and pair, clustered by site."""
        both = self._wide(policy)
        return paired_difference(both["cost"].to_numpy(), both["cost_reference"].to_numpy(), both["site_id"].to_numpy())

    def _wide(self, policy: str) -> pl.DataFrame:
        cost = (pl.col("holding") + pl.col("lost_sales")).alias("cost")
        key = ["window", *PAIR]
        ours = self.costs.filter(pl.col("policy") == policy).select(*key, cost)
        theirs = self.costs.filter(pl.col("policy") == self.reference).select(*key, cost)
        return ours.join(theirs, on=key, suffix="_reference").sort(key)

    def table(self) -> pl.DataFrame:
        """A row a policy: holding, lost_sales, total, fill_rate, ratio to the reference."""
        rows = (
            self.costs.group_by("policy")
            .agg(pl.col("holding", "lost_sales", "demand", "sold").sum())
            .with_columns(
                (pl.col("holding") + pl.col("lost_sales")).alias("total"),
                (pl.col("sold") / pl.col("demand")).alias("fill_rate"),
            )
            .drop("demand", "sold")
        )
        base = rows.filter(pl.col("policy") == self.reference)["total"].item()
        rank = {name: place for place, name in enumerate(self.policies)}
        return (
            rows.with_columns((pl.col("total") / base).alias("ratio"))
            .sort(pl.col("policy").replace_strict(rank, return_dtype=pl.Int64))
            .select("policy", "holding", "lost_sales", "total", "fill_rate", "ratio")
        )

    def as_json(self) -> dict[str, Any]:
        """The table, the windows and the comparisons as plain JSON."""
        by_window = self.costs.group_by("window", "policy", maintain_order=True).agg(
            (pl.col("holding") + pl.col("lost_sales")).sum().alias("total")
        )
        return {
            "reference": self.reference,
            "policies": {row["policy"]: row for row in self.table().to_dicts()},
            "windows": [{**row, "window": row["window"].isoformat()} for row in by_window.to_dicts()],
            "comparisons": {
                name: vars(self.compare(name)) | {"significant": self.compare(name).significant}
                for name in self.policies
                if name not in (self.reference, FLOOR)
            },
            "skipped": list(self.skipped),
        }

    def as_text(self) -> str:
        """A table for a terminal, and a line on how sure each comparison is."""
        lines = [f"{'policy':<24}{'holding':>14}{'lost sales':>14}{'total':>14}{'fill rate':>11}{'ratio':>8}"]
        for row in self.table().to_dicts():
            lines.append(
                f"{row['policy']:<24}{row['holding']:>14,.1f}{row['lost_sales']:>14,.1f}{row['total']:>14,.1f}"
                f"{row['fill_rate']:>11.1%}{row['ratio']:>8.3f}"
            )
        for name in self.policies:
            if name not in (self.reference, FLOOR):
                lines.append(f"{name} against {self.reference}: {self.compare(name)}")
        return "\n".join([*lines, *self.skipped])


def replay(
    past: Past,
    policies: Mapping[str, Policy],
    *,
    windows: int,
    periods: int,
    start: Callable[[date], tuple[Array | None, Array | None]] | None = None,
    reference: str = "naive",
    say: Callable[[str], None] = lambda _: None,
) -> ReplayResult:
    """Lives `policies` over the last windows of the past, one after the other, all from the same state and demand.

    Args:
        past: A view of the present; its history is the past to be lived.
        policies: By name; the reference must be among them.
        windows: How many windows, back to back, the last ending with the history.
        periods: Scored periods of a window.
        start: Stock at the opening of a day, where counted (n; nan where not), and units under way by step (n, steps), if
            known; else the recipe: the mean of a year's demand in stock, rounded up, on hand, and a period's mean under
            way for each period of lead time.
        reference: The policy that the others are compared with.
        say: Takes a line a window.

    Raises:
        NpqError: The history is too short for one window.
    """
    days = 7 if past.period == "week" else 1
    lead = past.items["lead_time_periods"].to_numpy().astype(int)
    warm_up = int(lead.max(initial=0))
    length = warm_up + periods
    last = past.history["period_start"].max()
    first = past.history["period_start"].min()
    if not isinstance(last, date) or not isinstance(first, date):
        raise NpqError("nothing to replay: no sales are known")
    demand, known, drawn, starts = _actual(past, last, length * windows, days)
    room = ((last - first).days // days + 1 - _LEAST_HISTORY[past.period]) // length
    if room < 1:
        raise NpqError(
            f"the sales from {first} to {last} are too short to replay {length} periods after "
            f"{_LEAST_HISTORY[past.period]} to learn from; land more history or give fewer --periods"
        )
    skipped: tuple[str, ...] = (
        () if room >= windows else (f"only {room} of {windows} windows have enough history before them",)
    )
    if drawn.any():
        skipped += (
            f"{drawn.mean():.1%} of the periods sold an item out: their demand is drawn, given that what was sold was wanted, "
            "the same for all policies",
        )
    unknown = float((~known).mean())
    if unknown > 0.01:
        skipped += (
            f"{unknown:.1%} of the periods were out of stock"
            + (" and sold nothing" if drawn.any() else "")
            + ": their demand is unknown and not charged, which favours the rule whose stock wrote this history",
        )
    rows = []
    for window in range(windows - min(windows, room), windows):
        begin = window * length
        opening = starts[begin]
        counted, under_way = start(opening) if start else (None, None)
        on_hand, coming = _recipe(past, opening, lead, counted, under_way)
        live = _Window(
            past, demand[:, begin : begin + length], known[:, begin : begin + length], opening, warm_up, days
        )
        totals = {}
        for name, policy in policies.items():
            costs = live.run(policy, on_hand, coming)
            totals[name] = float(costs["holding"].sum()) + float(costs["lost_sales"].sum())
            rows.append(costs.with_columns(pl.lit(name).alias("policy"), pl.lit(opening).alias("window")))
        floor = live.run(None, on_hand, coming)
        rows.append(floor.with_columns(pl.lit(FLOOR).alias("policy"), pl.lit(opening).alias("window")))
        say(f"window from {opening}: " + ", ".join(f"{name} {total:,.1f}" for name, total in totals.items()))
    return ReplayResult(pl.concat(rows), reference, skipped)


_LEAST_HISTORY = {"week": 13, "day": 56}


def _actual(
    past: RetailView, last: date, length: int, days: int
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_], list[date]]:
    """Demand, whether it is known and whether it was drawn, by pair and period, for the last `length` periods."""
    starts = [last - timedelta(days=days * back) for back in range(length - 1, -1, -1)]
    column = {start: k for k, start in enumerate(starts)}
    row = {name: k for k, name in enumerate(past.items["unique_id"])}
    demand, known = np.zeros((len(row), length)), np.zeros((len(row), length), bool)
    drawn = np.zeros_like(known)
    recent = past.history.filter((pl.col("period_start") >= starts[0]) & pl.col("unique_id").is_in(list(row)))
    i = recent["unique_id"].replace_strict(row, return_dtype=pl.Int64).to_numpy()
    j = recent["period_start"].replace_strict(column, return_dtype=pl.Int64).to_numpy()
    demand[i, j] = recent["quantity"].to_numpy()
    known[i, j] = recent["in_stock"].to_numpy()
    hidden = _draws(past).filter((pl.col("period_start") >= starts[0]) & pl.col("unique_id").is_in(list(row)))
    if hidden.height:
        i = hidden["unique_id"].replace_strict(row, return_dtype=pl.Int64).to_numpy()
        j = hidden["period_start"].replace_strict(column, return_dtype=pl.Int64).to_numpy()
        demand[i, j] = hidden["demand"].to_numpy()
        known[i, j] = drawn[i, j] = True
    return np.where(known, demand, 0.0), known, drawn, starts


def _draws(past: RetailView) -> pl.DataFrame:
    """Demand of the days on which an item ran out after sales: unique_id, period_start, demand; none of weeks."""
    none = pl.DataFrame(schema={"unique_id": pl.String, "period_start": pl.Date, "demand": pl.Float64})
    if past.period != "day" or not past.history.filter(~pl.col("in_stock") & (pl.col("quantity") > 0)).height:
        return none
    day = pl.col("period_start").alias("ds")
    panel = build(
        past.history.select("unique_id", day, pl.col("quantity").cast(pl.Float64).alias("y")),
        "D",
        available=past.history.select("unique_id", day, "in_stock"),
    )
    full = raised(panel)
    row, place = np.nonzero(full.observed & ~panel.observed)
    return none.vstack(
        pl.DataFrame(
            {
                "unique_id": panel.ids[row].astype(str),
                "period_start": panel.dates(place).cast(pl.Date),
                "demand": full.y[row, place].astype(float),
            },
            schema=none.schema,
        )
    )


def _recipe(
    past: RetailView, opening: date, lead: NDArray[np.int64], counted: Array | None, under_way: Array | None
) -> tuple[Array, Array]:
    year = past.history.filter(
        (pl.col("period_start") < opening)
        & (pl.col("period_start") >= opening - timedelta(days=364 if past.period == "week" else 182))
        & pl.col("in_stock")
    )
    means = year.group_by("unique_id").agg(pl.col("quantity").mean().alias("mean"))
    mean = past.items.join(means, on="unique_id", how="left", maintain_order="left")["mean"].fill_null(0.0).to_numpy()
    on_hand = np.ceil(mean * (1 if past.period == "week" else 3) - 1e-9)
    if counted is not None:
        on_hand = np.where(np.isfinite(counted), counted, on_hand)
    if under_way is not None:
        return on_hand, under_way
    coming = np.zeros((len(mean), int(lead.max(initial=0)) + 1))
    for k in range(coming.shape[1]):
        coming[:, k] = np.where((k > 0) & (k < lead), np.round(mean), 0.0)
    return on_hand, coming


@dataclass(frozen=True)
class _Window:
    past: Past
    demand: Array
    known: NDArray[np.bool_]
    opening: date
    warm_up: int
    days: int

    def run(self, policy: Policy | None, on_hand: Array, coming: Array) -> pl.DataFrame:
        """Costs by pair of a policy (None: perfect foresight)."""
        items = self.past.items
        n, length = self.demand.shape
        lead = items["lead_time_periods"].to_numpy().astype(int)
        cost = InventoryCost.of(items["holding_cost"].to_numpy(), items["shortage_cost"].to_numpy())
        pipeline = np.zeros((n, length + self.warm_up + 1))
        pipeline[:, : min(coming.shape[1], pipeline.shape[1])] = coming[:, : pipeline.shape[1]]
        stock = on_hand.astype(float).copy()
        rows = np.arange(n)
        books = {name: np.zeros(n) for name in ("holding", "lost_sales", "demand", "sold")}
        for t in range(length):
            if policy is None:
                order = self._foresight(stock, pipeline[:, t:], lead, t)
            else:
                as_of = self.opening + timedelta(days=self.days * t)
                view = self.past.turned_back(as_of, stock, pipeline[:, t : t + self.warm_up + 1])
                given = policy.orders(view)
                order = (
                    items.select(PAIR).join(given, on=PAIR, how="left", maintain_order="left")["quantity"].to_numpy()
                )
            pipeline[rows, t + lead] += order
            sold, lost, left = step(stock, pipeline[:, t], self.demand[:, t])
            stock = left
            if t >= self.warm_up:
                counts = self.known[:, t]
                books["holding"] += np.where(counts, cost.holding.value(left), 0.0)
                books["lost_sales"] += np.where(counts, cost.lost_sales.value(lost), 0.0)
                books["demand"] += np.where(counts, self.demand[:, t], 0.0)
                books["sold"] += np.where(counts, sold, 0.0)
        return items.select(PAIR).with_columns(pl.Series(name, values) for name, values in books.items())

    def _foresight(self, stock: Array, pipeline: Array, lead: NDArray[np.int64], t: int) -> Array:
        """Just what will be missing at the order's arrival: no policy can cost less from here on."""
        n, length = self.demand.shape
        left = stock.copy()
        order = np.zeros(n)
        for k in range(int(lead.max(initial=0)) + 1):
            if t + k >= length:
                break
            wanted = self.demand[:, t + k]
            available = left + pipeline[:, k]
            order = np.where(lead == k, np.maximum(wanted - available, 0.0), order)
            left = np.maximum(available - wanted, 0.0)
        return order
