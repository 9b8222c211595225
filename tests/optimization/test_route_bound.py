"""The bound of routes: below every plan that exhaustive search finds, above the one over arcs, and close where it can be told."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.optimization.route_bound import Effort, arc_bound, route_bound
from npq_assets.optimization.route_evaluation import evaluate, total_cost
from npq_assets.optimization.route_feasibility import violations
from npq_assets.optimization.route_pricing import Grid, Kind
from npq_assets.optimization.route_problem import with_minutes
from npq_assets.optimization.route_relaxation import _COSTS, _LIMITS, _kinds, lower_bound
from npq_assets.optimization.routing import Params, Routes, RoutingProblem, solve
from tests.optimization.test_routing import day


def tiny(seed: int, stops: int = 4) -> RoutingProblem:
    """A handful of stops: windows that make vehicles wait or be late, prices that make dropping pay, vehicles of two depots."""
    rng = np.random.default_rng(seed)
    ready = rng.choice([0.0, 60.0, 180.0, 300.0], stops)
    depots = int(rng.integers(1, 3))
    drops = [None if rng.random() < 0.15 else float(rng.integers(20, 250)) for _ in range(stops)]
    problem = day(
        [
            {"place": k + 2, "quantity": float(rng.integers(1, 6)), "ready": ready[k], "service": float(rng.integers(0, 12)),
             "due": ready[k] + float(rng.integers(5, 120)), "late_cost": float(rng.choice([0.0, 0.2, 0.5, 2.0])),
             "drop_cost": drops[k], "depot": rng.choice([None, 0, 1]) if depots == 2 else None}
            for k in range(stops)
        ],
        [
            {"depot": int(rng.integers(0, depots)), "capacity": float(rng.integers(5, 14)),
             "fixed_cost": float(rng.integers(0, 40)),
             "cost_per_km": float(rng.choice([0.3, 1.0])), "cost_per_minute": float(rng.choice([0.0, 0.3, 0.6])),
             "shift_start": float(rng.choice([0.0, 120.0])), "shift_end": float(rng.choice([320.0, 600.0])),
             "max_km": None if rng.random() < 0.5 else float(rng.integers(100, 300))}
            for _ in range(int(rng.integers(1, 4)))
        ],
        list(map(tuple, rng.integers(0, 80, (stops + 2, 2)).tolist())),
    )  # fmt: skip
    object.__setattr__(problem, "minutes", problem.minutes * rng.uniform(0.8, 1.3, problem.minutes.shape))
    return problem


def orders(stops: int) -> list[list[int]]:
    return [list(o) for k in range(1, stops + 1) for o in itertools.permutations(range(stops), k)]


def least(problem: RoutingProblem, cost_of: Callable[[int, list[int]], float], drop: list[float]) -> float:
    """Least cost over all ways to share out, order and drop the stops, each route at `cost_of` (inf: it breaks a rule)."""
    n = len(drop)
    best = {0: 0.0}
    for v in range(problem.vehicles.height):
        price: dict[int, float] = {0: 0.0}
        for order in orders(n):
            mask = sum(1 << s for s in order)
            price[mask] = min(price.get(mask, np.inf), cost_of(v, order))
        joined: dict[int, float] = {}
        for (a, x), (b, y) in itertools.product(best.items(), price.items()):
            if not a & b:
                joined[a | b] = min(joined.get(a | b, np.inf), x + y)
        best = joined
    return min(c + sum(drop[s] for s in range(n) if not mask >> s & 1) for mask, c in best.items())


class Driven:
    """Routes driven step by step: a second account of what they cost and may, which shares nothing with what is tested."""

    def __init__(self, problem: RoutingProblem) -> None:
        self.stops, self.cars = problem.stops.to_dicts(), problem.vehicles.to_dicts()
        self.km, self.minutes = problem.km.tolist(), problem.minutes.tolist()

    def at(self, v: int, order: list[int], leaves: float) -> tuple[float, float]:
        """Cost and return of vehicle `v` that leaves then."""
        car, clock, place, late, km = self.cars[v], leaves, self.cars[v]["depot"], 0.0, 0.0
        for s in order:
            stop = self.stops[s]
            clock, km, place = (
                clock + self.minutes[place][stop["place"]],
                km + self.km[place][stop["place"]],
                stop["place"],
            )
            late += (stop["late_cost"] or 0.0) * max(0.0, clock - stop["due"])
            clock = max(clock, stop["ready"]) + stop["service"]
        clock, km = clock + self.minutes[place][car["depot"]], km + self.km[place][car["depot"]]
        cost = car["fixed_cost"] + car["cost_per_km"] * km + car["cost_per_minute"] * (clock - leaves) + late
        return cost, clock if car["max_km"] is None or km <= car["max_km"] else np.inf

    def best(self, v: int, order: list[int]) -> float:
        """Least cost over the departures at which a cost of pieces straight in the departure can be least."""
        car = self.cars[v]
        if sum(self.stops[s]["quantity"] for s in order) > car["capacity"] or any(
            self.stops[s]["depot"] not in (None, car["depot"]) for s in order
        ):
            return np.inf
        first = car["shift_start"]
        on_road, place, kinks = 0.0, car["depot"], [first]
        for s in order:
            stop = self.stops[s]
            on_road, place = on_road + self.minutes[place][stop["place"]], stop["place"]
            kinks += [stop["ready"] - on_road, stop["due"] - on_road]
            on_road += stop["service"]
        driven = [self.at(v, order, leaves) for leaves in kinks if leaves >= first]
        return min((cost for cost, back in driven if back <= car["shift_end"]), default=np.inf)


def free_drops(problem: RoutingProblem) -> list[float]:
    return [0.0 if d is None else float(d) for d in problem.stops["drop_cost"].to_list()]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_no_plan_costs_less_whenever_its_vehicles_leave(seed: int) -> None:
    problem = tiny(seed)
    driven = Driven(problem)
    best = least(problem, driven.best, free_drops(problem))
    assert lower_bound(problem) <= best + 1e-6
    # Held to what must be delivered, the bound is that of plans that deliver it.
    whole = [np.inf if d is None else float(d) for d in problem.stops["drop_cost"].to_list()]
    best = least(problem, driven.best, whole)
    if np.isfinite(best):
        assert lower_bound(problem, left=set()) <= best + 1e-6


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_no_plan_is_expected_to_cost_less_in_traffic_nor_after_warnings(seed: int) -> None:
    problem = tiny(seed, stops=3)
    rng = np.random.default_rng(seed + 1)
    scenarios = 6
    own = rng.lognormal(0.0, 0.4, (scenarios, *problem.minutes.shape))
    factor = own * rng.lognormal(0.1, 0.4, (scenarios, 1, 1))  # legs share part of their luck
    expected = problem.minutes * factor.mean(axis=0)
    spared = rng.choice([np.inf, 0.5, 4.0, 20.0], 3)
    where = problem.stops["place"].to_list()

    def cost(v: int, order: list[int], warned: bool) -> float:
        if violations(problem, {v: order}):
            return np.inf
        depot = int(problem.vehicles["depot"][v])
        path = [depot, *(where[s] for s in order), depot]
        slow = np.stack([factor[:, a, b] for a, b in itertools.pairwise(path)])
        outcome = evaluate(problem, {v: order}, slow={v: slow})
        late = outcome.late.mean(axis=1)
        return float(outcome.driving.mean(axis=1).sum() + (np.minimum(late, spared) if warned else late).sum())

    drop = free_drops(problem)
    assert lower_bound(problem, expected) <= least(problem, lambda v, o: cost(v, o, False), drop) + 1e-6
    assert lower_bound(problem, expected, spared=spared) <= least(problem, lambda v, o: cost(v, o, True), drop) + 1e-6


def kinds_of(problem: RoutingProblem) -> list[Kind]:
    stops, vehicles = list(range(problem.stops.height)), list(range(problem.vehicles.height))
    return [kind for kind, _ in _kinds(problem, stops, vehicles, problem.minutes, _COSTS + _LIMITS, None)]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100_000), slots=st.sampled_from([7, 60, 3000]))
def test_no_route_is_cheaper_than_the_grid_says(seed: int, slots: int) -> None:
    problem = tiny(seed)
    rng, driven = np.random.default_rng(seed), Driven(problem)
    n = problem.stops.height
    price, per_load, per_km = rng.uniform(0, 150, n), float(rng.choice([0.0, 3.0])), float(rng.choice([0.0, 0.2]))
    every = [[], *([i, *(j for j in range(1, n + 1) if j != i)] for i in range(1, n + 1))]
    kinds = _kinds(
        problem, list(range(n)), list(range(problem.vehicles.height)), problem.minutes, _COSTS + _LIMITS, None
    )
    for kind, members in kinds:
        charged = per_km if np.isfinite(kind.most_km) else 0.0
        exact = Grid(kind, every, slots)
        full = Grid(kind, every, slots, steps=10)
        best = [0.0]
        for order in orders(n):
            places, cost = [s + 1 for s in order], driven.best(members[0], order)
            if not np.isfinite(cost):
                continue
            assert exact.cost_of(places) <= full.cost_of(places) <= cost + 1e-6
            if slots == 3000:
                assert exact.cost_of(places) >= cost - 4.0  # three legs of a slot, and what the rules forgive
            path = [0, *places, 0]
            km = sum(kind.km[a, b] for a, b in itertools.pairwise(path))
            best.append(
                cost - price[order].sum() + per_load * (kind.quantity[places].sum() - kind.capacity)
                + (charged * (km - kind.most_km) if charged else 0.0)
            )  # fmt: skip
        known = full.cheapest(price, per_load, charged)
        assert known.least <= min(best) + 1e-6
        # Forgetting, and not looking at loads, err to the safe side.
        assert exact.cheapest(price, per_load, charged).least <= known.least + 1e-6
        short = Grid(kind, [[], *([i] for i in range(1, n + 1))], slots)
        assert short.cheapest(price, per_load, charged).least <= known.least + 1e-6
        for places, reduced in zip(known.routes, known.reduced, strict=True):
            paid = per_load * (kind.quantity[places].sum() - kind.capacity) - price[np.array(places) - 1].sum()
            if charged:
                paid += charged * (sum(kind.km[a, b] for a, b in itertools.pairwise([0, *places, 0])) - kind.most_km)
            assert full.cost_of(places) + paid == pytest.approx(reduced, abs=1e-6)


def clustered(per: int = 5) -> tuple[RoutingProblem, Routes]:
    """As Solomon's C1: clusters on rays, each one vehicle's load, windows of 90 that let it be driven outwards in one go."""
    stops, where, routes = [], [(0.0, 0.0)], {}
    for cluster, angle in enumerate(np.linspace(0, 2 * np.pi, 4, endpoint=False)):
        routes[cluster] = list(range(cluster * per, (cluster + 1) * per))
        for k in range(per):
            reach = 30.0 + 3.0 * k
            where.append((reach * np.cos(angle), reach * np.sin(angle)))
            at = 100.0 + reach + 10.0 * k
            stops.append({"place": len(where) - 1, "quantity": 2.0, "service": 10.0, "ready": at - 45.0, "due": at + 45.0,
                          "late_cost": 2.0})  # fmt: skip
    cars = [{"capacity": 2.0 * per, "fixed_cost": 50.0, "cost_per_minute": 0.2} for _ in range(6)]
    return day(stops, cars, where), routes


def test_a_textbook_instance_is_bound_within_two_percent() -> None:
    problem, routes = clustered()
    known = 4 * (50.0 + 2 * 42.0 * 1.2 + 50.0 * 0.2)
    assert total_cost(problem, routes) == pytest.approx(known)
    assert 0.98 * known <= lower_bound(problem) <= known + 1e-6


def spread(seed: int, stops: int = 18) -> RoutingProblem:
    """A day in slots, in which windows decide what routes look like."""
    rng = np.random.default_rng(seed)
    ready = rng.choice([360.0, 480.0, 600.0, 720.0], stops)
    return day(
        [
            {"place": k + 1, "quantity": float(rng.integers(1, 5)), "ready": ready[k], "due": ready[k] + 60.0,
             "service": 6.0, "late_cost": 0.5, "drop_cost": 200.0}
            for k in range(stops)
        ],
        [{"capacity": 30.0, "fixed_cost": 60.0, "cost_per_minute": 0.4, "shift_start": 300.0}] * 3
        + [{"capacity": 15.0, "fixed_cost": 35.0, "cost_per_minute": 0.3, "cost_per_km": 0.5, "shift_start": 360.0}] * 3,
        [(50.0, 50.0), *map(tuple, rng.integers(0, 100, (stops, 2)).tolist())],
    )  # fmt: skip


def test_windows_and_waiting_are_counted() -> None:
    problem = spread(1)
    found = solve(problem, Params(seconds=20.0, iterations=600, explain=0))
    every = list(range(18)), list(range(6))
    arcs = arc_bound(
        _kinds(problem, *every, problem.minutes, _COSTS, None), np.full(18, 200.0), np.zeros(18, bool), 8, 250
    )
    assert arcs <= found.bound <= found.objective + 1e-6
    assert found.objective - found.bound <= 0.6 * (found.objective - arcs)


def test_less_work_proves_less_and_the_same_work_the_same() -> None:
    problem = spread(2)
    full = lower_bound(problem, effort=Effort(states=20_000_000))
    assert full == lower_bound(problem, effort=Effort(states=20_000_000))
    kinds, drop, must = kinds_of(problem), np.full(18, 200.0), np.zeros(18, bool)
    values = [route_bound(kinds, drop, must, effort=Effort(states=w)).value for w in (1_000, 3_000_000, 20_000_000)]
    assert values[0] >= 0.0 and max(values) <= full + 1e-6 and values[2] >= values[1] - 1e-6


def test_what_must_be_delivered_has_a_price_in_the_bound() -> None:
    problem = day(
        [{"place": 1, "drop_cost": None}, {"place": 2, "drop_cost": None}], [{}], [(0.0, 0.0), (10.0, 0.0), (99.0, 0.0)]
    )
    assert lower_bound(problem) == 0.0
    assert lower_bound(problem, left=set()) == pytest.approx(198.0, rel=1e-6)
    assert lower_bound(problem, left={1}) == pytest.approx(20.0, rel=1e-6)
    assert solve(problem, Params(seconds=2.0, iterations=100)).status == "optimal"
    # What no vehicle can carry is left out by every plan.
    heavy = replace(problem, stops=problem.stops.with_columns(pl.Series("quantity", [1.0, 99.0])))
    assert lower_bound(heavy, left=set()) == pytest.approx(20.0, rel=1e-6)


def test_longer_times_stretch_the_shift_that_was_planned() -> None:
    # Planned at 100 minutes there and back within a shift of 110, expected to take 150: the plan stands, and costs 150.
    problem = day(
        [{"place": 1, "drop_cost": 900.0}], [{"shift_end": 110.0, "cost_per_minute": 1.0}], [(0.0, 0.0), (50.0, 0.0)]
    )
    assert lower_bound(problem, problem.minutes * 1.5) == pytest.approx(100.0 + 150.0, rel=1e-6)
    assert lower_bound(with_minutes(problem, problem.minutes * 1.5)) == pytest.approx(900.0, rel=1e-6)
