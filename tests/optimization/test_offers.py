"""The allocation of offers: small cases by brute force, and what must hold of any."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.errors import NpqError
from npq_assets.optimization.offers import OfferProblem, everyone_in_the_segment, solve


def pairs(profit: np.ndarray, cost: np.ndarray) -> pl.DataFrame:
    customers, offers = profit.shape
    return pl.DataFrame(
        {
            "customer": [f"c{i}" for i in range(customers) for _ in range(offers)],
            "offer_id": [f"o{j}" for _ in range(customers) for j in range(offers)],
            "profit": profit.ravel(),
            "cost": cost.ravel(),
        }
    )


numbers = st.lists(st.integers(-2, 9), min_size=6, max_size=6)


@settings(max_examples=25)
@given(numbers, st.lists(st.integers(1, 5), min_size=6, max_size=6), st.integers(0, 8), st.integers(0, 8))
def test_the_plan_keeps_the_limits_and_the_bound_is_a_bound(
    profit: list[int], cost: list[int], first: int, second: int
) -> None:
    p, c = np.array(profit, float).reshape(3, 2), np.array(cost, float).reshape(3, 2)
    budgets = {"o0": float(first), "o1": float(second)}
    result = solve(OfferProblem(pairs(p, c), budgets))
    chosen = {(r["customer"], r["offer_id"]) for r in result.plan.iter_rows(named=True)}
    assert all(sum(customer == f"c{i}" for customer, _ in chosen) <= 1 for i in range(3))
    for j, limit in enumerate(budgets.values()):
        assert sum(c[i, j] for i in range(3) if (f"c{i}", f"o{j}") in chosen) <= limit + 1e-9
    best = 0.0
    for plan in itertools.product((-1, 0, 1), repeat=3):
        spent = [sum(c[i, j] for i in range(3) if plan[i] == j) for j in range(2)]
        if spent[0] <= first and spent[1] <= second:
            best = max(best, sum(p[i, plan[i]] for i in range(3) if plan[i] >= 0))
    assert -result.bound >= best - 1e-6
    assert -result.objective <= best + 1e-6


def test_one_more_unit_of_budget_is_worth_what_it_brings() -> None:
    p, c = np.array([[6.0], [4.0], [1.0]]), np.array([[2.0], [2.0], [2.0]])
    tight = solve(OfferProblem(pairs(p, c), {"o0": 3.0}))
    assert tight.duals["worth_per_unit"][0] == pytest.approx(2.0)
    assert tight.plan["customer"].to_list() == ["c0"]
    assert solve(OfferProblem(pairs(p, c), {"o0": 100.0})).duals["worth_per_unit"][0] == pytest.approx(0.0)


def test_nothing_is_sent_that_loses_money_and_contacts_may_be_used_up() -> None:
    p, c = np.array([[-1.0], [5.0]]), np.ones((2, 1))
    assert solve(OfferProblem(pairs(p, c))).plan["customer"].to_list() == ["c1"]
    assert solve(OfferProblem(pairs(p, c), contacts={"c1": 0})).plan.is_empty()


def test_the_naive_rule_keeps_the_same_limits() -> None:
    p, c = np.array([[1.0, 1.0], [1.0, 1.0], [9.0, 9.0]]), np.ones((3, 2))
    problem = OfferProblem(pairs(p, c), {"o0": 2.0, "o1": 5.0})
    order = problem.pairs.select("customer", "offer_id").with_row_index("rank")
    sent = everyone_in_the_segment(problem, order)
    assert sent.filter(pl.col("offer_id") == "o0").height == 2
    assert sent.group_by("customer").len()["len"].max() == 1


def test_a_budget_below_zero_is_refused() -> None:
    with pytest.raises(NpqError, match="budget of o0"):
        solve(OfferProblem(pairs(np.ones((1, 1)), np.ones((1, 1))), {"o0": -1.0}))
