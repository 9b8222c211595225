"""A plan that stands takes in what has changed: new stops, lost vehicles, closed roads; each change to somebody has a price.

    minimize    cost of the routes (see `routing`) + sum_i v [i is on another vehicle than before, or is not served any more]
                + sum_i a_i [the service of i begins more than tau from when it was told to, or not at all]

Vehicles that are on the road keep their routes. From the calmest to the freest, the nearest 1, 2, 3, 4, 8 and at last all
routes are opened (a large neighbourhood search, Shaw, CP 1998, whose neighbourhoods are chosen by distance from the change), and
PyVRP searches inside: a profile per old route charges for leaving it, and a stop has one client for keeping to what was told and
others for not doing so. What a day, a clock or a landed row is does not belong here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from npq_assets.optimization.route_search import Effort, iterations_for, search
from npq_assets.optimization.routing import (
    Params,
    RouteCost,
    Routes,
    RoutingProblem,
    dearest,
    evaluate,
    insert_left,
    plan_found,
    pyvrp_model,
    routes_found,
    seconds_for,
    timetable,
    violations,
    why_hopeless,
)

_PRICED_UP_TO = 120


@dataclass(frozen=True)
class Told:
    """When customers were told that their service begins.

    Attributes:
        begins: By stop (row of the problem), minute after midnight.
        price: By stop, money for beginning at another time.
        tolerance: Minutes by which it may begin earlier or later without being another time.
    """

    begins: Mapping[int, float]
    price: Mapping[int, float]
    tolerance: float = 30.0

    def span(self, stop: int) -> tuple[float, float]:
        """Minutes between which the service of a stop is to begin."""
        at = self.begins[stop]
        return at - self.tolerance, at + self.tolerance


@dataclass(frozen=True)
class Replan:
    """Ways to take in what has changed, from the calmest to the freest.

    Attributes:
        curve: A row a way: routes_open (routes that might change), free (whether change had no price: the last row, from which
            one sees what calm costs), routes_changed, stops_moved (to another vehicle), times_changed (beyond the tolerance),
            stops_dropped (served by nobody), cost, price (cost plus the price of change, and a prohibitive one for each stop
            left out that must be served).
        plans: The routes of each row.
        problems: The problem of each row, in which departures and waiting times are settled so that times told are kept.
        chosen: Row with the least price.
    """

    curve: pl.DataFrame
    plans: list[Routes] = field(repr=False)
    problems: list[RoutingProblem] = field(repr=False)
    chosen: int = 0

    @property
    def routes(self) -> Routes:
        """The routes chosen."""
        return self.plans[self.chosen]

    @property
    def problem(self) -> RoutingProblem:
        """The problem with the departures chosen; `routing.timetable` of it keeps the times told."""
        return self.problems[self.chosen]


def replan(
    problem: RoutingProblem,
    before: Routes,
    *,
    change_price: float = 0.0,
    told: Told | None = None,
    locked: Sequence[int] = (),
    open_routes: Sequence[int] = (1, 2, 3, 4, 8),
    most_routes: int | None = None,
    params: Params | None = None,
    free: bool = False,
) -> Replan:
    """Takes new deliveries, lost vehicles or closed roads into a plan that stands, and shows what calm costs.

    Args:
        problem: The day as it is now.
        before: The routes that stand, in rows of `problem` (see `routing.routes_of`).
        change_price: Money for each stop that changes its vehicle.
        told: When services were told to begin, and what another time costs; None: times may change for nothing.
        locked: Vehicles on the road: their routes stay.
        open_routes: How many routes to open in each way; all in the last.
        most_routes: If given, only ways that change no more routes than this are chosen from.
        params: Search of each way.
        free: Whether to add a last way in which change has no price.
    """
    params = params or Params()
    fixed = {v: list(r) for v, r in before.items() if v in set(locked)}
    loose_routes = {v: list(r) for v, r in before.items() if v not in fixed and v < problem.vehicles.height}
    placed = {s for r in before.values() for s in r}
    new = [s for s in range(problem.stops.height) if s not in placed]
    broken = [v for v, r in loose_routes.items() if violations(problem, {v: r})]
    start = {v: r for v, r in loose_routes.items() if v not in broken}
    loose = new + [s for v in broken for s in loose_routes[v]]
    idle = [v for v in range(problem.vehicles.height) if v not in before]
    home = {s: v for v, r in before.items() for s in r}
    order = _nearest_routes(problem, start, loose)
    count = _Counter(problem, home, change_price, told)
    ways = [(k, False) for k in sorted({min(k, len(order)) for k in open_routes} | {len(order)})]
    plans: list[Routes] = []
    rows: list[dict[str, Any]] = []
    carried: Routes | None = None
    for k, no_price in [*ways, *([(len(order), True)] if free else [])]:
        chosen = order[:k]
        inside = [s for v in chosen for s in start[v]] + loose
        cars = [*chosen, *broken, *idle]
        kept = {v: r for v, r in start.items() if v not in chosen}
        first = carried or insert_left(problem, {v: start[v] for v in chosen}, loose, cars)
        first = {v: r for v, r in first.items() if v in cars}
        missing = [s for s in inside if s not in {x for r in first.values() for x in r}]
        first |= {v: start[v] for v in chosen if v not in first and not (set(start[v]) - set(missing))}
        judge = _Counter(problem, home, 0.0, None) if no_price else count
        inner = _search_open(problem, inside, cars, judge, first, params)
        routes = fixed | kept | {v: r for v, r in inner.items() if r}
        if plans and judge.price(routes) > judge.price(plans[-1]) - 1e-9:
            routes = plans[-1]
        moved, times = count.changes(routes)
        rows.append(
            {
                "routes_open": k,
                "free": no_price,
                "routes_changed": sum(routes.get(v, []) != before.get(v, []) for v in {*routes, *before}),
                "stops_moved": len(moved),
                "times_changed": len(times),
                "stops_dropped": len(_unserved(problem, routes)),
                "cost": judge.cost(routes),
                "price": count.price(routes),
            }
        )
        plans.append(routes)
        carried = {v: r for v, r in routes.items() if v not in fixed}
    candidates = [i for i, row in enumerate(rows) if most_routes is None or row["routes_changed"] <= most_routes]
    chosen_row = min(candidates or range(len(rows)), key=lambda i: (rows[i]["price"], i))
    return Replan(pl.DataFrame(rows), plans, [count.settled(routes) for routes in plans], chosen_row)


@dataclass(frozen=True)
class _Way:
    """How a route is driven: when it leaves, for which stops it waits until the time told, what changes, and what it costs."""

    departs: float
    waits: Mapping[int, float]
    changed: frozenset[int]
    cost: float


class _Counter:
    """Counts the changes of routes and prices them; of the ways to drive a route it takes the cheapest."""

    def __init__(
        self, problem: RoutingProblem, home: Mapping[int, int], change_price: float, told: Told | None
    ) -> None:
        self.problem, self.home, self.change_price = problem, home, change_price
        self.told = told if told is not None and told.begins else None
        self._known: dict[tuple[int, tuple[int, ...]], _Way] = {}
        self._pinned: RoutingProblem | None = None
        if self.told is not None:
            self._pinned = _pinned(problem, {s: self.told.span(s) for s in self.told.begins})

    def spans(self) -> dict[int, tuple[float, float, float]] | None:
        """What was told, as the search wants it: by stop, from, to and price."""
        told = self.told
        return None if told is None else {s: (*told.span(s), float(told.price.get(s, 0.0))) for s in told.begins}

    def way(self, vehicle: int, visits: Sequence[int], kept: set[int] | None = None) -> _Way:
        """The cheapest way to drive a route, changes of times priced.

        Args:
            vehicle: Its row.
            visits: Its stops.
            kept: Stops that a search has found to keep their times: a further way to try.
        """
        key = (vehicle, tuple(visits))
        if key in self._known and kept is None:
            return self._known[key]
        tried = [self._driven(vehicle, visits, self.problem, {})]
        if self.told is not None and self._pinned is not None:
            choices = [{s for s in visits if s in self.told.begins}]
            if kept is not None:
                choices.append(kept & choices[0])
            for choice in choices:
                pinned = self._pinned
                if choice != choices[0]:
                    pinned = _pinned(self.problem, {s: self.told.span(s) for s in choice})
                tried.append(
                    self._driven(vehicle, visits, pinned, {s: float(pinned.stops["ready"][s]) for s in choice})
                )
        if key in self._known:
            tried.append(self._known[key])
        self._known[key] = min(tried, key=lambda way: way.cost + self._charge(way.changed))
        return self._known[key]

    def _driven(self, vehicle: int, visits: Sequence[int], planned: RoutingProblem, waits: Mapping[int, float]) -> _Way:
        """Leaves as `planned` says, waits as it says, and is late by the windows of the day."""
        start, arrivals, begins, back = timetable(planned, vehicle, visits)
        rows, told = self.problem.stops, self.told
        place, depot = rows["place"], int(self.problem.vehicles["depot"][vehicle])
        path = [depot, *(int(place[s]) for s in visits), depot]
        km = float(sum(self.problem.km[a, b] for a, b in itertools.pairwise(path))) if visits else 0.0
        late = sum(
            float(RouteCost.late(rows["late_cost"][s] or 0.0, arrival, rows["due"][s]))
            for s, arrival in zip(visits, arrivals, strict=True)
        )
        changed = frozenset(
            s
            for s, begin in zip(visits, begins, strict=True)
            if told is not None and s in told.begins and abs(begin - told.begins[s]) > told.tolerance + 0.02
        )
        cost = float(self.problem.cost_of(vehicle).value(km, back - start)) + late if visits else 0.0
        return _Way(start, waits, changed, cost)

    def _charge(self, changed: frozenset[int]) -> float:
        return 0.0 if self.told is None else sum(float(self.told.price.get(s, 0.0)) for s in changed)

    def route_price(self, vehicle: int, visits: Sequence[int]) -> float:
        """Cost of a route and the price of the times that it changes."""
        way = self.way(vehicle, visits)
        return way.cost + self._charge(way.changed)

    def changes(self, routes: Routes) -> tuple[list[int], list[int]]:
        """Stops on another vehicle than before, and stops that begin at another time than told."""
        moved = [s for v, r in routes.items() for s in r if self.home.get(s, v) != v]
        times = sorted(s for v, r in routes.items() for s in self.way(v, r).changed)
        return moved, times

    def cost(self, routes: Routes) -> float:
        """Cost of routes if all goes as planned, stops that are dropped included."""
        drops = self.problem.stops["drop_cost"]
        lost = sum(float(drops[s] or 0.0) for s in _unserved(self.problem, routes))
        return sum(self.way(v, r).cost for v, r in routes.items()) + lost

    def price(self, routes: Routes) -> float:
        """Cost, the price of change, and for each stop that must be served and is not more than any delivery can cost."""
        moved, times = self.changes(routes)
        out = _unserved(self.problem, routes)
        lost = sum(self.problem.stops["drop_cost"][s] is None for s in out)
        # Who was told and is not served any more has lost vehicle and time.
        gone = [s for s in out if s in self.home]
        charge = self.change_price * (len(moved) + len(gone)) + self._charge(frozenset([*times, *gone]))
        return self.cost(routes) + charge + lost * 4.0 * (dearest(self.problem) + 1e3)

    def settled(self, routes: Routes) -> RoutingProblem:
        """The problem in which each route leaves, and waits, as it was counted."""
        ready = self.problem.stops["ready"].to_list()
        departs = dict(self.problem.departs)
        for v, r in routes.items():
            way = self.way(v, r)
            departs[v] = way.departs
            for s, begin in way.waits.items():
                ready[s] = begin
        stops = self.problem.stops.with_columns(pl.Series("ready", ready, dtype=pl.Float64))
        return replace(self.problem, stops=stops, departs=departs)


def _pinned(problem: RoutingProblem, spans: Mapping[int, tuple[float, float]]) -> RoutingProblem:
    """The problem with the windows of some stops narrowed to what was told; where that is outside, the window stays."""
    ready, due = problem.stops["ready"].to_list(), problem.stops["due"].to_list()
    for s, (low, high) in spans.items():
        if max(ready[s], low) <= min(due[s], high):
            ready[s], due[s] = max(ready[s], low), min(due[s], high)
    columns = [pl.Series("ready", ready, dtype=pl.Float64), pl.Series("due", due, dtype=pl.Float64)]
    return replace(problem, stops=problem.stops.with_columns(columns))


def _unserved(problem: RoutingProblem, routes: Routes) -> list[int]:
    served = {s for r in routes.values() for s in r}
    return [s for s in range(problem.stops.height) if s not in served]


def _nearest_routes(problem: RoutingProblem, routes: Routes, loose: list[int]) -> list[int]:
    """Vehicles by how near their routes lie to the stops to be placed; without any, by what their lateness costs."""
    place = problem.stops["place"].to_numpy()
    if not loose:
        late = evaluate(problem, routes).late.sum(axis=1)
        return sorted(routes, key=lambda v: (-float(late[routes[v]].sum()), v))
    targets = place[loose]

    def near(vehicle: int) -> float:
        visits = place[routes[vehicle]]
        if not len(visits):
            return float("inf")
        km = np.minimum(problem.km[np.ix_(targets, visits)], problem.km[np.ix_(visits, targets)].T)
        return float(np.sort(km, axis=1)[:, :2].mean())

    return sorted(routes, key=lambda v: (near(v), v))


def _search_open(
    problem: RoutingProblem, stops: list[int], cars: list[int], count: _Counter, start: Routes, params: Params
) -> Routes:
    if not stops or not cars:
        return {}
    can = [s for s in stops if why_hopeless(problem, s, cars) is None]
    soft = len(can) <= _PRICED_UP_TO and bool((problem.stops["late_cost"].fill_null(0.0).gather(can) > 0).any())
    model = pyvrp_model(
        problem,
        can,
        cars,
        soft=soft,
        must=None,
        home=count.home,
        change_price=count.change_price,
        told=count.spans(),
    )
    effort = Effort(
        params.seconds if params.seconds is not None else seconds_for(len(can)),
        params.iterations if params.iterations is not None else iterations_for(len(can)),
    )
    found = search(model.data, effort, params.seed, plan_found(problem, model, start))
    if found.cost is None:
        return start
    routes = routes_found(model, found.plan)
    if any(violations(problem, {v: r}) for v, r in routes.items()):
        return start
    spans = count.spans() or {}
    kept = {
        s
        for _, visits in found.plan
        for c in visits
        for s in (model.stop_of[c],)
        if s in spans and 60 * spans[s][0] - 1 <= model.span_of[c][0] and model.span_of[c][1] <= 60 * spans[s][1] + 1
    }
    for v, r in routes.items():
        count.way(v, r, kept & set(r))
    return _as_before(problem, routes, start, count)


def _as_before(problem: RoutingProblem, routes: Routes, start: Routes, count: _Counter) -> Routes:
    """Takes back changes that brought nothing: a route with the stops it had keeps its order if that costs no more."""
    out: Routes = {}
    for v, r in routes.items():
        old = start.get(v, [])
        same = sorted(old) == sorted(r) and not violations(problem, {v: old})
        out[v] = old if same and count.route_price(v, old) <= count.route_price(v, r) + 1e-6 else r
    return out
