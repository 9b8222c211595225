"""What is due by day: orders in hand, and the forecast that they have not consumed yet."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.manufacturing.demand import due_demand
from npq_assets.manufacturing.inputs import ManufacturingInputs
from npq_assets.settings import Settings

MONDAY = date(2024, 7, 1)


def inputs(as_of: date) -> ManufacturingInputs:
    """One product, 10 units due every day, half of them ordered ten days ahead and half five."""
    history = []
    for k in range(-120, 40):
        due = MONDAY + timedelta(days=k)
        for name, notice in (("early", 10), ("late", 5)):
            history.append((f"{name}-{due}", "P", 5.0, due - timedelta(days=notice), due))
    schema = {
        "order_id": pl.String, "product_id": pl.String, "quantity": pl.Float64, "ordered_on": pl.Date, "due_on": pl.Date,
    }  # fmt: skip
    known = pl.DataFrame(history, schema=schema, orient="row").filter(pl.col("ordered_on") < as_of)
    orders = known.filter(pl.col("due_on") >= as_of).select(
        "order_id",
        "product_id",
        pl.col("quantity").alias("owed"),
        "due_on",
        "ordered_on",
        pl.lit(1.0).alias("late_rate"),
    )
    none = pl.DataFrame()
    return ManufacturingInputs(
        as_of=as_of, period="day", settings=Settings(), products=pl.DataFrame({"product_id": ["P"], "on_hand": [0.0]}),
        routings=none, machines=none, calendar=none, orders=orders, order_history=known, output=none, components=none,
        bills=none, receipts=none, energy=none,
    )  # fmt: skip


def forecast(weekly: list[float], in_hand: list[float]) -> pl.DataFrame:
    rows = [
        ("P", MONDAY + timedelta(weeks=k), i, m, True) for k, (m, i) in enumerate(zip(weekly, in_hand, strict=True))
    ]
    return pl.DataFrame(rows, schema=["product_id", "week_start", "in_hand", "mean", "orders_used"], orient="row")


def test_habit_completes_what_is_in_hand() -> None:
    found = due_demand(inputs(MONDAY), 14)
    assert found.total[0] == pytest.approx(np.full(14, 10.0), abs=0.6)
    assert found.in_hand[0, :5] == pytest.approx(np.full(5, 10.0))


def test_the_forecast_fills_the_days_that_orders_do_not_reach_and_no_others() -> None:
    """In hand on the Monday: all of 5 days, half of 5 more. Twice as much is expected in the second week."""
    now = inputs(MONDAY)
    first, second = now.orders.filter(pl.col("due_on") < MONDAY + timedelta(days=7)), now.orders
    book = [first["owed"].sum(), second.filter(pl.col("due_on") < MONDAY + timedelta(days=14))["owed"].sum()]
    book[1] -= book[0]
    ahead = forecast([70.0, 140.0], book)
    found = due_demand(replace(now, forecast=ahead), 14)
    assert found.expected[0, :5] == pytest.approx(np.zeros(5), abs=0.3)
    assert found.total[0, :7].sum() == pytest.approx(70.0, abs=0.5)
    assert found.total[0, 7:].sum() == pytest.approx(140.0, abs=0.5)
    none = due_demand(replace(now, forecast=forecast(book, book)), 14)
    assert none.expected.sum() == pytest.approx(0.0, abs=1e-6)


def test_orders_that_came_in_since_the_monday_consume_the_forecast() -> None:
    now = inputs(MONDAY)
    book = float(now.orders.filter(pl.col("due_on") < MONDAY + timedelta(days=7))["owed"].sum())
    ahead = forecast([70.0], [book])
    expected = [
        due_demand(replace(inputs(MONDAY + timedelta(days=k)), forecast=ahead), 14).expected[0, : 7 - k].sum()
        for k in range(7)
    ]
    assert expected == sorted(expected, reverse=True) and expected[-1] == pytest.approx(0.0, abs=0.3)
