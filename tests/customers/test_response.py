"""The effect of an offer is what controls show, and unknown where there are none."""

import numpy as np

from npq_assets.customers.response import fit_response


def outcomes(n: int = 6000, slope: float = 1.0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, 3))
    sent = rng.random(n) < 2 / 3
    profit = 2.0 + 1.5 * x[:, 0] + sent * (0.5 + slope * x[:, 1]) + rng.standard_normal(n)
    return x, sent, profit, (rng.random(n) < 0.3).astype(float), np.sort(rng.random(n)), np.ones(n)


def test_a_known_effect_is_found() -> None:
    x, sent, profit, used, when, size = outcomes()
    model = fit_response(x, sent, profit, used, when, size)
    assert model.known and model.model == "learned"
    assert abs(model.effect_mean - 0.5) < 0.15
    low, high = model.effect_interval
    assert low < 0.5 < high
    effect = model.incremental_profit(x, size)
    assert np.corrcoef(effect, 0.5 + x[:, 1])[0, 1] > 0.95


def test_who_buys_anyway_is_not_mistaken_for_an_effect() -> None:
    x, sent, profit, used, when, size = outcomes(slope=0.0)
    model = fit_response(x, sent, profit, used, when, size)
    assert model.model == "average"
    assert abs(np.corrcoef(x[:, 0], model.redemption(x))[0, 1]) < 1.0
    assert np.ptp(model.incremental_profit(x, size)) < 1e-9


def test_without_controls_the_effect_is_unknown() -> None:
    x, _, profit, used, when, size = outcomes(500)
    model = fit_response(x, np.ones(500, bool), profit, used, when, size)
    assert not model.known and model.model == "unknown"
    assert np.isnan(model.incremental_profit(x, size)).all()
    assert np.isfinite(model.redemption(x)).all()
    empty = fit_response(np.zeros((0, 3)), np.zeros(0, bool), np.zeros(0), np.zeros(0), np.zeros(0), np.ones(0))
    assert not empty.known and np.isfinite(empty.redemption(x)).all()
