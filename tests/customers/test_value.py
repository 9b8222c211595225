"""Prospects look at nothing later than their day, and the simple model wins ties."""

import numpy as np
import polars as pl
import pytest

from npq_assets.customers import value
from npq_assets.customers.segments import segment_customers
from npq_assets.customers.visits import summarize, visits_of
from npq_assets.errors import NpqError

SMALL = value.Settings(horizon=28, cutoffs=1, trees=10, models=1, step=28, threads=1)


def lines(n: int = 300, days: int = 200) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    rate = rng.gamma(0.7, 0.08, n)
    stop = np.where(rng.random(n) < 0.4, rng.integers(20, days, n), days)
    visited = rng.random((n, days)) < rate[:, None]
    user, day = np.nonzero(visited & (np.arange(days)[None, :] < stop[:, None]))
    return pl.DataFrame({"user": user, "day": day, "amount": rng.gamma(2.0, 10.0, len(user))})


def test_later_visits_change_nothing() -> None:
    all_lines = lines()
    users = all_lines["user"].unique()
    full = value.predict(visits_of(all_lines, users), 160, SMALL)
    cut = value.predict(visits_of(all_lines.filter(pl.col("day") < 160), users), 160, SMALL)
    np.testing.assert_array_equal(full.p_active, cut.p_active)
    np.testing.assert_array_equal(full.spend_q50, cut.spend_q50)


def test_prospects_are_probabilities_and_ordered_quantiles() -> None:
    found = value.predict(visits_of(lines()), 200, SMALL)
    assert ((found.p_active >= 0) & (found.p_active <= 1)).all()
    assert (found.spend >= 0).all()
    assert (found.spend_q10 <= found.spend_q50).all() and (found.spend_q50 <= found.spend_q90).all()


def test_a_short_history_is_judged_by_the_closed_form_and_says_so() -> None:
    found = value.predict(visits_of(lines(days=30)), 30, SMALL)
    assert found.activity_model == "closed form"
    assert "too short" in str(found.judgement["note"])


def test_the_simple_model_wins_ties() -> None:
    rng = np.random.default_rng(0)
    noise = rng.random(500)
    judged: dict[str, object] = {}
    assert value._simplest_best({"simple": noise, "complex": noise[::-1]}, judged, "spend") == "simple"
    assert value._simplest_best({"simple": noise, "complex": noise - 0.1}, judged, "spend") == "complex"


def test_nothing_before_the_day_is_an_error() -> None:
    with pytest.raises(NpqError, match="none before day 0"):
        value.predict(visits_of(lines()), 0, SMALL)


def test_a_summary_leaves_the_first_visit_out_of_the_money() -> None:
    v = visits_of(pl.DataFrame({"user": [1, 1, 1], "day": [0, 5, 9], "amount": [100.0, 10.0, 20.0]}))
    s = summarize(v, 12)
    assert (s.frequency[0], s.recency[0], s.age[0], s.monetary[0], s.since_last[0]) == (2, 9, 12, 15, 3)


def test_segments_have_names_in_words_and_a_stable_number() -> None:
    rng = np.random.default_rng(2)
    recency = np.r_[rng.uniform(1, 5, 150), rng.uniform(60, 90, 150)]
    frequency = np.r_[rng.uniform(20, 30, 150), rng.uniform(1, 2, 150)]
    spend = np.r_[rng.uniform(400, 600, 150), rng.uniform(5, 10, 150)]
    found = segment_customers(np.r_[recency, np.nan], np.r_[frequency, 0], np.r_[spend, 0])
    assert len(set(found.segment[:150])) == 1 and len(set(found.segment[150:300])) == 1
    assert found.segment[0] != found.segment[200]
    assert found.segment[-1] == "Has not bought anything yet"
    assert max(found.stability.values()) > 0.95
    again = segment_customers(np.r_[recency, np.nan], np.r_[frequency, 0], np.r_[spend, 0])
    assert (again.segment == found.segment).all()


def test_the_number_of_segments_follows_the_customers() -> None:
    rng = np.random.default_rng(4)
    centres = [(2.0, 30.0, 900.0), (15.0, 8.0, 120.0), (70.0, 1.5, 8.0)]
    blobs = [np.exp(rng.normal(np.log(c), 0.08, (120, 3))) for c in centres]
    x = np.concatenate(blobs)
    found = segment_customers(*x.T)
    assert len(set(found.segment)) == 3 == len(found.names)
    assert found.stability[3] > 0.95
    # Another half of the same customers gives the same segments.
    assert set(segment_customers(*x[::2].T).names) == set(found.names)


def test_a_short_history_is_judged_on_other_customers() -> None:
    found = value.predict(visits_of(lines(n=800, days=60)), 60, SMALL)
    assert "activity loss lightgbm" in found.judgement


def test_of_several_learned_models_the_best_is_weighed_against_the_simple_one() -> None:
    noise = np.random.default_rng(1).random(500)
    judged: dict[str, object] = {}
    losses = {"simple": noise, "learned": noise - 0.1, "better": noise - 0.2}
    assert value._simplest_best(losses, judged, "activity") == "better"
    assert judged["activity gain of better over simple"] == pytest.approx([0.2, 0.2])
