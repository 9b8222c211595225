"""Overrides point in time and as distributions; when a model is trained anew; inputs under watch."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.contracts import LANDING
from npq_assets.evaluation.ledger import override_credit
from npq_assets.forecasting.distribution import QUANTILES
from npq_assets.forecasting.overrides import moved_quantiles, moved_scenarios
from npq_assets.retail.demand import RETRAIN_AT_LEAST, model_day
from npq_assets.retail.inputs import RetailInputs
from npq_assets.retail.watching import input_alarms
from npq_assets.storage import write_parquet
from tests.retail.test_inputs import PAIR, TERMS, demand, home_with

D = date
LEVELS = np.array(QUANTILES)


@given(
    st.lists(st.floats(0, 500), min_size=7, max_size=7).map(sorted), st.floats(0, 300), st.floats(0, 1000)
)  # fmt: skip
def test_moved_quantiles_never_cross_and_never_go_below_zero(values: list[float], mean: float, wanted: float) -> None:
    moved = moved_quantiles(np.array([values]), np.array([mean]), np.array([wanted]), LEVELS)[0]
    assert (np.diff(moved) >= -1e-9).all() and (moved >= 0).all()


@given(st.integers(0, 2**31), st.floats(0, 50), st.floats(0, 400))
def test_moved_scenarios_have_the_planners_mean_and_the_engines_order(seed: int, level: float, wanted: float) -> None:
    values = np.random.default_rng(seed).poisson(level, 100).astype(float)
    moved = moved_scenarios(values, wanted)
    assert moved.mean() == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert (moved >= 0).all()
    if values.mean() > 0:
        assert (np.diff(moved[np.argsort(values, kind="stable")]) >= -1e-9).all()


def test_the_spread_follows_the_mean() -> None:
    few, many = (
        np.random.default_rng(0).poisson(0.5, 4000).astype(float),
        np.random.default_rng(0).normal(400, 80, 4000),
    )
    up = moved_scenarios(few, 8.0)
    assert 0.5 < up.var() / (8.0 * (few.var() / few.mean()) * 8.5 / 1.5) < 1.5
    assert moved_scenarios(many, 800.0).std() == pytest.approx(160, rel=0.02)


def test_only_overrides_made_before_the_day_are_known(tmp_path: Path) -> None:
    from npq_assets.retail.inputs import read_inputs

    day = D(2024, 4, 8)
    home = home_with(tmp_path, supply_terms=[TERMS], demand=demand(D(2024, 4, 1), [1, 2, 3, 4, 5, 6, 7]))
    rows = [
        {**PAIR, "period_start": D(2024, 4, 9), "made_on": D(2024, 4, 5), "quantity": 4.0},
        {**PAIR, "period_start": D(2024, 4, 9), "made_on": D(2024, 4, 7), "quantity": 6.0},
        {**PAIR, "period_start": D(2024, 4, 9), "made_on": D(2024, 4, 8), "quantity": 99.0},
        {**PAIR, "period_start": D(2024, 4, 7), "made_on": D(2024, 4, 6), "quantity": 98.0},
        {
            "site_id": "s",
            "product_id": "unknown",
            "period_start": D(2024, 4, 9),
            "made_on": D(2024, 4, 6),
            "quantity": 1.0,
        },
    ]
    schema = LANDING["retail.forecast_overrides"].schema
    write_parquet(pl.DataFrame(rows, schema=schema), home.mart("retail", "forecast_overrides"))
    found = read_inputs(home, day)
    assert found.overrides.select("unique_id", "period_start", "quantity").rows() == [("s|p", D(2024, 4, 9), 6.0)]
    assert any("1 forecast overrides are of pairs that are not ordered" in note for note in found.skipped)
    before = read_inputs(home, D(2024, 4, 7)).overrides["quantity"].to_list()
    assert before == [98.0, 4.0]
    assert found.snapshot != replace(found, overrides=found.overrides.head(0)).snapshot


def test_credit_is_the_difference_of_realized_costs() -> None:
    day = D(2024, 4, 15)
    orders = pl.DataFrame(
        {"decision_id": ["a"], "site_id": ["s"], "product_id": ["p"], "arrives_on": [day], "quantity": [10.0],
         "engine_quantity": [4.0], "holding_cost": [0.5], "shortage_cost": [2.0], "pack_size": [1.0], "min_order": [0.0]}
    )  # fmt: skip
    actual = pl.DataFrame(
        {"site_id": ["s"], "product_id": ["p"], "arrives_on": [day], "available": [12.0], "received": [10.0],
         "demand": [9.0], "known": [True]}
    )  # fmt: skip
    row = override_credit(orders, actual).row(0, named=True)
    assert row["override_realized_cost"] == 0.5 * 3  # 2 on the shelf and 10 ordered met 9
    assert row["engine_realized_cost"] == 2.0 * 3  # 2 and 4 would have met 9
    assert row["credit"] == 4.5


def company(weeks: int, jump_at: int | None = None) -> RetailInputs:
    from npq_assets.settings import Settings

    rng = np.random.default_rng(1)
    season = 1 + 0.2 * np.sin(2 * np.pi * np.arange(weeks) / 52)
    level = np.where(np.arange(weeks) >= (weeks if jump_at is None else jump_at), 2.2, 1.0)
    first = D(2020, 1, 6)
    frames = [
        pl.DataFrame(
            {"unique_id": [f"s|p{k}"] * weeks, "site_id": ["s"] * weeks, "product_id": [f"p{k}"] * weeks, "family": ["f"] * weeks,
             "period_start": [first + timedelta(days=7 * t) for t in range(weeks)],
             "quantity": rng.poisson(8 * season * level).astype(float), "in_stock": [True] * weeks}
        )
        for k in range(20)
    ]  # fmt: skip
    history = pl.concat(frames).sort("unique_id", "period_start")
    empty = pl.DataFrame()
    return RetailInputs(
        first + timedelta(days=7 * weeks), "week", Settings(), history, empty, empty, empty, empty, empty, empty
    )


def at(inputs: RetailInputs, weeks: int) -> RetailInputs:
    day = D(2020, 1, 6) + timedelta(days=7 * weeks)
    return replace(inputs, as_of=day, history=inputs.at(day))


def test_models_are_trained_on_the_coarse_calendar_while_nothing_happens() -> None:
    inputs = company(180)
    days = {model_day(at(inputs, weeks)) for weeks in range(160, 180)}
    assert len(days) <= 20 // RETRAIN_AT_LEAST["week"] + 2
    assert all(model_day(at(inputs, weeks)) <= at(inputs, weeks).as_of for weeks in range(160, 180))


def test_a_shift_of_demand_brings_a_new_model_early() -> None:
    weeks = next(w for w in range(150, 160) if model_day(at(company(180), w)) == at(company(180), w).as_of)
    shifted = company(180, jump_at=weeks)
    assert weeks < 160
    assert model_day(at(company(180), weeks + 3)) == at(company(180), weeks).as_of
    assert model_day(at(shifted, weeks + 3)) > at(shifted, weeks).as_of


def test_what_happens_later_changes_no_earlier_choice_of_model() -> None:
    inputs = company(170)
    later = pl.col("period_start") >= D(2020, 1, 6) + timedelta(days=7 * 163)
    changed = pl.when(later).then(999.0).otherwise(pl.col("quantity")).alias("quantity")
    other = replace(inputs, history=inputs.history.with_columns(changed))
    assert model_day(at(inputs, 163)) == model_day(at(other, 163))


def test_a_young_company_trains_more_often() -> None:
    inputs = company(40)
    days = {model_day(at(inputs, weeks)) for weeks in range(20, 32)}
    assert len(days) >= 5


def sold(rng: np.random.Generator, days: int, factor: float = 1.0, price: float = 1.0) -> pl.DataFrame:
    frames = [
        pl.DataFrame(
            {"site_id": ["s"] * days, "product_id": [f"p{k}"] * days,
             "period_start": [D(2023, 1, 2) + timedelta(days=t) for t in range(days)],
             "quantity": rng.poisson(5.0 * np.where(np.arange(days) >= days - 28, factor, 1.0)).astype(float),
             "in_stock": [True] * days, "price": 2.0 * np.where(np.arange(days) >= days - 28, price, 1.0),
             "promotion": [False] * days}
        )
        for k in range(40)
    ]  # fmt: skip
    return pl.concat(frames)


def test_inputs_ring_when_they_should() -> None:
    day = D(2023, 1, 2) + timedelta(days=200)
    quiet = input_alarms(sold(np.random.default_rng(0), 200), day, "day")
    assert not [alarm.detail for alarm in quiet if alarm.rings]
    cents = input_alarms(sold(np.random.default_rng(0), 200, price=100.0), day, "day")
    assert {alarm.name for alarm in cents if alarm.rings} == {"price"}
    zero = input_alarms(sold(np.random.default_rng(0), 200, factor=0.0), day, "day")
    assert {"demand of a series", "share of periods without a sale", "total sales"} <= {a.name for a in zero if a.rings}
