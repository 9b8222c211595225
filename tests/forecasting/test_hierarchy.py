"""Levels add up in means and scenarios, the update is the closed form, and upper levels gain where there is something to gain."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from npq_assets.errors import NpqError
from npq_assets.forecasting.hierarchy import (
    BOTTOM,
    Errors,
    Hierarchy,
    forecast_hierarchy,
    hierarchical,
    respread,
    structure,
    update,
)
from tests.forecasting.small import small_settings

LEVELS = [["region"], ["region", "family"], []]
FAST = small_settings(40, 8_000)
MONDAY = date(2021, 1, 4)


@pytest.fixture(scope="module")
def simulated() -> tuple[pl.DataFrame, pl.DataFrame]:
    """24 small stores whose regions share a level that wanders: the region sees what each store cannot."""
    rng = np.random.default_rng(11)
    regions, periods = np.repeat(np.arange(3), 8), 120
    shared = np.exp(np.cumsum(rng.normal(0, 0.08, (3, periods)), 1))
    own = rng.uniform(2, 10, 24)
    y = rng.poisson(own[:, None] * shared[regions])
    history = pl.DataFrame(
        {
            "unique_id": np.repeat([f"s{k:02d}" for k in range(24)], periods),
            "ds": [MONDAY + timedelta(days=7 * t) for t in range(periods)] * 24,
            "y": y.reshape(-1).astype(float),
        }
    )
    static = pl.DataFrame(
        {"unique_id": [f"s{k:02d}" for k in range(24)], "region": [f"r{k}" for k in regions], "family": ["a", "b"] * 12}
    )
    return history, static


@pytest.fixture(scope="module")
def found(simulated):
    history, static = simulated
    return hierarchical(history, 4, "W-MON", LEVELS, static=static, threads=1, settings=FAST)


def test_sums_hold_in_means_and_in_every_scenario(found):
    frame = found.frame()
    assert frame["level"].unique(maintain_order=True).to_list() == ["region", "region+family", "total", BOTTOM]
    by_day = {level: part.group_by("ds").agg(pl.col("mean").sum()).sort("ds")["mean"].to_numpy()
              for (level,), part in frame.group_by("level")}  # fmt: skip
    for level in ("region", "region+family", "total"):
        np.testing.assert_allclose(by_day[level], by_day[BOTTOM], rtol=1e-9)
    paths = found.paths(50)
    assert (paths >= 0).all()
    summed = found.aggregated(paths)
    np.testing.assert_allclose(
        summed[found.hierarchy.level == 0].sum(0), summed[found.hierarchy.level == 2][0], rtol=1e-9
    )
    columns = [c for c in frame.columns if c.startswith("q")]
    assert (np.diff(frame.select(columns).to_numpy(), axis=1) >= -1e-9).all()


def test_the_same_inputs_give_the_same_frame(simulated, found):
    history, static = simulated
    again = forecast_hierarchy(history, 4, "W-MON", LEVELS, static=static, threads=1, settings=FAST)
    assert again.equals(found.frame())


def tree(sums: list[list[float]], level: list[int]) -> Hierarchy:
    matrix = sparse.csr_matrix(np.array(sums))
    names = np.array([f"a{k}" for k in range(len(sums))], dtype=object)
    ids = np.array([f"b{k}" for k in range(matrix.shape[1])], dtype=object)
    return Hierarchy(ids, tuple(f"l{k}" for k in range(max(level) + 1)), names, np.array(level), matrix, pl.DataFrame())


def test_the_update_is_the_closed_form():
    rng = np.random.default_rng(0)
    s = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], float)
    bottom, direct = rng.uniform(5, 9, (4, 2)), rng.uniform(10, 20, (3, 2))
    variance = rng.uniform(1, 3, (4, 2))
    errors = Errors(0.7, np.array([0.02, 0.01]), np.array([0.03, 0.05]), np.ones(2), common=0.3)
    got = update(tree(s.tolist(), [0, 0, 1]), bottom, direct, variance, errors)
    for h in range(2):
        b = bottom[:, h]
        w = np.diag(0.7 * variance[:, h]) + 0.01 * np.outer(b, b)
        for group in (s[0], s[1]):
            w += 0.02 * np.outer(b * group, b * group)
        noise = np.array([0.03, 0.03, 0.05]) * (s @ b) ** 2
        a = 0.7 * np.diag(noise) + 0.3 * np.sqrt(np.outer(noise, noise))
        expected = b + w @ s.T @ np.linalg.solve(s @ w @ s.T + a, direct[:, h] - s @ b)
        np.testing.assert_allclose(got[:, h], expected, rtol=1e-9)


def test_nothing_goes_below_zero_and_zeros_stay_zero():
    h = tree([[1, 1, 1]], [0])
    bottom = np.array([[0.0], [1.0], [9.0]])
    errors = Errors(1.0, np.array([0.0]), np.array([1e-6]), np.ones(1))
    got = update(h, bottom, np.array([[0.5]]), np.array([[1.0], [4.0], [4.0]]), errors)
    assert got[0, 0] == 0 and (got >= 0).all()


def test_scenarios_are_respread_level_by_level():
    rng = np.random.default_rng(3)
    h = tree([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], [0, 0, 1])
    paths = rng.gamma(30, 1, (4, 400, 2))
    wide = respread(h, paths, np.array([1.0, 2.0]))
    before, after = paths.sum(0), wide.sum(0)
    np.testing.assert_allclose(after.std(0), 2 * before.std(0), rtol=1e-6)
    assert (wide >= 0).all()


def test_upper_levels_gain_on_simulated_data():
    """Many small stores under a shared level: news about the sum must help the sum, on average over origins."""
    rng = np.random.default_rng(5)
    truth = rng.lognormal(0, 0.3, 300)  # what the region really does, relative to what was thought
    h = tree([[1.0] * 20], [0])
    bottom = np.full((20, 300), 5.0)
    direct = (100 * truth * rng.lognormal(0, 0.1, 300))[None, :]
    errors = Errors(0.0, np.array([0.09]), np.array([0.01]), np.ones(1), common=0.0)
    new = update(h, bottom, direct, np.full((20, 300), 5.0), errors)
    wrong_before = np.abs(100 * truth - 100).mean()
    wrong_direct = np.abs(100 * truth - direct[0]).mean()
    wrong_after = np.abs(100 * truth - new.sum(0)).mean()
    assert wrong_after < 1.02 * wrong_direct < wrong_before


def test_unknown_attributes_and_levels_named_twice_are_refused(simulated):
    _, static = simulated
    ids = static["unique_id"].to_list()
    with pytest.raises(NpqError, match="no attribute 'country'"):
        structure(ids, static, [["country"]])
    with pytest.raises(NpqError, match="twice"):
        structure(ids, static, [["region", "family"], ["family", "region"]])
    with pytest.raises(NpqError, match="none given"):
        structure(ids, static, [])


def test_a_history_too_short_for_held_out_errors_keeps_the_sums():
    days = [MONDAY + timedelta(days=7 * t) for t in range(10)]
    history = pl.DataFrame({"unique_id": ["a"] * 10 + ["b"] * 10, "ds": days * 2, "y": [3.0] * 10 + [4.0, 5.0] * 5})
    frame = forecast_hierarchy(history, 3, "W-MON", [[]])
    total = frame.filter(pl.col("level") == "total")["mean"].to_numpy()
    assert np.allclose(
        total, frame.filter(pl.col("level") == BOTTOM).group_by("ds").agg(pl.col("mean").sum()).sort("ds")["mean"]
    )
