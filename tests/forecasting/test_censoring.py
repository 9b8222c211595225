"""Demand hidden by an empty shelf: bounds kept, nothing looks ahead, and the mean comes out right."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from npq_assets.forecasting.baseline import Tuning, seasons_of
from npq_assets.forecasting.censoring import draw, raised, redrawn
from npq_assets.forecasting.model import Settings, train
from npq_assets.forecasting.panel import Panel, build
from npq_assets.forecasting.rows import build as build_rows

_DAYS = 420


def _panel(seed: int = 0, freq: str = "D", cut: int = _DAYS) -> tuple[Panel, np.ndarray]:
    """Shelves that run out on the busiest days, and the demand that there really was."""
    rng = np.random.default_rng(seed)
    weekday = np.array([0.8, 0.8, 0.9, 1.0, 1.2, 1.5, 0.8])
    mean = np.linspace(4, 16, 12)[:, None] * weekday[np.arange(_DAYS) % 7]
    demand = rng.negative_binomial(8.0, 8.0 / (8.0 + mean))
    shelf = np.ceil(mean * 1.45)
    step = 1 if freq == "D" else 7
    rows = [
        (f"s{i}", date(2024, 1, 1) + timedelta(days=step * t), float(min(demand[i, t], shelf[i, t])),
         bool(demand[i, t] <= shelf[i, t]))
        for i in range(12) for t in range(cut)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["unique_id", "ds", "y", "in_stock"], orient="row")
    return build(frame.drop("in_stock"), freq, available=frame.drop("y")), demand


def test_the_mean_of_demand_is_found_where_leaving_periods_out_expects_too_little() -> None:
    panel, demand = _panel()
    order = [int(name[1:]) for name in panel.ids]
    truth = demand[order][:, 60:].mean()
    before = panel.y[:, 60:][panel.observed[:, 60:]].mean() / truth
    after = raised(panel).y[:, 60:].mean() / truth
    assert before < 0.92
    assert abs(after - 1.0) < 0.02


def test_no_draw_is_below_what_was_sold_and_seen_demand_stays() -> None:
    panel, _ = _panel(1)
    assert panel.bound is not None
    found = raised(panel)
    hidden = panel.bound > 0
    assert hidden.any() and (hidden == ~panel.observed).all()
    assert (found.y[hidden] >= panel.bound[hidden]).all()
    assert (found.y[~hidden] == panel.y[~hidden]).all()
    assert (found.y == np.round(found.y)).all() and found.observed.all()
    again = raised(found)
    assert (again.y == found.y).all()


def test_a_draw_looks_back_only() -> None:
    panel, _ = _panel(2)
    short, _ = _panel(2, cut=300)
    assert (raised(panel).y[:, :300] == raised(short).y).all()
    assert (raised(panel.until(200)).y == raised(panel).until(200).y).all()


def test_a_shelf_that_is_always_empty_does_not_carry_demand_away() -> None:
    rng = np.random.default_rng(9)
    days = [date(2024, 1, 1) + timedelta(days=t) for t in range(_DAYS)]
    for shelf in (1.0, 5.0):
        sold = np.minimum(rng.poisson(2.0 * shelf, _DAYS), shelf)
        history = pl.DataFrame({"unique_id": "a", "ds": days, "y": sold})
        stock = pl.DataFrame({"unique_id": "a", "ds": days, "in_stock": sold < shelf})
        found = raised(build(history, "D", available=stock)).y
        assert 1.0 <= found.mean() / sold.mean() < 2.5
        assert found.max() < 12 * shelf


def test_what_other_series_do_later_changes_no_draw() -> None:
    # A steady series that runs out for the first time, and sells by weight, only after day 200.
    days = [date(2024, 1, 1) + timedelta(days=t) for t in range(_DAYS)]
    later = pl.DataFrame({"unique_id": "z", "ds": days, "y": [7.0] * 300 + [2.5] * (_DAYS - 300)})
    gone = pl.DataFrame({"unique_id": "z", "ds": days[301:], "in_stock": [False] * (_DAYS - 301)})
    panel, _ = _panel(4)
    long = pl.DataFrame(
        {
            "unique_id": np.repeat(panel.ids, _DAYS).astype(str),
            "ds": days * len(panel.ids),
            "y": np.where(panel.observed, panel.y, panel.bound).reshape(-1),
        }
    )
    stock = long.select("unique_id", "ds", pl.Series("in_stock", panel.observed.reshape(-1)))
    both = build(pl.concat([long, later]), "D", available=pl.concat([stock, gone]))
    early = both.until(200)
    assert (raised(both).y[:, :200] == raised(early).y).all()


def _promoted(seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """History, availability, what is ahead and the demand there really was, where promotions empty the shelf."""
    rng = np.random.default_rng(seed)
    series, length, ahead = 20, 300, 7
    mean = rng.uniform(6, 14, series)[:, None] * np.ones(length + ahead)
    promo = rng.random((series, length + ahead)) < 0.1
    promo[:, length:] = True
    mean = np.where(promo, 2.2 * mean, mean)
    demand = rng.negative_binomial(10.0, 10.0 / (10.0 + mean))
    shelf = np.ceil(1.15 * mean)  # the planner knows of promotions, not of luck
    days = [date(2024, 1, 1) + timedelta(days=t) for t in range(length + ahead)]
    frame = pl.DataFrame(
        {
            "unique_id": np.repeat([f"s{i:02d}" for i in range(series)], length + ahead),
            "ds": days * series,
            "y": np.minimum(demand, shelf).astype(float).reshape(-1),
            "promo": promo.astype(float).reshape(-1),
            "in_stock": (demand <= shelf).reshape(-1),
            "demand": demand.astype(float).reshape(-1),
        }
    )
    past = pl.col("ds") < days[length]
    return (
        frame.filter(past).drop("in_stock", "demand"),
        frame.filter(past).select("unique_id", "ds", "in_stock"),
        frame.filter(~past).select("unique_id", "ds", "promo"),
        frame.filter(past).select("unique_id", "ds", pl.col("demand").alias("y"), "promo"),
    )


def test_targets_are_drawn_again_by_what_the_model_expects() -> None:
    history, available, _, _ = _promoted(5)
    panel = raised(build(history, "D", available=available))
    rng = np.random.default_rng(0)
    rows = build_rows(panel, seasons_of(panel, None), Tuning(), np.arange(100, 280, 20), 7, 300, 50_000, rng)
    assert rows is not None
    hidden = rows.floor > 0
    assert 0.05 < hidden.mean() < 0.5
    mean = 3.0 * rows.base
    found = redrawn(rows, panel, mean, 1.5 * mean, np.ones(len(mean), bool))
    assert (found.y[~hidden] == rows.y[~hidden]).all() and np.array_equal(found.x, rows.x, equal_nan=True)
    assert (found.y[hidden] >= rows.floor[hidden]).all()
    # A mean far above the bound is hardly moved by it.
    assert abs(found.y[hidden].sum() / mean[hidden].sum() - 1.0) < 0.03
    # The same period of the same series has the same luck from whatever origin.
    again = redrawn(rows.take(hidden), panel, mean[hidden], 1.5 * mean[hidden], np.ones(int(hidden.sum()), bool))
    assert (again.y == found.y[hidden]).all()


def test_promotions_that_empty_the_shelf_are_expected_as_if_demand_were_known() -> None:
    history, available, future, demand = _promoted(6)
    left_out = history.with_columns(pl.when(available["in_stock"]).then("y").otherwise(0.0).alias("y"))

    def expected(sales: pl.DataFrame, stock: pl.DataFrame | None) -> float:
        model = train(sales, 7, "D", available=stock, settings=Settings(max_rows=6_000), threads=1)
        return float(model.predict(sales, 7, future=future, available=stock, threads=1).expected().mean())

    known = expected(demand, None)
    assert expected(left_out, available) / known < 0.9
    assert abs(expected(history, available) / known - 1.0) < 0.06


def test_periods_without_sales_and_longer_periods_stay_unknown() -> None:
    weekly, _ = _panel(3, "W-MON")
    assert raised(weekly) is weekly
    days = [date(2024, 1, 1) + timedelta(days=t) for t in range(40)]
    history = pl.DataFrame({"unique_id": "a", "ds": days, "y": [5.0] * 39 + [0.0]})
    empty = build(history, "D", available=pl.DataFrame({"unique_id": ["a"], "ds": [days[-1]], "in_stock": [False]}))
    assert empty.bound is None
    assert not raised(empty).observed[0, -1]


@given(
    mean=st.floats(0.05, 200.0),
    ratio=st.floats(1.0, 6.0),
    bound=st.integers(1, 400),
    luck=st.floats(0.0, 0.999999),
    counts=st.booleans(),
)
def test_draws_of_any_size_are_finite_and_at_least_the_bound(
    mean: float, ratio: float, bound: int, luck: float, counts: bool
) -> None:
    found = draw(
        np.array([mean]), np.array([mean * ratio]), np.array([float(bound)]), np.array([luck]), np.array([counts])
    )
    assert np.isfinite(found).all() and found[0] >= bound


def test_draws_follow_the_negative_binomial_above_the_bound() -> None:
    luck = (np.arange(20_000) + 0.5) / 20_000
    ones = np.ones(len(luck))
    found = draw(10.0 * ones, 15.0 * ones, 12.0 * ones, luck, ones > 0)
    size, p = 10.0**2 / 5.0, 10.0 / 15.0
    values = np.arange(12, 200)
    weight = stats.nbinom.pmf(values, size, p)
    assert abs(found.mean() - (values * weight).sum() / weight.sum()) < 0.01
