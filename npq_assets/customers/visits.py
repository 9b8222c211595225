"""Visits of customers: one row a customer and day, and the summaries that value models start from.

Point in time: `before(day)` is the only way back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.errors import NpqError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Visits:
    """Days on which customers bought; n rows, sorted by customer and day.

    Attributes:
        customers: Customer ids, sorted (c).
        customer: Position in `customers` (n).
        day: Day number (n).
        amount: Money paid on the day (n).
        discount: Money taken off (n).
        lines: Lines bought (n).
    """

    customers: NDArray[np.generic]
    customer: Ints
    day: Ints
    amount: Floats
    discount: Floats
    lines: Floats

    def before(self, day: int) -> Visits:
        """What was known when `day` opened."""
        return self._where(self.day < day)

    def between(self, first: int, last: int) -> Visits:
        """Visits of first <= day < last."""
        return self._where((self.day >= first) & (self.day < last))

    def _where(self, mask: NDArray[np.bool_]) -> Visits:
        names = ("customer", "day", "amount", "discount", "lines")
        return replace(self, **{name: getattr(self, name)[mask] for name in names})

    def total(self, values: Floats) -> Floats:
        """Sum of `values` (n) by customer (c)."""
        return np.bincount(self.customer, values, minlength=len(self.customers)).astype(float)


def visits_of(lines: pl.DataFrame, customers: pl.Series | None = None) -> Visits:
    """Visits from purchase lines.

    Args:
        lines: user, day (integer), amount, and if known discount.
        customers: Customers to know beside those of the lines.

    Raises:
        NpqError: A needed column is missing.
    """
    for name in ("user", "day", "amount"):
        if name not in lines.columns:
            raise NpqError(f"visits: column {name} is missing; give user, day and amount")
    discount = pl.col("discount").fill_null(0.0).sum() if "discount" in lines.columns else pl.lit(0.0)
    daily = (
        lines.group_by("user", "day")
        .agg(pl.col("amount").sum(), discount.alias("discount"), pl.len().alias("lines"))
        .sort("user", "day")
    )
    known = (daily["user"] if customers is None else pl.concat([daily["user"], customers])).unique().sort().to_numpy()
    return Visits(
        known,
        np.searchsorted(known, daily["user"].to_numpy()).astype(np.int64),
        daily["day"].to_numpy().astype(np.int64),
        daily["amount"].cast(pl.Float64).to_numpy(),
        daily["discount"].cast(pl.Float64).to_numpy(),
        daily["lines"].cast(pl.Float64).to_numpy(),
    )


@dataclass(frozen=True)
class Summary:
    """Recency, frequency and money of customers as of a day (c each), as the closed-form models define them.

    Attributes:
        frequency: Repeat visits x: distinct days after the first.
        recency: Days t_x from the first visit to the last.
        age: Days T from the first visit to the as-of day; 0 for customers never seen.
        monetary: Mean amount of a repeat visit, 0 without one (the first is left out, as Fader and Hardie do).
        mean_amount: Mean amount of a visit.
        since_last: Days from the last visit to the as-of day; NaN for customers never seen.
    """

    frequency: Floats
    recency: Floats
    age: Floats
    monetary: Floats
    mean_amount: Floats
    since_last: Floats


def summarize(visits: Visits, day: int) -> Summary:
    """The summary of each customer when `day` opened."""
    v = visits.before(day)
    n = len(v.customers)
    count = np.bincount(v.customer, minlength=n).astype(float)
    first, last = np.full(n, float(day)), np.full(n, -np.inf)
    np.minimum.at(first, v.customer, v.day.astype(float))
    np.maximum.at(last, v.customer, v.day.astype(float))
    seen = count > 0
    paid = v.total(v.amount)
    on_first = v.day == first[v.customer]
    first_paid = v.total(np.where(on_first, v.amount, 0.0))
    repeat = np.maximum(count - 1, 0)
    return Summary(
        frequency=repeat,
        recency=np.where(seen, last - first, 0.0),
        age=np.where(seen, day - first, 0.0),
        monetary=np.where(repeat > 0, (paid - first_paid) / np.maximum(repeat, 1), 0.0),
        mean_amount=paid / np.maximum(count, 1),
        since_last=np.where(seen, day - last, np.nan),
    )
