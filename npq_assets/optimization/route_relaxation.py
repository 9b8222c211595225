"""What no plan of a day can cost less than: the day, part by part, as the relaxations that bound it.

How these are solved does not belong here (see `route_bound`), nor how the cheapest route is found (see `route_pricing`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.route_bound import Effort, arc_bound, route_bound
from npq_assets.optimization.route_feasibility import why_hopeless
from npq_assets.optimization.route_pricing import ALWAYS, Kind
from npq_assets.optimization.route_problem import Routes, RoutingProblem, least, parts_of

Array = NDArray[np.float64]
_COSTS = ("depot", "capacity", "fixed_cost", "cost_per_km", "cost_per_minute")
_LIMITS = ("shift_start", "shift_end", "max_km")


def lower_bound(
    problem: RoutingProblem,
    minutes: Array | None = None,
    rounds: int = 8,
    largest: int = 250,
    *,
    left: Collection[int] | None = None,
    spared: Array | None = None,
    start: Routes | None = None,
    effort: Effort | None = None,
) -> float:
    """No plan costs less: the larger of two relaxations, part by part.

    One is a linear program over arcs by kind of vehicle with rounded capacity cuts, in which waiting, lateness, shifts and windows
    cost nothing. The other is column generation over ng-routes (see `route_bound`), which counts them. Both hold for plans as
    planned (`minutes` None: `total_cost` of routes without `violations`, whenever their vehicles leave), and for expected costs
    under uncertain times (`evaluate` with scenarios) if `minutes` are no more than the expected ones of every leg:

    - Routes and departures are settled before traffic is known. Then arrivals and the return are sums and maxima of times of legs,
      so convex and not decreasing in them, and so are lateness and, the departure settled, the time on the road. By Jensen's
      inequality (for dependent legs too) their expectations are at least what they are at expected times, and those are at least
      what they are at `minutes`, at the same departure, and so at the best one.
    - Capacities, shifts and longest distances limit what is planned, in the times of `problem.minutes`: the bound holds for plans
      whose vehicles are back in their shifts at these or longer times. Where `minutes` are longer by up to a factor, the shift is
      longer by it here, since times that are stretched as a whole stretch the way back by no more.
    - Ways by time of day (`problem.hours`) take no less than the least km and minutes of all times, which stand for them here.
    - A window may be broken at its price (`late_cost`), so it limits nothing. With `spared`, lateness counts at most what buys it
      off, so the bound also holds for what is left to pay after warnings.

    Args:
        problem: The day.
        minutes: Driving times that cost money (P, P); None: those of the problem.
        rounds: Rounds of cuts at most.
        largest: Stops up to which programs are solved; above it a part is bounded by the cheapest arc into each stop.
        left: Stops that must be delivered (no drop cost) and that the plans concerned leave out, at no cost; the bound holds for
            plans that leave out no others but those that no vehicle can serve. None: they may leave out any.
        spared: Money for which each stop's lateness can be bought off (n); inf: not at all.
        start: Routes to start from: they save work.
        effort: Limits by work of column generation.
    """
    problem = least(problem)
    times = problem.minutes if minutes is None else minutes
    total, limits = 0.0, effort or Effort()
    parts = parts_of(problem)
    size = sum(len(stops) ** 2 for stops, _ in parts if len(stops) <= largest)
    for stops, vehicles in parts:
        prices = [problem.stops["drop_cost"][s] for s in stops]
        drop = np.array([0.0 if price is None else float(price) for price in prices])
        if not vehicles or not stops:
            total += float(drop.sum())
            continue
        hopeless = np.array([why_hopeless(problem, s, vehicles) is not None for s in stops])
        must = np.array(
            [left is not None and price is None and s not in left for s, price in zip(stops, prices, strict=True)]
        )
        must &= ~hopeless
        arcs = arc_bound(_kinds(problem, stops, vehicles, times, _COSTS, spared), drop, must, rounds, largest)
        if len(stops) > largest:
            total += arcs
            continue
        kinds = _kinds(problem, stops, vehicles, times, _COSTS + _LIMITS, spared)
        row_of = {s: k for k, s in enumerate(stops)}
        kind_of = {v: k for k, (_, members) in enumerate(kinds) for v in members}
        routes = [
            (kind_of[v], [row_of[s] + 1 for s in visits])
            for v, visits in sorted((start or {}).items())
            if v in kind_of and visits and all(s in row_of for s in visits)
        ]
        # Work is shared out as stops by stops, which is what a state of the same time and memory costs.
        own = replace(limits, states=int(limits.states * len(stops) ** 2 / size))
        total += max(arcs, route_bound([kind for kind, _ in kinds], drop, must, routes, own).value)
    return total


def _kinds(
    problem: RoutingProblem,
    stops: list[int],
    vehicles: list[int],
    minutes: Array,
    names: Sequence[str],
    spared: Array | None,
) -> list[tuple[Kind, list[int]]]:
    """Vehicles of a part that are alike in `names`, as arrays, and their rows; stops that a kind may not serve have no legs."""
    rows, cars = problem.stops, problem.vehicles
    alike: dict[tuple[Any, ...], list[int]] = {}
    for v in vehicles:
        # A vehicle without a limit of distance comes after those with one.
        key = tuple(np.inf if cars[name][v] is None else cars[name][v] for name in names)
        alike.setdefault(key, []).append(v)
    n = len(stops)
    column = lambda name: np.concatenate([[0.0], rows[name].gather(stops).fill_null(0.0).to_numpy().astype(float)])  # noqa: E731
    quantity, service = column("quantity"), column("service")
    origin = [rows["depot"][s] for s in stops]
    bought = np.full(n + 1, np.inf)
    if spared is not None:
        bought[1:] = np.asarray(spared, float)[stops]
    found = []
    for key, members in sorted(alike.items()):
        car = cars.row(members[0], named=True)
        depot, capacity, start, end = (
            int(key[0]),
            float(car["capacity"]),
            float(car["shift_start"]),
            float(car["shift_end"]),
        )
        places = np.array([depot, *(int(rows["place"][s]) for s in stops)])
        grid = np.ix_(places, places)
        km, driving, planned = problem.km[grid], minutes[grid], problem.minutes[grid]
        there = np.isfinite(km) & np.isfinite(driving) & np.isfinite(planned)
        for i, o in enumerate(origin):
            if (o is not None and int(o) != depot) or quantity[i + 1] > capacity * (1 + 1e-9) + 1e-3:
                there[i + 1, :] = there[:, i + 1] = False
        np.fill_diagonal(there, False)
        # A rate of zero must not turn a road that is not there into no number.
        km, driving = np.where(there, km, 0.0), np.where(there, driving, 0.0)
        cost = km * car["cost_per_km"] + car["cost_per_minute"] * (driving + service[:, None])
        stretched = there & (driving > planned)
        with np.errstate(divide="ignore"):
            factor = float(np.max(driving[stretched] / planned[stretched], initial=1.0))
        # What the rules forgive (see `violations`) is forgiven here: per place on the way, of which there are at most so many.
        longest = 2 + min(
            n,
            int((np.cumsum(np.sort(quantity[1:])) <= capacity * (1 + 1e-9) + 1e-3).sum()),
            int((np.cumsum(np.sort(service[1:])) <= end - start + 0.05 * (n + 2)).sum()),
        )
        back = start + factor * (end + 0.05 * longest + 1e-6 - start)
        found.append(
            (
                Kind(
                    len(members), float(car["fixed_cost"]), float(car["cost_per_minute"]), np.where(there, cost, np.inf),
                    driving, km, quantity, column("ready"), column("due"), service, column("late_cost"), bought,
                    capacity * (1 + 1e-9) + 2e-3, start - 1e-6, min(back, ALWAYS),
                    np.inf if car["max_km"] is None else float(car["max_km"]) + 0.01 * longest + 1e-6,
                ),
                members,
            )
        )  # fmt: skip
    return found
