"""The roads: a graph through depots, stores and junctions, the weather over it, and how slow traffic is on a day.

The same leg on the same day and hour is as slow for everybody who drives it. Who drives does not belong here (see `fleet`),
nor what is closed when (see `closures`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.config import REGIONS
from npq_assets.company.demand import Demand
from npq_assets.company.world import Company
from npq_assets.optimization.paths import RoadGraph, travel_matrix

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

JUNCTIONS_PER_STORE = 6
NEIGHBOURS = 4
WEATHER_STEPS = 4

_RUSH = np.array(
    [0.92] * 6 + [1.02, 1.3, 1.36, 1.15, 1.04, 1.02, 1.06, 1.04, 1.05, 1.14, 1.32, 1.4, 1.2, 1.04] + [0.95] * 4
)
"""Driving time by hour of the day, as a multiple of the usual."""


class Roads:
    """Nodes, segments, ways between all nodes, and traffic.

    Attributes:
        company: Whose roads they are.
        node_ids: Depots first, then stores, then junctions.
        location: Latitude and longitude of the nodes (N, 2).
        region: Index of the region of each node (N).
        segments: `logistics.road_segments`.
        graph: The same as a graph.
        km: Length of the quickest ways (N, N).
        minutes: Usual driving time (N, N).
    """

    def __init__(self, company: Company, demand: Demand) -> None:
        self.company = company
        self._demand = demand
        depots = company.sites_frame().filter(pl.col("kind") == "warehouse")
        self.depot_location: Floats = depots.select("latitude", "longitude").to_numpy()
        seed = company.config.seed
        number = np.arange(JUNCTIONS_PER_STORE * len(company.store_ids))
        centre = np.array([[latitude, longitude] for _, latitude, longitude in REGIONS])
        spread = np.stack(
            [streams.normal(seed, "junction north", number), streams.normal(seed, "junction east", number)], axis=1
        )
        junctions = np.round(centre.mean(axis=0) + spread * np.array([0.2, 0.33]), 5)
        self.location: Floats = np.concatenate([self.depot_location, company.store_location, junctions])
        self.node_ids = [f"N-{name}" for name in (*company.warehouse_ids, *company.store_ids)]
        self.node_ids += [f"N{i + 1:05d}" for i in number]
        self.region: Ints = np.argmin(km_between(self.location[:, None, :], centre[None, :, :]), axis=1)
        self.segments = self._segments()
        self.graph = RoadGraph.of(self.nodes_frame(), self.segments)
        matrix = travel_matrix(self.graph, self.node_ids)
        self.km, self.minutes = matrix.km, matrix.minutes

    @property
    def first_store(self) -> int:
        """Index of the first store's node."""
        return len(self.company.warehouse_ids)

    @property
    def first_junction(self) -> int:
        """Index of the first junction's node."""
        return self.first_store + len(self.company.store_ids)

    def nodes_frame(self) -> pl.DataFrame:
        """`logistics.road_nodes`."""
        return pl.DataFrame(
            {"node_id": self.node_ids, "latitude": self.location[:, 0], "longitude": self.location[:, 1]}
        )

    def _segments(self) -> pl.DataFrame:
        """`logistics.road_segments`: each place is joined to its nearest ones, both ways."""
        places, seed = self.location, self.company.config.seed
        distance = km_between(places[:, None, :], places[None, :, :])
        np.fill_diagonal(distance, np.inf)
        near = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
        pairs = {(i, int(j)) for i in range(len(places)) for j in near[i]}
        # A chain from west to east keeps the graph in one piece.
        chain = np.argsort(places[:, 1], kind="stable")
        pairs |= {(int(a), int(b)) for a, b in pairwise(chain)}
        both = sorted(pairs | {(j, i) for i, j in pairs})
        start, end = np.array(both).T
        km = np.round(np.maximum(distance[start, end] * 1.2, 0.05), 3)
        fast = 40.0 + 30.0 * streams.uniform(seed, "road speed", np.minimum(start, end), np.maximum(start, end))
        ids = pl.Series(self.node_ids)
        return pl.DataFrame(
            {
                "from_node": ids.gather(start),
                "to_node": ids.gather(end),
                "km": km,
                "minutes": np.round(60.0 * km / fast, 2),
            }
        )

    @property
    def usual_factor(self) -> float:
        """How much longer than the segments say a leg takes on average by day: rush hours, jams, rain and luck together."""
        return float(_RUSH[5:18].mean() * 1.04 * 1.017 * 1.046)

    # Weather and traffic ---------------------------------------------------------------------------------------------------

    def rain(self, days: Sequence[date]) -> Floats:
        """Rain (mm per hour), shape (days, steps, regions)."""
        ordinal = np.array([day.toordinal() for day in days])[:, None, None]
        step, region = np.arange(WEATHER_STEPS)[None, :, None], np.arange(len(REGIONS))[None, None, :]
        wet = streams.uniform(self.company.config.seed, "wet", ordinal, step, region)
        return np.where(wet < 0.22, 6.0 * (-np.log(wet / 0.22)), 0.0)

    def weather_frame(self, days: Sequence[date]) -> pl.DataFrame:
        """`logistics.weather` of the days given: some readings a day by region."""
        regions, count = len(REGIONS), len(days)
        anomaly = np.stack([self._demand.temperature(day) for day in days])
        normal = np.stack([self._demand.normal_temperature(day) for day in days])
        ordinal = np.array([day.toordinal() for day in days])[:, None, None]
        step, region = np.arange(WEATHER_STEPS)[None, :, None], np.arange(regions)[None, None, :]
        swing = np.array([-4.0, -1.0, 4.0, 1.0])[None, :, None]
        temperature = (normal + anomaly)[:, None, :] + swing
        rain = self.rain(days)
        wind = 12.0 * np.exp(0.5 * streams.normal(self.company.config.seed, "wind", ordinal, step, region))
        stamps = np.array(days, dtype="datetime64[us]")[:, None] + (
            np.arange(WEATHER_STEPS) * (24 // WEATHER_STEPS)
        ).astype("timedelta64[h]")
        return pl.DataFrame(
            {
                "region": [name for name, _, _ in REGIONS] * (count * WEATHER_STEPS),
                "valid_at": utc(np.repeat(stamps.ravel(), regions)),
                "temperature": np.round(temperature, 1).ravel(),
                "wind": np.round(wind, 1).ravel(),
                "rain": np.round(rain, 2).ravel(),
                "visibility": np.round(np.clip(20.0 - 2.0 * rain, 1.0, None), 1).ravel(),
            }
        )

    def forecast_frame(self, day: date) -> pl.DataFrame:
        """`logistics.weather_forecasts` for `day`, as foreseen on the evening before: the amount is uncertain."""
        seed, ordinal = self.company.config.seed, day.toordinal()
        step, region = np.arange(WEATHER_STEPS)[:, None], np.arange(len(REGIONS))[None, :]
        error = np.exp(0.3 * streams.normal(seed, "rain forecast", ordinal, step, region))
        rain = np.round(self.rain([day])[0] * error, 2)
        start = np.datetime64(day, "us")
        stamps = start + (np.arange(WEATHER_STEPS) * (24 // WEATHER_STEPS)).astype("timedelta64[h]")
        rows = WEATHER_STEPS * len(REGIONS)
        return pl.DataFrame(
            {
                "region": [name for name, _, _ in REGIONS] * WEATHER_STEPS,
                "valid_at": utc(np.repeat(stamps, len(REGIONS))),
                "issued_at": utc(np.repeat(start - np.timedelta64(4, "h"), rows)),
                "rain": rain.ravel(),
            }
        )

    def slowness(self, day: date, start: Ints, end: Ints) -> Floats:
        """Factor on the usual time of legs on a day, the hour and the rain left out (see `on_the_way`)."""
        seed, ordinal = self.company.config.seed, day.toordinal()
        region = self.region[end]
        weekday = 1.1 if day.weekday() == 0 else 0.97 if day.weekday() >= 5 else 1.0
        mood = np.exp(0.09 * streams.normal(seed, "traffic of the day", ordinal, region))
        luck = np.exp(0.16 * streams.normal(seed, "traffic", ordinal, start, end))
        jam = np.where(streams.uniform(seed, "jam", ordinal, end) < 0.05, 1.8, 1.0)
        return np.asarray(weekday * mood * luck * jam)

    def on_the_way(self, rain: Floats, minute: float, start: int, end: int, slowness: float) -> float:
        """Minutes that a leg takes that begins at `minute` of a day with `rain` (steps, regions)."""
        wet, rush = self._wet_and_rush(rain, minute, end)
        return float(self.minutes[start, end] * slowness * wet * rush)

    def pace(self, rain: Floats, minute: float, end: int, slowness: float) -> float:
        """Factor on the usual time of such a leg, whatever way it takes."""
        wet, rush = self._wet_and_rush(rain, minute, end)
        return slowness * wet * rush

    def _wet_and_rush(self, rain: Floats, minute: float, end: int) -> tuple[float, float]:
        hour = min(23, int(minute // 60))
        wet = 1.0 + 0.035 * float(rain[min(WEATHER_STEPS - 1, hour * WEATHER_STEPS // 24), self.region[end]])
        return wet, float(_RUSH[hour])


def km_between(a: Floats, b: Floats) -> Floats:
    """Great-circle distance between points (latitude, longitude in degrees), by the flat approximation for a region."""
    mean = np.radians((a[..., 0] + b[..., 0]) / 2.0)
    north = (a[..., 0] - b[..., 0]) * 111.2
    east = (a[..., 1] - b[..., 1]) * 111.2 * np.cos(mean)
    return np.asarray(np.hypot(north, east))


def utc(stamps: np.ndarray) -> pl.Series:
    """Stamps as the landing files write them."""
    return pl.Series(stamps.astype("datetime64[us]"), dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")
