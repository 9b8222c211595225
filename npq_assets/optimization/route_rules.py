"""Routes by simple rules: what a planner without a solver does, and what our routes are shown beside.

One depot (place 0), one kind of vehicle. How a plan is searched for does not belong here (see `route_search`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def savings(
    distance: Array,
    minutes: Array,
    *,
    demand: Array,
    capacity: float,
    ready: Array,
    due: Array,
    service: Array,
    where: Array | None = None,
    max_distance: float = np.inf,
    reverse: bool | None = None,
) -> list[list[int]]:
    """Clarke and Wright's parallel savings (Operations Research 12, 1964), with capacity, windows and length.

    Args:
        distance: Between places (n+1, n+1); place 0 is the depot.
        minutes: Driving times, in the unit of the windows (n+1, n+1).
        demand: Load of each place; 0 at the depot (n+1).
        capacity: Of a vehicle.
        ready: Start of each window; the depot's is the shift (n+1).
        due: End of each window (n+1).
        service: Time at each place (n+1).
        where: Not used; the rules share their arguments.
        max_distance: Of a route.
        reverse: Whether a route may be turned round; None: where there are no windows and roads are alike both ways.

    Returns:
        Routes as lists of places, without the depot; every place is in one.
    """
    n = len(demand) - 1
    if reverse is None:
        reverse = bool(
            np.allclose(distance, distance.T) and (due[1:] >= due[0]).all() and (ready[1:] <= ready[0]).all()
        )
    routes: dict[int, list[int]] = {k: [k] for k in range(1, n + 1)}
    home = np.arange(n + 1)
    load = demand.astype(float).copy()
    length = distance[0, :] + distance[:, 0]
    gain = distance[1:, 0][:, None] + distance[0, 1:][None, :] - distance[1:, 1:]
    np.fill_diagonal(gain, -np.inf)
    if reverse:
        gain = np.where(np.tri(n, k=-1, dtype=bool), -np.inf, gain)
    flat = np.flatnonzero(gain.ravel() > 1e-9)
    flat = flat[np.argsort(-gain.ravel()[flat], kind="stable")]
    for at in flat.tolist():
        i, j = at // n + 1, at % n + 1
        a, b = int(home[i]), int(home[j])
        if a == b or load[a] + load[b] > capacity + 1e-9:
            continue
        first, second = routes[a], routes[b]
        if reverse:
            if first[-1] != i and first[0] == i:
                first = first[::-1]
            if second[0] != j and second[-1] == j:
                second = second[::-1]
        if first[-1] != i or second[0] != j:
            continue
        total = length[a] + length[b] - gain[i - 1, j - 1]
        if total > max_distance + 1e-9:
            continue
        joined = first + second
        if not reverse and not in_time(joined, minutes, ready, due, service):
            continue
        if (
            reverse
            and not in_time(joined, minutes, ready, due, service)
            and not in_time(joined[::-1], minutes, ready, due, service)
        ):
            continue
        routes[a] = joined
        load[a] += load[b]
        length[a] = total
        home[second] = a
        del routes[b]
    return [routes[k] for k in sorted(routes)]


def in_time(route: list[int], minutes: Array, ready: Array, due: Array, service: Array) -> bool:
    """Whether a route that leaves the depot when its shift starts keeps all windows and is back before the shift ends."""
    clock, at = ready[0], 0
    for stop in route:
        clock = max(clock + service[at] + minutes[at, stop], ready[stop])
        if clock > due[stop] + 1e-9:
            return False
        at = stop
    return bool(clock + service[at] + minutes[at, 0] <= due[0] + 1e-9)


def nearest_neighbour(
    distance: Array,
    minutes: Array,
    *,
    demand: Array,
    capacity: float,
    ready: Array,
    due: Array,
    service: Array,
    where: Array | None = None,
) -> list[list[int]]:
    """Each vehicle drives to the nearest place that it can still serve in time and load, then home."""
    left = set(range(1, len(demand)))
    routes: list[list[int]] = []
    while left:
        route: list[int] = []
        clock, at, load = ready[0], 0, 0.0
        while True:
            options = np.array(sorted(left), dtype=int)
            arrive = np.maximum(clock + service[at] + minutes[at, options], ready[options]) if options.size else options
            fits = (
                (arrive <= due[options] + 1e-9)
                & (load + demand[options] <= capacity + 1e-9)
                & (arrive + service[options] + minutes[options, 0] <= due[0] + 1e-9)
            )
            if not fits.any():
                break
            # With windows, waiting counts as distance does: the next place is the one that can be begun first.
            reach = distance[at, options] + np.maximum(arrive - clock - service[at] - minutes[at, options], 0.0)
            pick = int(np.argmin(np.where(fits, reach, np.inf)))
            stop = int(options[pick])
            clock, load, at = float(arrive[pick]), load + float(demand[stop]), stop
            route.append(stop)
            left.discard(stop)
        if not route:  # a place that no vehicle can serve in time gets a route of its own, which the caller judges
            route = [left.pop()]
        routes.append(route)
    return routes


def sweep(
    distance: Array,
    minutes: Array,
    *,
    demand: Array,
    capacity: float,
    ready: Array,
    due: Array,
    service: Array,
    where: Array | None = None,
) -> list[list[int]]:
    """Gillett and Miller's sweep (Operations Research 22, 1974): places by angle round the depot, filled up in turn.

    A place is put where it lengthens the open route least and windows allow; else it opens the next route.
    """
    assert where is not None
    angle = np.arctan2(where[1:, 1] - where[0, 1], where[1:, 0] - where[0, 0])
    routes: list[list[int]] = []
    route: list[int] = []
    load = 0.0
    for stop in (np.argsort(angle, kind="stable") + 1).tolist():
        best, best_extra = None, np.inf
        if load + demand[stop] <= capacity + 1e-9:
            for k in range(len(route) + 1):
                before, after = (route[k - 1] if k else 0), (route[k] if k < len(route) else 0)
                extra = distance[before, stop] + distance[stop, after] - distance[before, after]
                tried = [*route[:k], stop, *route[k:]]
                if extra < best_extra and in_time(tried, minutes, ready, due, service):
                    best, best_extra = tried, extra
        if best is None:
            if route:
                routes.append(route)
            route, load = [stop], float(demand[stop])
        else:
            route, load = best, load + float(demand[stop])
    return [*routes, route] if route else routes
