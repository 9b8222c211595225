"""Why a stop is dropped or late, and what it would cost to force it in, or in time.

How these findings are shown does not belong here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from npq_assets.optimization.route_evaluation import evaluate, total_cost, total_cost_of
from npq_assets.optimization.route_feasibility import violations, why_hopeless
from npq_assets.optimization.route_model import routes_found, search_stops
from npq_assets.optimization.route_problem import Params, Routes, RoutingProblem, least
from npq_assets.optimization.route_search import iterations_for
from npq_assets.optimization.route_timing import timetable

_SLIGHT = 1e-6  # money below which a stop counts as on time


def explanations(problem: RoutingProblem, routes: Routes, params: Params) -> pl.DataFrame:
    """Dropped and late stops, dearest first: constraint, amount (money it costs to force it in, or on time), message."""
    schema = {"constraint": pl.String, "amount": pl.Float64, "message": pl.String}
    outcome = evaluate(problem, routes)
    base = outcome.total
    served = {s for visits in routes.values() for s in visits}
    rows = problem.stops
    late_cost = outcome.late.mean(axis=1)
    concerned = [s for s in range(rows.height) if s not in served or late_cost[s] > _SLIGHT]
    concerned.sort(key=lambda s: (-(float(rows["drop_cost"][s] or 1e12) if s not in served else late_cost[s]), s))
    found: list[tuple[str, float, str]] = []
    for count, s in enumerate(concerned):
        name, dropped = rows["delivery_id"][s], s not in served
        vehicles = [
            v
            for v in range(problem.vehicles.height)
            if rows["depot"][s] is None or int(problem.vehicles["depot"][v]) == int(rows["depot"][s])
        ]
        reason = why_hopeless(least(problem), s, vehicles)
        if reason is not None:
            found.append((name, float("inf"), f"{name}: dropped, {reason}"))
            continue
        price = _inserted(problem, routes, s, vehicles, base, late_cost[s])
        if count < params.explain:
            price = min(price, _force(problem, routes, s, vehicles, params, base, dropped))
        if dropped:
            own = float(rows["drop_cost"][s] or 0.0)
            text = (
                f"{name}: dropped at {own:,.2f}; serving it costs {price:,.2f} more in routes"
                if np.isfinite(price)
                else f"{name}: dropped; no plan was found that serves it"
            )
        else:
            text = (
                f"{name}: {outcome.arrival[s].mean() - rows['due'][s]:.0f} minutes late at {late_cost[s]:,.2f}; on time costs "
                f"{price:,.2f} more in routes"
                if np.isfinite(price)
                else f"{name}: late at {late_cost[s]:,.2f}; no plan was found that is on time"
            )
        found.append((name, price, text))
    return pl.DataFrame(found, schema=schema, orient="row")


def _inserted(
    problem: RoutingProblem, routes: Routes, stop: int, vehicles: list[int], base: float, late: float
) -> float:
    """As `_force`, with the stop put where it adds least to the routes as they are; inf if it fits nowhere in its window."""
    without = {v: [s for s in r if s != stop] for v, r in routes.items()}
    best = float("inf")
    rest = total_cost(problem, without) - float(problem.stops["drop_cost"][stop] or 0.0)
    for v in vehicles:
        now = without.get(v, [])
        before = total_cost_of(problem, v, now)
        for k in range(len(now) + 1):
            tried = [*now[:k], stop, *now[k:]]
            if violations(problem, {v: tried}) or timetable(problem, v, tried)[1][k] > float(
                problem.stops["due"][stop]
            ):
                continue
            best = min(best, rest + total_cost_of(problem, v, tried) - before)
    served = any(stop in r for r in routes.values())
    own = late if served else float(problem.stops["drop_cost"][stop] or 0.0)
    return best - (base - own)


def _force(
    problem: RoutingProblem, routes: Routes, stop: int, vehicles: list[int], params: Params, base: float, dropped: bool
) -> float:
    """Money by which routes cost more, the stop's own drop or late cost left out, if it must be served in its window."""
    others = [s for s in range(problem.stops.height) if why_hopeless(problem, s, vehicles) is None]
    others = [
        s
        for s in others
        if problem.stops["depot"][s] is None or problem.stops["depot"][stop] is None
        or int(problem.stops["depot"][s]) == int(problem.stops["depot"][stop])
    ]  # fmt: skip
    quick = replace(params, seconds=5.0, iterations=max(300, (params.iterations or iterations_for(len(others))) // 4))
    model, found = search_stops(problem, others, vehicles, quick, routes, soft=True, must={stop}, hard={stop})
    if found.cost is None:
        return float("inf")
    forced = {v: r for v, r in routes.items() if v not in vehicles} | routes_found(model, found.plan)
    outcome = evaluate(problem, forced)
    if stop not in {s for r in forced.values() for s in r} or outcome.late[stop].mean() > _SLIGHT:
        return float("inf")
    now = evaluate(problem, routes)
    own = now.dropped[stop] if dropped else now.late[stop].mean()
    return float(outcome.total - (base - own))
