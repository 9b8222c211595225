"""The roads' bad days: works that are announced, accidents and floods that are not; what is closed or slow when, and who knows.

Works are announced three days and more before they begin and last two to ten days, day and night or for the same hours of each
working day. Accidents happen to some roads on some days, more often in rain; heavy rain floods roads for hours, which may last into
the next morning. Of accidents and floods nobody knows before they have begun; how long they will last is said with the news,
and holds. Some close a road, others only make it slower, one way or both. How roads are driven then does not belong here (see
`detours`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.roads import WEATHER_STEPS, Roads, utc

Ints = NDArray[np.int64]

DAY_MINUTES = 1440
# Probabilities: that works begin on a road in a week, of an accident on a road on a dry day, of a flood in a heavy rain.
WORKS_A_WEEK = 0.008
ACCIDENT_A_DAY = 0.0011
FLOOD = 0.012
HEAVY_RAIN = 10.0
# Days that works last at most, and on which they are announced before their first at most and at least.
MOST_DAYS = 10
ANNOUNCED = (14, 3)
# Hours of the day of works that do not last day and night.
WORKING_HOURS = ((7, 11), (9, 15), (12, 17))
_STEP_MINUTES = DAY_MINUTES // WEATHER_STEPS


@dataclass(frozen=True)
class Closure:
    """A segment that is closed or slow for a time. Minutes count from one midnight, which is whoever's who made it.

    Attributes:
        start: Node at which the segment starts.
        end: Node at which it ends.
        begins: From when.
        ends: Until when.
        factor: How many times the usual it takes; None: closed.
        known: When it became known.
    """

    start: int
    end: int
    begins: float
    ends: float
    factor: float | None
    known: float

    def holds(self, minute: float) -> bool:
        """Whether it is in force at a minute."""
        return self.begins <= minute < self.ends

    def after(self, minutes: float) -> Closure:
        """The same, with minutes that count from a midnight `minutes` later."""
        return replace(self, begins=self.begins - minutes, ends=self.ends - minutes, known=self.known - minutes)


class Closures:
    """What is closed or slow when; any day can be asked for, in any order."""

    def __init__(self, roads: Roads) -> None:
        self._roads = roads
        self._seed = roads.company.config.seed
        row = {name: k for k, name in enumerate(roads.node_ids)}
        ends = [(row[a], row[b]) for a, b in roads.segments.select("from_node", "to_node").iter_rows()]
        # A road is two segments, one each way.
        self._ends: Ints = np.array([(a, b) for a, b in ends if a < b], dtype=np.int64)
        self._road_of = {(a, b): road for road, (a, b) in enumerate(self._ends.tolist())}
        keys = streams.name_keys(roads.node_ids)
        self._keys = keys[self._ends[:, 0]], keys[self._ends[:, 1]]
        self._region = roads.region[self._ends[:, 1]]
        self._works: dict[int, tuple[Closure, ...]] = {}
        self._incidents: dict[int, tuple[Closure, ...]] = {}

    def on(self, day: date) -> list[Closure]:
        """What is in force on a day or, for who is out over midnight, on the next; in minutes after the day's midnight."""
        opened = day.toordinal() * DAY_MINUTES
        found = self._planned(day, day + timedelta(days=1))
        for ordinal in range(day.toordinal() - 1, day.toordinal() + 2):
            found += self._incidents_of(ordinal)
        return [c.after(opened) for c in found if c.begins < opened + 2 * DAY_MINUTES and c.ends > opened]

    def known_frame(self, first: date | None, last: date, in_force_from: date) -> pl.DataFrame:
        """`logistics.road_closures` that became known from `first` (None: ever) to `last`, both included.

        Args:
            first: Day of the earliest news.
            last: Day of the latest news.
            in_force_from: What was over before this day is left out.
        """
        least = -np.inf if first is None else first.toordinal() * DAY_MINUTES
        opened = in_force_from.toordinal() * DAY_MINUTES
        found = self._planned(in_force_from, last + timedelta(days=ANNOUNCED[0]))
        for ordinal in range(in_force_from.toordinal() - 1, last.toordinal() + 1):
            found += self._incidents_of(ordinal)
        news = [c for c in found if least <= c.known < (last.toordinal() + 1) * DAY_MINUTES and c.ends > opened]
        return self._frame(news)

    def _frame(self, closures: Iterable[Closure]) -> pl.DataFrame:
        rows = sorted(closures, key=lambda c: (c.begins, c.start, c.end))
        names = self._roads.node_ids

        def stamps(minutes: list[float]) -> pl.Series:
            since = np.round(60.0 * (np.array(minutes, dtype=float) - date(1970, 1, 1).toordinal() * DAY_MINUTES))
            return utc(np.datetime64(0, "s") + since.astype("timedelta64[s]"))

        return pl.DataFrame(
            {
                "from_node": pl.Series([names[c.start] for c in rows], dtype=pl.String),
                "to_node": pl.Series([names[c.end] for c in rows], dtype=pl.String),
                "closed_from": stamps([c.begins for c in rows]),
                "closed_until": stamps([c.ends for c in rows]),
                "factor": pl.Series([c.factor for c in rows], dtype=pl.Float64),
                "known_at": stamps([c.known for c in rows]),
            }
        )

    # Works -----------------------------------------------------------------------------------------------------------------

    def _planned(self, first: date, last: date) -> list[Closure]:
        """Works of all weeks in which some may have begun that touch `first` to `last`."""
        weeks = range(_week(first.toordinal() - MOST_DAYS), _week(last.toordinal()) + 1)
        return [closure for week in weeks for closure in self._works_of(week)]

    def _works_of(self, week: int) -> tuple[Closure, ...]:
        if week not in self._works:
            # Works of a week are over by the end of the next: no road has two at once.
            begun = self._begun(week) & ~self._begun(week - 1)
            self._works[week] = tuple(c for road in np.flatnonzero(begun).tolist() for c in self._work(week, road))
        return self._works[week]

    def _begun(self, week: int) -> NDArray[np.bool_]:
        return streams.uniform(self._seed, "road works", week, *self._keys) < WORKS_A_WEEK

    def _work(self, week: int, road: int) -> Iterator[Closure]:
        luck = self._luck("road works", week, road, 7)
        first = 7 * week + 1 + int(5 * luck[0])
        days = 2 + int((MOST_DAYS - 1) * luck[1])
        factor = None if luck[2] < 0.4 else round(1.5 + 1.5 * luck[3], 1)
        latest, least = ANNOUNCED
        known = (first - least - int((latest - least + 1) * luck[4])) * DAY_MINUTES + 12 * 60.0
        if luck[5] < 0.5:
            spans = [(first * DAY_MINUTES + 4 * 60.0, (first + days - 1) * DAY_MINUTES + 20 * 60.0)]
        else:
            opens, closes = WORKING_HOURS[int(2 * (luck[5] - 0.5) * len(WORKING_HOURS))]
            working = (day for day in range(first, first + days) if date.fromordinal(day).weekday() < 5)
            spans = [(day * DAY_MINUTES + 60.0 * opens, day * DAY_MINUTES + 60.0 * closes) for day in working]
        for start, end in self._ways(road, luck[6], 0.5):
            for begins, ends in spans:
                yield Closure(start, end, begins, ends, factor, known)

    # Accidents and floods --------------------------------------------------------------------------------------------------

    def _incidents_of(self, ordinal: int) -> tuple[Closure, ...]:
        if ordinal not in self._incidents:
            self._incidents[ordinal] = tuple(self._happened(ordinal))
        return self._incidents[ordinal]

    def _happened(self, ordinal: int) -> Iterator[Closure]:
        day = date.fromordinal(ordinal)
        rain = self._roads.rain([day])[0][:, self._region]
        midnight = ordinal * DAY_MINUTES
        works = [c for c in self._planned(day, day) if c.begins < midnight + DAY_MINUTES and c.ends > midnight]
        taken = {self._road_of[min(c.start, c.end), max(c.start, c.end)] for c in works}
        minute = 240.0 + np.floor(960.0 * streams.uniform(self._seed, "accident at", ordinal, *self._keys))
        wet = np.minimum(rain[(minute // _STEP_MINUTES).astype(np.int64), np.arange(len(minute))], 12.0)
        crash = streams.uniform(self._seed, "accident", ordinal, *self._keys) < ACCIDENT_A_DAY * (1.0 + wet / 4.0)
        for road in np.flatnonzero(crash).tolist():
            if road in taken:
                continue
            taken.add(road)
            luck = self._luck("accident", ordinal, road, 5)
            begins = midnight + float(minute[road])
            factor = None if luck[0] < 0.4 else round(2.0 + 1.5 * luck[1], 1)
            ends, known = begins + 40.0 + int(120 * luck[2]), begins + 3.0 + int(13 * luck[3])
            for start, end in self._ways(road, luck[4], 0.3):
                yield Closure(start, end, begins, ends, factor, known)
        for step in np.flatnonzero((rain > HEAVY_RAIN).any(axis=1)).tolist():
            under_water = streams.uniform(self._seed, "flood", ordinal, step, *self._keys) < FLOOD
            for road in np.flatnonzero(under_water & (rain[step] > HEAVY_RAIN)).tolist():
                if road in taken:
                    continue
                taken.add(road)
                luck = self._luck("flood", ordinal, road, 5)
                begins = midnight + step * _STEP_MINUTES + 30.0 + int(240 * luck[0])
                factor = None if luck[1] < 0.6 else round(2.0 + 2.0 * luck[2], 1)
                ends, known = begins + 150.0 + int(390 * luck[3]), begins + 5.0 + int(20 * luck[4])
                for start, end in self._ways(road, 1.0, 0.0):
                    yield Closure(start, end, begins, ends, factor, known)

    # Luck ------------------------------------------------------------------------------------------------------------------

    def _luck(self, purpose: str, when: int, road: int, count: int) -> list[float]:
        keys = (key[road] for key in self._keys)
        return streams.uniform(self._seed, f"{purpose} terms", when, *keys, np.arange(count)).tolist()

    def _ways(self, road: int, luck: float, both: float) -> list[tuple[int, int]]:
        """Segments of a road: both with probability `both`, else either; certain for luck 1."""
        a, b = self._ends[road].tolist()
        if luck >= 1.0 or luck < both:
            return [(a, b), (b, a)]
        return [(a, b)] if luck < (1.0 + both) / 2.0 else [(b, a)]


def _week(ordinal: int) -> int:
    """Number of the week, which begins on Monday, of a day."""
    return (ordinal - 1) // 7
