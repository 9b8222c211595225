"""Orders equal the newsvendor's without shared limits; with them they are feasible, priced and bounded."""

import itertools
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from npq_assets.optimization.replenishment import Params, ReplenishmentProblem, price, solve

DAY = date(2024, 4, 15)
LIMITS = {"supplier_id": pl.String, "arrives_on": pl.Date, "max_quantity": pl.Float64, "max_spend": pl.Float64}


def problem(
    demand: np.ndarray,
    stock: np.ndarray | None = None,
    *,
    holding: float = 0.2,
    shortage: float = 1.0,
    pack: float = 1.0,
    least: float = 0.0,
    unit_cost: list[float] | None = None,
    max_quantity: float | None = None,
    max_spend: float | None = None,
) -> ReplenishmentProblem:
    n = demand.shape[0]
    items = pl.DataFrame(
        {
            "site_id": ["s"] * n,
            "product_id": [f"p{i:02d}" for i in range(n)],
            "holding_cost": [holding] * n,
            "shortage_cost": [shortage] * n,
            "unit_cost": unit_cost or [1.0] * n,
            "pack_size": [pack] * n,
            "min_order": [least] * n,
            "supplier_id": ["v"] * n,
            "arrives_on": [DAY] * n,
        }
    )
    rows = [] if max_quantity is None and max_spend is None else [("v", DAY, max_quantity, max_spend)]
    limits = pl.DataFrame(rows, schema=LIMITS, orient="row")
    return ReplenishmentProblem(items, np.zeros_like(demand) if stock is None else stock, demand, limits)


def test_normal_newsvendor_of_snyder_and_shen() -> None:
    # Example 4.3: demand N(50, 8), h = 0.18, p = 0.70: S* = 56.6, cost 1.9976.
    demand = stats.norm(50, 8).ppf((np.arange(20_000) + 0.5) / 20_000)[None, :]
    p = problem(demand, holding=0.18, shortage=0.70, pack=0.01)
    result = solve(p)
    assert result.plan["quantity"][0] == pytest.approx(56.6, abs=0.02)
    assert result.objective == pytest.approx(1.9976, abs=0.002)
    assert result.gap == 0.0


def test_poisson_newsvendor() -> None:
    demand = stats.poisson(20).ppf((np.arange(50_000) + 0.5) / 50_000)[None, :]
    result = solve(problem(demand, holding=1.0, shortage=9.0))
    assert result.plan["quantity"][0] == stats.poisson(20).ppf(0.9)


counts = st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), min_size=1, max_size=3).map(
    lambda v: np.array(v, float)
)


@settings(deadline=None, max_examples=60)
@given(demand=counts, stock=st.integers(0, 8), pack=st.sampled_from([1.0, 3.0]), least=st.sampled_from([0.0, 5.0]))
def test_without_limits_no_other_order_costs_less(demand: np.ndarray, stock: int, pack: float, least: float) -> None:
    p = problem(demand, np.full_like(demand, stock), pack=pack, least=least)
    result = solve(p)
    assert result.status == "optimal"
    allowed = [q for q in np.arange(0, 31, pack) if q == 0 or q >= least]
    best = np.min([price(p, np.full(demand.shape[0], q)) for q in allowed], axis=0)
    assert np.allclose(result.plan["expected_cost"].to_numpy(), best)
    assert np.allclose(price(p, result.plan["quantity"].to_numpy()), best)


def brute_force(p: ReplenishmentProblem, most: float, spend: float, least: float) -> float:
    cost = p.items["unit_cost"].to_numpy()
    best = np.inf
    for packs in itertools.product(range(13), repeat=p.items.height):
        q = np.array(packs, float)
        if q.sum() <= most and (q * cost).sum() <= spend + 1e-9 and ((q == 0) | (q >= least)).all():
            best = min(best, float(price(p, q).sum()))
    return best


@settings(deadline=None, max_examples=25)
@given(
    demand=st.lists(st.lists(st.integers(0, 12), min_size=5, max_size=5), min_size=2, max_size=3).map(
        lambda v: np.array(v, float)
    ),
    most=st.integers(0, 20),
    spend=st.integers(0, 60),
    least=st.sampled_from([0.0, 4.0]),
)
def test_with_limits_the_plan_is_feasible_bounded_and_as_good_as_it_says(
    demand: np.ndarray, most: int, spend: int, least: float
) -> None:
    costs = [1.0, 2.5, 4.0][: demand.shape[0]]
    p = problem(demand, unit_cost=costs, least=least, max_quantity=float(most), max_spend=float(spend))
    result = solve(p, Params(seconds=5))
    q = result.plan["quantity"].to_numpy()
    assert q.sum() <= most + 1e-6
    assert (q * costs).sum() <= spend + 1e-6
    assert ((q == 0) | (q >= least)).all()
    best = brute_force(p, most, spend, least)
    assert result.bound <= best + 1e-6
    assert result.objective >= best - 1e-6
    assert result.objective <= best + max(1e-6, 1e-4 * best)
    assert np.isclose(result.plan["lower_bound"].sum(), result.bound) or result.bound == result.objective
    assert (result.plan["lower_bound"] <= result.plan["expected_cost"] + 1e-9).all()


def test_duals_are_what_one_more_unit_saves() -> None:
    rng = np.random.default_rng(0)
    demand = rng.poisson(30, (40, 200)).astype(float)
    at = {most: solve(problem(demand, max_quantity=float(most))) for most in (1000, 1001)}
    worth = at[1000].duals["worth_per_unit"][0]
    assert worth == pytest.approx(at[1000].objective - at[1001].objective, rel=0.05)
    assert at[1000].plan["quantity"].sum() == 1000


def test_a_limit_that_does_not_bind_is_worth_nothing() -> None:
    p = problem(np.full((2, 3), 5.0), max_quantity=100.0)
    result = solve(p)
    assert result.plan["quantity"].to_list() == [5.0, 5.0]
    assert result.duals.select("limit", "used", "worth_per_unit").rows() == [("max_quantity", 10.0, 0.0)]


def test_a_minimum_above_the_limit_is_named_and_there_is_an_order_all_the_same() -> None:
    result = solve(problem(np.full((1, 3), 9.0), least=8.0, max_quantity=5.0))
    assert result.status == "relaxed"
    assert result.plan["quantity"].to_list() == [0.0]
    assert (
        "minimum order of p00 at s exceeds the limit of supplier v on 2024-04-15 by 3"
        in result.relaxation["message"][0]
    )
    assert "save up to 9.00" in result.relaxation["message"][0]


def test_costs_that_are_no_numbers_are_named() -> None:
    p = problem(np.full((1, 3), 9.0), shortage=float("nan"))
    result = solve(p)
    assert result.status == "relaxed"
    assert "shortage_cost of p00 at s is nan; 0 assumed" in result.relaxation["message"].to_list()
    assert result.plan["quantity"].to_list() == [0.0]


def test_nothing_to_decide_is_decided() -> None:
    result = solve(problem(np.zeros((0, 4))))
    assert result.plan.height == 0
    assert result.objective == 0.0


def test_the_same_problem_has_the_same_plan() -> None:
    rng = np.random.default_rng(1)
    p = problem(rng.poisson(10, (60, 50)).astype(float), pack=4.0, least=8.0, max_quantity=300.0, max_spend=320.0)
    assert solve(p).plan.equals(solve(p).plan)


def test_many_limits_at_once() -> None:
    demand = np.full((4, 10), 10.0)
    p = problem(demand)
    items = p.items.with_columns(pl.Series("supplier_id", ["a", "a", "b", None]))
    limits = pl.DataFrame(
        [("a", DAY, 12.0, None), ("b", DAY, None, 3.0), ("c", DAY, 0.0, None)], schema=LIMITS, orient="row"
    )
    result = solve(ReplenishmentProblem(items, p.x, p.d, limits))
    quantity = result.plan["quantity"].to_list()
    assert quantity[0] + quantity[1] == 12.0
    assert quantity[2:] == [3.0, 10.0]
    assert result.duals["worth_per_unit"].to_list() == pytest.approx([1.0, 1.0])
