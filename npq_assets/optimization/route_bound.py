"""What no plan of routes can cost less than: column generation over relaxed routes, beside a linear program over arcs.

    minimize    sum_r c_r x_r + sum_i p_i u_i
    subject to  sum_r a_ir x_r + u_i >= 1      every stop is on a route or dropped
                sum_(r of kind k) x_r <= m_k   vehicles of a kind

over all ng-routes r of every kind of vehicle (Baldacci, Mingozzi and Roberti, New route relaxation and pricing strategies for the
vehicle routing problem, Operations Research 59, 2011). For any prices pi with 0 <= pi_i <= p_i

    sum_i pi_i + sum_k m_k min(0, least reduced cost of a route of kind k)

is a bound, whether the program was solved to its end or not (Lagrange; Luebbecke and Desrosiers, Selected topics in column
generation, Operations Research 53, 2005), so work may be cut short. Arrays only: what a part of a day is, and which of its costs
may be counted, is settled by `routing.lower_bound`; how the cheapest route is found, in `route_pricing`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.linear import Model, run_linear
from npq_assets.optimization.route_pricing import Found, Kind, Memory, cheapest_routes

Array = NDArray[np.float64]
_SAFE = 1e-7
_NEAR = 6
_WIDEST = ((40, 12), (80, 10), (10_000, 8))
"""Up to so many stops, so many are remembered at most."""


@dataclass(frozen=True)
class Effort:
    """Limits by work.

    Attributes:
        labels: Partial routes made at most, in all.
        once: In one pricing.
        rounds: Programs solved at most.
    """

    labels: int = 12_000_000
    once: int = 4_000_000
    rounds: int = 300


@dataclass
class RouteBound:
    """A proven bound.

    Attributes:
        value: No plan costs less (money).
        reached: Value of the program over the routes found; the bound cannot rise above it.
        rounds: Programs solved.
        labels: Partial routes made.
        routes: Routes found: kind, stops of the part in order, cost.
    """

    value: float
    reached: float
    rounds: int
    labels: int
    routes: list[tuple[int, list[int], float]] = field(default_factory=list)


@dataclass
class _Column:
    kind: int
    places: tuple[int, ...]
    cost: float
    live: bool = True


class _Master:
    """The program over the routes found so far, solved again from its last basis whenever routes come in."""

    def __init__(self, kinds: Sequence[Kind], drop: Array, must: NDArray[np.bool_]) -> None:
        self.kinds, self.n = kinds, len(drop)
        model = Model()
        # What must be delivered may not be left at any price: dear enough that no duals of use are cut off.
        dear = 10.0 * max(
            [float(np.where(np.isfinite(k.cost), k.cost, 0.0).max(initial=0.0)) + k.fixed for k in kinds] + [1.0]
        )
        self.drop = np.where(must, np.inf, drop)
        left = model.add_columns(self.n, np.where(must, dear * 10.0, drop))
        rows = model.add_rows(self.n, low=1.0)
        model.add_entries(rows, left, 1.0)
        self.fleet = model.add_rows(len(kinds), high=np.array([float(k.count) for k in kinds]))
        self.highs = model.load(relaxed=True)
        self.columns: list[_Column] = []
        self.known: set[tuple[int, tuple[int, ...]]] = set()

    def add(self, kind: int, places: Sequence[int], cost: float) -> bool:
        key = (kind, tuple(places))
        if key in self.known:
            return False
        self.known.add(key)
        visits, times = np.unique(np.array(places) - 1, return_counts=True)
        index = np.concatenate([visits, [self.fleet[kind]]]).astype(np.int32)
        self.highs.addCol(cost, 0.0, float("inf"), len(index), index, np.concatenate([times, [1.0]]).astype(float))
        self.columns.append(_Column(kind, key[1], cost))
        return True

    def forbid(self, wrong: Any) -> None:
        """Takes out the routes of which `wrong(kind, places)` holds."""
        for k, column in enumerate(self.columns):
            if column.live and wrong(column.kind, column.places):
                column.live = False
                self.highs.changeColBounds(self.n + k, 0.0, 0.0)
                self.known.discard((column.kind, column.places))

    def solve(self) -> tuple[float, Array, Array, Array] | None:
        """Value, prices of stops, prices of vehicles by kind (at most 0), share of each route; None if HiGHS gives up."""
        found = run_linear(self.highs)
        if found.status != "optimal" or found.duals is None or found.x is None:
            return None
        price = np.minimum(np.maximum(found.duals[: self.n], 0.0), self.drop)
        return found.objective, price, np.minimum(found.duals[self.n :], 0.0), found.x[self.n :]


def route_bound(
    kinds: Sequence[Kind],
    drop: Array,
    must: NDArray[np.bool_],
    start: Sequence[tuple[int, Sequence[int]]] = (),
    effort: Effort | None = None,
) -> RouteBound:
    """The bound of a part of a day.

    Args:
        kinds: Vehicles, and what they may serve.
        drop: Money of leaving each stop out (n).
        must: Which stops may not be left out.
        start: Routes to start from (kind, places): they save work, and change nothing that is proven.
        effort: When to stop.
    """
    effort = effort or Effort()
    master = _Master(kinds, drop, must)
    for k, kind in enumerate(kinds):
        for place in range(1, len(kind.ready)):
            _offer(master, k, (place,))
    for k, places in start:
        _offer(master, k, tuple(places))
    search = _Search(kinds, master, effort)
    search.run()
    routes = [(c.kind, [p - 1 for p in c.places], c.cost) for c in master.columns if c.live]
    return RouteBound(max(0.0, search.best * (1 - _SAFE)), search.reached, search.rounds, search.labels, routes)


def _offer(master: _Master, k: int, places: tuple[int, ...]) -> None:
    cost = route_cost(master.kinds[k], places)
    if np.isfinite(cost):
        master.add(k, places, cost)


def route_cost(kind: Kind, places: Sequence[int]) -> float:
    """Least cost of a route over its departures, as pricing counts it; inf if it breaks a limit."""
    money, early, late, at = kind.fixed, kind.start, np.inf, 0
    for j in places:
        arrive, latest = early + kind.minutes[at, j], late + kind.minutes[at, j]
        slow = float(kind.late[j] * max(arrive - kind.due[j], 0.0))
        held = min(latest, max(kind.due[j], arrive)) if kind.late[j] >= kind.per_minute else latest
        if slow > kind.spared[j]:
            slow, held = float(kind.spared[j]), latest
        money += kind.cost[at, j] + slow + kind.per_minute * max(0.0, kind.ready[j] - held)
        early, late = max(arrive, kind.ready[j]) + kind.service[j], max(held, kind.ready[j]) + kind.service[j]
        at = j
    path = [0, *places, 0]
    km = sum(float(kind.km[a, b]) for a, b in itertools.pairwise(path))
    load = sum(float(kind.quantity[j]) for j in places)
    broken = early + kind.minutes[at, 0] > kind.end or km > kind.most_km or load > kind.capacity
    return float("inf") if broken else float(money + kind.cost[at, 0])


class _Search:
    """Column generation: heuristic pricing while it finds routes, exact pricing to prove, then a tighter relaxation."""

    def __init__(self, kinds: Sequence[Kind], master: _Master, effort: Effort) -> None:
        self.kinds, self.master, self.effort = kinds, master, effort
        self.best, self.reached, self.rounds, self.labels = 0.0, np.inf, 0, 0
        self.centre: Array | None = None
        largest = max((len(k.ready) - 1 for k in kinds), default=0)
        self.widest = next(width for most, width in _WIDEST if largest <= most)
        self.near = [_nearest(kind, min(_NEAR, self.widest)) for kind in kinds]
        self.memory = [Memory.of(near) for near in self.near]
        # Limits that hardly bind make labels many: they are counted from when a route breaks them.
        self.loads = [False] * len(kinds)
        self.distances = [False] * len(kinds)

    def run(self) -> None:
        while True:
            if self._converge():
                if not self._tighten():
                    break
            # Cut short before anything was proven: routes that remember less are proven with less work.
            elif self.best > 0.0 or not self._forget():
                break

    def _forget(self) -> bool:
        longest = max((len(own) for near in self.near for own in near), default=0)
        if longest <= 1 or self.labels >= self.effort.labels or self.rounds >= self.effort.rounds:
            return False
        self.widest = max(1, longest // 2)
        self.near = [[own[: self.widest] for own in near] for near in self.near]
        self.memory = [Memory.of(near) for near in self.near]
        return True

    def _price(self, price: Array, k: int, beam: int | None, buckets: int) -> Found:
        left = self.effort.labels - self.labels
        found = cheapest_routes(
            self.kinds[k], price, self.memory[k], loads=self.loads[k], distances=self.distances[k],
            beam=beam, buckets=buckets, most_work=max(1, min(self.effort.once, left)),
        )  # fmt: skip
        self.labels += found.work
        return found

    def _converge(self) -> bool:
        """Solves the program of the present relaxation; whether it was solved to its end and there is work left."""
        beams = [6, 24, None]
        level = 0
        while self.rounds < self.effort.rounds and self.labels < self.effort.labels:
            self.rounds += 1
            solved = self.master.solve()
            if solved is None:
                return False
            value, price, fleet, share = solved
            self.reached, self.share = value, share
            if self.best >= value * (1 - 1e-6):
                return True
            added = False
            asked = price if self.centre is None else 0.5 * self.centre + 0.5 * price
            for prices in [asked, price] if self.centre is not None else [price]:
                least = []
                for k in range(len(self.kinds)):
                    found = self._price(prices, k, beams[level], 1 if beams[level] is not None else 48)
                    least.append(found.least)
                    for places, reduced in zip(found.routes, found.reduced, strict=True):
                        stops = np.array(places) - 1
                        cost = reduced + float(prices[stops].sum())
                        if cost - float(price[stops].sum()) - fleet[k] < -1e-6:
                            added |= self.master.add(k, places, cost)
                if beams[level] is None:
                    proven = self._bound(prices, least)
                    if not np.isfinite(proven):
                        return False
                    if proven > self.best or self.centre is None:
                        self.best, self.centre = max(self.best, proven), prices
                if added:
                    break
            if added:
                level = 0 if beams[level] is None else level
                continue
            if beams[level] is None:
                return True
            level += 1
        return False

    def _bound(self, prices: Array, least: Sequence[float]) -> float:
        return float(prices.sum()) + sum(k.count * min(0.0, rc) for k, rc in zip(self.kinds, least, strict=True))

    def _tighten(self) -> bool:
        """Forbids what the program's routes do wrong, most used first; whether there was anything."""
        used = [(float(x), c) for x, c in zip(self.share, self.master.columns, strict=True) if x > 1e-6 and c.live]
        changed = False
        for k, kind in enumerate(self.kinds):
            mine = [c.places for _, c in used if c.kind == k]
            if not self.loads[k] and any(_load(kind, places) > kind.capacity for places in mine):
                self.loads[k] = changed = True
            if not self.distances[k] and any(_km(kind, places) > kind.most_km for places in mine):
                self.distances[k] = changed = True
            grown = False
            for places in mine:
                grown |= self._remember(k, places)
            if grown:
                self.memory[k] = Memory.of(self.near[k])
                changed = True
        if changed:
            self.master.forbid(self._wrong)
        return changed

    def _remember(self, k: int, places: tuple[int, ...]) -> bool:
        """Makes the places between two visits of a stop remember it, where there is room; whether anything changed."""
        last: dict[int, int] = {}
        changed = False
        for position, place in enumerate(places):
            if place in last:
                between = set(places[last[place] + 1 : position]) - {place}
                if all(len(self.near[k][j]) < self.widest or place in self.near[k][j] for j in between):
                    for j in between:
                        if place not in self.near[k][j]:
                            self.near[k][j].append(place)
                            changed = True
            last[place] = position
        return changed

    def _wrong(self, k: int, places: tuple[int, ...]) -> bool:
        kind, memory = self.kinds[k], self.memory[k]
        if self.loads[k] and _load(kind, places) > kind.capacity:
            return True
        if self.distances[k] and _km(kind, places) > kind.most_km:
            return True
        at, seen = 0, 0
        for j in places:
            if int(memory.bit[at, j]) & seen:
                return True
            seen, at = int(memory.carried[at, j, seen]), j
        return False


def _load(kind: Kind, places: Sequence[int]) -> float:
    return float(kind.quantity[np.array(places)].sum())


def _km(kind: Kind, places: Sequence[int]) -> float:
    return sum(float(kind.km[a, b]) for a, b in itertools.pairwise([0, *places, 0]))


def _nearest(kind: Kind, width: int) -> list[list[int]]:
    """The places that each remembers at first: itself and those that are cheapest to go to and come back from."""
    both = np.where(np.isfinite(kind.cost), kind.cost, 1e9)
    # Windows far apart are far.
    gap = np.maximum(kind.ready[:, None] - kind.due[None, :], 0.0)
    away = np.minimum(both, both.T) + kind.per_minute * np.maximum(gap, gap.T)
    near: list[list[int]] = [[]]
    for i in range(1, len(kind.ready)):
        order = [int(j) for j in np.argsort(away[i], kind="stable") if j not in (0, i)]
        near.append([i, *order[: width - 1]])
    return near


# Over arcs ------------------------------------------------------------------------------------------------------------------


def arc_bound(
    groups: Sequence[tuple[Kind, Sequence[int]]], drop: Array, must: NDArray[np.bool_], rounds: int, largest: int
) -> float:
    """The bound of a linear program over arcs by kind, in which time costs what it is driven, with rounded capacity cuts.

    Toth and Vigo, Vehicle Routing, 2nd ed., sec. 2.2. Above `largest` stops each stop costs its cheapest arc and its share of
    the cheapest room.

    Args:
        groups: Kinds (windows, shifts and longest distances are not looked at) with their vehicles.
        drop: Money of leaving each stop out (n).
        must: Which stops may not be left out (n).
        rounds: Rounds of cuts at most.
        largest: Stops up to which the program is solved.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, vstack

    kinds = [kind for kind, _ in groups]
    n, quantity = len(drop), kinds[0].quantity[1:]
    costs, fixed = [k.cost for k in kinds], [k.fixed for k in kinds]
    caps, counts = [k.capacity for k in kinds], [k.count for k in kinds]
    if n > largest:
        into = np.min([c.min(axis=0)[1:] for c in costs], axis=0)
        into = np.where(np.isfinite(into), into, drop)
        per_unit = min((f / cap for f, cap in zip(fixed, caps, strict=True) if cap > 0), default=0.0)
        each = into + per_unit * quantity
        return float(np.where(must, each, np.minimum(each, drop)).sum())
    # Variables: arcs of each kind, vehicles used of each kind, stops dropped.
    arcs = [(k, i, j) for k, c in enumerate(costs) for i, j in zip(*np.nonzero(np.isfinite(c)), strict=True)]
    kind, tail, head = (np.array(column, dtype=np.int64) for column in zip(*arcs, strict=True)) if arcs else (
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    )  # fmt: skip
    m, kk = len(arcs), len(costs)
    price = np.concatenate([[costs[k][i, j] for k, i, j in arcs], fixed, drop])
    width = m + kk + n

    def row_of(entries: list[tuple[NDArray[np.int64], float]]) -> Any:
        columns = np.concatenate([e for e, _ in entries])
        values = np.concatenate([np.full(len(e), value) for e, value in entries])
        return coo_array((values, (np.zeros(len(columns), np.int64), columns)), shape=(1, width))

    equal, right = [], []
    for i in range(1, n + 1):  # each stop is entered once or dropped
        equal.append(row_of([(np.flatnonzero(head == i), 1.0), (np.array([m + kk + i - 1]), 1.0)]))
        right.append(1.0)
    for k in range(kk):
        mine = kind == k
        for i in range(1, n + 1):
            equal.append(
                row_of([(np.flatnonzero(mine & (head == i)), 1.0), (np.flatnonzero(mine & (tail == i)), -1.0)])
            )
            right.append(0.0)
        equal.append(row_of([(np.flatnonzero(mine & (tail == 0)), 1.0), (np.array([m + k]), -1.0)]))
        right.append(0.0)
    below, limit = [], []
    for k in range(kk):  # loads of a kind fit in the vehicles of it that are used
        mine = np.flatnonzero((kind == k) & (head > 0))
        loads = coo_array(
            (np.concatenate([quantity[head[mine] - 1], [-caps[k]]]), (np.zeros(len(mine) + 1, np.int64), np.append(mine, m + k))),
            shape=(1, width),
        )  # fmt: skip
        below.append(loads)
        limit.append(0.0)
    bounds = [(0.0, 1.0)] * m + [(0.0, float(c)) for c in counts]
    bounds += [(0.0, 0.0 if required else 1.0) for required in must.tolist()]
    best, largest_cap = 0.0, max(caps)
    # A load above every capacity is dropped whatever happens: it must not ask for vehicles in the cuts.
    carried = np.where(quantity > largest_cap + 1e-9, 0.0, quantity)
    for _ in range(rounds):
        found: Any = linprog(  # type: ignore[call-overload]
            price,
            A_ub=vstack(below).tocsr(),
            b_ub=limit,
            A_eq=vstack(equal).tocsr(),
            b_eq=right,
            bounds=bounds,
            method="highs",
        )
        if not found.success:
            break
        best = float(found.fun)
        cuts = _capacity_cuts(found.x, kind, tail, head, n, m, kk, carried, largest_cap)
        if not cuts:
            break
        for inside, need in cuts:
            member = np.zeros(n + 1, dtype=bool)
            member[inside] = True
            entering = np.flatnonzero(member[head] & ~member[tail])
            # Entered at least `need` times, less one for each stop of the set that is dropped.
            below.append(row_of([(entering, -1.0), (m + kk + np.array(inside) - 1, -1.0)]))
            limit.append(-float(need))
    return max(0.0, best * (1 - 1e-7))


def _capacity_cuts(
    x: Array, kind: Any, tail: Any, head: Any, n: int, m: int, kk: int, quantity: Array, capacity: float
) -> list[tuple[list[int], int]]:
    """Sets of stops that a fractional plan enters less often than their load needs: components, then greedy growth."""
    flow = np.zeros((n + 1, n + 1))
    np.add.at(flow, (tail, head), x[:m])
    dropped = x[m + kk :]
    both = flow + flow.T
    cuts: dict[tuple[int, ...], int] = {}

    def consider(inside: list[int]) -> None:
        outside = np.ones(n + 1, dtype=bool)
        outside[inside] = False
        entering = float(flow[np.ix_(outside.nonzero()[0], np.array(inside))].sum())
        need = int(np.ceil(quantity[np.array(inside) - 1].sum() / capacity - 1e-9)) if capacity > 0 else 1
        need = max(1, need)
        if entering + float(dropped[np.array(inside) - 1].sum()) < need - 1e-4:
            cuts[tuple(sorted(inside))] = need

    for seed in range(1, n + 1):
        inside, pull = [seed], both[seed].copy()
        pull[[0, seed]] = -1.0
        consider(inside)
        while len(inside) < n:
            pick = int(np.argmax(pull))
            if pull[pick] <= 1e-6:
                break
            inside.append(pick)
            pull += np.where(pull < 0, 0.0, both[pick])
            pull[pick] = -1.0
            consider(inside)
    ranked = sorted(cuts.items(), key=lambda item: (len(item[0]), item[0]))
    return [(list(inside), need) for inside, need in ranked[:80]]
