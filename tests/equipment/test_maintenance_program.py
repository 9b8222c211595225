"""The maintenance program against every other plan of small problems, and the rules beside it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.equipment.maintenance_program import (
    MaintenanceProblem,
    fixed_interval,
    loss_of_waiting,
    run_to_failure,
    solve,
)


def problem(seed: int, count: int = 3, days: int = 3, crew: int | None = 1) -> MaintenanceProblem:
    rng = np.random.default_rng(seed)
    return MaintenanceProblem(
        probability=rng.uniform(0, 0.3, (count, days)) * rng.integers(0, 2, (count, 1)),
        cost=rng.uniform(50, 400, (count, days)),
        failure_cost=rng.uniform(500, 3000, count),
        open=rng.uniform(size=(count, days)) < 0.7,
        crew=None if crew is None else np.full(days, float(crew)),
        value_of_waiting=rng.uniform(0, 5, count),
    )


def cost_of(p: MaintenanceProblem, days: tuple[int, ...]) -> float:
    """What the docstring's sum says of a plan; infinite where it breaks a limit."""
    loss = p.probability * loss_of_waiting(p)
    total = 0.0
    for i, t in enumerate(days):
        if t < 0:
            total += loss[i].sum()
            continue
        if not p.open[i, t]:
            return float("inf")
        total += p.cost[i, t] - p.value_of_waiting[i] * t + loss[i, :t].sum()
    if p.crew is not None and any(days.count(t) > p.crew[t] for t in range(p.probability.shape[1])):
        return float("inf")
    return float(total)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([None, 1, 2]))
def test_no_plan_costs_less_and_the_bound_is_proven(seed: int, crew: int | None) -> None:
    p = problem(seed, crew=crew)
    found = solve(p)
    best = min(cost_of(p, days) for days in product(range(-1, 3), repeat=3))
    assert found.expected.sum() == pytest.approx(best, rel=1e-6, abs=1e-3)
    assert found.bound <= found.expected.sum() + 1e-6
    assert cost_of(p, tuple(int(t) for t in found.day)) == pytest.approx(best, rel=1e-6, abs=1e-3)


def test_a_sure_failure_is_replaced_in_time_and_a_sound_part_is_left_alone() -> None:
    p = MaintenanceProblem(
        probability=np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), cost=np.full((2, 3), 100.0),
        failure_cost=np.array([900.0, 900.0]), open=np.ones((2, 3), bool),
    )  # fmt: skip
    found = solve(p)
    assert found.day.tolist() == [0, -1]
    assert found.expected.tolist() == pytest.approx([100.0, 0.0])
    assert run_to_failure(p).tolist() == [900.0, 0.0]


def test_the_crew_goes_where_it_saves_most_and_the_price_says_what_another_would() -> None:
    p = MaintenanceProblem(
        probability=np.array([[0.9], [0.9]]), cost=np.full((2, 1), 100.0), failure_cost=np.array([900.0, 500.0]),
        open=np.ones((2, 1), bool), crew=np.array([1.0]),
    )  # fmt: skip
    found = solve(p)
    assert found.day.tolist() == [0, -1]
    assert abs(found.crew_price[0]) == pytest.approx(0.9 * 500 - 100, rel=1e-3)


def test_a_closed_machine_is_not_touched_and_its_failure_costs_all() -> None:
    p = MaintenanceProblem(
        probability=np.array([[0.5, 0.5]]), cost=np.array([[100.0, 100.0]]), failure_cost=np.array([1000.0]),
        open=np.zeros((1, 2), bool),
    )  # fmt: skip
    assert solve(p).day.tolist() == [-1]
    assert solve(p).expected.sum() == pytest.approx(1000.0)


def test_the_fixed_age_waits_for_an_open_day() -> None:
    p = MaintenanceProblem(
        probability=np.full((1, 4), 0.1), cost=np.full((1, 4), 100.0), failure_cost=np.array([1000.0]),
        open=np.array([[True, False, False, True]]),
    )  # fmt: skip
    assert fixed_interval(p, np.array([1.0]))[0] == pytest.approx(0.3 * 1000 + 100)
    assert fixed_interval(p, np.array([np.inf]))[0] == pytest.approx(0.4 * 1000)
