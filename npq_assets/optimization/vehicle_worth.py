"""What one vehicle more or fewer is worth on a day, found by solving the day again.

How a day is solved does not belong here (see `routing`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from npq_assets.optimization.route_evaluation import total_cost, total_cost_of
from npq_assets.optimization.route_problem import Params, Routes, RoutingProblem, parts_of
from npq_assets.optimization.routing import solve

VEHICLE_WORTH = {
    "subject": pl.String,
    "limit": pl.String,
    "amount": pl.Float64,
    "used": pl.Float64,
    "worth_per_unit": pl.Float64,
    "method": pl.String,
}


def worth_of_vehicles(problem: RoutingProblem, routes: Routes, params: Params, most: int = 8) -> pl.DataFrame:
    """What one vehicle more of each kind would save, and one fewer would cost, its own costs of the day counted.

    A route is all or nothing, so no dual tells: the day is solved again with the vehicle added or taken away. Where a vehicle of
    a kind stands idle, one more or fewer changes nothing.

    Args:
        problem: The day.
        routes: Its plan.
        params: How long to search.
        most: Re-solves at most, the largest kinds first.

    Returns:
        subject, limit (`one vehicle more`, `one vehicle fewer`), amount (vehicles of the kind), used, worth_per_unit (money a
        day), method (`re-solve`, or `idle` where none was needed).
    """
    cars = problem.vehicles
    names = ("depot", "capacity", "fixed_cost", "cost_per_km", "cost_per_minute", "shift_start", "shift_end", "max_km")
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for v in range(cars.height):
        kinds.setdefault(tuple(cars[name][v] for name in names), []).append(v)
    quick = replace(params, bound=False, explain=0)
    rows: list[tuple[str, str, float, float, float | None, str]] = []
    solved = 0
    for kind, members in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[1][0])):
        used = [v for v in members if routes.get(v)]
        subject = f"vehicles like {cars['vehicle_id'][members[0]]} (capacity {float(kind[1]):g})"
        sizes = (float(len(members)), float(len(used)))
        if len(used) < len(members):
            rows += [(subject, f"one vehicle {word}", *sizes, 0.0, "idle") for word in ("more", "fewer")]
            continue
        if solved + 2 > most:
            continue
        solved += 2
        shared = [
            (stops, vehicles) for stops, vehicles in parts_of(problem) if members[0] in vehicles
        ]  # vehicles of one depot
        stops, vehicles = shared[0]
        least = min(used, key=lambda v: (total_cost_of(problem, v, routes[v]), v))
        for word, more, fewer in (("more", [members[0]], []), ("fewer", [], [least])):
            kept = [v for v in vehicles if v not in fewer]
            chosen = pl.concat([cars[kept], cars[more].with_columns(pl.lit("one more").alias("vehicle_id"))])
            part = replace(problem, stops=problem.stops[stops], vehicles=chosen, departs={})
            stop_at = {s: k for k, s in enumerate(stops)}
            start = {k: [stop_at[s] for s in routes[v]] for k, v in enumerate(kept) if routes.get(v)}
            now = total_cost(replace(problem, stops=problem.stops[stops], vehicles=cars[vehicles], departs={}), {
                k: [stop_at[s] for s in routes[v]] for k, v in enumerate(vehicles) if routes.get(v)
            })  # fmt: skip
            found = solve(part, quick, start)
            if found.status == "relaxed":  # deliveries that must be made are left: no money says what that is worth
                rows.append((subject, f"one vehicle {word}", *sizes, None, "re-solve: not all can be served"))
                continue
            saved = now - found.objective if more else found.objective - now
            rows.append((subject, f"one vehicle {word}", *sizes, max(0.0, saved), "re-solve"))
    return pl.DataFrame(rows, schema=VEHICLE_WORTH, orient="row")
