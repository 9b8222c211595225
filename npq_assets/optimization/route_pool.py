"""Routes kept from a search, and the best plan that can be put together from them.

A local search sees one plan at a time and forgets good routes whose neighbours were bad. Kept and chosen from by an integer
program (set partitioning: every client on one route, or its prize lost; no more routes of a kind than vehicles), they often
make a better plan than any that the search met (Subramanian, Uchoa and Ochi, A hybrid algorithm for a class of vehicle
routing problems, Computers & Operations Research 40, 2013).

Works on PyVRP's own objects. How the search runs does not belong here (see `route_search`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from npq_assets.optimization.linear import Model, solve_integer, solve_linear

Plan = list[tuple[int, list[int]]]
"""Routes as (index of the vehicle type, indices of the clients in order)."""

Kept = tuple[int, tuple[int, ...], int]
"""A route: index of the vehicle type, clients in order, cost in the problem's integer money."""

_MOST_ROUTES = 20_000
_MOST_COLUMNS = 1_500  # HiGHS looks at its clock too seldom in larger ones


class RoutePool:
    """The cheapest order met for each set of clients on each kind of vehicle; the oldest are forgotten first.

    Args:
        most: Routes to keep.
    """

    def __init__(self, most: int = _MOST_ROUTES) -> None:
        self._most = most
        self._best: dict[tuple[int, frozenset[int]], Kept] = {}
        self._seen: set[tuple[Any, ...]] = set()

    def __len__(self) -> int:
        return len(self._best)

    def note(self, solution: Any) -> None:
        """Keeps the routes of a PyVRP solution that break no rule, whether or not the others do."""
        for route in solution.routes():
            # Reading a route is dear and most were met before: these numbers tell routes apart well enough to skip one.
            size = len(route)
            ends = (route[1].idx, route[size - 2].idx) if size > 2 else ()
            mark = (route.vehicle_type(), size, *ends, route.distance(), route.duration(), *route.delivery())
            if mark in self._seen:
                continue
            self._seen.add(mark)
            if route.num_clients() and route.is_feasible():
                cost = route.distance_cost() + route.duration_cost() + route.fixed_vehicle_cost()
                clients = tuple(visit.idx for visit in route.schedule() if visit.is_client())
                self.keep((int(route.vehicle_type()), clients, int(cost)))

    def keep(self, route: Kept) -> None:
        """Keeps one route if it is the cheapest for its clients."""
        key = (route[0], frozenset(route[1]))
        known = self._best.pop(key, None)
        self._best[key] = route if known is None or route[2] < known[2] else known
        while len(self._best) > self._most:
            self._best.pop(next(iter(self._best)))

    def extend(self, routes: Iterable[Kept]) -> None:
        """Keeps several."""
        for route in routes:
            self.keep(route)

    def routes(self) -> list[Kept]:
        """All routes kept, the latest last."""
        return list(self._best.values())


def recombined(
    data: Any, routes: list[Kept], best: Plan, cost: int, *, seconds: float = 2.0, nodes: int | None = 200
) -> Plan | None:
    """The cheapest plan made of kept routes, if it is cheaper than `best`; None if none was found.

    Routes whose reduced cost in the linear relaxation is above the gap to `best` are in no better plan and are left out.

    Args:
        data: `pyvrp.ProblemData`.
        routes: To choose from.
        best: The best plan known: its routes are among those to choose from.
        cost: What it costs.
        seconds: Limit by the clock, of both programs together.
        nodes: Limit by work of the integer program.
    """
    began = time.monotonic()
    pool = RoutePool(most=len(routes) + len(best))
    pool.extend(routes)
    mine = [(kind, tuple(visits)) for kind, visits in best]
    known = {(kind, frozenset(clients)) for kind, clients, _ in pool.routes()}
    pool.extend(
        (kind, clients, _cost_of_route(data, kind, clients))
        for kind, clients in mine
        if (kind, frozenset(clients)) not in known
    )
    columns = pool.routes()
    start = {(kind, frozenset(clients)) for kind, clients in mine}
    # Money is put in units of the plan's cost: programs with coefficients in the millions are badly scaled.
    unit = max(float(cost), 1.0)
    relaxed, _, _ = _program(data, columns, unit)
    found = solve_linear(relaxed, seconds=seconds)
    if found.reduced is None:
        return None
    gap = 1.0 - found.objective
    if gap <= 1e-7:
        return None
    reduced = found.reduced[: len(columns)]
    near = np.flatnonzero(reduced <= gap + 1e-9)
    if len(near) > _MOST_COLUMNS:
        near = near[np.argsort(reduced[near], kind="stable")[:_MOST_COLUMNS]]
    chosen = set(near.tolist())
    chosen |= {k for k, (kind, clients, _) in enumerate(columns) if (kind, frozenset(clients)) in start}
    columns = [columns[k] for k in sorted(chosen)]
    model, x, lost = _program(data, columns, unit)
    point = np.zeros(model.columns)
    point[x] = [float((kind, frozenset(clients)) in start) for kind, clients, _ in columns]
    served = {k for _, clients in mine for k in clients}
    for client, column in lost.items():
        point[column] = float(client not in served)
    left = seconds - (time.monotonic() - began)
    if left < 0.05:
        return None
    answer = solve_integer(model, seconds=left, gap=1e-7, nodes=nodes, start=point)
    if answer.x is None or answer.objective > 1.0 - 1e-7:
        return None
    return [(columns[k][0], list(columns[k][1])) for k in np.flatnonzero(answer.x[x] > 0.5)]


def _cost_of_route(data: Any, kind: int, clients: tuple[int, ...]) -> int:
    from pyvrp import Activity, ActivityType, Route

    route = Route(data, [Activity(ActivityType.CLIENT, k) for k in clients], kind)
    return int(route.distance_cost() + route.duration_cost() + route.fixed_vehicle_cost())


def _program(data: Any, columns: list[Kept], unit: float) -> tuple[Model, Any, dict[int, int]]:
    """The set-partitioning program, the numbers of its route variables, and by optional client the one that loses it."""
    model = Model()
    x = model.add_columns(len(columns), np.array([c for _, _, c in columns]) / unit, 0.0, 1.0, integer=True)
    rows = model.add_rows(data.num_clients, 1.0, 1.0)
    lengths = np.array([len(clients) for _, clients, _ in columns])
    members = np.concatenate([np.asarray(clients, dtype=np.int64) for _, clients, _ in columns])
    model.add_entries(rows[members], np.repeat(x, lengths), 1.0)
    lost: dict[int, int] = {}
    for k, client in enumerate(data.clients()):
        if not client.required:
            column = model.add_columns(1, client.prize / unit, 0.0, 1.0, integer=True)
            model.add_entries(rows[k : k + 1], column, 1.0)
            lost[k] = int(column[0])
    for group in data.groups():  # of the clients of a group at most one is served (exactly one, if it is required)
        others = np.array([lost[k] for k in group.clients], dtype=np.int64)
        row = model.add_rows(1, len(others) - 1.0, len(others) - 1.0 if group.required else np.inf)
        model.add_entries(row, others, 1.0)
    kinds = np.array([kind for kind, _, _ in columns])
    for k, vehicle in enumerate(data.vehicle_types()):
        used = np.flatnonzero(kinds == k)
        if len(used) > vehicle.num_available:
            row = model.add_rows(1, -np.inf, float(vehicle.num_available))
            model.add_entries(row, x[used], 1.0)
    return model, x, lost
