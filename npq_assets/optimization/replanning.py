"""A plan that stands takes in what has changed: new stops, lost vehicles, closed roads; each change to somebody has a price.

    minimize    cost of the routes (see `routing`) + sum_i v [i is on another vehicle than before, or is not served any more]
                + sum_i a_i [the service of i begins more than tau from when it was told to, or not at all]

Vehicles that are on the road keep their routes. From the calmest to the freest, the nearest 1, 2, 3, 4, 8 and at last all
routes are opened (a large neighbourhood search, Shaw, CP 1998, whose neighbourhoods are chosen by distance from the change), and
PyVRP searches inside: a profile per old route charges for leaving it, and a stop has one client for keeping to what was told and
others for not doing so. Then every route is opened with those beside it, and of all routes met an integer program chooses the
cheapest plan in which no more routes change than a way may (see `route_choice`). What a day, a clock or a landed row is does not
belong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from npq_assets.optimization.route_choice import Column, choose
from npq_assets.optimization.route_construction import insert_left
from npq_assets.optimization.route_evaluation import evaluate
from npq_assets.optimization.route_exchange import exchanges
from npq_assets.optimization.route_feasibility import violations, why_hopeless
from npq_assets.optimization.route_model import routes_found, search_stops
from npq_assets.optimization.route_problem import Params, RouteCost, Routes, RoutingProblem, dearest
from npq_assets.optimization.route_timing import kilometres, timetable

_PRICED_UP_TO = 120
_NEVER = 1e9  # price of a route that breaks a rule
_CALM = 0.001  # of the cost of what stands: the least price of moving a stop while few routes are open
_TOGETHER = 4  # routes that are opened together to find others
_ROUNDS = 3  # choices among routes met, with a search in what each opened
_AROUND = 5  # routes that may change, for each of them that will
_LIKELY = 3  # vehicles that a route found is tried on


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
        curve: A row a way: routes_open (routes that were searched together, and that might change), free (whether change had no
            price: the last row, from which one sees what calm costs), routes_changed, stops_moved (to another vehicle),
            times_changed (beyond the tolerance), stops_dropped (served by nobody), cost, price (cost plus the price of change,
            and a prohibitive one for each stop left out that must be served).
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
        """The problem with the departures chosen; `route_timing.timetable` of it keeps the times told."""
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
        before: The routes that stand, in rows of `problem` (see `route_timing.routes_of`).
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
    # Where change is cheap a search strays far from what stands, and misses the good plans in which little changes.
    calm = _Counter(problem, home, max(change_price, _CALM * sum(map(count.route_price, start, start.values()))), told)
    ways = [(k, False) for k in sorted({min(k, len(order)) for k in open_routes} | {len(order)})]
    plans: list[Routes] = []
    carried: Routes | None = None
    met = _Met(problem, before, broken, fixed, loose, count)
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
        if not no_price and (k < len(order) or calm.change_price > change_price):
            first = _search_open(problem, inside, cars, calm, first, params, met)
        if no_price or k == len(order):
            first = _search_open(problem, inside, cars, judge, first, params, None if no_price else met)
        routes = fixed | kept | {v: r for v, r in first.items() if r}
        if plans and judge.price(routes) > judge.price(plans[-1]) - 1e-9:
            routes = plans[-1]
        plans.append(routes)
        carried = {v: r for v, r in routes.items() if v not in fixed}
    for v, r in [*start.items(), *((v, []) for v in met.empty(idle))]:
        for visits, price in exchanges(problem, v, r, start, loose):
            met.note(v, visits, price)
    _open_together(problem, plans[len(ways) - 1], {*fixed}, idle, count, params, met)
    least = met.changed(plans[0])
    for i, (k, _) in enumerate(ways):
        limit = None if k == len(order) else max(k, least)
        allowed = [p for p in plans[: i + 1] if limit is None or met.changed(p) <= limit]
        better = min(allowed, key=count.price)
        for _ in range(_ROUNDS):
            found = met.cheapest(better, limit, order[: _AROUND * k], calm.change_price - change_price)
            if found is better:  # also where the same was asked before
                break
            better = found
            touched = [v for v in better if v not in fixed and better[v] != before.get(v)]
            _open_these(problem, better, touched, idle, count, params, met)
        plans[i] = better
    if free:
        unpriced = _Counter(problem, home, 0.0, None)
        plans[-1] = min(plans[-1], plans[-2], key=unpriced.price)
    rows: list[dict[str, Any]] = []
    for (k, no_price), routes in zip([*ways, (len(order), True)], plans, strict=False):
        moved, times = count.changes(routes)
        judge = _Counter(problem, home, 0.0, None) if no_price else count
        rows.append(
            {
                "routes_open": k,
                "free": no_price,
                "routes_changed": met.changed(routes),
                "stops_moved": len(moved),
                "times_changed": len(times),
                "stops_dropped": len(_unserved(problem, routes)),
                "cost": judge.cost(routes),
                "price": count.price(routes),
            }
        )
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
        km = float(sum(kilometres(planned, vehicle, visits))) if visits else 0.0
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
        driven = sum(self.column_price(v, r) for v, r in routes.items())
        return driven + sum(map(self.left_out, _unserved(self.problem, routes)))

    def column_price(self, vehicle: int, visits: Sequence[int]) -> float:
        """Cost of a route and the price of all that it changes."""
        moved = sum(self.home.get(s, vehicle) != vehicle for s in visits)
        return self.route_price(vehicle, visits) + self.change_price * moved

    def left_out(self, stop: int) -> float:
        """Price of not serving a stop: a prohibitive one if it must be served."""
        drop = self.problem.stops["drop_cost"][stop]
        lost = 4.0 * (dearest(self.problem) + 1e3) if drop is None else float(drop)
        # Who was told and is not served any more has lost vehicle and time.
        return lost + (self.change_price + self._charge(frozenset([stop])) if stop in self.home else 0.0)

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


class _Met:
    """Routes that searches have met, on the vehicles that may drive them, and the cheapest plan made of them."""

    def __init__(
        self,
        problem: RoutingProblem,
        before: Routes,
        broken: Sequence[int],
        fixed: Routes,
        loose: Sequence[int],
        count: _Counter,
    ) -> None:
        self.problem, self.before, self.broken, self.fixed, self.count = problem, before, set(broken), fixed, count
        self.loose = loose
        self._columns: dict[tuple[int, frozenset[int]], Column] = {}
        self._prices: dict[tuple[int, tuple[int, ...]], float] = {}
        self._asked: Any = None
        for v, r in before.items():
            if v < problem.vehicles.height and v not in fixed and v not in self.broken and r:
                self._columns[v, frozenset(r)] = Column(v, tuple(r), 0.0, stands=True)

    def changed(self, routes: Routes) -> int:
        """Vehicles that do not drive what they would have driven."""
        return sum(routes.get(v, []) != self.before.get(v, []) for v in {*routes, *self.before})

    def note(self, vehicle: int, visits: Sequence[int], price: float) -> None:
        """Keeps a route.

        Args:
            vehicle: Its row.
            visits: Its stops.
            price: No more than it costs, without the price of stops on another vehicle than before.
        """
        key = vehicle, frozenset(visits)
        known = self._columns.get(key)
        price += self.count.change_price * sum(self.count.home.get(s, vehicle) != vehicle for s in visits)
        if known is None or (price < known.price and not known.stands):
            self._columns[key] = Column(vehicle, tuple(visits), price, idle=not self.before.get(vehicle))

    def empty(self, idle: Sequence[int]) -> list[int]:
        """Of the idle vehicles one of each kind."""
        names = [name for name in self.problem.vehicles.columns if name != "vehicle_id"]
        kinds: dict[tuple[Any, ...], int] = {}
        for v in idle:
            kinds.setdefault(tuple(self.problem.vehicles[name][v] for name in names), v)
        return list(kinds.values())

    def likely(self, visits: Sequence[int], vehicles: Sequence[int]) -> list[int]:
        """Of like vehicles those that a route would be given to: where most of its stops come from, or an idle one."""
        shared = dict.fromkeys(vehicles, 0)
        for s in visits:
            if self.count.home.get(s) in shared:
                shared[self.count.home[s]] += 1
        by_stops = sorted((v for v in vehicles if shared[v]), key=lambda v: (-shared[v], v))[:_LIKELY]
        return by_stops + [v for v in vehicles if not self.before.get(v)][:1]

    def _among(self, known: Routes, around: Sequence[int]) -> tuple[set[int], list[Column], dict[int, float]]:
        """Vehicles whose routes stay, routes for the others, and what it costs to leave out each stop that is not on the former."""
        stays = {
            v for v, r in known.items() if self.before.get(v) == r and v not in self.broken and v not in set(around)
        } | {*self.fixed}
        fixed = {s for v in stays for s in known.get(v, [])}
        columns = [c for key, c in self._columns.items() if c.vehicle not in stays and key[1].isdisjoint(fixed)]
        left_out = {s: self.count.left_out(s) for s in range(self.problem.stops.height) if s not in fixed}
        return stays, columns, left_out

    def cheapest(self, known: Routes, most: int | None, around: Sequence[int], calm: float = 0.0) -> Routes:
        """The plan known, or a cheaper one made of routes met.

        Args:
            known: A plan.
            most: Routes that may change; None: all.
            around: Of the vehicles that stand, those whose routes may change beside what has changed in `known`.
            calm: A further price of moving a stop, with which to choose first: fewer plans compete, and good ones are found.
        """
        asked = (len(self._columns), most, len(around), sorted(known.items()))
        if asked == self._asked:
            return known
        self._asked = asked
        stays, columns, left_out = self._among(known, around)
        limit = None if most is None else most - len(self.broken)
        best = known
        for extra in (calm, 0.0) if calm > 0 else (0.0,):

            def price(column: Column, extra: float = extra) -> float:
                moved = sum(self.count.home.get(s, column.vehicle) != column.vehicle for s in column.visits)
                return self._price(column) + extra * moved

            mine = [
                Column(v, tuple(r), 0.0, self.before.get(v) == r and v not in self.broken, not self.before.get(v))
                for v, r in best.items()
                if v not in stays and r
            ]
            found = choose(columns, left_out, limit, mine, price)
            if found is not None:
                routes = {v: known[v] for v in stays if v in known} | {c.vehicle: list(c.visits) for c in found}
                best = routes if self.count.price(routes) < self.count.price(best) - 1e-9 else best
        return best

    def _price(self, column: Column) -> float:
        key = column.vehicle, column.visits
        if key not in self._prices:
            broken = violations(self.problem, {column.vehicle: list(column.visits)})
            self._prices[key] = _NEVER if broken else self.count.column_price(*key)
        return self._prices[key]


def _open_together(
    problem: RoutingProblem,
    routes: Routes,
    fixed: set[int],
    idle: Sequence[int],
    count: _Counter,
    params: Params,
    met: _Met,
) -> None:
    """Opens each route with those beside it, change unpriced, and keeps what is met."""
    loose = {v: r for v, r in routes.items() if v not in fixed and r}
    if len(loose) <= 1:
        return
    short = replace(
        params,
        seconds=None if params.seconds is None else params.seconds / _TOGETHER,
        iterations=None if params.iterations is None else params.iterations // 2,
    )
    done: set[frozenset[int]] = set()
    for v in sorted(loose):
        beside = [v, *_nearest_routes(problem, {w: r for w, r in loose.items() if w != v}, loose[v])][:_TOGETHER]
        if frozenset(beside) not in done:
            done.add(frozenset(beside))
            _open_these(problem, loose, beside, idle, count, short, met)


def _open_these(
    problem: RoutingProblem,
    routes: Routes,
    opened: Sequence[int],
    idle: Sequence[int],
    count: _Counter,
    params: Params,
    met: _Met,
) -> None:
    """Opens some routes, change unpriced, and keeps what is met."""
    placed = {s for r in routes.values() for s in r}
    stops = [s for w in opened for s in routes[w]] + [s for s in met.loose if s not in placed]
    cars = [*opened, *[w for w in idle if not routes.get(w)][:1]]
    free = _Counter(problem, {}, 0.0, None)
    _search_open(problem, stops, cars, free, {w: routes[w] for w in opened}, params, met)


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
    problem: RoutingProblem,
    stops: list[int],
    cars: list[int],
    count: _Counter,
    start: Routes,
    params: Params,
    met: _Met | None = None,
) -> Routes:
    if not stops or not cars:
        return {}
    can = [s for s in stops if why_hopeless(problem, s, cars) is None]
    soft = len(can) <= _PRICED_UP_TO and bool((problem.stops["late_cost"].fill_null(0.0).gather(can) > 0).any())
    model, found = search_stops(
        problem,
        can,
        cars,
        params,
        start,
        keep=met is not None,
        soft=soft,
        home=count.home or None,
        change_price=count.change_price,
        told=count.spans(),
    )
    if met is not None:
        for kind, clients, cost in found.routes:
            members, visits = model.vehicle_of[kind], [model.stop_of[c] for c in clients]
            paid = count.change_price * sum(count.home.get(s, members[0]) != members[0] for s in visits)
            for v in met.likely(visits, members) if len(members) > 1 else members:
                met.note(v, visits, cost / model.unit - paid)
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
