"""Which rules routes break, which stops they leave out, and which stops no vehicle can serve.

What breaking a window or leaving out a stop costs does not belong here (see `route_evaluation`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npq_assets.optimization.route_problem import Routes, RoutingProblem
from npq_assets.optimization.route_timing import clock_text, kilometres, path_of, timetable


def violations(problem: RoutingProblem, routes: Routes) -> list[str]:
    """Rules that routes break, in words; empty if they keep all: capacity, shift, distance, depot, each stop at most once."""
    broken: list[str] = []
    rows, cars = problem.stops, problem.vehicles
    seen: set[int] = set()
    for vehicle, visits in routes.items():
        name = cars["vehicle_id"][vehicle]
        load = float(rows["quantity"].gather(visits).sum()) if visits else 0.0
        if load > float(cars["capacity"][vehicle]) * (1 + 1e-9) + 1e-3:
            broken.append(f"{name}: load {load:g} above capacity {cars['capacity'][vehicle]:g}")
        path = path_of(problem, vehicle, visits)
        km = float(sum(kilometres(problem, vehicle, visits)))
        limit = cars["max_km"][vehicle]
        if limit is not None and km > float(limit) + 0.01 * len(path):
            broken.append(f"{name}: {km:.1f} km above its {limit:g}")
        if not np.isfinite(km):
            broken.append(f"{name}: drives where there is no way")
        if visits:
            start, _, _, back = timetable(problem, vehicle, visits)
            if back > float(cars["shift_end"][vehicle]) + 0.05 * len(path):
                broken.append(f"{name}: back at {clock_text(back)}, after its shift")
            if start < float(cars["shift_start"][vehicle]) - 1e-6:
                broken.append(f"{name}: leaves at {clock_text(start)}, before its shift")
        for s in visits:
            if s in seen:
                broken.append(f"{rows['delivery_id'][s]}: served twice")
            seen.add(s)
            origin = rows["depot"][s]
            if origin is not None and int(origin) != int(cars["depot"][vehicle]):
                broken.append(f"{rows['delivery_id'][s]}: its goods do not start from {name}'s depot")
    return broken


def left_out(problem: RoutingProblem, routes: Routes) -> set[int]:
    """Stops that must be delivered and are on no route."""
    served = {s for visits in routes.values() for s in visits}
    return {s for s, price in enumerate(problem.stops["drop_cost"].to_list()) if price is None and s not in served}


def why_hopeless(problem: RoutingProblem, stop: int, vehicles: Sequence[int]) -> str | None:
    """Why no vehicle can serve a stop, whatever the others get; None if one can."""
    row, cars = problem.stops.row(stop, named=True), problem.vehicles
    if not vehicles:
        return "no vehicle at its depot"
    if row["quantity"] > max(float(cars["capacity"][v]) for v in vehicles) + 1e-9:
        return f"its load {row['quantity']:g} is above the largest vehicle's capacity"
    here = row["place"]
    ways = [
        (float(problem.minutes[int(depot), here]), float(problem.minutes[here, int(depot)]), v)
        for v in vehicles
        for depot in (cars["depot"][v],)
    ]
    ways = [(a, b, v) for a, b, v in ways if np.isfinite(a) and np.isfinite(b)]
    if not ways:
        return "no road leads there and back"
    for there, back, v in ways:
        begin = max(float(cars["shift_start"][v]) + there, row["ready"])
        if begin + row["service"] + back <= float(cars["shift_end"][v]) + 1e-6:
            limit = cars["max_km"][v]
            depot = int(cars["depot"][v])
            if limit is None or problem.km[depot, row["place"]] + problem.km[row["place"], depot] <= float(limit):
                return None
    return "no vehicle gets there and back within its shift and distance"
