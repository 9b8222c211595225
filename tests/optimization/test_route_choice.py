"""Plans chosen from routes at hand, against enumeration; routes one exchange away, against what they cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.optimization.replanning import replan
from npq_assets.optimization.route_choice import Column, choose
from npq_assets.optimization.route_construction import insert_left
from npq_assets.optimization.route_evaluation import total_cost, total_cost_of
from npq_assets.optimization.route_exchange import exchanges
from npq_assets.optimization.route_feasibility import violations
from npq_assets.optimization.route_problem import Params, RoutingProblem
from tests.optimization.test_routing import day


def cheapest_by_hand(columns: list[Column], left_out: dict[int, float], most: int | None) -> float:
    """The least price over all subsets of columns that serve no stop twice, use no vehicle twice and change little enough."""
    standing = sum(c.stands for c in columns)
    best = float("inf")
    for size in range(len(columns) + 1):
        for chosen in itertools.combinations(columns, size):
            stops = [s for c in chosen for s in c.visits]
            if len(set(stops)) < len(stops) or len({c.vehicle for c in chosen}) < size:
                continue
            changed = standing - sum(c.stands for c in chosen) + sum(c.idle for c in chosen)
            if most is None or changed <= most:
                best = min(best, sum(c.price for c in chosen) + sum(p for s, p in left_out.items() if s not in stops))
    return best


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), most=st.sampled_from([0, 1, 2, None]))
def test_no_plan_of_the_same_routes_with_as_few_changes_is_cheaper(seed: int, most: int | None) -> None:
    rng = np.random.default_rng(seed)
    standing = [
        Column(0, (0, 1), float(rng.integers(5, 30)), stands=True),
        Column(1, (2,), float(rng.integers(5, 30)), stands=True),
    ]
    others = {
        (v, frozenset(stops)): Column(v, tuple(stops), float(rng.integers(5, 40)), idle=v == 2)
        for v, stops in (
            (int(rng.integers(0, 3)), sorted(rng.choice(4, int(rng.integers(1, 4)), replace=False).tolist()))
            for _ in range(8)
        )
        if (v, tuple(stops)) not in {(0, (0, 1)), (1, (2,))}
    }
    columns = [*standing, *others.values()]
    left_out = dict.fromkeys(range(4), 25.0)
    known = sum(c.price for c in standing) + 25.0
    found = choose(columns, left_out, most, standing, lambda c: c.price)
    chosen = standing if found is None else found
    stops = [s for c in chosen for s in c.visits]
    price = sum(c.price for c in chosen) + sum(p for s, p in left_out.items() if s not in stops)
    assert price == pytest.approx(cheapest_by_hand(columns, left_out, most))
    assert price <= known


def scattered(seed: int, minutes: float = 0.0) -> tuple[RoutingProblem, dict[int, list[int]]]:
    rng = np.random.default_rng(seed)
    places = [(0.0, 0.0), *((float(x), float(y)) for x, y in rng.uniform(-50, 50, (7, 2)))]
    problem = day(
        [{"place": k, "quantity": float(rng.integers(1, 5)), "service": 5.0} for k in range(1, 8)],
        [{"capacity": 10.0, "fixed_cost": 20.0, "cost_per_minute": minutes} for _ in range(3)],
        places,
    )
    return problem, {0: [0, 1], 1: [2, 3], 2: [4]}


@pytest.mark.parametrize("seed", range(3))
def test_routes_one_exchange_away_cost_what_is_said(seed: int) -> None:
    problem, routes = scattered(seed, minutes=0.3)
    seen = set()
    for v, r in routes.items():
        for visits, price in exchanges(problem, v, r, routes, loose=[5, 6]):
            assert len(set(visits)) == len(visits)
            assert problem.stops["quantity"].gather(visits).sum() <= 10.0
            # Nobody waits on this day, so nothing is left out.
            assert price == pytest.approx(total_cost_of(problem, v, visits), abs=1e-6)
            assert len({*r} - {*visits}) <= 2 and len({*visits} - {*r}) <= 2
            seen.add((v, tuple(visits)))
    # A new stop at the cheapest place of each route that has room is among them.
    for v, r in routes.items():
        if problem.stops["quantity"].gather([*r, 5]).sum() <= 10.0:
            places = [[*r[:k], 5, *r[k:]] for k in range(len(r) + 1)]
            assert any((v, tuple(p)) in seen for p in places)


@pytest.mark.parametrize("seed", range(3))
def test_a_chain_of_exchanges_is_found_without_any_search(seed: int) -> None:
    problem, routes = scattered(seed)
    few = Params(seconds=0.5, iterations=1)
    found = replan(problem, routes, params=few)
    assert violations(problem, found.routes) == []
    curve = found.curve
    allowed = np.maximum(curve["routes_open"].to_numpy(), int(curve["routes_changed"][0]))
    assert (curve["routes_changed"].to_numpy()[:-1] <= allowed[:-1]).all()
    assert curve["price"].is_sorted(descending=True)
    served = {s for r in found.routes.values() for s in r}
    assert served == set(range(7))
    # No dearer than putting the two new stops in one after the other, each where it is cheapest.
    assert (
        total_cost(problem, found.routes) <= total_cost(problem, insert_left(problem, routes, [5, 6], [0, 1, 2])) + 1e-6
    )
