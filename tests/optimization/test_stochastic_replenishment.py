"""Shared capacities over several periods: the same optimum as the extensive form, with a proof."""

from dataclasses import replace

import numpy as np
import pytest

from npq_assets.errors import NpqError
from npq_assets.optimization import stochastic_replenishment as module
from npq_assets.optimization.stochastic_replenishment import (
    StochasticProblem,
    expected_cost,
    extensive_form,
    plan_ahead,
    solve,
)


def instance(seed: int, n: int = 7, scenarios: int = 15, periods: int = 4, tightness: float = 0.8) -> StochasticProblem:
    rng = np.random.default_rng(seed)
    mean = rng.gamma(2, 3, (n, 1, periods)) + 0.3
    demand = rng.poisson(mean, (n, scenarios, periods)).astype(float)
    return StochasticProblem(
        demand, rng.integers(0, 6, n).astype(float), rng.uniform(0.1, 0.5, n), rng.uniform(0.5, 3, n),
        rng.uniform(0.6, 1.1, periods) * tightness * mean.sum(axis=(0, 1)), rng.uniform(0.5, 2, n),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_the_optimum_is_the_extensive_forms(seed: int) -> None:
    p = instance(seed)
    result = solve(p)
    value, _ = extensive_form(p)
    assert result.status == "optimal"
    assert result.objective == pytest.approx(value, rel=1e-6)
    assert result.bound <= result.objective + 1e-9
    assert result.objective == pytest.approx(expected_cost(p, result.orders), rel=1e-9)
    assert (result.orders >= 0).all()
    assert ((p.use @ result.orders) <= p.capacity + 1e-6).all()


@pytest.mark.parametrize("seed", range(4))
def test_few_breakpoints_reach_the_same_optimum(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    p = instance(seed, n=30, scenarios=60)
    full = solve(p)
    monkeypatch.setattr(module, "_SMALL", 0)
    monkeypatch.setattr(module, "_SAMPLE", 30)
    few = solve(StochasticProblem(p.demand, p.on_hand, p.holding_cost, p.shortage_cost, p.capacity, p.use), seconds=60)
    assert few.objective == pytest.approx(full.objective, rel=1e-5)
    assert few.bound <= full.objective + 1e-6


def test_what_later_capacity_lacks_is_ordered_early() -> None:
    demand = np.zeros((1, 3, 3))
    demand[:, :, 2] = 10.0
    p = StochasticProblem(demand, np.zeros(1), np.array([0.1]), np.array([5.0]), np.array([6.0, 6.0, 2.0]))
    result = solve(p)
    assert result.orders[0].tolist() == pytest.approx([2.0, 6.0, 2.0])
    assert plan_ahead(p).tolist() == pytest.approx([2.0])
    assert result.worth[0] == pytest.approx(0.0)
    assert result.worth[2] == pytest.approx(0.2)


def test_worth_is_what_one_more_unit_saves() -> None:
    p = instance(3, n=40, scenarios=80)
    more = StochasticProblem(
        p.demand, p.on_hand, p.holding_cost, p.shortage_cost, p.capacity + np.eye(4)[0] * 0.5, p.use
    )
    result = solve(p)
    assert (result.objective - solve(more).objective) / 0.5 == pytest.approx(result.worth[0], rel=0.1, abs=0.02)


def test_without_capacity_each_product_is_a_newsvendor() -> None:
    p = instance(0)
    free = StochasticProblem(p.demand, p.on_hand, p.holding_cost, p.shortage_cost, np.full(4, np.inf))
    result = solve(free)
    first = np.sort(free.net[:, :, 0], axis=1)
    ratio = p.shortage_cost / (p.shortage_cost + p.holding_cost)
    wanted = np.maximum(first[np.arange(7), np.ceil(ratio * 15).astype(int) - 1], 0)
    assert result.orders[:, 0] == pytest.approx(wanted)
    assert result.status == "optimal"


def test_nonsense_is_refused_by_name() -> None:
    p = instance(0)
    with pytest.raises(NpqError, match="capacity has shape"):
        solve(StochasticProblem(p.demand, p.on_hand, p.holding_cost, p.shortage_cost, np.ones(3)))
    with pytest.raises(NpqError, match="holding_cost holds a negative number"):
        solve(StochasticProblem(p.demand, p.on_hand, -p.holding_cost, p.shortage_cost, p.capacity))


def test_without_time_the_plan_keeps_capacities_and_is_not_called_optimal() -> None:
    p = instance(3)
    result = solve(p, seconds=0.0)
    assert result.status == "feasible" and result.rounds == 0
    assert result.objective == pytest.approx(expected_cost(p, result.orders), rel=1e-9)
    assert result.bound <= solve(p).objective <= result.objective < expected_cost(p, np.zeros(p.demand.shape[::2]))
    assert ((p.use @ result.orders) <= p.capacity + 1e-6).all()
    assert 0 < result.gap < np.inf
    none = StochasticProblem(np.zeros((0, 5, 4)), *(np.zeros(0) for _ in range(3)), np.full(4, 9.0))
    assert solve(none).orders.shape == (0, 4)


@pytest.mark.parametrize("field", ["demand", "on_hand", "holding_cost", "shortage_cost"])
def test_what_is_not_finite_is_named(field: str) -> None:
    p = instance(0)
    values = getattr(p, field).copy()
    values.flat[0] = np.inf
    with pytest.raises(NpqError, match=field):
        solve(replace(p, **{field: values}))
