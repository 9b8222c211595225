"""Alarms stay quiet where nothing changed and ring soon where something did; champions fall only to better models."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.forecasting.model import train
from npq_assets.forecasting.monitoring import coverage, cusum, decision_interval, drifted, population_stability, stuck
from npq_assets.forecasting.panel import build
from npq_assets.forecasting.promotion import judge, simple_method
from tests.forecasting.small import small_settings

MONDAY = date(2020, 1, 6)


def correlated(rng: np.random.Generator, n: int, rho: float = 0.3) -> np.ndarray:
    out = np.zeros(n)
    for t, step in enumerate(rng.normal(0, np.sqrt(1 - rho**2), n)):
        out[t] = rho * out[t - 1] + step
    return out


def test_quiet_where_nothing_changed():
    rings = {"psi": 0, "cusum": 0, "loss": 0, "coverage": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rings["psi"] += population_stability(rng.gamma(2, 1, 150), rng.gamma(2, 1, 150)).rings
        rings["cusum"] += cusum(correlated(rng, 60), 40).rings
        rings["loss"] += cusum(rng.gamma(4, 1, 60), 40, two_sided=False).rings
        luck = np.clip(rng.normal(0.8, 0.04, 30), 0, 1)  # periods share their luck
        rings["coverage"] += coverage(rng.binomial(200, luck), np.full(30, 200)).rings
    assert all(count <= 8 for count in rings.values()), rings  # at most 4 %


def test_a_level_shift_is_found_within_days():
    delays = []
    for seed in range(40):
        values = correlated(np.random.default_rng(seed), 80)
        values[50:] += 2.5
        found = cusum(values, 50)
        assert found.rings
        delays.append(found.at - 50)
    assert np.median(delays) <= 6
    assert np.quantile(delays, 0.9) <= 12


def test_a_loss_that_rises_rings_and_one_that_falls_does_not():
    good = np.random.default_rng(0).gamma(9, 1, 40)
    assert cusum(np.append(good, good[:20] * 2), 40, two_sided=False).rings
    assert not cusum(np.append(good, good[:20] * 0.5), 40, two_sided=False).rings


def test_the_decision_interval_is_siegmunds():
    # k = 0.5, h = 4: the in-control run length of a one-sided scheme is about 336 (Montgomery, Statistical Quality Control).
    assert decision_interval(0.5, 336) == pytest.approx(4.0, abs=0.05)


def test_another_price_unit_and_dead_sensors_are_found():
    rng = np.random.default_rng(1)
    price = rng.lognormal(1, 0.5, 200)
    assert population_stability(price, price[:150] / 100).rings
    sold = rng.poisson(3, 200).astype(float)
    assert population_stability(sold, np.zeros(200)).rings
    assert population_stability(np.zeros(200), sold).rings
    assert population_stability(sold, np.full(200, np.nan)).rings
    assert not population_stability(np.zeros(200), np.zeros(150)).rings
    total = rng.poisson(200, 120).astype(float)
    assert not stuck(total).rings
    assert stuck(np.append(total, [0.0] * 3)).rings
    assert stuck(np.append(total, [total[-1]] * 4)).rings
    assert not stuck(np.repeat(rng.poisson(200, 60).astype(float), 2)).rings  # weekly counts read twice as often


def test_narrow_and_absurd_intervals_ring():
    rng = np.random.default_rng(2)
    n = np.full(20, 150)
    assert coverage(rng.binomial(150, 0.6, 20), n).rings
    assert not coverage(rng.binomial(150, 0.92, 20), n).rings  # small counts cover more by nature
    assert coverage(n, n, above=0.1).rings
    assert not coverage(np.array([3.0]), np.array([10.0])).rings  # too few to judge


def weekly(values: np.ndarray) -> pl.DataFrame:
    n, length = values.shape
    days = [MONDAY + timedelta(days=7 * t) for t in range(length)]
    return pl.DataFrame(
        {
            "unique_id": np.repeat([f"s{k:02d}" for k in range(n)], length),
            "ds": days * n,
            "y": values.reshape(-1).astype(float),
        }
    )


def test_the_retraining_alarm_sees_a_shift_and_not_a_season():
    season = 1 + 0.4 * np.sin(2 * np.pi * np.arange(160) / 52)
    quiet = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        panel = build(weekly(rng.poisson(8 * season, (30, 160))), "W-MON")
        quiet += not drifted(panel, 150, ((52, 1),)).rings
        values = rng.poisson(8 * season, (30, 160))
        values[:, 150:] *= 2
        found = drifted(build(weekly(values), "W-MON"), 150, ((52, 1),))
        assert found.rings and 150 <= found.at <= 155
    assert quiet >= 11


def test_a_champion_falls_only_to_a_significantly_better_model():
    rng = np.random.default_rng(3)
    promoted = rng.random((40, 130)) < 0.25
    history = weekly(rng.poisson(np.where(promoted, 14.0, 5.0))).with_columns(
        pl.Series("promotion", promoted.reshape(-1).astype(float))
    )
    settings = small_settings(40, 8_000)
    good = train(
        history.filter(pl.col("ds") < MONDAY + timedelta(days=7 * 110)), 4, "W-MON", threads=1, settings=settings
    )
    blind = simple_method(good)
    panel = build(history, "W-MON")
    won = judge(blind, good, panel, 4, threads=1)
    assert won.promoted and won.challenger_loss < won.champion_loss and won.high < 0
    assert won.periods == 20 and won.series == 40
    lost = judge(good, blind, panel, 4, threads=1)
    assert not lost.promoted and "worse" in lost.reason
    assert lost.champion_loss == won.challenger_loss
    same = judge(good, good, panel, 4, threads=1)
    assert not same.promoted and same.low == same.high == 0
    early = judge(
        blind, good, build(history.filter(pl.col("ds") < MONDAY + timedelta(days=7 * 110)), "W-MON"), 4, threads=1
    )
    assert not early.promoted and "no period is later" in early.reason
