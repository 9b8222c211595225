"""Delays: calibrated probabilities, quantiles that cover and never cross, and nothing learned from a row's own outcome."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.forecasting.delay import (
    DelayModel,
    DelaySettings,
    follow_level,
    load,
    share_by_evidence,
    train,
)

SMALL = DelaySettings(threshold=15.0, trees=60, learning_rate=0.1, leaves=15, min_leaf=40, threads=1)


def trips(rows: int, seed: int = 0) -> pl.DataFrame:
    """Delays whose law is known: rain and rush hours make them longer and wider."""
    rng = np.random.default_rng(seed)
    rain, hour = rng.gamma(0.4, 2.0, rows), rng.integers(5, 20, rows).astype(float)
    depot = rng.integers(0, 6, rows)
    scale = 6 + 3 * rain + 8 * np.isin(hour, [7, 8, 16, 17])
    return pl.DataFrame(
        {
            "delay": rng.gamma(1.5, scale / 1.5) - 6 + 1.5 * depot,
            "rain": rain,
            "hour": hour,
            "depot": [f"d{k}" for k in depot],
        }
    )


@pytest.fixture(scope="module")
def model() -> DelayModel:
    return train(trips(8_000), "delay", ["rain", "hour"], ["depot"], SMALL)


def test_probabilities_are_calibrated_and_better_than_the_base_rate(model: DelayModel) -> None:
    later = trips(8_000, seed=9)
    late = (later["delay"] > 15.0).to_numpy()
    p = model.predict(later).late
    rank = np.argsort(np.argsort(p, kind="stable"), kind="stable") * 10 // len(p)
    off = [abs(p[rank == b].mean() - late[rank == b].mean()) for b in range(10)]
    assert np.mean(off) < 0.025
    assert ((p - late) ** 2).mean() < 0.9 * late.mean() * (1 - late.mean())


def test_quantiles_cover_their_share_and_never_cross(model: DelayModel) -> None:
    later = trips(8_000, seed=9)
    forecast = model.predict(later)
    assert (np.diff(forecast.quantiles, axis=1) >= 0).all()
    y = later["delay"].to_numpy()
    for k, level in enumerate(forecast.levels):
        assert (y <= forecast.quantiles[:, k]).mean() == pytest.approx(level, abs=0.04)
    wet = (later["rain"] > 3.0).to_numpy()  # also where delays are wide
    assert (y[wet] <= forecast.quantiles[wet, -1]).mean() == pytest.approx(0.9, abs=0.05)


def test_the_same_rows_give_the_same_bytes_and_come_back(model: DelayModel, tmp_path: Path) -> None:
    rows = trips(1_500)
    quick = replace(SMALL, trees=20)
    for name in ("a", "b"):
        train(rows, "delay", ["rain", "hour"], ["depot"], quick).save(tmp_path / name)
    assert (tmp_path / "a/delay.json").read_bytes() == (tmp_path / "b/delay.json").read_bytes()
    model.save(tmp_path / "c")
    again = load(tmp_path / "c")
    assert again is not None and load(tmp_path / "none") is None
    np.testing.assert_array_equal(again.predict(rows).late, model.predict(rows).late)
    np.testing.assert_array_equal(again.predict(rows).quantiles, model.predict(rows).quantiles)


def test_a_category_that_says_nothing_about_others_does_not_leak_the_outcome() -> None:
    # Each trip has its own name: encoded with its own delay it would explain everything, and predict nothing later.
    rng = np.random.default_rng(4)
    rows = pl.DataFrame(
        {"delay": rng.normal(0, 10, 3_000), "noise": rng.normal(size=3_000), "trip": [f"t{k}" for k in range(3_000)]}
    )
    settings = replace(SMALL, trees=30, smoothing=0.0)
    found = train(rows, "delay", ["noise"], ["trip"], settings)
    spread = found.predict(rows).quantiles
    assert np.std(spread[:, 2]) < 3.0
    assert np.mean(spread[:, -1] - spread[:, 0]) == pytest.approx(2 * 1.2816 * 10, rel=0.15)


def test_unseen_categories_and_missing_numbers_count_as_average(model: DelayModel) -> None:
    row = pl.DataFrame(
        {"rain": [None, 1.0], "hour": [10.0, 10.0], "depot": ["new", None]}, schema_overrides={"rain": pl.Float64}
    )
    forecast = model.predict(row)
    assert np.isfinite(forecast.late).all() and np.isfinite(forecast.quantiles).all()
    assert ((forecast.late > 0) & (forecast.late < 1)).all()


def test_where_nothing_was_ever_late_the_probability_is_small_and_there() -> None:
    rows = trips(400).with_columns(pl.col("delay").clip(upper_bound=10.0))
    late = train(rows, "delay", ["rain"], [], replace(SMALL, trees=10)).predict(rows).late
    assert late.shape == (400,) and (late == pytest.approx(0.5 / 401, rel=1e-3))
    assert train(rows, "delay", ["rain"], [], replace(SMALL, trees=10, threshold=None)).predict(rows).late.size == 0


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        train(trips(0), "delay", ["rain"])


def test_the_level_follows_the_evidence_of_earlier_days_only() -> None:
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(40), 200)
    # Days differ, and the season changes after the training ends.
    level = np.where(day < 20, rng.uniform(0.02, 0.25, 40)[day], 0.3)
    evidence = (rng.random(len(day)) < level).astype(float)[:, None]
    late = rng.random(len(day)) < 0.5 * level + 0.5 * evidence[:, 0]
    past = day < 20
    weights = share_by_evidence(late[past], evidence[past], day[past])
    told = np.full((~past).sum(), 0.1)
    out = follow_level(told, evidence[~past], weights, day[~past])
    assert out[:200] == pytest.approx(told[:200])
    assert abs(out[-2000:].mean() - late[-2000:].mean()) < 0.05 < abs(told[-2000:].mean() - late[-2000:].mean())
    # What is seen of a day changes nothing on that day or before.
    other = evidence[~past].copy()
    other[day[~past] >= 35] = 0.0
    again = follow_level(told, other, weights, day[~past])
    assert again[day[~past] <= 35].tolist() == out[day[~past] <= 35].tolist()
    assert again[-1] < out[-1]
