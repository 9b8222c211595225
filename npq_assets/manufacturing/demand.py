"""What the plant will have to deliver: orders in hand, and what is still expected to be ordered for the days behind them.

Pure functions of frames. Which plan follows does not belong here; the forecast of weeks and months is `forecast`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.manufacturing.inputs import HABIT_DAYS, ManufacturingInputs

Floats = NDArray[np.float64]
# Quantity-days of all products' habit that a product's own habit is mixed with.
_PRIOR_WEIGHT = 0.1


@dataclass(frozen=True)
class DueDemand:
    """Units due, by product and day.

    Attributes:
        products: Names (n).
        first: The first day.
        owed: Units already late when the first day opens (n).
        in_hand: Units of orders in hand due on each day (n, D).
        expected: Units that are expected to be ordered yet for each day (n, D).
        late_rate: Money per unit and day late, the mean of the orders in hand, else of all (n).
    """

    products: tuple[str, ...]
    first: date
    owed: Floats
    in_hand: Floats
    expected: Floats
    late_rate: Floats

    @property
    def total(self) -> Floats:
        """Units due on each day, in hand or expected (n, D)."""
        return self.in_hand + self.expected


def due_demand(inputs: ManufacturingInputs, days: int) -> DueDemand:
    """Orders in hand by due day, completed by what is expected to be ordered yet.

    For a day k ahead, a share c_k of what will be due then is usually in hand already: how much of past quantity had come in
    more than k days before it was due (the development factor of chain-ladder reserving: Mack 1993), the product's own habit
    mixed with all products'. The rest is expected: (1 - c_k) of the mean due on such a weekday or, where the production
    forecast reaches, the day's share of what that expected beyond the orders of its Monday. Orders that came in since consume
    the forecast in this way, and no unit is counted twice (Bornhuetter & Ferguson 1972).

    Args:
        inputs: What is known.
        days: Days from the as-of day.
    """
    products = tuple(inputs.products["product_id"])
    row = {name: k for k, name in enumerate(products)}
    n, as_of = len(products), inputs.as_of
    owed, in_hand = np.zeros(n), np.zeros((n, days))
    weight, cost = np.zeros(n), np.zeros(n)
    for order in inputs.orders.iter_rows(named=True):
        i, k = row[order["product_id"]], (order["due_on"] - as_of).days
        if k < 0:
            owed[i] += order["owed"]
        elif k < days:
            in_hand[i, k] += order["owed"]
        weight[i] += order["owed"]
        cost[i] += order["owed"] * order["late_rate"]
    usual = float(np.sum(cost) / np.sum(weight)) if weight.sum() > 0 else 0.0
    late_rate = np.divide(cost, weight, out=np.full(n, usual), where=weight > 0)
    # Weeks are shared out by whole weeks, the days behind the last one planned included.
    daily, completion = _habit(inputs, row, days + 7)
    expected = daily[:, :days] * (1.0 - completion[:, :days])
    if inputs.forecast.height:
        expected = _as_forecast(inputs, row, daily, completion, expected)
    return DueDemand(products, as_of, owed, in_hand, expected, late_rate)


def _habit(inputs: ManufacturingInputs, row: dict[str, int], days: int) -> tuple[Floats, Floats]:
    """Mean units due on each day ahead by weekday (n, D), and the share of them that is usually in hand by now (n, D)."""
    n, as_of = len(row), inputs.as_of
    since = as_of - timedelta(days=HABIT_DAYS)
    past = inputs.order_history.filter((pl.col("due_on") < as_of) & (pl.col("due_on") >= since))
    first = inputs.order_history["due_on"].min()
    span = float(HABIT_DAYS) if not isinstance(first, date) else max(1.0, min(HABIT_DAYS, (as_of - first).days))
    total, by_weekday = np.zeros(n), np.zeros((n, 7))
    earlier, everyone = np.zeros((n, days)), np.zeros(days)
    for order in past.iter_rows(named=True):
        if order["product_id"] not in row:
            continue
        i = row[order["product_id"]]
        units, notice = order["quantity"], (order["due_on"] - order["ordered_on"]).days
        total[i] += units
        by_weekday[i, order["due_on"].weekday()] += units
        # Ordered on day o, it is known when o + 1 opens: in hand k days before it is due if k <= notice - 1.
        known = min(max(notice, 0), days)
        earlier[i, :known] += units
        everyone[:known] += units
    all_units = max(float(total.sum()), 1e-9)
    prior = _PRIOR_WEIGHT * np.maximum(total, 1e-9)[:, None]
    completion = (earlier + prior * (everyone / all_units)[None, :]) / (np.maximum(total, 1e-9)[:, None] + prior)
    ahead = [(as_of + timedelta(days=k)).weekday() for k in range(days)]
    return by_weekday[:, ahead] * 7.0 / span, np.clip(completion, 0.0, 1.0)


def _as_forecast(
    inputs: ManufacturingInputs, row: dict[str, int], daily: Floats, completion: Floats, expected: Floats
) -> Floats:
    """The habit's days at the level of the forecast's weeks (n, D), where it reaches.

    A day's part of what a week was expected to bring beyond the orders of the forecast's Monday is what is usually still to
    come for it today, over what usually was still to come for the whole week on that Monday.
    """
    found = expected.copy()
    n, days = expected.shape
    as_of = inputs.as_of
    made_on = as_of - timedelta(days=as_of.weekday())
    rows = {
        (row[r["product_id"]], r["week_start"]): r
        for r in inputs.forecast.iter_rows(named=True)
        if r["product_id"] in row
    }
    if not rows:
        return found
    by_weekday = np.stack([daily[:, (weekday - as_of.weekday()) % 7] for weekday in range(7)], axis=1)  # Monday first
    for week in sorted({w for _, w in rows}):
        first = (week - as_of).days
        here = np.arange(max(0, first), min(days, first + 7))
        if not here.size:
            continue
        since = (week - made_on).days + np.arange(7)
        open_then = by_weekday * (1.0 - completion[:, np.minimum(since, completion.shape[1] - 1)])
        for i in range(n):
            r = rows.get((i, week))
            if r is None:
                continue
            beyond = max(0.0, r["mean"] - r["in_hand"]) if r["orders_used"] else None
            usual, all_open = float(by_weekday[i].sum()), float(open_then[i].sum())
            if beyond is None:
                beyond = r["mean"] * (all_open / usual if usual > 0 else 1.0)
            if all_open > 1e-9:
                found[i, here] = beyond * expected[i, here] / all_open
            elif usual <= 0:
                found[i, here] = beyond * (1.0 - completion[i, here]) / 7.0
    return found
