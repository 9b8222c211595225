"""When a route is driven: departure, arrivals, kilometres leg by leg, and the plan as a frame.

What routes cost does not belong here (see `route_evaluation`), nor which rules they keep (see `route_feasibility`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.optimization.road_hours import RoadHours
from npq_assets.optimization.route_problem import Routes, RoutingProblem

Array = NDArray[np.float64]


def timetable(
    problem: RoutingProblem, vehicle: int, visits: Sequence[int], minutes: Array | None = None
) -> tuple[float, list[float], list[float], float]:
    """Departure, arrivals, starts of service and return of a route, leaving the depot as late as harms nobody.

    The latest start that makes no stop later than the earliest start would (forward time slack, Savelsbergh 1992); a vehicle
    whose departure is settled leaves then.
    """
    if minutes is None and problem.hours is not None and not _alike(problem, vehicle, visits):
        return _timed(problem, problem.hours, vehicle, visits)
    m = problem.minutes if minutes is None else minutes
    rows, car = problem.stops, problem.vehicles
    ready, due = rows["ready"].to_numpy(), rows["due"].to_numpy()
    service, place = rows["service"].to_numpy(), rows["place"].to_numpy()
    depot, shift = int(car["depot"][vehicle]), float(car["shift_start"][vehicle])

    def run(start: float) -> tuple[list[float], list[float], float]:
        clock, at, arrivals, begins = start, depot, [], []
        for s in visits:
            clock += m[at, place[s]]
            arrivals.append(float(clock))
            clock = max(clock, ready[s])
            begins.append(float(clock))
            clock, at = clock + service[s], place[s]
        return arrivals, begins, float(clock + m[at, depot])

    if vehicle in problem.departs:
        start = float(problem.departs[vehicle])
        return (start, *run(start))
    arrivals, begins, back = run(shift)
    slack, waited = np.inf, 0.0
    for s, arrival, begin in zip(visits, arrivals, begins, strict=True):
        waited += max(0.0, begin - arrival)
        # Later by this much, the stop still begins in its window (or, if late anyway, no later than it must).
        slack = min(slack, waited + max(0.0, due[s] - begin))
    start = shift + (min(slack, waited) if visits else 0.0)
    arrivals, begins, back = run(start)
    return start, arrivals, begins, back


def path_of(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> list[int]:
    """Places of a route, its depot first and last."""
    depot, place = int(problem.vehicles["depot"][vehicle]), problem.stops["place"]
    return [depot, *(int(place[s]) for s in visits), depot]


def _alike(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> bool:
    """Whether a route's ways, which are then those of `km` and `minutes`, are the same at all times."""
    hours = problem.hours
    return hours is None or all(hours.alike[a, b] for a, b in itertools.pairwise(path_of(problem, vehicle, visits)))


def _timed(
    problem: RoutingProblem, hours: RoadHours, vehicle: int, visits: Sequence[int]
) -> tuple[float, list[float], list[float], float]:
    """`timetable` with ways by time of day: of a late start on any way, and one on ways no longer in all, the cheaper.

    Both harm nobody. Leaving later makes no arrival sooner, so the former is the latest there is, found by halving.
    """
    rows, path = problem.stops, path_of(problem, vehicle, visits)
    ready, due, service = (rows[name].gather(list(visits)).to_list() for name in ("ready", "due", "service"))

    def run(start: float) -> tuple[list[float], list[float], float, float, list[float]]:
        clock, far, arrivals, begins, waits = start, 0.0, [], [], []
        for k in range(len(visits)):
            arrival, km, usual = hours.leg(clock, path[k], path[k + 1], problem.stretch)
            begin = max(arrival, ready[k])
            # Time in which the vehicle does not drive, on the way or before the window.
            waits.append(begin - clock - problem.stretch * usual)
            arrivals.append(arrival)
            begins.append(begin)
            clock, far = begin + service[k], far + km
        back, km, _ = hours.leg(clock, path[-2], path[-1], problem.stretch)
        return arrivals, begins, back, far + km, waits

    if vehicle in problem.departs:
        start = float(problem.departs[vehicle])
        return (start, *run(start)[:3])
    shift = float(problem.vehicles["shift_start"][vehicle])
    _, first, back, far, waits = run(shift)
    slack, waited = np.inf, 0.0
    for wait, begin, end in zip(waits, first, due, strict=True):
        waited += wait
        slack = min(slack, waited + max(0.0, end - begin))
    most = shift + (min(slack, waited) if visits and np.isfinite(waited) else 0.0)
    cost = problem.cost_of(vehicle)
    best = (np.inf, shift)
    for longest in (far, np.inf):

        def harmless(start: float, longest: float = longest) -> bool:
            _, begins, home, km, _ = run(start)
            late = any(b > max(end, a) + 1e-6 for a, b, end in zip(first, begins, due, strict=True))
            return not late and home <= back + 1e-6 and km <= longest + 1e-9

        low = high = most
        if not harmless(most):
            low = shift
        while high - low > 1.0 / 60.0:
            middle = (low + high) / 2.0
            low, high = (middle, high) if harmless(middle) else (low, middle)
        _, _, home, km, _ = run(low)
        best = min(best, (round(float(cost.value(km, home - low)), 6), low))
    return (best[1], *run(best[1])[:3])


def kilometres(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> list[float]:
    """Km of each leg of a route as planned, the way home last."""
    path = path_of(problem, vehicle, visits)
    hours = problem.hours
    if hours is None or _alike(problem, vehicle, visits):
        return [float(problem.km[a, b]) for a, b in itertools.pairwise(path)]
    start, _, begins, _ = timetable(problem, vehicle, visits)
    leaves = [start, *(b + float(problem.stops["service"][s]) for s, b in zip(visits, begins, strict=True))]
    return [
        hours.leg(clock, a, b, problem.stretch)[1]
        for clock, (a, b) in zip(leaves, itertools.pairwise(path), strict=True)
    ]


def schedule(problem: RoutingProblem, routes: Routes) -> pl.DataFrame:
    """The plan of `routes`: the columns that `solve` describes, by delivery."""
    rows: list[dict[str, Any]] = []
    stops = problem.stops
    quantity = stops["quantity"].to_numpy()
    due, service = stops["due"].to_numpy(), stops["service"].to_numpy()
    for vehicle, visits in sorted(routes.items()):
        start, arrivals, begins, _ = timetable(problem, vehicle, visits)
        km, left = kilometres(problem, vehicle, visits), float(sum(quantity[s] for s in visits))
        for k, s in enumerate(visits):
            rows.append(
                {
                    "delivery_id": stops["delivery_id"][s],
                    "vehicle_id": problem.vehicles["vehicle_id"][vehicle],
                    "stop": k + 1,
                    "departs": start,
                    "arrives": arrivals[k],
                    "begins": begins[k],
                    "leaves": begins[k] + float(service[s]),
                    "load": left,
                    "km": km[k],
                    "late_minutes": max(0.0, arrivals[k] - float(due[s])),
                }
            )
            left -= float(quantity[s])
    served = {row["delivery_id"] for row in rows}
    rows += [{"delivery_id": name} for name in stops["delivery_id"].to_list() if name not in served]
    return pl.DataFrame(rows, schema=PLAN)


PLAN = {
    "delivery_id": pl.String,
    "vehicle_id": pl.String,
    "stop": pl.Int64,
    "departs": pl.Float64,
    "arrives": pl.Float64,
    "begins": pl.Float64,
    "leaves": pl.Float64,
    "load": pl.Float64,
    "km": pl.Float64,
    "late_minutes": pl.Float64,
}


def routes_of(problem: RoutingProblem, plan: pl.DataFrame) -> Routes:
    """The routes of a plan frame, in rows of the problem; deliveries and vehicles that are gone are left out."""
    stop = {name: k for k, name in enumerate(problem.stops["delivery_id"].to_list())}
    car = {name: k for k, name in enumerate(problem.vehicles["vehicle_id"].to_list())}
    routes: Routes = {}
    for row in plan.drop_nulls("vehicle_id").sort("vehicle_id", "stop").to_dicts():
        if row["vehicle_id"] in car and row["delivery_id"] in stop:
            routes.setdefault(car[row["vehicle_id"]], []).append(stop[row["delivery_id"]])
    return routes


def clock_text(minutes: float) -> str:
    """Minutes after midnight as HH:MM."""
    if not np.isfinite(minutes):
        return "never"
    whole = round(minutes)
    return f"{whole // 60:02d}:{whole % 60:02d}"
