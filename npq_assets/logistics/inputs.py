"""What logistics decisions may look at: the marts, cut to what was known before the as-of day opened.

The only place that decides what was known when about vehicles, deliveries, roads, traffic and weather (about what sourcing looks
at: `sourcing_inputs`); engines get frames that hold nothing later. How places are reached does not belong here (see `ways`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.errors import NpqError, Unavailable
from npq_assets.logistics.marts import mart, opening, stop_columns
from npq_assets.logistics.sourcing_inputs import read_sourcing
from npq_assets.logistics.ways import Ways, by_time, overridden
from npq_assets.optimization.paths import great_circle
from npq_assets.optimization.road_hours import RoadHours
from npq_assets.optimization.route_problem import RoutingProblem
from npq_assets.settings import Home, Settings
from npq_assets.storage import fingerprint

Array = NDArray[np.float64]
HISTORY_DAYS = 240
_MOST_PLACES = 2_000
# Hours for which an observation of the weather says something.
_WET_HOURS = 12
# How much longer legs take than the ways say, where none has landed to tell.
_SLOWER = 1.1


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
    vehicles = mart(home, "vehicles").sort("vehicle_id")
    if vehicles.is_empty():
        raise Unavailable("logistics.vehicles: no rows accepted, so nothing can be delivered; land vehicles")
    all_deliveries = mart(home, "deliveries")
    day = (pl.col("ready_at") >= opened) & (pl.col("ready_at") < opened + timedelta(days=1))
    known = pl.col("ordered_at").is_null() | (pl.col("ordered_at") < (now or opened))
    deliveries = all_deliveries.filter(day & known).sort("delivery_id")
    if deliveries.is_empty():
        raise Unavailable(f"logistics.deliveries: none with a window on {as_of}; land the day's deliveries")
    sites = mart(home, "sites", "common").sort("site_id")
    legs_mart = mart(home, "legs").filter(
        (pl.col("arrived_at") < opened) & (pl.col("arrived_at") >= opened - timedelta(days=HISTORY_DAYS))
    )
    driven = _driving_hours(vehicles, opened)
    closures = known_closures(home, now or opened)
    ways = Ways.read(home, (max(driven[0], now or driven[0]), driven[1]), closures, all_deliveries, legs_mart, closed)
    notes.extend(ways.notes)
    deliveries, vehicles, places, km, minutes, hours = _day(home, deliveries, vehicles, sites, ways, opened, notes)
    weather = mart(home, "weather").filter(pl.col("valid_at") < opened).select("region", "valid_at", "rain")
    legs = _legs(legs_mart, all_deliveries, sites, ways, weather)
    sources, lanes, demand = read_sourcing(
        home, sites, vehicles, all_deliveries, as_of, ways, notes, usual_slowness(legs)
    )
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


def usual_slowness(legs: pl.DataFrame) -> float:
    """How much longer legs took on average than the ways say; assumed where none has landed."""
    return float(legs["ratio"].mean()) if legs.height else _SLOWER  # type: ignore[arg-type]


def known_closures(home: Home, known_by: datetime) -> pl.DataFrame:
    """Closures of roads, and other speeds, that were known before a moment."""
    known = pl.col("known_at").is_null() | (pl.col("known_at") < known_by)
    return mart(home, "road_closures").filter(known)


def _day(
    home: Home,
    deliveries: pl.DataFrame,
    vehicles: pl.DataFrame,
    sites: pl.DataFrame,
    ways: Ways,
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
    km, minutes = overridden(home, everywhere, km, minutes)
    hours = by_time(home, everywhere, ways, (km, minutes), opened)
    least = km if hours is None else hours.least_km
    place_of = {name: k for k, name in enumerate(houses["name"].to_list())}
    regions = _region(deliveries, sites)
    planned = deliveries.select(
        "delivery_id",
        "depot_id",
        "site_id",
        *stop_columns(opened, place_of, houses.height),
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
    # A shift that ends before it starts ends on the next day. One that began the day before is this day's from its opening on,
    # or from when the vehicle is back of what it was given then; one that begins on the next day is that day's.
    fleet = fleet.with_columns(
        pl.when(pl.col("shift_end") <= pl.col("shift_start"))
        .then(pl.col("shift_end") + 1440.0)
        .otherwise(pl.col("shift_end"))
        .alias("shift_end")
    ).filter((pl.col("shift_start") < 1440.0) & (pl.col("shift_end") > 0.0))
    if (fleet["shift_start"] < 0.0).any():
        back = _back_from_yesterday(home, opened)
        fleet = fleet.with_columns(
            pl.max_horizontal(
                "shift_start",
                pl.lit(0.0),
                pl.col("vehicle_id").replace_strict(back, default=0.0, return_dtype=pl.Float64),
            )
        ).filter(pl.col("shift_start") < pl.col("shift_end"))
    if fleet.is_empty():
        raise Unavailable(f"logistics.vehicles: no vehicle has a shift on {opened:%Y-%m-%d}; land the day's shifts")
    places = everywhere.select(pl.int_range(pl.len()).alias("place"), "name", "latitude", "longitude")
    return planned, fleet, places, km, minutes, hours


def _back_from_yesterday(home: Home, opened: datetime) -> dict[str, float]:
    """Minute of the day at which vehicles are back from the day before, as planned."""
    from npq_assets.logistics.output import load_plan

    found = load_plan(home, (opened - timedelta(days=1)).date())
    tours = found[0]["tours"].select("vehicle_id", pl.col("returns") - 1440.0) if found else pl.DataFrame()
    return dict(tours.iter_rows())


def _driving_hours(vehicles: pl.DataFrame, opened: datetime) -> tuple[datetime, datetime]:
    """From the first shift's start to the last one's end, as far as they touch the day."""
    begins, ends = [], []
    for name, start, end in vehicles.select("vehicle_id", "shift_start", "shift_end").iter_rows():
        a, b = _shift(start, opened, "shift_start", name), _shift(end, opened, "shift_end", name)
        b = b + 1440.0 if b <= a else b
        if a < 1440.0 and b > 0.0:
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
    legs: pl.DataFrame, deliveries: pl.DataFrame, sites: pl.DataFrame, ways: Ways, weather: pl.DataFrame
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
    # Only the first leg of a tour begins at the depot; one from a stop of which no place is known begins nowhere.
    used = (
        used.join(before, on="previous_delivery_id", how="left")
        .with_columns(
            pl.when(pl.col("previous_delivery_id").is_null())
            .then(pl.format("site {}", "depot_id"))
            .otherwise("before")
            .alias("before")
        )
        .drop_nulls("before")
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
            wet, left_on="leg_started_at", right_on="valid_at", by="region", strategy="backward",
            tolerance=timedelta(hours=_WET_HOURS),
            check_sortedness=False,
        )  # fmt: skip
    return used.sort("leg_started_at", "delivery_id").select([pl.col(c).cast(t) for c, t in _LEGS.items()])


def _rain(home: Home, opened: datetime, weather: pl.DataFrame) -> pl.DataFrame:
    """Rain of the day by region and hour as foreseen before it opened; without a forecast, as observed in the half day before."""
    foreseen = (
        mart(home, "weather_forecasts")
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
        .filter(pl.col("valid_at") >= opened - timedelta(hours=_WET_HOURS))
        .sort("region", "valid_at")
        .unique("region", keep="last", maintain_order=True)
        .select("region", pl.lit(0, pl.Int64).alias("hour"), "rain")
    )
    lacking = seen.join(foreseen, on="region", how="anti")
    return pl.concat([foreseen, lacking]).sort("region", "hour")
