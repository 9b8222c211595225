"""The closed-form models against published answers and simulated customers."""

import numpy as np
import pytest

from npq_assets.customers.closed_form import BetaGeometric, GammaGamma, fit_beta_geometric, fit_gamma_gamma

# Parameters that Fader, Hardie and Lee (2005) report for the CDNOW sample, in weeks.
CDNOW = BetaGeometric(0.243, 4.414, 0.793, 2.426)


def test_the_expected_visits_of_the_published_example() -> None:
    """Fader, Hardie and Lee, "Implementing the BG/NBD Model in Excel": x = 2, t_x = 30.43, T = 38.86, 39 weeks: 1.226."""
    expected = CDNOW.expected_visits(np.array([2.0]), np.array([30.43]), np.array([38.86]), 39.0)
    assert expected[0] == pytest.approx(1.226, abs=2e-3)


def test_without_a_repeat_visit_nobody_is_known_to_have_left() -> None:
    assert CDNOW.alive(np.array([0.0]), np.array([0.0]), np.array([30.0]))[0] == 1.0


def test_probability_of_a_visit_grows_with_the_horizon_and_never_exceeds_being_active() -> None:
    x, t, age = np.array([0.0, 1, 5, 20]), np.array([0.0, 5, 30, 38]), np.array([10.0, 20, 38, 39])
    previous = np.zeros(4)
    for horizon in (1.0, 10.0, 100.0, 1e5):
        now = CDNOW.visits_again(x, t, age, horizon)
        assert (now >= previous).all() and (now <= CDNOW.alive(x, t, age) + 1e-12).all()
        previous = now


def simulated(n: int, horizon: float) -> tuple[np.ndarray, ...]:
    """Customers of a BG/NBD world observed for 50 units and `horizon` more."""
    rng = np.random.default_rng(7)
    rate, leave = rng.gamma(0.8, 1 / 6.0, n), rng.beta(0.9, 3.0, n)
    x, t_x, later = np.zeros(n), np.zeros(n), np.zeros(n, bool)
    for i in range(n):
        now = 0.0
        while True:
            now += rng.exponential(1 / max(rate[i], 1e-9))
            if now > 50 + horizon:
                break
            if now <= 50:
                x[i], t_x[i] = x[i] + 1, now
            else:
                later[i] = True
                break
            if rng.random() < leave[i]:
                break
    return x, t_x, np.full(n, 50.0), later


def test_fitted_probabilities_are_calibrated_on_simulated_customers() -> None:
    x, t_x, age, later = simulated(4000, 20.0)
    p = fit_beta_geometric(x, t_x, age).visits_again(x, t_x, age, 20.0)
    assert p.mean() == pytest.approx(later.mean(), abs=0.02)
    top = p >= np.quantile(p, 0.8)
    assert p[top].mean() == pytest.approx(later[top].mean(), abs=0.05)


def test_the_value_of_a_visit_is_shrunk_to_everybodys() -> None:
    rng = np.random.default_rng(1)
    mean = 1 / rng.gamma(6.0, 1 / 150.0, 3000)
    x = rng.integers(1, 12, 3000).astype(float)
    seen = np.array([rng.gamma(4.0, m / 4.0, int(k)).mean() for m, k in zip(mean, x, strict=True)])
    model = fit_gamma_gamma(x, seen)
    guess = model.expected_amount(x, seen)
    assert np.mean((guess - mean) ** 2) < np.mean((seen - mean) ** 2)
    once, often = model.expected_amount(np.array([1.0, 50.0]), np.array([300.0, 300.0]))
    assert once < often < 300.0


def test_gamma_gamma_of_hardly_anybody_gives_the_mean() -> None:
    model = fit_gamma_gamma(np.array([1.0]), np.array([10.0]))
    assert isinstance(model, GammaGamma) and np.isfinite(model.expected_amount(np.array([0.0]), np.array([0.0]))).all()
