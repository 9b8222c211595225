"""The production forecast: orders in hand used where they carry news, left out where they do not, nothing from later days."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.manufacturing.forecast import Backtest, completion, forecast_production

MONDAY = date(2024, 7, 1)
LINES = {f"p{k}": "a" if k < 4 else "b" for k in range(8)}


def orders(notice: tuple[int, int], seed: int = 0, weeks: int = 40) -> pl.DataFrame:
    """Two orders a product and week, very uneven; each comes in some days (from, to) before it is due."""
    rng = np.random.default_rng(seed)
    rows = []
    for w in range(-weeks, 8):
        for product in LINES:
            for day in (1, 4):
                due = MONDAY + timedelta(weeks=w, days=day)
                ordered = due - timedelta(days=int(rng.integers(*notice)))
                rows.append((f"{product}-{due}", product, float(np.ceil(rng.lognormal(3.5, 0.8))), ordered, due))
    return pl.DataFrame(rows, schema=["order_id", "product_id", "quantity", "ordered_on", "due_on"], orient="row")


def test_completion_is_the_share_known_so_many_weeks_ahead() -> None:
    frame = pl.DataFrame(
        {
            "product_id": ["p"] * 4,
            "quantity": [10.0, 30.0, 10.0, 50.0],
            "due_on": [date(2024, 6, 26)] * 4,
            # Its week opens on 2024-06-24: known a week before, at the opening, or not.
            "ordered_on": [date(2024, 6, 16), date(2024, 6, 20), date(2024, 6, 23), date(2024, 6, 24)],
        }
    )
    shares = completion(frame, MONDAY, 3).sort("step")["share"].to_list()
    assert shares == pytest.approx([0.5, 0.1, 0.0])


def test_orders_long_in_hand_earn_their_place_and_are_forecast_exactly() -> None:
    book = orders((20, 40))
    found = forecast_production(book, LINES, MONDAY)
    assert found.backtest is not None and found.backtest.earned
    assert found.backtest.difference.high < 0 and "they are used" in found.backtest.sentence
    first = found.weeks.filter(pl.col("step") == 1)
    due = book.filter((pl.col("due_on") >= MONDAY) & (pl.col("due_on") < MONDAY + timedelta(weeks=1)))
    truth = due.group_by("product_id").agg(pl.col("quantity").sum())
    both = first.join(truth, on="product_id")
    assert both["mean"].to_list() == pytest.approx(both["quantity"].to_list(), rel=0.02)
    sums = found.weeks.group_by("line", "week_start").agg(pl.col("mean").sum().alias("sum"))
    lines = found.lines.join(sums, on=["line", "week_start"])
    assert lines.height == found.lines.height
    assert lines["mean"].to_list() == pytest.approx(lines["sum"].to_list())
    assert (lines["q0.1"] <= lines["mean"]).all() and (lines["mean"] <= lines["q0.9"]).all()


def test_orders_that_come_in_on_the_day_do_not_earn_a_place() -> None:
    found = forecast_production(orders((0, 1)), LINES, MONDAY)
    assert found.backtest is not None and not found.backtest.earned
    assert "left out" in found.backtest.sentence


def test_nothing_of_later_days_moves_the_forecast() -> None:
    book = orders((3, 12))
    later = pl.DataFrame(
        {"order_id": ["x"], "product_id": ["p0"], "quantity": [1e6], "ordered_on": [MONDAY], "due_on": [MONDAY]}
    ).cast({"ordered_on": pl.Date})
    one = forecast_production(book, LINES, MONDAY)
    two = forecast_production(pl.concat([book, later]), LINES, MONDAY)
    assert one.weeks.equals(two.weeks) and one.lines.equals(two.lines)


def test_the_verdict_is_that_of_the_losses() -> None:
    rows = pl.DataFrame(
        {
            "origin": [MONDAY] * 6, "step": [1] * 6, "product_id": ["a", "a", "b", "b", "c", "c"],
            "actual": [10.0] * 6, "loss_with": [1.0, 1.1, 0.9, 1.0, 1.2, 0.8], "loss_without": [2.0] * 6,
        }
    )  # fmt: skip
    assert Backtest.of(rows).earned
    assert not Backtest.of(rows.with_columns(pl.lit(1.0).alias("loss_without"))).earned


def test_a_short_history_is_said_to_be_short() -> None:
    found = forecast_production(orders((3, 12), weeks=6), LINES, MONDAY)
    assert found.weeks.is_empty() and "weeks of orders" in found.skipped
    assert forecast_production(orders((3, 12)).clear(), LINES, MONDAY).weeks.is_empty()
