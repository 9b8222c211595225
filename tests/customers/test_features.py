"""The columns of customers: known answers, and nothing of the day or later in them."""

import numpy as np
import polars as pl
import pytest

from npq_assets.customers.features import feature_names, features
from npq_assets.customers.visits import Visits, visits_of

HORIZON = 28
DAY = 100


def visits() -> Visits:
    rows = [(1, d, 10.0 + d) for d in (0, 10, 50, 60, 90)] + [(2, 99, 5.0)]
    later = [(1, 100, 999.0), (3, 120, 7.0)]
    return visits_of(pl.DataFrame(rows + later, schema=["user", "day", "amount"], orient="row"))


def column(name: str, day: int = DAY) -> np.ndarray:
    return features(visits(), day, HORIZON)[:, feature_names().index(name)]


def test_each_column_has_a_name() -> None:
    assert features(visits(), DAY, HORIZON).shape == (3, len(feature_names()))
    assert len(set(feature_names())) == len(feature_names())


def test_later_visits_are_not_seen() -> None:
    known = visits().before(DAY)
    np.testing.assert_array_equal(features(visits(), DAY, HORIZON), features(known, DAY, HORIZON))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("since_last", 10.0),
        ("gap_last_1", 30.0),
        ("gap_last_2", 10.0),
        ("gap_max", 40.0),
        ("gap_quantile_0.5", 30.0),
        ("long_gaps", 2 / (100 / 28)),
        ("gaps_longer", 2.5 / 5),  # gaps 10, 40, 10, 30 against a silence of 10
        ("last_amount", 100.0),
        ("visits_quarter_1", 0.0),
        ("visits_quarter_2", 1.0),
        ("active_quarters_4", 1.0),
    ],
)
def test_the_rhythm_of_one_customer(name: str, expected: float) -> None:
    assert column(name)[0] == pytest.approx(expected)


def test_past_silences_say_how_often_the_customer_came_back() -> None:
    # Of the gaps longer than 10 days, 30 ended within 38 and 40 did not; the closed form weighs two gaps.
    assert column("own_return")[0] == pytest.approx((1 + 2 * column("closed_p")[0]) / 4)


def test_one_visit_leaves_no_gaps_and_keeps_the_closed_form() -> None:
    row = features(visits(), DAY, HORIZON)[1]
    names = feature_names()
    assert np.isnan([row[names.index(n)] for n in ("gap_last_1", "gap_max", "gap_quantile_0.8", "gap_decayed")]).all()
    assert row[names.index("past_horizons")] == row[names.index("closed_p")]


def test_a_steady_customer_has_the_same_rate_at_any_age() -> None:
    steady = visits_of(pl.DataFrame({"user": [1] * 60, "day": list(range(0, 420, 7)), "amount": [1.0] * 60}))
    at = feature_names().index("visit_rate_1")
    assert features(steady, 84, HORIZON)[0, at] == pytest.approx(features(steady, 420, HORIZON)[0, at], rel=0.02)
    assert features(steady, 420, HORIZON)[0, at] == pytest.approx(4.0, rel=0.15)
