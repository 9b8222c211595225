"""How roads are driven while some are closed or slow, by who knows of it and who does not.

Only legs whose usual way leads over such a segment are looked at; all others are as they would be without. A driver takes the
quickest way by what is known at that minute, waiting included, and thinks again at each node where there is news, on the
radio or in front of the car. Who is on a segment when it closes still gets off it. What is closed does not belong here (see
`closures`).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npq_assets.company.closures import Closure
from npq_assets.company.roads import Roads
from npq_assets.optimization.paths import Conditions, travel_matrix
from npq_assets.optimization.road_hours import RoadHours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Segment = tuple[int, int]

# Segments last some hundredths of a minute at least; less is the rounding of sums.
_SAME = 1e-6
# Moments of a day at which roads change, at most: planners look at closures in coarser hours before they look at more.
_MOST_CHANGES = 6
_KEPT = 64


@dataclass(frozen=True)
class Way:
    """A leg as it was driven.

    Attributes:
        arrived: Minute of arrival.
        km: Length.
        segments: Start, end and minute of entry of each segment.
    """

    arrived: float
    km: float
    segments: tuple[tuple[int, int, float], ...]


class Detours:
    """Ways round what is closed."""

    def __init__(self, roads: Roads) -> None:
        self._roads = roads
        row = {name: k for k, name in enumerate(roads.node_ids)}
        self._out: list[list[tuple[int, float, float]]] = [[] for _ in roads.node_ids]
        self._segment: dict[Segment, float] = {}
        for a, b, km, minutes in roads.segments.select("from_node", "to_node", "km", "minutes").iter_rows():
            self._out[row[a]].append((row[b], minutes, km))
            self._segment[row[a], row[b]] = minutes
        self._matrices: dict[tuple[frozenset[Segment], tuple[tuple[Segment, float], ...]], tuple[Floats, Floats]] = {}

    # Driving ---------------------------------------------------------------------------------------------------------------

    def concerned(self, start: Ints, end: Ints, closures: Iterable[Closure]) -> NDArray[np.bool_]:
        """Which legs usually lead over a segment that is closed or slow at any time."""
        usual = self._roads.minutes
        found = np.zeros(len(start), dtype=bool)
        for a, b in {(c.start, c.end) for c in closures}:
            found |= usual[start, a] + self._segment[a, b] + usual[b, end] <= usual[start, end] + _SAME
        return found

    def leg(self, clock: float, start: int, end: int, pace: float, closures: Sequence[Closure]) -> Way:
        """A leg as somebody drives it who knows what is known.

        Args:
            clock: Minute at which it begins.
            start: Node.
            end: Node.
            pace: Factor on the usual driving time of all segments.
            closures: What is in force when, known or not.
        """
        driven: list[tuple[int, int, float]] = []
        at, km, known = start, 0.0, self._heard((), clock, start, closures)
        while at != end:
            for enters, to, reached, length in self._quickest(clock, at, end, pace, known):
                # Waiting for a road to open, somebody may see the next thing happen to it.
                clock = max(clock, enters)
                news = self._heard(known, clock, at, closures)
                if len(news) > len(known):
                    known = news
                    break
                driven.append((at, to, enters))
                at, clock, km = to, reached, km + length
        return Way(clock, km, tuple(driven))

    @staticmethod
    def _heard(known: Sequence[Closure], clock: float, at: int, closures: Sequence[Closure]) -> tuple[Closure, ...]:
        """What a driver knows at a node: what is known by then, what is seen ahead, and what was known or seen before."""
        return tuple(c for c in closures if c in known or c.known <= clock or (c.start == at and c.holds(clock)))

    def _quickest(
        self, clock: float, start: int, end: int, pace: float, known: Sequence[Closure]
    ) -> list[tuple[float, int, float, float]]:
        """Minute of entry, end, minute of arrival and km of each segment of the quickest way (A*, by the usual minutes left)."""
        left = self._roads.minutes[:, end]
        on: dict[Segment, list[Closure]] = {}
        for closure in known:
            on.setdefault((closure.start, closure.end), []).append(closure)
        best: dict[int, float] = {start: clock}
        came: dict[int, tuple[int, float, float]] = {}
        queue = [(clock + pace * float(left[start]), start, clock)]
        while queue:
            _, node, reached = heapq.heappop(queue)
            if node == end:
                break
            if reached > best[node]:
                continue
            for to, minutes, km in self._out[node]:
                here = on.get((node, to))
                enters, arrives = (
                    _passed(reached, pace * minutes, here) if here else (reached, reached + pace * minutes)
                )
                if arrives < best.get(to, np.inf):
                    best[to], came[to] = arrives, (node, enters, km)
                    heapq.heappush(queue, (arrives + pace * float(left[to]), to, arrives))
        way, at = [], end
        while at != start:
            before, enters, km = came[at]
            way.append((enters, at, best[at], km))
            at = before
        return way[::-1]

    # Planning --------------------------------------------------------------------------------------------------------------

    def planned(self, known: Sequence[Closure], first: float, last: float) -> tuple[Floats, Floats, RoadHours | None]:
        """Km and usual minutes between all nodes for who plans a day with what is known, also by time of day.

        Args:
            known: What is known when the day is planned.
            first: Minute at which driving begins.
            last: Minute at which it ends.

        Returns:
            Km and minutes by ways that are open at all times, and the ways by time of day if roads change.
        """
        known = [c for c in known if c.begins < last and c.ends > first]
        changes: list[float] = []
        for step in (1, 15, 60, 180):
            spans = [(c, c.begins // step * step, -(-c.ends // step) * step) for c in known]
            changes = sorted({m for _, begins, ends in spans for m in (begins, ends) if first < m < last})
            if len(changes) <= _MOST_CHANGES:
                break
        else:
            changes = []
        safe = self._matrix(known)
        if not changes:
            return *safe, None
        moments = [first, *changes, last]
        times = [[c for c, a, b in spans if a < stop and b > start] for start, stop in itertools.pairwise(moments)]
        ways = [safe, *(self._matrix(time) for time in times)]
        ways += [self._matrix([*a, *b]) for a, b in itertools.pairwise(times)]
        own = range(1, len(times) + 1)
        both = range(len(times) + 1, 2 * len(times))
        return *safe, RoadHours.of(moments[:-1], last, ways, own, both)

    def _matrix(self, closures: Iterable[Closure]) -> tuple[Floats, Floats]:
        """Km and minutes between all nodes with all of `closures` at once; kept for the next day that has the same."""
        rows = list(closures)
        closed = frozenset((c.start, c.end) for c in rows if c.factor is None)
        slow: dict[Segment, float] = {}
        for c in rows:
            if c.factor is not None and (c.start, c.end) not in closed:
                slow[c.start, c.end] = max(c.factor, slow.get((c.start, c.end), 1.0))
        key = (closed, tuple(sorted(slow.items())))
        if not closed and not slow:
            return self._roads.km, self._roads.minutes
        if key not in self._matrices:
            name = self._roads.node_ids
            conditions = Conditions(
                frozenset((name[a], name[b]) for a, b in closed), {(name[a], name[b]): f for (a, b), f in slow.items()}
            )
            found = travel_matrix(self._roads.graph, name, conditions)
            if len(self._matrices) >= _KEPT:
                self._matrices.clear()
            self._matrices[key] = found.km, found.minutes
        return self._matrices[key]


def _passed(clock: float, minutes: float, here: Sequence[Closure]) -> tuple[float, float]:
    """When who is there at `clock` enters and leaves a segment of `minutes`: at once, or when it is open or quick again."""
    best = (np.inf, np.inf)
    for enters in sorted({clock, *(c.ends for c in here if c.ends > clock)}):
        factors = [c.factor for c in here if c.holds(enters)]
        if None in factors:
            continue
        arrives = enters + minutes * max((f for f in factors if f is not None), default=1.0)
        if arrives < best[1]:
            best = (enters, arrives)
    return best
