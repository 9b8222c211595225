"""Lives of parts by age: known answers, and the rule that replaces at a fixed age."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.equipment.lifetimes import LONGEST, Weibull, best_interval, fit_weibull, remaining_life
from npq_assets.errors import NpqError


def test_the_life_that_made_the_data_is_found_again_although_most_parts_were_taken_out() -> None:
    rng = np.random.default_rng(1)
    lives = 140.0 * rng.weibull(3.5, 4000)
    found = fit_weibull(np.minimum(lives, 120.0), (lives <= 120.0).astype(float))
    assert found.shape == pytest.approx(3.5, rel=0.06) and found.scale == pytest.approx(140.0, rel=0.03)
    # Parts taken out are no failures: counted as such they would shorten the life.
    assert fit_weibull(np.minimum(lives, 120.0), np.ones(4000)).scale < 0.85 * found.scale


def test_few_failures_are_refused_and_some_draw_the_shape_to_the_usual() -> None:
    with pytest.raises(NpqError, match="2 failures"):
        fit_weibull(np.array([10.0, 20.0, 30.0]), np.array([1.0, 1.0, 0.0]))
    assert fit_weibull(np.array([99.0, 100.0, 101.0]), np.ones(3)).shape < 12.0


def test_the_best_age_is_that_of_the_textbook() -> None:
    # Barlow and Hunter: shape 2, failure 5 times the planned cost. At the optimum h(T) int R - F(T) = c / (f - c) = 1 / 4.
    age = best_interval(Weibull(2.0, 1000.0), 1.0, 5.0)
    t = np.arange(0.0, age + 1.0)
    reliability = np.exp(-((t / 1000.0) ** 2))
    lived = float(((reliability[1:] + reliability[:-1]) / 2).sum())
    assert 2.0 * age / 1000.0**2 * lived - (1.0 - reliability[-1]) == pytest.approx(0.25, abs=2e-3)


@given(st.floats(0.5, 1.0), st.floats(50.0, 500.0))
def test_parts_that_do_not_wear_out_are_not_replaced_by_age(shape: float, scale: float) -> None:
    assert best_interval(Weibull(shape, scale), 1.0, 5.0) == float("inf")


@given(
    st.lists(st.floats(0.0, 0.14), min_size=7, max_size=7),
    st.floats(1.0, 5.0),
    st.floats(30.0, 300.0),
    st.floats(0, 400),
)
def test_remaining_lives_are_in_order_and_see_the_days_predicted(
    daily: list[float], shape: float, scale: float, age: float
) -> None:
    found = remaining_life(np.array(daily), Weibull(shape, scale), age, (0.1, 0.5, 0.9))
    assert 0 <= found[0] <= found[1] <= found[2] <= LONGEST
    total = sum(daily)
    assert (found[1] <= 7) == (total >= 0.5 - 1e-12) or abs(total - 0.5) < 1e-6


def test_probabilities_by_age_are_shares_of_one_outcome() -> None:
    life = Weibull(3.0, 100.0)
    days = life.next_days(80.0, 400)
    assert days.sum() == pytest.approx(1.0, abs=1e-6) and (days >= 0).all()
    assert Weibull(1.0, 100.0).next_days(5.0, 3) == pytest.approx(Weibull(1.0, 100.0).next_days(500.0, 3))
