"""Delays: calibrated probabilities, quantiles that cover and never cross, and nothing learned from a row's own outcome."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.delay import features, known_ahead
from npq_assets.forecasting.delay import (
    DelayForecast,
    DelayModel,
    DelaySettings,
    follow_level,
    load,
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
    found = train(rows, "delay", ["noise"], ["trip"], replace(SMALL, trees=30, smoothing=0.0))
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


LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def normal(mean: np.ndarray, spread: float = 10.0, threshold: float = 15.0) -> DelayForecast:
    """Exact forecast of normal delays."""
    late = 1.0 - scipy.stats.norm.cdf(threshold, mean, spread)
    return DelayForecast(late, mean[:, None] + spread * scipy.stats.norm.ppf(LEVELS)[None, :], LEVELS)


def test_the_level_follows_what_was_seen_of_earlier_days() -> None:
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(50), 200)
    usual = rng.normal(0, 6, len(day))
    moved = usual + np.where(day < 15, 0.0, 6.0)  # the season changes on day 15 and no outcome says so
    y = moved + rng.normal(0, 10, len(day))
    told, hindsight = normal(usual), normal(moved)
    out = follow_level(told, hindsight, day, half_life=3.0)
    late = y > 15.0
    # Before: as told. Afterwards: calibrated, at every level.
    np.testing.assert_allclose(out.late[day < 15], told.late[day < 15], atol=0.01)
    after = day >= 35
    assert abs(told.late[after].mean() - late[after].mean()) > 0.08
    assert out.late[after].mean() == pytest.approx(late[after].mean(), abs=0.02)
    for k, level in enumerate(LEVELS):
        assert (y[after] <= out.quantiles[after, k]).mean() == pytest.approx(level, abs=0.04)
    assert (np.diff(out.quantiles, axis=1) >= 0).all()


@given(seed=st.integers(0, 10_000), cut=st.integers(1, 7))
@settings(max_examples=12, deadline=None)
def test_a_day_is_told_by_earlier_days_only_whatever_the_order_of_rows(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    day = rng.integers(0, 8, 60).astype(np.int64)
    told, seen = normal(rng.normal(0, 8, 60)), rng.normal(0, 20, 60)
    first = follow_level(told, normal(seen), day)
    other = follow_level(told, normal(np.where(day >= cut, seen + rng.normal(0, 30), seen)), day)
    earlier = day <= cut
    np.testing.assert_array_equal(first.late[earlier], other.late[earlier])
    np.testing.assert_array_equal(first.quantiles[earlier], other.quantiles[earlier])
    turned = rng.permutation(60)
    again = follow_level(
        DelayForecast(told.late[turned], told.quantiles[turned], LEVELS), normal(seen[turned]), day[turned]
    )
    np.testing.assert_allclose(again.late, first.late[turned], atol=1e-9)
    np.testing.assert_allclose(again.quantiles, first.quantiles[turned], atol=1e-7)
    assert ((first.late > 0) & (first.late < 1)).all() and (np.diff(first.quantiles, axis=1) >= 0).all()
    # Within a day the order of rows by probability stays.
    for d in np.unique(day):
        mine = day == d
        assert (np.argsort(first.late[mine], kind="stable") == np.argsort(told.late[mine], kind="stable")).all()


def test_hindsight_that_agrees_changes_nothing_and_other_rows_are_refused() -> None:
    told = normal(np.random.default_rng(1).normal(0, 8, 200))
    day = np.arange(200) // 20
    out = follow_level(told, told, day)
    np.testing.assert_allclose(out.late, told.late, atol=1e-9)
    assert np.abs(out.quantiles - told.quantiles).max() < 0.05  # the mixture of a finite grid
    with pytest.raises(ValueError, match="same rows"):
        follow_level(told, normal(np.zeros(3)), day)
    empty = DelayForecast(np.zeros(0), np.zeros((0, 5)), LEVELS)
    assert follow_level(empty, empty, np.zeros(0, np.int64)) is empty
    without = DelayForecast(np.zeros(0), told.quantiles, LEVELS)
    assert follow_level(without, without, day).late.size == 0


# The benchmark's features ----------------------------------------------------------------------------------------------------


def flights(seed: int = 0, days: int = 3) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Departures of two airports, their states and weather, in the columns of the benchmark's data."""
    rng = np.random.default_rng(seed)
    n = 80 * days
    day, minute = np.repeat(np.arange(1, days + 1), 80), rng.integers(6 * 60, 21 * 60, n)
    origin = rng.choice(["AAA", "BBB"], n)
    sched = [datetime(2013, 3, d, tzinfo=UTC) + timedelta(minutes=int(m)) for d, m in zip(day, minute, strict=True)]
    trips = pl.DataFrame(
        {
            "row_id": np.arange(n), "year": 2013, "month": 3, "day": day, "carrier": rng.choice(["X", "Y"], n),
            "flight": np.arange(n) % 97, "tailnum": [f"t{k % 30}" for k in range(n)], "origin": origin,
            "dest": rng.choice(["C", "D"], n), "sched_dep_time": minute // 60 * 100 + minute % 60,
            "sched_arr_time": (minute + 95) // 60 * 100 + (minute + 95) % 60, "distance": 500,
            "sched": sched, "th": [s.replace(minute=0) for s in sched], "arr_delay": rng.normal(5, 20, n),
        },
        schema_overrides={"sched": pl.Datetime("us", "UTC"), "th": pl.Datetime("us", "UTC")},
    )  # fmt: skip
    # The state is one of the airport and the minute: trips of one minute share it.
    value = {key: float(rng.normal(5, 10)) for key in sorted(set(zip(origin.tolist(), sched, strict=True)))}
    st60 = [value[key] for key in zip(origin.tolist(), sched, strict=True)]
    state = pl.DataFrame({"row_id": np.arange(n), "st60": st60, "st180": st60, "nd60": np.full(n, 9)})
    hours = [datetime(2013, 3, 1, tzinfo=UTC) + timedelta(hours=h) for h in range(24 * days)]
    names = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    weather = pl.DataFrame(
        [{"origin": o, "time_hour": h.strftime("%Y-%m-%dT%H:%M:%SZ")} | dict.fromkeys(names, float(rng.uniform(0, 20)))
         for o in ("AAA", "BBB") for h in hours]
    )  # fmt: skip
    return trips, state, weather


def test_features_tell_nothing_that_was_not_known_an_hour_before() -> None:
    trips, state, weather = flights()
    frame = features(trips, state, weather)
    ahead = known_ahead(frame)
    assert not {"row_id", "arr_delay", "dep_delay"} & set(ahead) and not [c for c in ahead if c.startswith("seen_")]
    now = datetime(2013, 3, 2, 14, 0, tzinfo=UTC)  # what is told of departures up to here was known at 13:00
    later = trips.filter(pl.col("sched") > now)["row_id"].implode()
    other = features(
        trips.with_columns(pl.col("arr_delay") + 100),
        state.with_columns(pl.when(pl.col("row_id").is_in(later)).then(99.0).otherwise(pl.col("st60")).alias("st60")),
        weather.with_columns(
            pl.when(pl.col("time_hour") > "2013-03-02T12").then(99.0).otherwise(pl.col("temp")).alias("temp")
        ),
    )
    here = pl.col("sched") <= now
    assert frame.filter(here).select(ahead).equals(other.filter(here).select(ahead))
    assert not frame.filter(~here).select(ahead).equals(other.filter(~here).select(ahead))
    # Hindsight of a day sees that day's states and no later day's.
    seen = [c for c in frame.columns if c.startswith("seen_")]
    assert frame.filter(pl.col("day") == 1).select(seen).equals(other.filter(pl.col("day") == 1).select(seen))


def test_features_do_not_depend_on_the_order_or_number_of_rows_in_the_file() -> None:
    # Rows of the file follow the actual departures: their order would tell the outcome.
    trips, state, weather = flights(1)
    turned = np.random.default_rng(2).permutation(trips.height)
    new = {"row_id": np.argsort(turned)}
    mixed = features(trips[turned].with_columns(row_id=pl.Series(np.arange(trips.height))),
                     state.with_columns(row_id=pl.Series(new["row_id"])), weather)  # fmt: skip
    frame = features(trips, state, weather)
    keys = ["sched", "carrier", "flight", "origin"]
    columns = [*keys, *known_ahead(frame)]
    assert frame.select(columns).sort(columns).equals(mixed.select(columns).sort(columns))
