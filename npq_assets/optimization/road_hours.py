"""Ways by time of day: between the moments at which roads close, open or change their speed, each time has its own.

A leg that is begun at a time takes the first arrival among: the quickest way of that time, if it is over before the roads
change; the quickest way that is open before and after the next change; the quickest that is open at all times; and waiting for
a later time. So who leaves later never arrives sooner (first in, first out; Ichoua, Gendreau and Potvin, European Journal of
Operational Research 144, 2003), and a change of the roads on the way is never met by surprise. What closes when does not belong
here (see `logistics.ways`), nor how roads become matrices (see `paths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RoadHours:
    """Ways between places (P) by time of day.

    Attributes:
        begins: Minute after midnight from which each time lasts, to the next one's (B, ascending); the first holds for all before.
        km: Length of each set of ways, (P, P) each; the first set is of ways that are open and reckoned slow at all times.
        minutes: Usual driving time of each set, (P, P) each.
        end: Minute at which the last time ends as far as anybody means to drive.
        options: By time, which sets may be taken by a leg begun in it, and the minute at which it must be over.
    """

    begins: tuple[float, ...]
    km: tuple[Array, ...]
    minutes: tuple[Array, ...]
    options: tuple[tuple[tuple[int, float], ...], ...]
    end: float

    @classmethod
    def of(
        cls,
        begins: Sequence[float],
        end: float,
        ways: Sequence[tuple[Array, Array]],
        own: Sequence[int],
        both: Sequence[int],
    ) -> RoadHours:
        """Ways by time of day.

        Args:
            begins: Minutes at which times begin (B).
            end: Minute at which the last one ends.
            ways: Km and minutes of each set of ways; the first is that of all changes at once.
            own: Set of each time (B).
            both: Set that is open in each time and the next (B - 1).
        """
        ends = [*begins[1:], np.inf, np.inf]
        options = [
            tuple(dict.fromkeys([(own[b], ends[b]), (both[b], ends[b + 1]), (0, np.inf)]))
            if b < len(both)
            else ((own[b], np.inf),)
            for b in range(len(begins))
        ]
        return cls(tuple(begins), tuple(k for k, _ in ways), tuple(m for _, m in ways), tuple(options), end)

    @cached_property
    def alike(self) -> NDArray[np.bool_]:
        """Whether the way between two places is the same at all times (P, P)."""
        same = [np.all([np.equal(kind[0], other) for other in kind], axis=0) for kind in (self.km, self.minutes)]
        return np.asarray(same[0] & same[1])

    @cached_property
    def least_km(self) -> Array:
        """Least km at any time (P, P)."""
        return np.asarray(np.min(self.km, axis=0))

    @cached_property
    def least_minutes(self) -> Array:
        """Least usual driving time at any time (P, P)."""
        return np.asarray(np.min(self.minutes, axis=0))

    @property
    def longest(self) -> int:
        """The set of ways that holds for the longest."""
        lasting: dict[int, float] = {}
        for b, minutes in enumerate(np.diff([*self.begins, self.end]).tolist()):
            own = self.options[b][0][0]
            lasting[own] = lasting.get(own, 0.0) + minutes
        return max(lasting, key=lambda way: (lasting[way], -way))

    def leg(self, clock: float, start: int, end: int, factor: float = 1.0) -> tuple[float, float, float]:
        """A leg between two places, begun, or waited for, at a time.

        Args:
            clock: Minute at which it may begin.
            start: Place.
            end: Place.
            factor: Of the usual driving time.

        Returns:
            Minute of arrival, km, and usual driving time of the way taken (without waiting); inf where there is none.
        """
        best = (np.inf, np.inf, np.inf)
        last = len(self.begins) - 1
        for b, begin in enumerate(self.begins):
            if b < last and clock >= self.begins[b + 1]:
                continue
            leaves = clock if b == 0 or clock >= begin else begin
            if leaves >= best[0]:
                break
            for way, until in self.options[b]:
                usual = float(self.minutes[way][start, end])
                arrives = leaves + factor * usual
                if arrives <= until and arrives < best[0] - 1e-9:
                    best = (arrives, float(self.km[way][start, end]), usual)
        return best

    def legs(self, clock: Array, start: int, end: int, factor: Array) -> tuple[Array, Array]:
        """Arrivals and km (S) of a leg begun at minutes `clock` (S), driving `factor` (S) times the usual."""
        found = [self.leg(c, start, end, f) for c, f in zip(clock.tolist(), factor.tolist(), strict=True)]
        return np.array([f[0] for f in found]), np.array([f[1] for f in found])
