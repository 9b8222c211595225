"""The ensemble: weights that find what is best, a choice that keeps the loser's numbers, words that stay what they were."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.forecasting import forecast, forms, selection, train
from npq_assets.forecasting.baseline import fit, seasonal_naive, seasons_of
from npq_assets.forecasting.features import prepare
from npq_assets.forecasting.panel import build
from npq_assets.forecasting.rows import Rows
from tests.forecasting.test_forecast import LEVELS, weekly


def held_out(y: np.ndarray) -> Rows:
    ones = np.ones(len(y))
    count = np.arange(len(y))
    return Rows(
        ones[:, None],
        y,
        ones * 10,
        ones * 10,
        ones * 10,
        ones,
        count % 20,
        count // 20,
        ones.astype(int),
        0 * ones,
        ["x"],
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.booleans(), st.integers(0, 10_000))
def test_stacking_finds_the_member_that_is_right(best: int, counts: bool, seed: int):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(5, 15, 2000)
    y = rng.poisson(truth).astype(float) if counts else truth + rng.normal(0, 0.3, 2000)
    members = np.stack([rng.permutation(truth) for _ in range(4)], 1)
    members[:, best] = truth
    segment = forms.segment_of(np.full(2000, 10.0), np.ones(2000), np.full(2000, counts))
    weights = forms.stack(members, y, np.ones(2000), segment, np.full(2000, counts))
    assert weights[segment[0]].argmax() == best
    assert weights[segment[0], best] > 0.8
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-4)
    assert (weights >= 0).all()


def test_an_ensemble_that_does_not_beat_the_best_simple_form_is_not_chosen():
    rng = np.random.default_rng(3)
    y = np.full(1000, 10.0) + rng.normal(0, 0.1, 1000)
    right = np.full(1000, 10.0)
    chosen = selection.choose(
        {"seasonal_mean": right, "ratio": right * 1.5, "level": right * 1.6}, held_out(y), np.zeros(1000, bool)
    )
    assert chosen.forms[0] == "seasonal_mean"
    (evidence,) = chosen.evidence["segments"].values()
    assert evidence["weights"]["seasonal_mean"] > 0.98
    assert evidence["loss"]["ratio"] > 10  # the loser's number stays visible
    assert len(evidence["interval"]) == 2


def test_the_seasonal_naive_form_repeats_last_year_times_growth():
    year = np.array([10.0, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    values = np.concatenate([year, year * 2, year * 4])[None, :].repeat(3, 0)
    n = values.shape[1]
    frame = pl.DataFrame(
        {
            "unique_id": np.repeat(["a", "b", "c"], n),
            "ds": [date(2020 + t // 12, t % 12 + 1, 1) for t in range(n)] * 3,
            "y": values.reshape(-1),
        }
    )
    panel = build(frame, "MS")
    base = fit(panel, seasons_of(panel, None), train(frame, 3, "MS").settings.tuning)
    found = seasonal_naive(panel, base, np.arange(1, 4), np.zeros((3, 3)))
    np.testing.assert_allclose(found[0] / found[0, 0], [1, 2, 3])
    assert found[0, 0] == pytest.approx(80, rel=0.1)


def test_a_word_keeps_its_meaning_and_an_unknown_one_has_none():
    rng = np.random.default_rng(0)
    values = rng.poisson(20, (30, 120)).astype(float)
    days = [date(2021, 1, 4) + timedelta(days=7 * t) for t in range(124)]
    event = np.array([None] * 124, dtype=object)
    event[10::25] = "match"
    values[:, 10:120:25] *= 3
    history = weekly(values)
    calendar = pl.DataFrame({"ds": days, "event": event.tolist()}, schema={"ds": pl.Date, "event": pl.String})
    model = train(history.join(calendar, on="ds", how="left"), 4, "W-MON")
    assert model.words == {"event": ("match",)}
    told = history.join(calendar, on="ds", how="left")

    def mean(word: str | None) -> float:
        ahead = pl.DataFrame({"ds": days[120:], "event": [word] * 4}, schema={"ds": pl.Date, "event": pl.String})
        return float(model.predict(told, 4, future=ahead).mean.mean())

    assert mean("match") > 1.8 * mean(None)
    # An earlier word in the alphabet must not take the place of the learned one.
    assert mean("a fair") < 1.8 * mean(None)


def test_what_an_event_did_is_known_from_the_past_alone():
    values = np.full((4, 60), 10.0)
    event = np.array([""] * 64, dtype=object)
    event[[20, 40]] = "match"
    event[62] = "match"
    values[:, [20, 40]] = 30.0
    days = [date(2021, 1, 4) + timedelta(days=7 * t) for t in range(64)]
    calendar = pl.DataFrame({"ds": days, "event": event.tolist()}, schema={"ds": pl.Date, "event": pl.String})
    frame = weekly(values).join(calendar, on="ds", how="left")
    panel = build(frame, "W-MON", future=calendar.tail(4), horizon=4)
    base = fit(panel, (), train(weekly(values), 2, "W-MON").settings.tuning)
    effect, group = prepare(panel, base, np.arange(1, 5)).grouped["all_event_effect"]
    assert effect[group[0], 2] > 0.7
    before = prepare(
        panel.until(15), fit(panel.until(15), (), train(weekly(values), 2, "W-MON").settings.tuning), np.arange(1, 9)
    )
    assert before.grouped["all_event_effect"][0][0, 5] == pytest.approx(0.0)  # it has not been seen yet


def test_intervals_of_counts_cover_what_they_say():
    rng = np.random.default_rng(11)
    mean = rng.uniform(0.2, 3.0, 400)[:, None]
    values = rng.poisson(np.repeat(mean, 64, 1)).astype(float)
    frame = forecast(weekly(values[:, :60]), 4, "W-MON")
    truth = values[:, 60:].reshape(-1)
    q = frame.sort("unique_id", "ds").select(LEVELS).to_numpy()
    inside = ((truth >= q[:, 1]) & (truth <= q[:, 5])).mean()
    assert 0.76 < inside < 0.84
    assert 0.86 < ((truth >= q[:, 0]) & (truth <= q[:, 6])).mean() < 0.94


def test_monthly_series_are_joined_by_smoothing_and_theta():
    t = np.arange(96)
    rng = np.random.default_rng(4)
    rows = []
    for i in range(6):
        y = (200 + 2.0 * t) * (1 + 0.3 * np.sin(2 * np.pi * t / 12 + i)) * rng.normal(1, 0.02, 96)
        rows.append(
            pl.DataFrame({"unique_id": f"m{i}", "ds": [date(2015 + k // 12, k % 12 + 1, 1) for k in t], "y": y})
        )
    history = pl.concat(rows)
    model = train(history, 6, "MS")
    assert {"ets", "theta"} & set(model.forms)
    found = model.predict(history, 6)
    ahead = np.arange(96, 102)
    truth = np.stack([(200 + 2.0 * ahead) * (1 + 0.3 * np.sin(2 * np.pi * ahead / 12 + i)) for i in range(6)])
    assert np.abs(found.mean / truth - 1).mean() < 0.06
