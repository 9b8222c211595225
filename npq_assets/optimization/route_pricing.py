"""The cheapest relaxed route of a kind of vehicle under prices of stops: what column generation asks for, again and again.

A route may come back to a stop once it has forgotten it (ng-routes: Baldacci, Mingozzi and Roberti 2011), and limits may be left
out; whatever it finds beyond that is exact, so that its least reduced cost proves a bound. Labels are set bucket of time by bucket,
all labels of a bucket at once. What is done with routes and reduced costs does not belong here (see `route_bound`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
ALWAYS = 1e7
"""Minutes later than any: the latest departure of a route that nothing has held to a time yet."""
_SAME = 1e-8
_FIRST, _STEP, _PASSES = 48, 12, 6
"""Labels that others are compared with at a time, in steps, and how often; what is not compared is kept."""


@dataclass(frozen=True)
class Kind:
    """Vehicles that cost and can the same, for n stops. Place 0 is the depot, place i the stop i - 1.

    Attributes:
        count: Vehicles of the kind.
        fixed: Money of using one.
        per_minute: Money per minute from leaving the depot to being back.
        cost: Money of a leg (n + 1, n + 1): its kilometres, its minutes and the service before it; inf where there is none.
        minutes: Of driving (n + 1, n + 1).
        km: (n + 1, n + 1).
        quantity, ready, due, service, late: Of the place (n + 1), those of the depot 0; late in money per minute.
        spared: Money for which the stop's lateness no longer counts (n + 1); inf: no such offer.
        capacity: Load.
        start, end: Of the shift (minutes after midnight).
        most_km: inf: none.
    """

    count: int
    fixed: float
    per_minute: float
    cost: Array
    minutes: Array
    km: Array
    quantity: Array
    ready: Array
    due: Array
    service: Array
    late: Array
    spared: Array
    capacity: float
    start: float
    end: float
    most_km: float


@dataclass(frozen=True)
class Memory:
    """What a route remembers at each place: the stops of its neighbourhood, as bits of a number.

    Attributes:
        near: Stops remembered at each place, itself first (n + 1 lists of places).
        bit: Bit of place j in the memory of place i, 0 if it is forgotten there (n + 1, n + 1).
        carried: Memory at j of what is remembered at i: (n + 1, n + 1, 2 ** width), j itself included.
    """

    near: tuple[tuple[int, ...], ...]
    bit: NDArray[np.uint16]
    carried: NDArray[np.uint16]

    @classmethod
    def of(cls, near: list[list[int]]) -> Memory:
        """Tables for the neighbourhoods `near` (of the depot empty)."""
        places = len(near)
        width = max((len(own) for own in near), default=1)
        bit = np.zeros((places, places), np.uint16)
        for i, own in enumerate(near):
            for k, j in enumerate(own):
                bit[i, j] = 1 << k
        carried = np.zeros((places, places, 1 << width), np.uint16)
        for k in range(width):
            # What bit k of place i stands for, as a bit of place j.
            stands = np.array([own[k] if k < len(own) else 0 for own in near])
            there = np.where(np.array([k < len(own) for own in near])[:, None], bit[:, stands].T, 0).astype(np.uint16)
            carried[:, :, 1 << k : 2 << k] = carried[:, :, : 1 << k] | there[:, :, None]
        itself = np.array([bit[j, j] for j in range(places)], np.uint16)
        carried |= itself[None, :, None]
        return cls(tuple(tuple(own) for own in near), bit, carried)


@dataclass
class Found:
    """What pricing found.

    Attributes:
        least: No relaxed route has a smaller reduced cost (money; at most 0); -inf if the search was cut short.
        routes: Places of the routes with the least reduced costs, best first.
        reduced: Their reduced costs.
        work: Labels made.
    """

    least: float
    routes: list[list[int]] = field(default_factory=list)
    reduced: list[float] = field(default_factory=list)
    work: int = 0


@dataclass
class _Labels:
    """Partial routes: where they are, reduced cost, earliest and latest departure (without more waiting), load, km, memory."""

    place: Index
    money: Array
    early: Array
    late: Array
    load: Array
    km: Array
    seen: NDArray[np.uint16]
    parent: Index
    length: Index

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> _Labels:
        return _Labels(*(getattr(self, name)[rows] for name in _FIELDS))

    @staticmethod
    def joined(parts: list[_Labels]) -> _Labels:
        return _Labels(*(np.concatenate([getattr(p, name) for p in parts]) for name in _FIELDS))


_FIELDS = ("place", "money", "early", "late", "load", "km", "seen", "parent", "length")


def cheapest_routes(
    kind: Kind,
    price: Array,
    memory: Memory,
    *,
    loads: bool = True,
    distances: bool = False,
    beam: int | None = None,
    buckets: int = 48,
    most_work: int = 4_000_000,
    most_routes: int = 60,
) -> Found:
    """Routes of `kind` with the least cost less the prices of their stops, by label setting.

    A label holds the earliest departure e and the latest one l that no stop forbids whose lateness costs at least what a minute
    on the road does; leaving the depot later than that never pays. On the way to j with times as driven:

        a = e + drive_ij,   z = min(l + drive_ij, max(due_j, a))       (earliest, latest arrival)
        cost += leg + h max(0, ready_j - z) + late_j max(0, a - due_j) - price_j
        e' = max(a, ready_j) + service_j,   l' = max(z, ready_j) + service_j

    which charges a route exactly the least over its departures of h times its duration plus its lateness, if all rates of lateness
    are at least h, else less. One label makes another needless if it is at the same place no later, no fuller, remembers nothing
    more, and is cheaper by at least h times what its latest departure is earlier.

    Args:
        kind: The vehicles.
        price: What serving each stop is worth (n).
        memory: What routes remember.
        loads: Whether loads keep to the capacity.
        distances: Whether kilometres keep to the limit.
        beam: Labels kept for each place in each bucket; None: all, only then is `least` proven.
        buckets: Of time, which labels are set one after the other.
        most_work: Labels made at most.
        most_routes: Routes returned at most.
    """
    n = len(price)
    if n == 0:
        return Found(0.0)
    leg = kind.cost - np.concatenate([[0.0], price])[None, :]
    home = kind.cost[:, 0] + kind.fixed
    width = max(min(kind.end - kind.start, 2880.0) / buckets, 1.0)
    start = _Labels(
        np.zeros(1, np.int64), np.zeros(1), np.array([kind.start]), np.array([ALWAYS]), np.zeros(1), np.zeros(1),
        np.zeros(1, np.uint16), np.full(1, -1, np.int64), np.zeros(1, np.int64),
    )  # fmt: skip
    waiting: dict[int, list[_Labels]] = {0: [start]}
    kept: list[_Labels] = []
    known = _Known(n + 1, kind.per_minute, loads, distances)
    made = total = 0
    while waiting:
        bucket = min(waiting)
        labels = known.undominated(_Labels.joined(waiting.pop(bucket)), beam)
        if not len(labels.place):
            continue
        kept.append(labels)
        known.add(labels)
        born = _extended(kind, labels, leg, memory, total, loads=loads, distances=distances)
        total += len(labels.place)
        made += len(born.place)
        if made > most_work:
            return _result(kept, home, most_routes, made, proven=False)
        born = born.take(known.promising(born))
        slot = np.maximum(((born.early - kind.start) / width).astype(np.int64), bucket)
        for at in np.unique(slot).tolist():
            waiting.setdefault(at, []).append(born.take(slot == at))
    return _result(kept, home, most_routes, made, proven=beam is None)


def _extended(
    kind: Kind, labels: _Labels, leg: Array, memory: Memory, first: int, *, loads: bool, distances: bool
) -> _Labels:
    """Each label (numbered from `first`) to each place where it may go."""
    can = np.isfinite(kind.cost)
    can[:, 0] = False
    go = can[labels.place] & ((memory.bit[labels.place] & labels.seen[:, None]) == 0)
    if loads:
        go &= labels.load[:, None] + kind.quantity[None, :] <= kind.capacity
    row, to = np.nonzero(go)
    begin = np.maximum(labels.early[row] + kind.minutes[labels.place[row], to], kind.ready[to])
    km = labels.km[row] + kind.km[labels.place[row], to]
    fits = begin + kind.service[to] + kind.minutes[to, 0] <= kind.end
    if distances:
        fits &= km + kind.km[to, 0] <= kind.most_km
    row, to, begin, km = row[fits], to[fits], begin[fits], km[fits]
    here, due, ready, h = labels.place[row], kind.due[to], kind.ready[to], kind.per_minute
    drive = kind.minutes[here, to]
    arrive, latest = labels.early[row] + drive, np.minimum(labels.late[row] + drive, ALWAYS)
    slow = kind.late[to] * np.maximum(arrive - due, 0.0)
    # Leaving later than such a stop allows would cost more than it saves on the road.
    held = np.where(kind.late[to] >= h, np.minimum(latest, np.maximum(due, arrive)), latest)
    money, seen = labels.money[row] + leg[here, to], memory.carried[here, to, labels.seen[row]]
    service, load = kind.service[to], labels.load[row] + kind.quantity[to]

    def made(own: Array, z: Array, which: Any) -> _Labels:
        after = np.minimum(np.maximum(z, ready[which]) + service[which], ALWAYS)
        return _Labels(
            to[which], money[which] + own + h * np.maximum(ready[which] - z, 0.0), begin[which] + service[which], after,
            load[which], km[which], seen[which], first + row[which], labels.length[row[which]] + 1,
        )  # fmt: skip

    born = made(slow, held, slice(None))
    # Buying lateness off pays where that costs less than lateness and what a later departure may save.
    offer = np.flatnonzero(slow + h * (latest - held) > kind.spared[to])
    if not len(offer):
        return born
    return _Labels.joined([born, made(kind.spared[to[offer]], latest[offer], offer)])


def _result(kept: list[_Labels], home: Array, most: int, made: int, *, proven: bool) -> Found:
    labels = _Labels.joined(kept)
    closed = labels.money + home[labels.place]
    closed[labels.place == 0] = np.inf
    closed[~np.isfinite(closed)] = np.inf
    if not np.isfinite(closed).any():
        return Found(0.0 if proven else -np.inf, work=made)
    order = np.argsort(closed, kind="stable")
    order = order[closed[order] < -_SAME]
    # Routes that end apart are likelier to be of use together than many that differ by one stop.
    by_end = np.argsort(labels.place[order], kind="stable")
    ends = labels.place[order][by_end]
    rank = np.zeros(len(order), np.int64)
    rank[by_end] = np.arange(len(order)) - np.searchsorted(ends, ends)
    chosen = order[rank < 3][:most]
    routes = []
    for k in chosen.tolist():
        path, at = [], k
        while at > 0:
            path.append(int(labels.place[at]))
            at = int(labels.parent[at])
        routes.append(path[::-1])
    least = min(0.0, float(closed.min())) if proven else -np.inf
    if proven:
        least -= _SAME * (2 + int(labels.length.max()))
    return Found(least, routes, closed[chosen].tolist(), made)


class _Known:
    """Labels set so far, by place and cheapest first, and what makes another label needless."""

    def __init__(self, places: int, h: float, loads: bool, distances: bool) -> None:
        self.places, self.h, self.loads, self.distances = places, h, loads, distances
        self.labels: _Labels | None = None
        self.starts = np.zeros(places + 1, np.int64)

    def add(self, labels: _Labels) -> None:
        joined = labels if self.labels is None else _Labels.joined([self.labels, labels])
        self.labels = joined.take(np.lexsort((joined.money, joined.place)))
        self.starts = self._starts(self.labels)

    def promising(self, labels: _Labels) -> NDArray[np.bool_]:
        """Which labels none of the cheapest that are known at their place makes needless."""
        good = np.ones(len(labels.place), bool)
        if self.labels is None:
            return good
        ends = self.starts[labels.place + 1]
        for turn in range(_PASSES):
            low = self.starts[labels.place] + turn * _FIRST
            rows = np.flatnonzero(good & (low < ends))
            if not len(rows):
                break
            good[rows[self._beaten(self.labels, low[rows], ends[rows], labels, rows)]] = False
        return good

    def undominated(self, labels: _Labels, beam: int | None) -> _Labels:
        """Those that neither known labels nor one another make needless, at most `beam` a place."""
        labels = labels.take(self.promising(labels))
        labels = labels.take(np.lexsort((labels.early, labels.money, labels.place)))
        for turn in range(2 * _PASSES):
            starts = self._starts(labels)
            low = starts[labels.place] + turn * _FIRST
            rows = np.flatnonzero(np.arange(len(labels.place)) > low)
            if not len(rows):
                break
            good = np.ones(len(labels.place), bool)
            good[rows[self._beaten(labels, low[rows], rows, labels, rows)]] = False
            labels = labels.take(good)
        if beam is not None:
            labels = labels.take(np.arange(len(labels.place)) - self._starts(labels)[labels.place] < beam)
        return labels

    def _starts(self, labels: _Labels) -> Index:
        return np.searchsorted(labels.place, np.arange(self.places + 1)).astype(np.int64)

    def _beaten(self, a: _Labels, low: Index, end: Index, b: _Labels, rows: Index) -> NDArray[np.bool_]:
        """Whether one of the labels low, low + 1, … (a few, before `end`) of a makes label `rows` of b needless."""
        beaten = np.zeros(len(rows), bool)
        for step in range(0, _FIRST, _STEP):
            left = np.flatnonzero(~beaten & (low + step < end))
            if not len(left):
                break
            other = low[left][:, None] + np.arange(step, step + _STEP)[None, :]
            real = other < end[left][:, None]
            other = np.minimum(other, len(a.place) - 1)
            mine = rows[left]
            good = real & (a.early[other] <= b.early[mine][:, None] + _SAME)
            good &= (a.seen[other] & ~b.seen[mine][:, None]) == 0
            later = self.h * np.maximum(b.late[mine][:, None] - a.late[other], 0.0)
            good &= a.money[other] + later <= b.money[mine][:, None] + _SAME
            if self.loads:
                good &= a.load[other] <= b.load[mine][:, None] + _SAME
            if self.distances:
                good &= a.km[other] <= b.km[mine][:, None] + _SAME
            beaten[left] = good.any(axis=1)
        return beaten
