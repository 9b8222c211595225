"""What routes cost, as planned and in scenarios of traffic.

How late traffic makes a plan does not belong here (see `evaluate`'s callers), nor when a route is driven (see `route_timing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.route_problem import RouteCost, Routes, RoutingProblem
from npq_assets.optimization.route_timing import kilometres, timetable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What routes cost, by delivery and scenario.

    Attributes:
        arrival: Minutes after midnight at which each stop is reached, (n, S); nan where dropped.
        driving: Cost of each stop's share of its route: its way there, and the way home and fixed cost shared by load (n, S).
        late: Cost of lateness (n, S).
        dropped: Cost of not delivering (n).
    """

    arrival: Array
    driving: Array
    late: Array
    dropped: Array

    @property
    def by_stop(self) -> Array:
        """Expected cost of each stop (n)."""
        total = self.driving.mean(axis=1) + self.late.mean(axis=1) + self.dropped
        return np.asarray(total)

    @property
    def total(self) -> float:
        """Expected cost of all."""
        return float(self.by_stop.sum())


def evaluate(
    problem: RoutingProblem, routes: Routes, usual: Array | None = None, slow: Mapping[int, Array] | None = None
) -> Outcome:
    """Drives routes as planned through scenarios of traffic: departures as planned, arrivals as they come.

    Args:
        problem: The day, with the times that were planned with.
        routes: What is driven.
        usual: Usual driving times (P, P), at which the problem's `hours` then hold; None: those that were planned with.
        slow: By vehicle, factors on the usual time of each leg, the way home last: (legs, S). None: all 1.
    """
    base = problem.minutes if usual is None else usual
    hours, stretch = problem.hours, problem.stretch if usual is None else 1.0
    rows = problem.stops
    n = rows.height
    scenarios = next(iter(slow.values())).shape[1] if slow else 1
    arrival = np.full((n, scenarios), np.nan)
    driving, late = np.zeros((n, scenarios)), np.zeros((n, scenarios))
    ready, due = rows["ready"].to_numpy(), rows["due"].to_numpy()
    service, place = rows["service"].to_numpy(), rows["place"].to_numpy()
    rate, quantity = rows["late_cost"].fill_null(0.0).to_numpy(), rows["quantity"].to_numpy()
    dropped = rows["drop_cost"].fill_null(0.0).to_numpy().astype(float).copy()

    def leg(clock: Array, a: int, b: int, factor: Array) -> tuple[Array, Any]:
        if hours is None or hours.alike[a, b]:
            return clock + base[a, b] * factor, problem.km[a, b]
        return hours.legs(clock, a, b, stretch * factor)

    for vehicle, visits in routes.items():
        if not visits:
            continue
        cost = problem.cost_of(vehicle)
        depot = int(problem.vehicles["depot"][vehicle])
        start, _, _, _ = timetable(problem, vehicle, visits)
        factor = slow[vehicle] if slow else np.ones((len(visits) + 1, 1))
        clock, at, left = np.full(scenarios, start), depot, np.full(scenarios, start)
        for k, s in enumerate(visits):
            reached, km = leg(clock, at, int(place[s]), np.broadcast_to(factor[k], clock.shape))
            arrival[s] = reached
            late[s] = RouteCost.late(rate[s], reached, due[s])
            clock = np.maximum(reached, ready[s]) + service[s]
            driving[s] = cost.per_km * km + cost.per_minute * (clock - left)
            left, at = clock, int(place[s])
            dropped[s] = 0.0
        if hours is None:
            home = (
                cost.fixed
                + cost.per_km * problem.km[at, depot]
                + cost.per_minute * base[at, depot] * factor[len(visits)]
            )
        else:
            back, km = leg(clock, at, depot, np.broadcast_to(factor[len(visits)], clock.shape))
            home = cost.fixed + cost.per_km * km + cost.per_minute * (back - clock)
        weight = np.asarray([max(quantity[s], 1e-9) for s in visits])
        for s, share in zip(visits, weight / weight.sum(), strict=True):
            driving[s] = driving[s] + share * home
    return Outcome(arrival, driving, late, dropped)


def total_cost(problem: RoutingProblem, routes: Routes) -> float:
    """Cost of routes if all goes as planned; a delivery that must be made and is not costs nothing here, but is named."""
    return evaluate(problem, routes).total


def total_cost_of(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> float:
    """Cost of one route as planned, lateness included."""
    if not visits:
        return 0.0
    start, arrivals, _, back = timetable(problem, vehicle, visits)
    km = float(sum(kilometres(problem, vehicle, visits)))
    late = sum(
        float(RouteCost.late(problem.stops["late_cost"][s] or 0.0, arrival, problem.stops["due"][s]))
        for s, arrival in zip(visits, arrivals, strict=True)
    )
    return float(problem.cost_of(vehicle).value(km, back - start)) + late
