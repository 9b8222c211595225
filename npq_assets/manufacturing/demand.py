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


def due_demand(inputs: ManufacturingInputs, days: int, rate: pl.DataFrame | None = None) -> DueDemand:
    """Orders in hand by due day, completed by what usually is ordered later.

    For a day k ahead, a share c_k of what will be due then is usually in hand already: how much of past quantity had come in
    more than k days before it was due (the development factor of chain-ladder reserving: Mack 1993), the product's own habit
    mixed with all products'. The rest, (1 - c_k) of the mean due on such a weekday, is expected.

    Args:
        inputs: What is known.
        days: Days from the as-of day.
        rate: product_id, week_start, quantity: forecast due by week, in place of the mean of the last weeks.
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
    daily, completion = _habit(inputs, row, days)
    if rate is not None and rate.height:
        daily = _as_forecast(inputs, rate, row, daily)
    return DueDemand(products, as_of, owed, in_hand, daily * (1.0 - completion), late_rate)


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


def _as_forecast(inputs: ManufacturingInputs, rate: pl.DataFrame, row: dict[str, int], daily: Floats) -> Floats:
    """The weekday pattern at the level of the forecast of each week."""
    scaled = daily.copy()
    week_of = [inputs.as_of + timedelta(days=k) for k in range(daily.shape[1])]
    monday = np.array([(day - timedelta(days=day.weekday())).toordinal() for day in week_of])
    weekly = np.zeros(len(daily))
    for i in range(len(daily)):
        weekly[i] = daily[i, : min(7, daily.shape[1])].sum() * 7.0 / min(7, daily.shape[1])
    for item in rate.iter_rows(named=True):
        here = monday == item["week_start"].toordinal()
        if item["product_id"] not in row or not here.any():
            continue
        i = row[item["product_id"]]
        if weekly[i] > 0:
            scaled[i, here] = daily[i, here] * item["quantity"] / weekly[i]
        else:
            scaled[i, here] = item["quantity"] / 7.0
    return scaled
