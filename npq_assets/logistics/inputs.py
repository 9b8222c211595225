"""What logistics decisions may look at: the marts, cut to what was known before the as-of day opened.

The only place that decides what was known when; engines get frames that hold nothing later.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.contracts import DECISIONS
from npq_assets.errors import NpqError, Unavailable
from npq_assets.optimization.paths import Conditions, Detour, RoadGraph, great_circle, travel_matrix
from npq_assets.optimization.road_hours import RoadHours
from npq_assets.optimization.routing import RoutingProblem
from npq_assets.publishing import read_decisions
from npq_assets.settings import Home, Settings
from npq_assets.storage import fingerprint

Array = NDArray[np.float64]
HISTORY_DAYS = 240
_MOST_PLACES = 2_000
# A place that lies farther from every node of the road graph is not on it: its way there would be a guess.
OFF_ROAD_KM = 25.0
# Moments of a day at which roads change, at most: each costs a matrix or two.
_MOST_CHANGES = 6


@dataclass(frozen=True)
class LogisticsInputs:
    """Everything that a day's routes, risks and sourcing may use. Minutes are counted from the day's opening (00:00 UTC).

    Attributes:
        as_of: The day that is planned, before it opens.
        settings: The home's settings.
        deliveries: Of the day: delivery_id, depot_id, site_id, place, depot (place), quantity, ready, due, service, late_cost,
            drop_cost, rebook_cost, region.
        vehicles: vehicle_id, depot_id, depot (place), capacity, fixed_cost, cost_per_km, cost_per_minute, shift_start,
            shift_end, max_km.
        places: place, name, latitude, longitude: depots first, then deliveries.
        km: Between places (P, P); inf where there is no way.
        minutes: Usual driving time (P, P).
        legs: Driven before the day opened: day, hour, weekday, depot_id, vehicle_id, region, usual (minutes), ratio (driving
            time over usual), rain.
        rain: Foreseen rain of the day: region, hour, rain.
        sources: For sourcing: source_id, latitude, longitude, capacity, handling_cost, overflow_cost, stock (a day).
        lanes: from_id, to_id, cost_per_unit, capacity (a day), km; sites without landed lanes by distance.
        demand: site_id, quantity expected over the next seven days, known (of this, from orders), mean (a day).
        ways: How distances were found, in words.
        skipped: What could not be computed, with the reason.
        hours: Ways by time of day, where a road closes, opens or changes its speed while vehicles drive; `km` and `minutes` are
            then those of ways that such a change never meets.
    """

    as_of: date
    settings: Settings
    deliveries: pl.DataFrame
    vehicles: pl.DataFrame
    places: pl.DataFrame
    km: Array
    minutes: Array
    legs: pl.DataFrame
    rain: pl.DataFrame
    sources: pl.DataFrame
    lanes: pl.DataFrame
    demand: pl.DataFrame
    ways: str
    skipped: tuple[str, ...] = ()
    hours: RoadHours | None = None

    @cached_property
    def snapshot(self) -> str:
        """Hash of all that the decision looks at."""
        grid = pl.DataFrame({"km": self.km.ravel(), "minutes": self.minutes.ravel()})
        return fingerprint(
            self.deliveries,
            self.vehicles,
            self.places,
            grid,
            self.legs,
            self.rain,
            self.sources,
            self.lanes,
            self.demand,
            {"as_of": self.as_of.isoformat(), "settings": repr(self.settings)},
            *_grids(self.hours),
        )

    @property
    def opened(self) -> datetime:
        """When the day opens."""
        return opening(self.as_of)

    def problem(self, minutes: Array | None = None) -> RoutingProblem:
        """The day's routing problem, with usual driving times unless others are given."""
        return RoutingProblem(
            self.deliveries.select(
                "delivery_id", "place", "depot", "quantity", "ready", "due", "service", "late_cost", "drop_cost"
            ),
            self.vehicles.select(
                "vehicle_id",
                "depot",
                "capacity",
                "fixed_cost",
                "cost_per_km",
                "cost_per_minute",
                "shift_start",
                "shift_end",
                "max_km",
            ),
            self.km,
            self.minutes if minutes is None else minutes,
            hours=self.hours if minutes is None else None,
        )


def _grids(hours: RoadHours | None) -> list[Any]:
    """What a snapshot takes of ways by time of day: nothing where there are none."""
    if hours is None:
        return []
    ways = [pl.DataFrame({"km": k.ravel(), "minutes": m.ravel()}) for k, m in zip(hours.km, hours.minutes, strict=True)]
    return [*ways, repr((hours.begins, hours.options))]


def opening(day: date) -> datetime:
    """When a day opens: midnight UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def read_inputs(
    home: Home, as_of: date, now: datetime | None = None, closed: Sequence[tuple[str, str]] = ()
) -> LogisticsInputs:
    """Reads the logistics marts as they were known before `as_of` opened.

    Args:
        home: The home.
        as_of: The day.
        now: A moment of the day: deliveries ordered before it are known too (what traffic is learned from stays as it was).
        closed: Segments (from_node, to_node) that are closed beside those that landed.

    Raises:
        Unavailable: No vehicles, or no deliveries of the day, are known by then.
        NpqError: The marts do not exist, or a shift cannot be read.
    """
    opened = opening(as_of)
    notes: list[str] = []
    vehicles = _mart(home, "vehicles").sort("vehicle_id")
    if vehicles.is_empty():
        raise Unavailable("logistics.vehicles: no rows accepted, so nothing can be delivered; land vehicles")
    all_deliveries = _mart(home, "deliveries")
    day = (pl.col("ready_at") >= opened) & (pl.col("ready_at") < opened + timedelta(days=1))
    known = pl.col("ordered_at").is_null() | (pl.col("ordered_at") < (now or opened))
    deliveries = all_deliveries.filter(day & known).sort("delivery_id")
    if deliveries.is_empty():
        raise Unavailable(f"logistics.deliveries: none with a window on {as_of}; land the day's deliveries")
    sites = _mart(home, "sites", "common").sort("site_id")
    legs_mart = _mart(home, "legs").filter(
        (pl.col("arrived_at") < opened) & (pl.col("arrived_at") >= opened - timedelta(days=HISTORY_DAYS))
    )
    driven = _driving_hours(vehicles, opened)
    ways = _Ways.read(
        home, (max(driven[0], now or driven[0]), driven[1]), now or opened, all_deliveries, legs_mart, closed
    )
    notes.extend(ways.notes)
    deliveries, vehicles, places, km, minutes, hours = _day(home, deliveries, vehicles, sites, ways, opened, notes)
    weather = _mart(home, "weather").filter(pl.col("valid_at") < opened).select("region", "valid_at", "rain")
    legs = _legs(legs_mart, all_deliveries, sites, ways, weather)
    sources, lanes, demand = _sourcing(home, sites, vehicles, all_deliveries, as_of, ways, notes)
    return LogisticsInputs(
        as_of,
        home.settings,
        deliveries,
        vehicles,
        places,
        km,
        minutes,
        legs,
        _rain(home, opened, weather),
        sources,
        lanes,
        demand,
        ways.words,
        tuple(notes),
        hours,
    )


def _mart(home: Home, model: str, domain: str = "logistics") -> pl.DataFrame:
    place = home.mart(domain, model)
    if not place.exists():
        raise NpqError(f"{place}: not built yet; materialize marts/{domain}/{model} (npq run does)")
    return pl.read_parquet(place)


# Ways ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ways:
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
        known_by: datetime,
        deliveries: pl.DataFrame,
        legs: pl.DataFrame,
        more_closed: Sequence[tuple[str, str]] = (),
    ) -> _Ways:
        """Ways as they are in the driving hours of the day, so far as that was known by a moment.

        The conditions are those of all closures that touch these hours, together; `times` has each in its own hours.
        """
        nodes, segments = _mart(home, "road_nodes").sort("node_id"), _mart(home, "road_segments")
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
        closures = _mart(home, "road_closures").filter(
            (pl.col("closed_from") < hours[1])
            & (pl.col("closed_until").is_null() | (pl.col("closed_until") > hours[0]))
            & (pl.col("known_at").is_null() | (pl.col("known_at") < known_by))
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


def _by_time(
    home: Home, places: pl.DataFrame, ways: _Ways, safe: tuple[Array, Array], opened: datetime
) -> RoadHours | None:
    """Ways between places by time of day; None where no change of the roads concerns them."""
    if not ways.times:
        return None
    found = [safe]
    number: dict[Any, int] = {_name(ways.conditions): 0}

    def of(conditions: Conditions) -> int:
        name = _name(conditions)
        if name not in number:
            number[name] = len(found)
            found.append(_overridden(home, places, *ways.matrix(places, conditions=conditions)))
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


def _day(
    home: Home,
    deliveries: pl.DataFrame,
    vehicles: pl.DataFrame,
    sites: pl.DataFrame,
    ways: _Ways,
    opened: datetime,
    notes: list[str],
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, Array, Array, RoadHours | None]:
    """The day's deliveries and vehicles in minutes and places, and the ways between those, also by time of day."""
    deliveries = ways.located(deliveries)
    homeless = deliveries.filter(pl.col("latitude").is_null() | pl.col("longitude").is_null())
    for name in homeless["delivery_id"].to_list():
        notes.append(f"delivery {name}: it has neither coordinates nor a known road node; not planned")
    deliveries = deliveries.filter(pl.col("latitude").is_not_null() & pl.col("longitude").is_not_null())
    depots = sorted({*vehicles["depot_id"].to_list(), *deliveries["depot_id"].to_list()})
    where = sites.filter(pl.col("site_id").is_in(depots)).drop_nulls(["latitude", "longitude"])
    lost = [name for name in depots if name not in set(where["site_id"].to_list())]
    for name in lost:
        notes.append(
            f"depot {name} has no coordinates in common.sites; its vehicles and deliveries are not planned; land its place"
        )
    deliveries = deliveries.filter(~pl.col("depot_id").is_in(lost))
    vehicles = vehicles.filter(~pl.col("depot_id").is_in(lost))
    if deliveries.is_empty() or vehicles.is_empty():
        raise Unavailable("logistics.deliveries: no delivery of the day can be planned; " + "; ".join(notes))
    houses = where.select(
        pl.col("site_id").alias("name"), pl.lit(None, pl.String).alias("node_id"), "latitude", "longitude"
    ).sort("name")
    drops = deliveries.select(pl.col("delivery_id").alias("name"), "node_id", "latitude", "longitude")
    everywhere = pl.concat([houses, drops])
    km, minutes = ways.matrix(everywhere)
    km, minutes = _overridden(home, everywhere, km, minutes)
    hours = _by_time(home, everywhere, ways, (km, minutes), opened)
    least = km if hours is None else hours.least_km
    place_of = {name: k for k, name in enumerate(houses["name"].to_list())}
    count = houses.height
    minute = lambda column: (pl.col(column) - opened).dt.total_seconds() / 60.0  # noqa: E731
    regions = _region(deliveries, sites)
    planned = deliveries.select(
        "delivery_id",
        "depot_id",
        "site_id",
        (pl.int_range(pl.len()) + count).alias("place"),
        pl.col("depot_id").replace_strict(place_of, return_dtype=pl.Int64).alias("depot"),
        "quantity",
        minute("ready_at").alias("ready"),
        minute("due_at").alias("due"),
        pl.col("service_minutes").alias("service"),
        pl.col("late_cost_per_minute").alias("late_cost"),
        "drop_cost",
        "rebook_cost",
        regions.alias("region"),
    )
    cut = [
        name
        for name, depot, place in planned.select("delivery_id", "depot", "place").iter_rows()
        if not (np.isfinite(least[depot, place]) and np.isfinite(least[place, depot]))
    ]
    far = dict(ways.off_road(everywhere))
    for name in cut:
        notes.append(
            f"delivery {name}: the nearest road node is {far[name]:,.0f} km away; land the roads that lead there, or its place anew"
            if name in far
            else f"delivery {name}: no road leads from its depot there and back on the day"
        )
    for name in (name for name in place_of if name in far):
        notes.append(f"depot {name}: the nearest road node is {far[name]:,.0f} km away; land the roads that lead there")
    fleet = vehicles.select(
        "vehicle_id",
        "depot_id",
        pl.col("depot_id").replace_strict(place_of, return_dtype=pl.Int64).alias("depot"),
        "capacity",
        "fixed_cost",
        "cost_per_km",
        (pl.col("cost_per_hour") / 60.0).alias("cost_per_minute"),
        *(
            pl.Series(
                name, [_shift(value, opened, name, v) for v, value in vehicles.select("vehicle_id", name).iter_rows()]
            )
            for name in ("shift_start", "shift_end")
        ),
        "max_km",
    )
    # A shift that ends before it starts ends on the next day.
    fleet = fleet.with_columns(
        pl.when(pl.col("shift_end") <= pl.col("shift_start"))
        .then(pl.col("shift_end") + 1440.0)
        .otherwise(pl.col("shift_end"))
        .alias("shift_end")
    ).filter((pl.col("shift_start") < 2880.0) & (pl.col("shift_end") > 0.0))
    places = everywhere.select(pl.int_range(pl.len()).alias("place"), "name", "latitude", "longitude")
    return planned, fleet, places, km, minutes, hours


def _overridden(home: Home, places: pl.DataFrame, km: Array, minutes: Array) -> tuple[Array, Array]:
    times = _mart(home, "travel_times").sort("from_id", "to_id")
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


def _driving_hours(vehicles: pl.DataFrame, opened: datetime) -> tuple[datetime, datetime]:
    """From the first shift's start to the last one's end, as far as they touch the day."""
    begins, ends = [], []
    for name, start, end in vehicles.select("vehicle_id", "shift_start", "shift_end").iter_rows():
        a, b = _shift(start, opened, "shift_start", name), _shift(end, opened, "shift_end", name)
        b = b + 1440.0 if b <= a else b
        if a < 2880.0 and b > 0.0:
            begins.append(max(a, 0.0))
            ends.append(b)
    if not begins:
        return opened, opened + timedelta(days=1)
    return opened + timedelta(minutes=min(begins)), opened + timedelta(minutes=max(ends))


def _shift(text: str, opened: datetime, column: str, vehicle: str) -> float:
    """Minutes after the day's opening of `HH:MM` or an ISO timestamp."""
    try:
        if len(text) <= 5 and ":" in text:
            hours, minutes = text.split(":")
            value = 60.0 * int(hours) + int(minutes)
            if 0 <= int(hours) <= 24 and 0 <= int(minutes) < 60:
                return value
            raise ValueError(text)
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - opened).total_seconds() / 60.0
    except ValueError:
        raise NpqError(
            f"logistics.vehicles: {column} {text!r} of {vehicle} is neither HH:MM nor an ISO timestamp; correct and land it anew"
        ) from None


def _region(frame: pl.DataFrame, sites: pl.DataFrame) -> pl.Series:
    """Region of each row: that of the nearest site which has one."""
    known = sites.drop_nulls(["latitude", "longitude", "region"])
    if known.is_empty() or frame.is_empty():
        return pl.Series("region", [""] * frame.height, dtype=pl.String)
    both = pl.concat([frame.select("latitude", "longitude"), known.select("latitude", "longitude")])
    if frame.height > 3_000:  # only the rough nearness matters
        flat = both.to_numpy() * np.array([1.0, 0.6])
        from scipy.spatial import cKDTree

        nearest = cKDTree(flat[frame.height :]).query(np.nan_to_num(flat[: frame.height]))[1]
    else:
        distance = great_circle(both["latitude"].to_numpy(), both["longitude"].to_numpy())
        nearest = np.argmin(distance[: frame.height, frame.height :], axis=1)
    return known["region"].gather(np.asarray(nearest)).alias("region")


# History -------------------------------------------------------------------------------------------------------------------

_LEGS = {
    "day": pl.Date,
    "hour": pl.Float64,
    "weekday": pl.Int64,
    "depot_id": pl.String,
    "vehicle_id": pl.String,
    "region": pl.String,
    "usual": pl.Float64,
    "ratio": pl.Float64,
    "rain": pl.Float64,
}


def _legs(
    legs: pl.DataFrame, deliveries: pl.DataFrame, sites: pl.DataFrame, ways: _Ways, weather: pl.DataFrame
) -> pl.DataFrame:
    """Legs driven, each with how much longer than usual it took and the rain then."""
    if legs.is_empty():
        return pl.DataFrame(schema=_LEGS)
    spots = ways.located(deliveries.select("delivery_id", "node_id", "latitude", "longitude", "depot_id"))
    spots = spots.drop_nulls(["latitude", "longitude"]).with_columns(
        pl.coalesce(
            pl.col("node_id"),
            pl.format("{},{}", pl.col("latitude").round(3), pl.col("longitude").round(3)),
        ).alias("spot")
    )
    spots = spots.with_columns(_region(spots, sites))
    houses = sites.drop_nulls(["latitude", "longitude"]).select(
        pl.format("site {}", "site_id").alias("spot"), pl.lit(None, pl.String).alias("node_id"), "latitude", "longitude"
    )
    used = legs.join(spots.select("delivery_id", "spot", "region"), on="delivery_id", how="inner")
    before = spots.select(pl.col("delivery_id").alias("previous_delivery_id"), pl.col("spot").alias("before"))
    used = used.join(before, on="previous_delivery_id", how="left").with_columns(
        pl.coalesce("before", pl.format("site {}", "depot_id")).alias("before")
    )
    distinct = pl.concat(
        [spots.select("spot", "node_id", "latitude", "longitude").unique("spot", keep="first").sort("spot"), houses]
    )
    wanted = {*used["spot"].to_list(), *used["before"].to_list()}
    distinct = distinct.filter(pl.col("spot").is_in(list(wanted))).sort("spot")
    if distinct.height > _MOST_PLACES:
        recent = used.sort("arrived_at", "delivery_id", descending=[True, False]).head(_MOST_PLACES // 4)
        wanted = {*recent["spot"].to_list(), *recent["before"].to_list()}
        distinct, used = distinct.filter(pl.col("spot").is_in(list(wanted))), recent
    _, usual = ways.matrix(distinct, usual=True)
    row = {name: k for k, name in enumerate(distinct["spot"].to_list())}
    used = used.filter(pl.col("before").is_in(list(row)) & pl.col("spot").is_in(list(row)))
    minutes = np.array([usual[row[a], row[b]] for a, b in used.select("before", "spot").iter_rows()], dtype=float)
    used = used.with_columns(pl.Series("usual", minutes)).filter(
        pl.col("usual").is_finite() & (pl.col("usual") >= 2.0) & (pl.col("drive_minutes") > 0.5)
    )
    used = used.with_columns(
        pl.col("leg_started_at").dt.date().alias("day"),
        (pl.col("leg_started_at").dt.hour() + pl.col("leg_started_at").dt.minute() / 60.0).alias("hour"),
        pl.col("leg_started_at").dt.weekday().cast(pl.Int64).alias("weekday"),
        (pl.col("drive_minutes") / pl.col("usual")).clip(0.2, 6.0).alias("ratio"),
    ).sort("leg_started_at", "delivery_id")
    wet = weather.drop_nulls("rain").sort("valid_at")
    if wet.is_empty():
        used = used.with_columns(pl.lit(None, pl.Float64).alias("rain"))
    else:
        used = used.sort("leg_started_at").join_asof(
            wet, left_on="leg_started_at", right_on="valid_at", by="region", strategy="backward", tolerance="12h",
            check_sortedness=False,
        )  # fmt: skip
    return used.sort("leg_started_at", "delivery_id").select([pl.col(c).cast(t) for c, t in _LEGS.items()])


def _rain(home: Home, opened: datetime, weather: pl.DataFrame) -> pl.DataFrame:
    """Rain of the day by region and hour as foreseen before it opened; without a forecast, as last observed."""
    foreseen = (
        _mart(home, "weather_forecasts")
        .filter(
            (pl.col("issued_at") < opened)
            & (pl.col("valid_at") >= opened)
            & (pl.col("valid_at") < opened + timedelta(days=1))
        )
        .sort("region", "valid_at", "issued_at")
        .unique(["region", "valid_at"], keep="last", maintain_order=True)
        .select("region", pl.col("valid_at").dt.hour().cast(pl.Int64).alias("hour"), "rain")
        .drop_nulls()
    )
    seen = (
        weather.drop_nulls("rain")
        .sort("region", "valid_at")
        .unique("region", keep="last", maintain_order=True)
        .select("region", pl.lit(0, pl.Int64).alias("hour"), "rain")
    )
    lacking = seen.join(foreseen, on="region", how="anti")
    return pl.concat([foreseen, lacking]).sort("region", "hour")


# Sourcing ------------------------------------------------------------------------------------------------------------------

_USUAL_DAYS = 28
_AHEAD = 7


def _sourcing(
    home: Home,
    sites: pl.DataFrame,
    vehicles: pl.DataFrame,
    deliveries: pl.DataFrame,
    as_of: date,
    ways: _Ways,
    notes: list[str],
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Sources, lanes and the demand of sites over the next seven days."""
    empty = (
        pl.DataFrame(schema={"source_id": pl.String}),
        pl.DataFrame(schema={"from_id": pl.String, "to_id": pl.String}),
        pl.DataFrame(schema={"site_id": pl.String}),
    )
    terms = _mart(home, "depot_terms").sort("site_id")
    if terms.is_empty():
        notes.append("logistics.depot_terms: no rows, so sites keep their sources; land them to get sourcing decided")
        return empty
    where = sites.drop_nulls(["latitude", "longitude"]).select(
        "site_id", "kind", "latitude", "longitude", pl.lit(None, pl.String).alias("node_id")
    )
    sources = terms.join(where, on="site_id", how="inner").sort("site_id")
    demand = _site_demand(home, deliveries, as_of)
    demand = demand.filter(~pl.col("site_id").is_in(sources["site_id"].implode()))
    demand = demand.join(where.select("site_id"), on="site_id", how="semi").sort("site_id")
    if demand.is_empty() or sources.is_empty():
        notes.append("logistics.deliveries: none names a site_id, so there is nothing to source")
        return empty
    senders = [s for s in sources["site_id"].to_list() if s in set(vehicles["depot_id"].to_list())]
    points = pl.concat(
        [
            where.filter(pl.col("site_id").is_in(senders)).sort("site_id"),
            where.join(demand, on="site_id", how="semi").sort("site_id"),
        ]
    )
    km, _ = ways.matrix(points)
    names = points["site_id"].to_list()
    landed = _mart(home, "lanes").sort("from_id", "to_id")
    rate = _cost_per_km_and_unit(vehicles, demand)
    rows: list[dict[str, Any]] = []
    for i, sender in enumerate(names[: len(senders)]):
        for j in range(len(senders), len(names)):
            if np.isfinite(km[i, j]) and np.isfinite(km[j, i]):
                rows.append(
                    {"from_id": sender, "to_id": names[j], "cost_per_unit": rate.get(names[j], 0.0) * (km[i, j] + km[j, i]) / 2,
                     "capacity": None, "km": float(km[i, j])}
                )  # fmt: skip
    made = pl.DataFrame(
        rows,
        schema={
            "from_id": pl.String,
            "to_id": pl.String,
            "cost_per_unit": pl.Float64,
            "capacity": pl.Float64,
            "km": pl.Float64,
        },
    )
    fixed = landed.with_columns(pl.lit(None, pl.Float64).alias("km")).select(made.columns)
    own = fixed.join(made.select("from_id", "to_id", pl.col("km").alias("way")), on=["from_id", "to_id"], how="left")
    own = own.with_columns(pl.coalesce("km", "way").alias("km")).select(made.columns)
    lanes = pl.concat([own, made.join(own, on=["from_id", "to_id"], how="anti")]).sort("from_id", "to_id")
    known = {*sources["site_id"].to_list(), *demand["site_id"].to_list()}
    lanes = lanes.filter(pl.col("from_id").is_in(list(known)) & pl.col("to_id").is_in(list(known)))
    stuck = sources.join(lanes, left_on="site_id", right_on="from_id", how="anti")["site_id"].to_list()
    if stuck:
        notes.append(
            f"logistics.lanes: no lane, and no vehicle's way, leads from {', '.join(stuck[:3])}{' …' if stuck[3:] else ''}, "
            "so nothing is sent from there; land lanes if something is"
        )
    limits = shippable(home, as_of)
    if limits:
        # What the production plan does not make cannot be shipped, however much the terms would allow.
        limit = pl.Series([limits.get(name, np.inf) / _AHEAD for name in sources["site_id"].to_list()])
        stock = pl.min_horizontal(pl.col("stock").cast(pl.Float64).fill_null(np.inf), limit)
        sources = sources.with_columns(pl.when(stock.is_finite()).then(stock).alias("stock"))
    return (
        sources.select(
            pl.col("site_id").alias("source_id"), "kind", "capacity", "handling_cost", "overflow_cost", "stock"
        ),
        lanes,
        demand,
    )


def shippable(home: Home, as_of: date) -> dict[str, float]:
    """Load that each plant can ship in the seven days from `as_of`: what lies there and what its production plan makes by then.

    The plan is the latest that was decided as of `as_of` or a day of the week before; without one, nothing is said about plants.

    Returns:
        By plant, weight of finished products (kg; a product without a weight counts 1).
    """
    table = DECISIONS["manufacturing.production_plan"]
    plan = next(
        (f for k in range(_AHEAD) if (f := read_decisions(home, table, as_of - timedelta(days=k))).height),
        table.empty(),
    )
    places = [home.mart("manufacturing", name) for name in ("machines", "routings", "plant_stock")]
    if plan.is_empty() or not all(place.exists() for place in places[:2]):
        return {}
    site = pl.read_parquet(places[0]).select("machine_id", "site_id")
    routes = pl.read_parquet(places[1]).select("product_id", "operation", "machine_id").join(site, on="machine_id")
    plant_of = (
        routes.sort("product_id", "operation", "machine_id")
        .unique("product_id", keep="first")
        .select("product_id", "site_id")
    )
    weights = home.mart("common", "products")
    weight = pl.DataFrame(schema={"product_id": pl.String, "weight_kg": pl.Float64})
    if weights.exists() and "weight_kg" in (known := pl.read_parquet(weights)).columns:
        weight = known.select("product_id", pl.col("weight_kg").cast(pl.Float64)).unique("product_id", keep="first")
    until = as_of + timedelta(days=_AHEAD)
    ahead = plan.filter((pl.col("period_start") >= as_of) & (pl.col("period_start") < until))
    parts = [ahead.join(site, on="machine_id").select("site_id", "product_id", pl.col("quantity").cast(pl.Float64))]
    if places[2].exists():
        counted = (
            pl.read_parquet(places[2])
            .filter(pl.col("counted_on") <= as_of)
            .sort("product_id", "counted_on")
            .unique("product_id", keep="last", maintain_order=True)
        )
        parts.append(
            counted.join(plant_of, on="product_id").select(
                "site_id", "product_id", pl.col("on_hand").cast(pl.Float64).clip(lower_bound=0).alias("quantity")
            )
        )
    total = (
        pl.concat(parts)
        .join(weight, on="product_id", how="left")
        .group_by("site_id")
        .agg((pl.col("quantity") * pl.col("weight_kg").fill_null(1.0)).sum().round(6).alias("kg"))
        .sort("site_id")
    )
    return dict(total.iter_rows())


def _cost_per_km_and_unit(vehicles: pl.DataFrame, demand: pl.DataFrame) -> dict[str, float]:
    """What a unit costs per km on a store's tour: the cheapest vehicle's km, shared by the three stops a tour usually has."""
    if vehicles.is_empty():
        return {}
    per_km = float((vehicles["cost_per_km"] + vehicles["cost_per_minute"] / 0.8).mean())  # type: ignore[arg-type]
    return {
        site: per_km / 1.5 / max(mean, 1e-9)
        for site, mean in demand.select("site_id", "mean").iter_rows()
    }  # fmt: skip


def _site_demand(home: Home, deliveries: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Load of each site over the next seven days: known orders where there are any, the usual day for the rest."""
    opened = opening(as_of)
    past = deliveries.drop_nulls("site_id").filter(
        (pl.col("ready_at") < opened) & (pl.col("ready_at") >= opened - timedelta(days=_USUAL_DAYS))
    )
    usual = past.group_by("site_id").agg((pl.col("quantity").sum() / _USUAL_DAYS).alias("mean"))
    coming = _ordered(home, as_of)
    both = usual.join(coming, on="site_id", how="full", coalesce=True).with_columns(
        pl.col("mean").fill_null(0.0), pl.col("known").fill_null(0.0), pl.col("days").fill_null(0)
    )
    return (
        both.with_columns(
            (pl.col("known") + pl.col("mean") * (_AHEAD - pl.col("days")).clip(lower_bound=0)).alias("quantity")
        )
        .with_columns(pl.when(pl.col("mean") > 0).then("mean").otherwise(pl.col("quantity") / _AHEAD).alias("mean"))
        .filter(pl.col("quantity") > 0)
        .select("site_id", pl.col("quantity").round(6), pl.col("known").round(6), pl.col("mean").round(6))
        .sort("site_id")
    )


def _ordered(home: Home, as_of: date) -> pl.DataFrame:
    """Load that arrives in the next seven days by replenishment orders: those under way, and those decided for this day."""
    found: list[pl.DataFrame] = []
    columns = ["site_id", "product_id", "arrives_on", "quantity"]
    place = home.mart("retail", "open_orders")
    if place.exists():
        orders = pl.read_parquet(place)
        placed = (
            pl.col("ordered_on").is_null() | (pl.col("ordered_on") < as_of)
            if "ordered_on" in orders.columns
            else pl.lit(True)
        )
        found.append(orders.filter(placed).select(columns))
    found.append(read_decisions(home, DECISIONS["retail.replenishment_orders"], as_of).select(columns))
    products = home.mart("common", "products")
    if not products.exists():
        return pl.DataFrame(schema={"site_id": pl.String, "known": pl.Float64, "days": pl.Int64})
    weight = pl.read_parquet(products)
    weight = weight.select(
        "product_id", pl.col("weight_kg") if "weight_kg" in weight.columns else pl.lit(1.0).alias("weight_kg")
    )
    return (
        pl.concat([f.with_columns(pl.col("quantity").cast(pl.Float64)) for f in found])
        .filter((pl.col("arrives_on") > as_of) & (pl.col("arrives_on") <= as_of + timedelta(days=_AHEAD)))
        .join(weight.unique("product_id", keep="first"), on="product_id", how="left")
        .group_by("site_id")
        .agg(
            (pl.col("quantity") * pl.col("weight_kg").fill_null(1.0)).sum().alias("known"),
            pl.col("arrives_on").n_unique().cast(pl.Int64).alias("days"),
        )
        .sort("site_id")
    )
