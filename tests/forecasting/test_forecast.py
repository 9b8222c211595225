"""The forecasting engine: what it must never do, and what it must get right on demand whose law is known."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from npq_assets.errors import NpqError
from npq_assets.forecasting import cumulative, forecast, load, sample_paths, train
from npq_assets.forecasting.calendar import Calendar
from npq_assets.forecasting.distribution import HAIR, Dependence, ForecastDistribution, negative_binomial_quantile

MONDAY = date(2021, 1, 4)
LEVELS = ["q0.05", "q0.1", "q0.25", "q0.5", "q0.75", "q0.9", "q0.95"]


def weekly(values: np.ndarray, first: date = MONDAY, step: int = 7) -> pl.DataFrame:
    """History of the rows of `values` (series x periods)."""
    n, length = values.shape
    return pl.DataFrame(
        {
            "unique_id": np.repeat([f"s{i:03d}" for i in range(n)], length),
            "ds": [first + timedelta(days=step * t) for t in range(length)] * n,
            "y": values.reshape(-1).astype(float),
        }
    )


def counts(n: int = 60, length: int = 130, size: float = 3.0, seed: int = 0) -> np.ndarray:
    """Negative binomial demand with a season, levels between 0.5 and 20."""
    rng = np.random.default_rng(seed)
    mean = np.geomspace(0.5, 20, n)[:, None] * (1 + 0.4 * np.sin(2 * np.pi * np.arange(length) / 52))[None, :]
    return rng.negative_binomial(size, size / (size + mean)).astype(float)


@pytest.fixture(scope="module")
def history() -> pl.DataFrame:
    return weekly(counts())


@pytest.fixture(scope="module")
def model(history):
    return train(history, 4, "W-MON")


def assert_sane(frame: pl.DataFrame) -> None:
    values = frame.select("mean", *LEVELS).to_numpy()
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (np.diff(values[:, 1:], axis=1) >= 0).all()


def test_the_frame_has_every_series_and_period_sorted_without_crossing(history):
    frame = forecast(history, 4, "W-MON")
    assert frame.columns == ["unique_id", "ds", "cutoff", "method", "mean", *LEVELS]
    assert frame.height == 60 * 4
    assert frame["ds"].min() == MONDAY + timedelta(days=7 * 130)
    assert frame.equals(frame.sort("unique_id", "ds"))
    assert set(frame["method"]) <= {"lightgbm", "seasonal_mean"}
    assert_sane(frame)
    values = frame.select(LEVELS).to_numpy()
    assert np.abs(values - values.round()).max() <= HAIR + 1e-9


def test_pandas_in_gives_pandas_out(history):
    few = history.filter(pl.col("unique_id") < "s003")
    frame = forecast(few.to_pandas(), 2, "W-MON")
    assert isinstance(frame, pd.DataFrame)
    assert frame["ds"].dtype == "datetime64[ns]"
    np.testing.assert_allclose(frame["mean"], forecast(few, 2, "W-MON")["mean"])


def test_a_saved_model_predicts_the_same_bytes(model, history, tmp_path: Path):
    again = load(model.save(tmp_path / "model"))
    assert again.version == model.version
    first, second = model.predict(history, 4), again.predict(history, 4)
    assert first.frame().equals(second.frame())
    assert first.paths(50, 1).tobytes() == second.paths(50, 1).tobytes()


def test_training_twice_gives_one_version(history, model):
    assert train(history, 4, "W-MON").version == model.version


def test_an_unreadable_model_is_named(tmp_path: Path):
    with pytest.raises(NpqError, match="no readable forecasting model"):
        load(tmp_path)


def test_the_order_of_rows_does_not_matter(history, model):
    shuffled = history.sample(fraction=1.0, shuffle=True, seed=3)
    assert model.predict(shuffled, 4).frame().equals(model.predict(history, 4).frame())


def test_periods_out_of_stock_are_never_learned_as_zero():
    rng = np.random.default_rng(5)
    wanted = rng.poisson(6.0, (40, 120)).astype(float)
    out = rng.random((40, 120)) < 0.35
    history = weekly(np.where(out, 0.0, wanted))
    available = history.select("unique_id", "ds", pl.Series("in_stock", ~out.reshape(-1)))
    told = forecast(history, 2, "W-MON", available=available)["mean"].mean()
    untold = forecast(history, 2, "W-MON")["mean"].mean()
    assert 5.5 < told < 6.5
    assert untold < 4.8


def test_what_was_written_while_out_of_stock_changes_nothing():
    values = counts(30, 110)
    out = np.random.default_rng(6).random(values.shape) < 0.2
    available = weekly(values).select("unique_id", "ds", pl.Series("in_stock", ~out.reshape(-1)))
    zero, many, unknown = (weekly(np.where(out, v, values)) for v in (0.0, 77.0, np.nan))
    frames = [forecast(h, 2, "W-MON", available=available) for h in (zero, many, unknown)]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


def test_later_rows_change_no_earlier_training_row():
    from npq_assets.forecasting import baseline, features
    from npq_assets.forecasting.panel import build

    values = counts(20, 120)
    other = values.copy()
    other[:, 100:] = 99.0
    tables = []
    for v in (values, other):
        panel = build(weekly(v), "W-MON").until(100)
        base = baseline.fit(panel, ((52, 1),), baseline.Tuning())
        tables.append(features.build(panel, base, np.arange(1, 5), np.arange(20))[0])
    np.testing.assert_array_equal(tables[0], tables[1])


def test_a_model_trained_earlier_follows_fresh_history(history, model):
    first = model.predict(history.filter(pl.col("ds") < pl.col("ds").max()), 4)
    later = model.predict(history, 4)
    assert later.cutoff == first.cutoff + timedelta(days=7)
    assert len(later.dates) == 4


def test_intervals_cover_what_they_promise():
    values = counts(150, 150, seed=9)
    frame = forecast(weekly(values[:, :142]), 8, "W-MON")
    actual = values[:, 142:].reshape(-1)
    q = frame.select("q0.05", "q0.1", "q0.9", "q0.95").to_numpy()
    inside = ((actual >= q[:, 1]) & (actual <= q[:, 2])).mean()
    # Counts are lumpy: closed intervals cover more than asked, never much less.
    assert 0.76 <= inside <= 0.95
    assert 0.87 <= ((actual >= q[:, 0]) & (actual <= q[:, 3])).mean() <= 0.985
    assert abs(frame["mean"].sum() / actual.sum() - 1) < 0.12


def test_negative_binomial_quantiles_are_the_textbook_ones():
    mean = np.array([0.3, 2.0, 9.0, 40.0])[:, None, None]
    variance = mean * np.array([1.4, 1.5, 3.0, 4.0])[:, None, None]
    u = np.linspace(0.01, 0.99, 25)[None, :, None] * np.ones((4, 1, 1))
    size, p = mean**2 / (variance - mean), mean / variance
    np.testing.assert_array_equal(negative_binomial_quantile(u, mean, variance), stats.nbinom.ppf(u, size, p))


def test_large_counts_are_inverted_closely():
    mean, variance = np.full((1, 1, 1), 5_000.0), np.full((1, 1, 1), 200_000.0)
    u = np.linspace(0.01, 0.99, 50)[None, :, None]
    exact = stats.nbinom.ppf(u, mean**2 / (variance - mean), mean / variance)
    assert np.abs(negative_binomial_quantile(u, mean, variance) / exact - 1).max() < 1e-3


def test_paths_are_counts_with_the_frames_quantiles_and_mass_at_zero(model, history):
    predicted = model.predict(history, 4)
    paths = predicted.paths(400, seed=2)
    assert paths.shape == (60, 400, 4)
    assert (paths % 1 == 0).all() and (paths >= 0).all()
    assert (paths[0] == 0).mean() > 0.3
    medians = predicted.frame()["q0.5"].to_numpy().reshape(60, 4)
    assert np.abs(np.median(paths, 1) - medians).max() <= 1


def test_paths_are_linked_over_time_and_across_series():
    n, horizon = 40, 6
    ones = np.ones((n, horizon))
    predicted = ForecastDistribution(
        np.array([f"s{i:02d}" for i in range(n)]),
        pl.Series("ds", [MONDAY] * horizon),
        MONDAY,
        100 * ones,
        10 * ones,
        np.zeros(n, bool),
        np.zeros(n, bool),
        np.array([0.001, 0.5, 0.999]),
        np.array([[-3.0, 0.0, 3.0]]),
        np.zeros((n, horizon), int),
        np.full(n, "x", object),
        dependence=Dependence(0.4, 0.3, 0.5),
    )
    paths = predicted.paths(500)
    assert np.corrcoef(paths[0, :, 0], paths[0, :, 5])[0, 1] > 0.25
    assert np.corrcoef(paths[0, :, 2], paths[7, :, 2])[0, 1] > 0.3


def test_cumulative_demand_is_wider_than_its_first_period_and_adds_up(history):
    frame = cumulative(history, 3, "W-MON")
    one = forecast(history, 3, "W-MON")
    np.testing.assert_allclose(
        frame.group_by("unique_id", maintain_order=True).last()["mean"].to_numpy(),
        one.group_by("unique_id", maintain_order=True).agg(pl.col("mean").sum())["mean"].to_numpy(),
    )
    assert_sane(frame)


def test_sample_paths_come_in_long_form(history):
    frame = sample_paths(history.filter(pl.col("unique_id") < "s002"), 3, "W-MON", n_samples=7)
    assert frame.columns == ["unique_id", "sample", "ds", "value"]
    assert frame.height == 2 * 7 * 3


@pytest.mark.parametrize("values", [[5.0, 0.0, 7.0], [3.0], [0.0] * 30, [4.0] * 30, [1.0, 2.0] * 5])
def test_little_or_dull_history_gets_a_simple_sane_answer(values):
    frame = forecast(weekly(np.array([values])), 3, "W-MON")
    assert frame.height == 3
    assert_sane(frame)
    assert (frame["method"] != "lightgbm").all()
    assert min(values) - 1e-6 <= frame["mean"].min() and frame["mean"].max() <= max(values) + 1e-6


def test_zeros_and_constants_say_so():
    frame = forecast(weekly(np.array([[0.0] * 40, [4.0] * 40])), 2, "W-MON")
    assert frame["method"].to_list() == ["zero"] * 2 + ["constant"] * 2
    assert frame["q0.95"].head(2).sum() == 0
    assert (frame["q0.5"].tail(2) == 4).all()


@pytest.mark.parametrize("last", [119, 10])
def test_a_single_sale_among_zeros_is_no_training_set(last):
    values = np.zeros((6, 120))
    values[2, last] = 1.0
    frame = forecast(weekly(values, step=1), 3, "D")
    assert_sane(frame)
    assert (frame["method"] != "lightgbm").all()
    assert frame["mean"].max() < 1.0


def test_gaps_are_unknown_not_zero(history):
    rng = np.random.default_rng(1)
    holes = history.filter(pl.Series(rng.random(history.height) > 0.3) | (pl.col("ds") == pl.col("ds").max()))
    frame = forecast(holes, 4, "W-MON")
    assert_sane(frame)
    assert 0.8 < frame["mean"].sum() / forecast(history, 4, "W-MON")["mean"].sum() < 1.2


def test_a_new_item_gets_its_peers_demand(history, model):
    ids = history["unique_id"].unique().sort().to_list()
    static = pl.DataFrame({"unique_id": [*ids, "new"], "family": ["low"] * 30 + ["high"] * 30 + ["low"]})
    frame = model.predict(history, 4, static=static, ids=["new"]).frame()
    new, low = (frame.filter(f)["mean"].mean() for f in (pl.col("unique_id") == "new", pl.col("unique_id") < "s030"))
    assert (frame.filter(unique_id="new")["method"] == "new_item").all()
    assert 0.3 * low < new < 3 * low
    assert_sane(frame)


def test_known_promotions_move_the_forecast():
    rng = np.random.default_rng(4)
    promoted = rng.random((50, 120)) < 0.15
    values = rng.poisson(np.where(promoted, 15.0, 5.0)).astype(float)
    history = weekly(values).with_columns(promotion=pl.Series(promoted.reshape(-1).astype(float)))
    ids = history["unique_id"].unique().sort()
    ahead = pl.DataFrame(
        {"unique_id": ids, "ds": [MONDAY + timedelta(days=7 * 120)] * 50, "promotion": [1.0] * 25 + [0.0] * 25}
    )
    mean = forecast(history, 1, "W-MON", future=ahead)["mean"].to_numpy()
    assert mean[:25].mean() > 1.7 * mean[25:].mean()


def test_daily_demand_keeps_its_week():
    rng = np.random.default_rng(8)
    week = np.array([1, 1, 1, 1, 2, 3, 0.5])
    values = rng.poisson(4 * week[np.arange(200) % 7] * np.ones((20, 1))).astype(float)
    frame = forecast(weekly(values, step=1), 7, "D")
    by_day = (
        frame.with_columns(pl.col("ds").dt.weekday().alias("d"))
        .group_by("d")
        .agg(pl.col("mean").mean())
        .sort("d")["mean"]
    )
    assert by_day[5] > 3 * by_day[6]


def test_monthly_measures_and_negative_values_are_forecast_as_they_are():
    months = [date(2015 + m // 12, m % 12 + 1, 1) for m in range(84)]
    rng = np.random.default_rng(2)
    season = np.sin(2 * np.pi * np.arange(84) / 12)
    history = pl.DataFrame({"unique_id": ["a"] * 84, "ds": months, "y": 100.5 + 20 * season + rng.normal(0, 2, 84)})
    frame = forecast(history, 12, "MS")
    assert frame["ds"].to_list()[0] == date(2022, 1, 1)
    assert np.abs(frame["mean"].to_numpy() - (100.5 + 20 * np.sin(2 * np.pi * np.arange(12) / 12))).max() < 8
    signed = forecast(history.with_columns(pl.col("y") - 110), 3, "MS")
    assert np.isfinite(signed.select(LEVELS).to_numpy()).all()


@pytest.mark.parametrize("freq", ["D", "W-SUN", "MS", "ME", "QS", "QE"])
def test_calendars_count_forth_and_back(freq):
    unit = {"D": "D", "W-SUN": "W"}.get(freq, freq[0])
    calendar = Calendar(unit, {"W-SUN": 6, "ME": 1, "QE": 1}.get(freq, 0))
    index = np.arange(500, 900) + (2000 * 12 if unit == "M" else 2000 * 4 if unit == "Q" else 0)
    np.testing.assert_array_equal(calendar.index(calendar.dates(index)), index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: pl.concat([h, h.head(1)]), "duplicate rows for s000"),
        (lambda h: h.with_columns(y=pl.lit(float("nan"))), "y of s000"),
        (lambda h: h.with_columns(y=pl.lit(float("inf"))), "is inf"),
        (lambda h: h.with_columns(pl.col("ds") + pl.duration(days=1)), "does not fit freq"),
        (lambda h: h.drop("y"), "column 'y' is missing"),
        (lambda h: h.clear(), "no rows"),
        (lambda h: h.with_columns(y=pl.lit("a")), "y must be a number"),
    ],
)
def test_unusable_input_is_named_in_one_line(change, message):
    with pytest.raises(NpqError, match=message) as caught:
        forecast(change(weekly(counts(2, 20))), 2, "W-MON")
    assert "\n" not in str(caught.value)


def test_unknown_frequency_horizon_and_quantiles_are_refused(history):
    for arguments in [{"freq": "fortnight"}, {"horizon": 0}, {"quantiles": [0.5, 1.0]}]:
        with pytest.raises(NpqError):
            forecast(history, **{"horizon": 2, "freq": "W-MON", **arguments})
