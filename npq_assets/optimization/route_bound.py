"""What no plan of routes can cost less than: column generation over relaxed routes, beside a linear program over arcs.

    minimize    sum_r c_r x_r + sum_i p_i u_i
    subject to  sum_r a_ir x_r + u_i >= 1                     every stop is on a route or dropped
                sum_(r of kind k) x_r <= m_k                  vehicles of a kind
                sum_(r of kind k) (q_r - Q_k) x_r <= 0        loads of a kind fit in its vehicles all together
                sum_(r of kind k) (d_r - D_k) x_r <= 0        and so do kilometres

over all ng-routes r of every kind of vehicle (Baldacci, Mingozzi and Roberti, New route relaxation and pricing strategies for the
vehicle routing problem, Operations Research 59, 2011), at times rounded as `route_pricing` tells. For any prices pi_i of stops with
0 <= pi_i <= p_i, mu_k of load and nu_k of kilometres, not below 0,

    sum_i pi_i + sum_k m_k min(0, min over r of kind k of  c_r - sum_i a_ir pi_i + mu_k (q_r - Q_k) + nu_k (d_r - D_k))

is a bound, whether the program was solved to its end or not (Lagrange; Luebbecke and Desrosiers, Selected topics in column
generation, Operations Research 53, 2005), so work may be cut short. Arrays only: what a part of a day is, and which of its costs
may be counted, is settled by `route_relaxation.lower_bound`; how the cheapest route is found, in `route_pricing`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.linear import Model, run_linear
from npq_assets.optimization.route_pricing import Grid, Kind

Array = NDArray[np.float64]
_SAFE = 1e-7
_CLOSE = 5e-3
"""Share of the program's value up to which it counts as solved: what is left is worth less than a finer relaxation."""
_KEPT = 0.6
"""Of the prices that proved most so far, in the prices asked at next (Pessoa et al., INFORMS Journal on Computing 30, 2018)."""
_STAGES = ((120, 3, 5, 0), (240, 5, 7, 12))
"""Slots of time, stops remembered at first and at most, steps of load where it binds: coarse until prices are near, then finer."""


@dataclass(frozen=True)
class Effort:
    """Limits by work, so that the same day has the same bound on every machine.

    Attributes:
        states: Legs looked at, by time and memory, at most (a second takes some tens of millions).
        rounds: Programs solved at most.
    """

    states: int = 200_000_000
    rounds: int = 400


@dataclass(frozen=True)
class RouteBound:
    """A proven bound.

    Attributes:
        value: No plan costs less (money).
        reached: Value of the last program over the routes found; its relaxation proves no more.
        rounds: Programs solved.
        states: Legs looked at, by time and memory.
    """

    value: float
    reached: float
    rounds: int
    states: int


@dataclass(frozen=True)
class _Prices:
    """Duals of the program: of stops, of vehicles by kind (at most 0), of load and of kilometres by kind."""

    stop: Array
    fleet: Array
    load: Array
    km: Array

    def between(self, other: _Prices, share: float) -> _Prices:
        """`share` of the way to the other."""
        mixed = [
            (1 - share) * getattr(self, name) + share * getattr(other, name) for name in ("stop", "fleet", "load", "km")
        ]
        return _Prices(*mixed)


class _Master:
    """The program over the routes found so far, solved again from its last basis whenever routes come in."""

    def __init__(self, kinds: Sequence[Kind], drop: Array, must: NDArray[np.bool_]) -> None:
        self.kinds, self.n = kinds, len(drop)
        # What must be delivered may not be left at any price: dear enough that no duals of use are cut off.
        dear = 10.0 * max(
            [float(np.where(np.isfinite(k.cost), k.cost, 0.0).max(initial=0.0)) + k.fixed for k in kinds] + [1.0]
        )
        self.drop = np.where(must, np.inf, drop)
        model = Model()
        left = model.add_columns(self.n, np.where(must, dear * 10.0, drop))
        rows = model.add_rows(self.n, low=1.0)
        model.add_entries(rows, left, 1.0)
        self.fleet = model.add_rows(len(kinds), high=np.array([float(k.count) for k in kinds]))
        self.load = model.add_rows(len(kinds), high=0.0)
        self.km = model.add_rows(len(kinds), high=0.0)
        self.highs = model.load(relaxed=True)
        self.columns: list[tuple[int, tuple[int, ...]]] = []
        self.known: set[tuple[int, tuple[int, ...]]] = set()

    def add(self, kind: int, places: Sequence[int], cost: float) -> bool:
        key = (kind, tuple(places))
        if key in self.known or not np.isfinite(cost):
            return False
        self.known.add(key)
        self.columns.append(key)
        own = self.kinds[kind]
        visits, times = np.unique(np.array(places) - 1, return_counts=True)
        over = _load(own, places) - own.capacity
        far = _km(own, places) - own.most_km if np.isfinite(own.most_km) else 0.0
        index = np.concatenate([visits, [self.fleet[kind], self.load[kind], self.km[kind]]]).astype(np.int32)
        self.highs.addCol(
            cost, 0.0, float("inf"), len(index), index, np.concatenate([times, [1.0, over, far]]).astype(float)
        )
        return True

    def solve(self) -> tuple[float, _Prices, Array] | None:
        """Value, prices and the share of each route; None if HiGHS gives up."""
        found = run_linear(self.highs)
        if found.status != "optimal" or found.duals is None or found.x is None:
            return None
        stop = np.minimum(np.maximum(found.duals[: self.n], 0.0), self.drop)
        fleet, load, km = (np.minimum(found.duals[rows], 0.0) for rows in (self.fleet, self.load, self.km))
        return found.objective, _Prices(stop, fleet, -load, -km), found.x[self.n :]


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
    search = _Search(kinds, drop, must, effort or Effort())
    search.run([(k, list(places)) for k, places in start])
    return RouteBound(max(0.0, search.best * (1 - _SAFE)), search.reached, search.rounds, search.states)


class _Search:
    """Column generation on a coarse grid of time, then on finer ones whose routes remember what they did wrong."""

    def __init__(self, kinds: Sequence[Kind], drop: Array, must: NDArray[np.bool_], effort: Effort) -> None:
        self.kinds, self.drop, self.must, self.effort = kinds, drop, must, effort
        self.best, self.reached, self.rounds, self.states = 0.0, np.inf, 0, 0
        self.centre: _Prices | None = None

    def run(self, start: list[tuple[int, list[int]]]) -> None:
        routes = [(k, [p]) for k, kind in enumerate(self.kinds) for p in range(1, len(kind.ready))]
        routes += [(k, places[at:]) for k, places in start for at in range(len(places))]
        near: list[list[list[int]]] = []
        full = [False] * len(self.kinds)
        costs: dict[tuple[int, int, tuple[int, ...]], float] = {}  # which what is remembered does not change
        for slots, first, most, steps in _STAGES:
            fresh = [_nearest(kind, first) for kind in self.kinds]
            near = [_joined(a, b, most) for a, b in zip(near, fresh, strict=True)] if near else fresh
            while True:
                grids = [
                    Grid(kind, own, slots, steps if loaded else 0)
                    for kind, own, loaded in zip(self.kinds, near, full, strict=True)
                ]
                each = sum(grid.work for grid in grids)
                if self.states + each > self.effort.states:
                    return
                self.master = _Master(self.kinds, self.drop, self.must)
                for k, places in routes:
                    key = (slots, k, tuple(places))
                    if key not in costs or not grids[k].allows(places):
                        costs[key] = grids[k].cost_of(places)
                    self.master.add(k, places, costs[key])
                if not self._converge(grids, each):
                    return
                routes = [(k, list(places)) for k, places in self.master.columns]
                grown = [_remember(own, [p for k2, p in self.used if k2 == k], most) for k, own in enumerate(near)]
                over = [
                    any(_load(kind, p) > kind.capacity for k2, p in self.used if k2 == k)
                    for k, kind in enumerate(self.kinds)
                ]
                fuller = steps and any(o and not f for o, f in zip(over, full, strict=True))
                full = [o or f for o, f in zip(over, full, strict=True)]
                if not any(grown) and not fuller:
                    break

    def _converge(self, grids: list[Grid], each: int) -> bool:
        """Solves the program over the relaxed routes of `grids`; whether to its end."""
        share = _KEPT
        while self.rounds < self.effort.rounds and self.states + each <= self.effort.states:
            self.rounds += 1
            solved = self.master.solve()
            if solved is None:
                return False
            self.reached, price, x = solved
            self.used = [c for c, used in zip(self.master.columns, x, strict=True) if used > 1e-6]
            if self.best >= self.reached * (1 - _CLOSE) - 1e-9:
                return True
            asked = price if self.centre is None else self.centre.between(price, 1 - share)
            if not (self._round(grids, each, asked, price) or self._round(grids, each, price, price)):
                # Nothing is cheaper at the program's own prices: it is solved, up to its tolerances.
                return True
        return False

    def _round(self, grids: list[Grid], each: int, asked: _Prices, price: _Prices) -> bool:
        """Prices routes at `asked`; whether one came in that the program lacks at its own prices `price`."""
        added, bound = False, float(asked.stop.sum())
        self.states += each
        for k, (kind, grid) in enumerate(zip(self.kinds, grids, strict=True)):
            found = grid.cheapest(asked.stop, float(asked.load[k]), float(asked.km[k]))
            bound += kind.count * found.least
            for places, reduced in zip(found.routes, found.reduced, strict=True):
                cost = reduced + self._value(k, places, asked)
                if cost - self._value(k, places, price) - price.fleet[k] < -1e-6:
                    added |= self.master.add(k, places, cost)
        if bound > self.best or self.centre is None:
            self.best, self.centre = max(self.best, bound), asked
        return added

    def _value(self, k: int, places: list[int], price: _Prices) -> float:
        """What a route's stops are worth, less what it is charged for load and kilometres."""
        kind = self.kinds[k]
        worth = float(price.stop[np.array(places) - 1].sum()) - price.load[k] * (_load(kind, places) - kind.capacity)
        return worth - (price.km[k] * (_km(kind, places) - kind.most_km) if np.isfinite(kind.most_km) else 0.0)


def _remember(near: list[list[int]], routes: list[tuple[int, ...]], most: int) -> bool:
    """Makes the places between two visits of a stop remember it, where there is room; whether anything changed."""
    changed = False
    for places in routes:
        last: dict[int, int] = {}
        for position, place in enumerate(places):
            between = set(places[last[place] + 1 : position]) - {place} if place in last else set()
            if between and all(len(near[j]) < most or place in near[j] for j in between):
                for j in between:
                    if place not in near[j]:
                        near[j].append(place)
                        changed = True
            last[place] = position
    return changed


def _joined(learned: list[list[int]], fresh: list[list[int]], most: int) -> list[list[int]]:
    """What was learned, and the nearest, as far as there is room."""
    return [list(dict.fromkeys([*a, *b]))[:most] for a, b in zip(learned, fresh, strict=True)]


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
