"""Staffing: the optimum of small cases, and a bound that holds."""

import itertools

import numpy as np
import pytest

from npq_assets.optimization.staffing import StaffingProblem, careful_rule, first_response, price, solve


def problem(waiting_cost: float = 2.0) -> StaffingProblem:
    rng = np.random.default_rng(4)
    covers = np.zeros((2, 8), bool)
    covers[0, :4] = covers[1, 4:] = True
    return StaffingProblem(
        rng.poisson(3.0, (10, 8)).astype(float), covers, np.array([20.0, 20.0]), 4.0, waiting_cost, left_cost=10.0
    )


@pytest.mark.parametrize("waiting_cost", [0.1, 2.0, 50.0])
def test_the_plan_is_the_best_of_all(waiting_cost: float) -> None:
    small = problem(waiting_cost)
    result = solve(small)
    best = min(price(small, np.array(n)).sum() for n in itertools.product(range(8), repeat=2))
    assert result.objective == pytest.approx(best, rel=1e-3)
    assert result.bound <= result.objective + 1e-9


def test_the_careful_rule_costs_no_less() -> None:
    small = problem()
    naive = careful_rule(small, np.array([0, 0]))
    assert naive.sum() >= 1
    assert price(small, naive).sum() >= solve(small).bound - 1e-9


def test_no_requests_need_nobody() -> None:
    quiet = problem()
    quiet = StaffingProblem(np.zeros((3, 8)), quiet.covers, quiet.shift_cost, 4.0, 1.0)
    assert solve(quiet).plan["agents"].sum() == 0


def test_first_responses_of_a_worked_queue() -> None:
    """Three wait at midnight; one person answers two an hour from four o'clock on."""
    covers = np.zeros((1, 8), bool)
    covers[0, 4:] = True
    arrivals = np.array([[2.0, 0, 0, 0, 2, 0, 0, 0]])
    queue = StaffingProblem(arrivals, covers, np.array([20.0]), 2.0, 1.0, waiting=3)
    found = first_response(queue, np.array([1]))
    assert found.waiting.tolist() == [4.5, 5.0, 6.0]
    # The fourth and fifth came at half past midnight and are answered about six; the next two wait for these.
    assert found.hours[0, [0, 4]].tolist() == [5.5, 2.5]
    nobody = first_response(queue, np.array([0]))
    assert np.isinf(nobody.hours[0, 0]) and np.isinf(nobody.waiting).all()


def test_more_people_never_answer_later() -> None:
    small = problem()
    few, many = (first_response(small, np.array([n, n])).hours for n in (1, 2))
    assert (many <= few).all()
