"""Routes that differ by a stop or two from those that stand: what chains of exchanges between vehicles are made of.

From a route at most two neighbouring stops are taken, and one stop or a pair of near ones comes in at the cheapest place. A
plan chosen from all of these at once (see `route_choice`) is the best chain of exchanges, however long: a stop comes in
here, for which one there moves on to where there is room (ejection chains: Glover, Ejection chains, reference structures and
alternating path methods, Discrete Applied Mathematics 65, 1996).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.route_problem import Routes, RoutingProblem

_NEAR = 24
_FAR = 1e6  # where no road leads


def exchanges(
    problem: RoutingProblem,
    vehicle: int,
    route: Sequence[int],
    routes: Routes,
    loose: Sequence[int],
    near: int = _NEAR,
) -> Iterator[tuple[list[int], float]]:
    """Routes one exchange away, capacities kept; windows, shifts and distances are for the caller to check.

    Args:
        problem: The day.
        vehicle: Whose route.
        route: Its stops.
        routes: Of the other vehicles: their stops may join (the vehicle's own is left out).
        loose: Stops on no route; they may join any.
        near: Stops of other routes that may join.

    Yields:
        Stops in order, and a price that is no more than what it costs (money; waiting and lateness left out).
    """
    place, quantity = problem.stops["place"].to_numpy(), problem.stops["quantity"].to_numpy()
    service, origin = problem.stops["service"].to_numpy(), problem.stops["depot"].to_list()
    car = problem.vehicles.row(vehicle, named=True)
    depot, capacity = int(car["depot"]), float(car["capacity"]) + 1e-9
    visits, own = np.array(route, dtype=np.int64), set(route)
    pool = {*loose, *(s for v, r in routes.items() if v != vehicle for s in r)} - own
    others = np.array([s for s in sorted(pool) if origin[s] is None or int(origin[s]) == depot], dtype=np.int64)
    closed = ~(np.isfinite(problem.km) & np.isfinite(problem.minutes))
    km, minutes = np.where(closed, _FAR, problem.km), np.where(closed, _FAR, problem.minutes)
    ways = car["cost_per_km"] * km + car["cost_per_minute"] * minutes
    if len(others):
        here = place[visits] if len(visits) else np.array([depot])
        reach = np.minimum(ways[np.ix_(place[others], here)], ways[np.ix_(here, place[others])].T).min(axis=1)
        first = np.isin(others, np.array(loose, dtype=np.int64))
        others = others[np.lexsort((others, reach, ~first))[: near + int(first.sum())]]
    blocks = _blocks(ways, others, place)
    for taken in [(), *((k,) for k in range(len(visits))), *((k, k + 1) for k in range(len(visits) - 1))]:
        rest = np.delete(visits, list(taken))
        path = np.array([depot, *place[rest], depot])
        legs = ways[path[:-1], path[1:]]
        base = float(car["fixed_cost"]) + float(legs.sum()) + float(car["cost_per_minute"] * service[rest].sum())
        load = float(quantity[rest].sum())
        if taken and len(rest):
            yield rest.tolist(), base
        for block in blocks:
            chosen = block[load + quantity[block].sum(axis=1) <= capacity]
            if not len(chosen):
                continue
            ends = place[chosen[:, 0]], place[chosen[:, -1]]
            extra = ways[path[:-1][:, None], ends[0]] + ways[ends[1], path[1:][:, None]] - legs[:, None]
            at = extra.argmin(axis=0)
            price = base + extra[at, np.arange(len(chosen))]
            price += ways[place[chosen[:, :-1]], place[chosen[:, 1:]]].sum(axis=1)
            price += car["cost_per_minute"] * service[chosen].sum(axis=1)
            for k, cost in enumerate(price.tolist()):
                yield [*rest[: at[k]].tolist(), *chosen[k].tolist(), *rest[at[k] :].tolist()], cost


def _blocks(ways: NDArray[np.float64], others: NDArray[np.int64], place: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Stops one by one, and each with the nearest of the others behind it and before it; a row each."""
    if not len(others):
        return []
    single = others[:, None]
    if len(others) < 2:
        return [single]
    between = ways[np.ix_(place[others], place[others])].copy()
    np.fill_diagonal(between, np.inf)
    follows = others[between.argmin(axis=1)]
    pairs = np.unique(np.concatenate([np.column_stack([others, follows]), np.column_stack([follows, others])]), axis=0)
    return [single, pairs]
