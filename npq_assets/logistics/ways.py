"""How to get from place to place on a day: km and minutes by road graph or straight line, also by time of day.

What was known of closures, and when, does not belong here (see `inputs`), nor how the shortest way is found (see `paths`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.errors import NpqError
from npq_assets.logistics.marts import mart
from npq_assets.optimization.paths import Conditions, Detour, RoadGraph, travel_matrix
from npq_assets.optimization.road_hours import RoadHours
from npq_assets.settings import Home

Array = NDArray[np.float64]
# A place that lies farther from every node of the road graph is not on it: its way there would be a guess.
OFF_ROAD_KM = 25.0
# Moments of a day at which roads change, at most: each costs a matrix or two.
_MOST_CHANGES = 6


@dataclass(frozen=True)
class Ways:
    """How to get from place to place: by the road graph if there is one, else by straight lines corrected by history."""

    graph: RoadGraph | None
    conditions: Conditions
    detour: Detour
    words: str
    notes: tuple[str, ...] = ()
    # From when on which conditions hold, until when vehicles drive; empty: `conditions` all day.
    times: tuple[tuple[datetime, Conditions], ...] = ()
    until: datetime | None = None

    @classmethod
    def read(
        cls,
        home: Home,
        hours: tuple[datetime, datetime],
        closures: pl.DataFrame,
        deliveries: pl.DataFrame,
        legs: pl.DataFrame,
        more_closed: Sequence[tuple[str, str]] = (),
    ) -> Ways:
        """Ways as they are in the driving hours of the day.

        The conditions are those of all closures that touch these hours, together; `times` has each in its own hours.

        Args:
            home: The home.
            hours: When vehicles drive, from and until.
            closures: What is known of closures.
            deliveries: To learn from how roads differ from straight lines, where there is no road graph.
            legs: Driven, for the same.
            more_closed: Segments (from_node, to_node) that are closed beside those.

        Raises:
            NpqError: A mart does not exist, or `more_closed` names no segment.
        """
        nodes, segments = mart(home, "road_nodes").sort("node_id"), mart(home, "road_segments")
        segments = segments.sort("from_node", "to_node", "minutes", "km")
        known = set(segments.select("from_node", "to_node").rows())
        for pair in more_closed:
            if pair not in known:
                raise NpqError(
                    f"closed road {pair[0]},{pair[1]}: logistics.road_segments has no such segment; give FROM_NODE,TO_NODE of one"
                )
        if nodes.is_empty() or segments.is_empty():
            detour = _learned_detour(deliveries, legs)
            source = f"learned from {detour.rows} legs" if detour.rows else "assumed, no legs to learn from"
            words = f"straight lines times {detour.factor:g} at {60 * detour.km_per_minute:.0f} km per hour ({source})"
            return cls(None, Conditions(), detour, words)
        closures = closures.filter(
            (pl.col("closed_from") < hours[1])
            & (pl.col("closed_until").is_null() | (pl.col("closed_until") > hours[0]))
        )
        strange = [
            pair for pair in closures.select("from_node", "to_node").unique().sort(pl.all()).rows() if pair not in known
        ]
        notes = tuple(
            f"road closure {a},{b}: logistics.road_segments has no such segment, so nothing is closed; name one, each way its own"
            for a, b in strange
        )
        closures = closures.join(segments, on=["from_node", "to_node"], how="semi")
        conditions = _in_force(closures, more_closed)
        times = _times(closures, hours, more_closed)
        if times:
            # A road that is quicker for a time is not so at all times.
            conditions = functools.reduce(_together, [found for _, found in times])
        words = (
            f"road graph of {segments.height} segments, {len(conditions.closed)} closed and {len(conditions.factor or {})} slow "
            + (f"at times ({len(times)} of them)" if times else "on the day")
        )
        return cls(RoadGraph.of(nodes, segments), conditions, Detour(), words, notes, times, hours[1])

    def nodes(self, frame: pl.DataFrame) -> tuple[list[str], Array]:
        """Road node of each row (its own, else the nearest to its coordinates) and the km to it."""
        assert self.graph is not None
        own = frame["node_id"].to_list()
        known = np.array([name is not None and name in self.graph.row_of for name in own], dtype=bool)
        names, away = [str(name) for name in own], np.zeros(len(own))
        if (~known).any():
            lost = frame.filter(pl.Series(~known))
            row, km = self.graph.nearest(lost["latitude"].to_numpy(), lost["longitude"].to_numpy())
            found = self.graph.nodes["node_id"].gather(row).to_list()
            for k, name, distance in zip(np.flatnonzero(~known).tolist(), found, km.tolist(), strict=True):
                names[k], away[k] = name, distance
        return names, away

    def located(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows with coordinates, taken from their node where they have none of their own."""
        if (
            self.graph is None
            or not frame.select(pl.any_horizontal(pl.col("latitude", "longitude").is_null()).any()).item()
        ):
            return frame
        whole = pl.col("latitude").is_not_null() & pl.col("longitude").is_not_null()
        where = self.graph.nodes.rename({"latitude": "node_latitude", "longitude": "node_longitude"})
        return frame.join(where, on="node_id", how="left", maintain_order="left").with_columns(
            # Half a place is none: the node's latitude does not go with another's longitude.
            pl.when(whole).then("latitude").otherwise("node_latitude").alias("latitude"),
            pl.when(whole).then("longitude").otherwise("node_longitude").alias("longitude"),
        )

    def off_road(self, frame: pl.DataFrame) -> list[tuple[str, float]]:
        """Places (name) that lie too far from every road, with the km to the nearest."""
        if self.graph is None or frame.is_empty():
            return []
        _, away = self.nodes(frame)
        return [(name, km) for name, km in zip(frame["name"].to_list(), away.tolist(), strict=True) if km > OFF_ROAD_KM]

    def matrix(
        self, frame: pl.DataFrame, usual: bool = False, conditions: Conditions | None = None
    ) -> tuple[Array, Array]:
        """Km and minutes between the places of `frame` (node_id, latitude, longitude), as usual or under conditions."""
        if self.graph is None:
            made = self.detour.matrix(frame["latitude"].to_numpy(), frame["longitude"].to_numpy())
            return made.km, made.minutes
        names, away = self.nodes(frame)
        distinct = list(dict.fromkeys(names))
        found = travel_matrix(self.graph, distinct, None if usual else conditions or self.conditions)
        index = np.array([distinct.index(name) for name in names])
        # The last bit from the road to the place is driven slowly.
        away = np.where(away > OFF_ROAD_KM, np.inf, away)
        extra = 1.3 * (away[:, None] + away[None, :])
        np.fill_diagonal(extra, 0.0)
        km = found.km[np.ix_(index, index)] + extra
        minutes = found.minutes[np.ix_(index, index)] + extra / 0.4
        return km, minutes


def _in_force(closures: pl.DataFrame, more_closed: Sequence[tuple[str, str]] = ()) -> Conditions:
    """Closures all at once; of the speeds of one segment the slowest."""
    closed = closures.filter(pl.col("factor").is_null()).select("from_node", "to_node").rows() + list(more_closed)
    slow = closures.filter(pl.col("factor").is_not_null()).sort("from_node", "to_node", "factor")
    factors = {(a, b): f for a, b, f in slow.select("from_node", "to_node", "factor").iter_rows()}
    return Conditions(frozenset((a, b) for a, b in closed), factors)


def _times(
    closures: pl.DataFrame, hours: tuple[datetime, datetime], more_closed: Sequence[tuple[str, str]]
) -> tuple[tuple[datetime, Conditions], ...]:
    """Conditions from each moment on at which the roads change between two moments; empty if they do not.

    Many changes are taken together: closures then last longer than they do, to full quarters, hours or three hours.
    """
    for step in ("1us", "15m", "1h", "3h"):
        begin, end = pl.col("closed_from").dt.truncate(step), pl.col("closed_until").dt.truncate(step)
        end = pl.when(end < pl.col("closed_until")).then(end.dt.offset_by(step)).otherwise(end)
        spans = closures.with_columns(begin.alias("closed_from"), end.alias("closed_until"))
        moments = {*spans["closed_from"].to_list(), *spans["closed_until"].drop_nulls().to_list()}
        changes = sorted(m for m in moments if hours[0] < m < hours[1])
        if len(changes) <= _MOST_CHANGES:
            break
    else:
        return ()
    if not changes:
        return ()
    found = []
    for start, stop in itertools.pairwise([hours[0], *changes, hours[1]]):
        meets = (pl.col("closed_from") < stop) & (pl.col("closed_until").is_null() | (pl.col("closed_until") > start))
        found.append((start, _in_force(spans.filter(meets), more_closed)))
    return tuple(found)


def by_time(
    home: Home, places: pl.DataFrame, ways: Ways, safe: tuple[Array, Array], opened: datetime
) -> RoadHours | None:
    """Ways between places by time of day; None where no change of the roads concerns them.

    Args:
        home: The home.
        places: name, node_id, latitude, longitude of each.
        ways: How to get from place to place.
        safe: Km and minutes by the ways that no change meets, with what landed for pairs.
        opened: When the day opens.
    """
    if not ways.times:
        return None
    found = [safe]
    number: dict[Any, int] = {_name(ways.conditions): 0}

    def of(conditions: Conditions) -> int:
        name = _name(conditions)
        if name not in number:
            number[name] = len(found)
            found.append(overridden(home, places, *ways.matrix(places, conditions=conditions)))
        return number[name]

    own = [of(conditions) for _, conditions in ways.times]
    both = [of(_together(a, b)) for (_, a), (_, b) in itertools.pairwise(ways.times)]
    begins = [(moment - opened).total_seconds() / 60.0 for moment, _ in ways.times]
    assert ways.until is not None
    hours = RoadHours.of(begins, (ways.until - opened).total_seconds() / 60.0, found, own, both)
    return None if hours.alike.all() else hours


def _name(conditions: Conditions) -> Any:
    return conditions.closed, tuple(sorted((conditions.factor or {}).items()))


def _together(a: Conditions, b: Conditions) -> Conditions:
    """Two conditions at once; of two speeds the slower, and the usual one is a speed too."""
    factors = [dict(a.factor or {}), dict(b.factor or {})]
    pairs = {*factors[0], *factors[1]}
    return Conditions(a.closed | b.closed, {pair: max(f.get(pair, 1.0) for f in factors) for pair in sorted(pairs)})


def _learned_detour(deliveries: pl.DataFrame, legs: pl.DataFrame) -> Detour:
    where = deliveries.select("delivery_id", "latitude", "longitude").drop_nulls()
    pairs = (
        legs.drop_nulls("previous_delivery_id")
        .join(where, on="delivery_id")
        .join(where.rename({"delivery_id": "previous_delivery_id"}), on="previous_delivery_id", suffix="_before")
        .sort("delivery_id")
    )
    if pairs.is_empty():
        return Detour()
    a = np.radians(pairs.select("latitude", "longitude").to_numpy())
    b = np.radians(pairs.select("latitude_before", "longitude_before").to_numpy())
    half = np.sin((a[:, 0] - b[:, 0]) / 2) ** 2
    half = half + np.cos(a[:, 0]) * np.cos(b[:, 0]) * np.sin((a[:, 1] - b[:, 1]) / 2) ** 2
    line = 2 * 6371.0088 * np.arcsin(np.sqrt(half))
    return Detour.learn(line, pairs["km"].cast(pl.Float64).fill_null(np.nan), pairs["drive_minutes"])


def overridden(home: Home, places: pl.DataFrame, km: Array, minutes: Array) -> tuple[Array, Array]:
    """Km and minutes between places, with those instead that landed for a pair of places or road nodes.

    Args:
        home: The home.
        places: name and node_id of each.
        km: By the ways (P, P).
        minutes: By the ways (P, P).
    """
    times = mart(home, "travel_times").sort("from_id", "to_id")
    if times.is_empty():
        return km, minutes
    km, minutes = km.copy(), minutes.copy()
    rows: dict[str, list[int]] = {}
    for k, (name, node) in enumerate(places.select("name", "node_id").iter_rows()):
        for key in {name, node} - {None}:
            rows.setdefault(key, []).append(k)
    for a, b, length, took in times.select("from_id", "to_id", "km", "minutes").iter_rows():
        for i in rows.get(a, ()):
            for j in rows.get(b, ()):
                km[i, j], minutes[i, j] = length, took
    return km, minutes
