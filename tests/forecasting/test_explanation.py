"""Parts add up to the forecast exactly, mean what they say, and are told in a planner's words."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.forecasting.explanation import (
    ALL,
    CALENDAR,
    EVENTS,
    LEVEL,
    OTHER,
    PEERS,
    PRICE,
    PROMOTION,
    SEASON,
    SITE,
    STOCK,
    TREND,
    USUAL,
    contributions,
    explain,
    group_of,
    sentences,
)
from npq_assets.forecasting.model import train
from tests.forecasting.small import small_settings

DAY = date(2023, 1, 2)
PERIODS = 240


@pytest.fixture(scope="module")
def world():
    """30 daily series with a strong weekend and promotions that double demand."""
    rng = np.random.default_rng(2)
    week = np.array([0.8, 0.8, 0.9, 1.0, 1.2, 1.6, 0.7])
    promoted = rng.random((30, PERIODS + 7)) < 0.1
    promoted[:15, PERIODS] = True
    promoted[15:, PERIODS] = False
    mean = rng.uniform(4, 12, (30, 1)) * week[np.arange(PERIODS + 7) % 7] * np.where(promoted, 2.2, 1.0)
    y = rng.poisson(mean)
    ids = [f"s{k:02d}" for k in range(30)]
    days = [DAY + timedelta(days=t) for t in range(PERIODS + 7)]
    frame = pl.DataFrame(
        {"unique_id": np.repeat(ids, PERIODS + 7), "ds": days * 30, "y": y.reshape(-1).astype(float),
         "promoted": promoted.reshape(-1).astype(float)}
    )  # fmt: skip
    history = frame.filter(pl.col("ds") < days[PERIODS])
    future = frame.filter(pl.col("ds") >= days[PERIODS]).drop("y")
    static = pl.DataFrame({"unique_id": ids, "site_id": ["a", "b"] * 15, "family": ["x"] * 10 + ["y"] * 20})
    settings = small_settings(60, 15_000)
    model = train(history, 7, "D", static=static, future=future, threads=1, settings=settings)
    return model, history, future, static


@pytest.fixture(scope="module")
def told(world):
    model, history, future, static = world
    return explain(model, history, 7, ["s00", "s20"], future=future, static=static, threads=1)


def test_the_parts_add_up_to_the_forecast(world, told):
    model, history, future, static = world
    mean = model.predict(history, 7, future=future, static=static, threads=1).frame()
    total = told.group_by("unique_id", "ds").agg(pl.col("units").sum())
    both = total.join(mean, on=["unique_id", "ds"])
    assert both.height == 14
    np.testing.assert_allclose(both["units"].to_numpy(), both["mean"].to_numpy(), rtol=1e-9)


def test_on_the_log_scale_they_multiply_to_it(world, told):
    model, history, future, static = world
    mean = model.predict(history, 7, future=future, static=static, threads=1).frame()
    usual = told.filter(pl.col("group") == USUAL).select("unique_id", "ds", pl.col("units").alias("usual"))
    effect = told.filter(pl.col("group") != USUAL).group_by("unique_id", "ds").agg(pl.col("log_effect").sum())
    both = usual.join(effect, on=["unique_id", "ds"]).join(mean, on=["unique_id", "ds"])
    np.testing.assert_allclose(both["usual"] * np.exp(both["log_effect"]), both["mean"], rtol=1e-9)


def test_a_promotion_is_named_as_what_moved_the_day(told):
    first = told.filter((pl.col("unique_id") == "s00") & (pl.col("ds") == DAY + timedelta(days=PERIODS)))
    effects = first.filter(pl.col("group") != USUAL).sort("units", descending=True)
    assert effects["group"][0] == PROMOTION
    assert 40 < effects["percent"][0] < 200


def test_the_weekend_is_named_calendar(told):
    saturday = told.filter((pl.col("unique_id") == "s20") & (pl.col("ds").dt.weekday() == 6))
    assert saturday.filter(pl.col("group") == CALENDAR)["percent"][0] > 25


def test_trees_are_split_without_remainder(world):
    import lightgbm as lgb

    model = world[0]
    table = np.random.default_rng(0).normal(size=(40, len(model.names))).astype(np.float32)
    for text in model.boosters.values():
        raw = lgb.Booster(model_str=text).predict(table, raw_score=True)
        np.testing.assert_allclose(contributions(text, table, 1).sum(1), raw, atol=1e-9)


def test_sentences_carry_the_numbers(told):
    one = told.filter((pl.col("unique_id") == "s00") & (pl.col("ds") == DAY + timedelta(days=PERIODS)))
    words = sentences(one, most=2)
    assert words[0] == f"{one['units'].sum():.1f} expected where {one['units'][0]:.1f} a period are usual:"
    assert words[1].startswith(f"{PROMOTION} +") and words[1].endswith(" %)")
    assert words[-1].startswith("all else ")
    shown = sum(float(line.split(" (")[0].rsplit(" ", 1)[1]) for line in words[1:])
    assert shown == pytest.approx(one["units"].sum() - one["units"][0], abs=0.2)


def test_new_items_and_zeros_are_told_too(world):
    model, history, _, static = world
    zero = history.filter(pl.col("unique_id") == "s01").with_columns(
        pl.lit("z").alias("unique_id"), pl.lit(0.0).alias("y")
    )
    told = explain(model, pl.concat([history, zero]), 2, ["new", "z"], static=static, threads=1)
    assert sentences(told.filter((pl.col("unique_id") == "new") & (pl.col("ds") == told["ds"].min())))[0].endswith(
        "never sold"
    )
    assert sentences(told.filter((pl.col("unique_id") == "z") & (pl.col("ds") == told["ds"].min()))) == [
        f"0.0 expected, from {LEVEL}"
    ]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("log_level", LEVEL), ("mean_7", LEVEL), ("zeros_28", LEVEL), ("year_ago_1", SEASON), ("log_season", SEASON),
        ("week_ago_2", CALENDAR), ("weekday", CALENDAR), ("day_of_year", SEASON), ("stocked_14", STOCK), ("since_seen", STOCK),
        ("price", PRICE), ("price_relative", PRICE), ("price_change", PRICE), ("discount_next", PROMOTION),
        ("until_event", EVENTS), ("event_name_1_before", EVENTS), ("family_mean_28", PEERS), ("product_id_year_ago_1", PEERS),
        ("site_id_mean_7", SITE), ("all_mean_28", ALL), ("trend_28", TREND), ("snap_lead_1", EVENTS), ("hitherto_unknown", OTHER),
    ],
)  # fmt: skip
def test_features_have_a_planners_word(name, group):
    covariates = ["price", "discount", "until_event", "event_name_1", "snap"]
    assert group_of(name, covariates, ["family", "product_id", "site_id"]) == group
