"""The fleet: vehicles that carry from warehouses to stores what was ordered, on roads, in weather.

It drives a naive route: each vehicle serves its stores, nearest first. Routes decided by npq do not belong here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.config import REGIONS
from npq_assets.company.demand import Demand
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company

TableFile = tuple[str, str, pl.DataFrame]
Floats = NDArray[np.float64]

STORES_PER_VEHICLE = 3
JUNCTIONS_PER_STORE = 6
NEIGHBOURS = 4
WEATHER_STEPS = 4
SERVICE_MINUTES = 20.0
_SHIFT_START, _SHIFT_END = 5, 14


class Fleet:
    """Vehicles, roads, deliveries and trips.

    Attributes:
        company: Whose fleet it is.
        vehicle_of_store: Index of the vehicle that serves each store.
    """

    def __init__(self, company: Company, demand: Demand) -> None:
        self.company = company
        self._demand = demand
        self._days: list[date] = []
        self._load: list[Floats] = []
        self._lay_out()

    def _lay_out(self) -> None:
        company = self.company
        depots = company.sites_frame().filter(pl.col("kind") == "warehouse")
        self._depot_location: Floats = depots.select("latitude", "longitude").to_numpy()
        self.vehicle_ids: list[str] = []
        self.vehicle_depot: list[int] = []
        self.vehicle_of_store = np.zeros(len(company.store_ids), dtype=np.int64)
        self._leg: Floats = np.zeros(len(company.store_ids))  # km from the stop before
        self._stop = np.zeros(len(company.store_ids), dtype=np.int64)
        for depot in range(len(company.warehouse_ids)):
            stores = np.flatnonzero(company.store_warehouse == depot)
            here = self._depot_location[depot]
            angle = np.arctan2(company.store_location[stores, 0] - here[0], company.store_location[stores, 1] - here[1])
            swept = stores[np.argsort(angle, kind="stable")]
            for chunk in range(0, len(swept), STORES_PER_VEHICLE):
                vehicle = len(self.vehicle_ids)
                self.vehicle_ids.append(f"V{vehicle + 1:03d}")
                self.vehicle_depot.append(depot)
                left = list(swept[chunk : chunk + STORES_PER_VEHICLE])
                at = here
                for stop in range(len(left)):
                    distance = [_km(at, company.store_location[s]) for s in left]
                    store = left.pop(int(np.argmin(distance)))
                    self.vehicle_of_store[store] = vehicle
                    self._leg[store], self._stop[store] = min(distance) * 1.3, stop
                    at = company.store_location[store]

    def observe(self, month: Sequence[StoreDay]) -> None:
        """Notes what arrived at each store on each day (kg)."""
        for day in month:
            self._days.append(day.day)
            self._load.append((day.arrived * self.company.weight_kg).sum(axis=1))

    def tables(self, due: Floats | None = None) -> Iterator[TableFile]:
        """All landing tables of the logistics system.

        Args:
            due: Load that each store is to get on the as-of day (kg), shape (S,): deliveries not driven yet.
        """
        as_of = self.company.config.as_of
        yield "logistics.vehicles", "vehicles", self._vehicles_frame()
        nodes, segments = self._roads()
        yield "logistics.road_nodes", "road-nodes", nodes
        yield "logistics.road_segments", "road-segments", segments
        if not self._days:
            return
        weather, rain = self._weather()
        yield "logistics.weather", f"weather-{as_of}", weather
        deliveries, trips = self._driven(rain)
        if due is not None and (due > 0).any():
            deliveries = pl.concat([deliveries, self._deliveries_frame([as_of], [due])])
        yield "logistics.deliveries", f"deliveries-{as_of}", deliveries
        yield "logistics.trips", f"trips-{as_of}", trips

    def _vehicles_frame(self) -> pl.DataFrame:
        count = len(self.vehicle_ids)
        number = np.arange(count)
        return pl.DataFrame(
            {
                "vehicle_id": self.vehicle_ids,
                "depot_id": [self.company.warehouse_ids[d] for d in self.vehicle_depot],
                "capacity": np.where(number % 3 == 0, 3500.0, 1800.0),
                "fixed_cost": np.where(number % 3 == 0, 95.0, 65.0),
                "cost_per_km": np.where(number % 3 == 0, 0.72, 0.48),
                "cost_per_hour": [24.0] * count,
                "shift_start": [f"{_SHIFT_START:02d}:00"] * count,
                "shift_end": [f"{_SHIFT_END:02d}:00"] * count,
                "max_km": [420.0] * count,
            }
        )

    def _roads(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """A road graph through depots, stores and junctions: each place is joined to its nearest ones, both ways."""
        company, seed = self.company, self.company.config.seed
        count = JUNCTIONS_PER_STORE * len(company.store_ids)
        number = np.arange(count)
        centre = np.array([[latitude, longitude] for _, latitude, longitude in REGIONS])
        spread = np.stack(
            [streams.normal(seed, "junction north", number), streams.normal(seed, "junction east", number)], axis=1
        )
        junctions = np.round(centre.mean(axis=0) + spread * np.array([0.2, 0.33]), 5)
        places = np.concatenate([self._depot_location, company.store_location, junctions])
        ids = [f"N-{name}" for name in (*company.warehouse_ids, *company.store_ids)] + [f"N{i + 1:05d}" for i in number]
        nodes = pl.DataFrame({"node_id": ids, "latitude": places[:, 0], "longitude": places[:, 1]})
        distance = _km(places[:, None, :], places[None, :, :])
        np.fill_diagonal(distance, np.inf)
        near = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
        pairs = {(i, int(j)) for i in range(len(ids)) for j in near[i]}
        # A chain from west to east keeps the graph in one piece.
        chain = np.argsort(places[:, 1], kind="stable")
        pairs |= {(int(a), int(b)) for a, b in pairwise(chain)}
        both = sorted(pairs | {(j, i) for i, j in pairs})
        start, end = np.array(both).T
        km = np.round(np.maximum(distance[start, end] * 1.2, 0.05), 3)
        fast = 40.0 + 30.0 * streams.uniform(seed, "road speed", np.minimum(start, end), np.maximum(start, end))
        segments = pl.DataFrame(
            {
                "from_node": pl.Series(ids).gather(start),
                "to_node": pl.Series(ids).gather(end),
                "km": km,
                "minutes": np.round(60.0 * km / fast, 2),
            }
        )
        return nodes, segments

    def _weather(self) -> tuple[pl.DataFrame, Floats]:
        """Weather by region, some readings a day, and the morning's rain, shape (days, regions)."""
        seed = self.company.config.seed
        regions, count = len(REGIONS), len(self._days)
        anomaly = np.stack([self._demand.temperature(day) for day in self._days])
        normal = np.stack([self._demand.normal_temperature(day) for day in self._days])
        ordinal = np.array([day.toordinal() for day in self._days])[:, None, None]
        step, region = np.arange(WEATHER_STEPS)[None, :, None], np.arange(regions)[None, None, :]
        swing = np.array([-4.0, -1.0, 4.0, 1.0])[None, :, None]
        temperature = (normal + anomaly)[:, None, :] + swing
        wet = streams.uniform(seed, "wet", ordinal, step, region)
        rain = np.where(wet < 0.22, 6.0 * (-np.log(wet / 0.22)), 0.0)
        wind = 12.0 * np.exp(0.5 * streams.normal(seed, "wind", ordinal, step, region))
        stamps = np.array(self._days, dtype="datetime64[us]")[:, None] + (
            np.arange(WEATHER_STEPS) * (24 // WEATHER_STEPS)
        ).astype("timedelta64[h]")
        frame = pl.DataFrame(
            {
                "region": [name for name, _, _ in REGIONS] * (count * WEATHER_STEPS),
                "valid_at": _utc(np.repeat(stamps.ravel(), regions)),
                "temperature": np.round(temperature, 1).ravel(),
                "wind": np.round(wind, 1).ravel(),
                "rain": np.round(rain, 2).ravel(),
                "visibility": np.round(np.clip(20.0 - 2.0 * rain, 1.0, None), 1).ravel(),
            }
        )
        return frame, rain[:, 1, :]

    def _deliveries_frame(self, days: Sequence[date], loads: Sequence[Floats]) -> pl.DataFrame:
        company = self.company
        load = np.stack(loads)
        offset, store = np.nonzero(load > 0)
        opened = np.array(days, dtype="datetime64[us]")[offset]
        location = company.store_location[store]
        return pl.DataFrame(
            {
                "delivery_id": [
                    f"D-{days[o]:%Y%m%d}-{company.store_ids[s]}"
                    for o, s in zip(offset.tolist(), store.tolist(), strict=True)
                ],
                "depot_id": pl.Series(company.warehouse_ids).gather(company.store_warehouse[store]),
                "latitude": location[:, 0],
                "longitude": location[:, 1],
                "node_id": pl.Series([f"N-{name}" for name in company.store_ids]).gather(store),
                "quantity": np.round(load[offset, store], 2),
                "ready_at": _utc(opened + np.timedelta64(5, "h")),
                "due_at": _utc(opened + (7 * 60 + 60 * self._stop[store]).astype("timedelta64[m]")),
                "service_minutes": [SERVICE_MINUTES] * len(store),
                "late_cost_per_minute": [0.5] * len(store),
                "drop_cost": [250.0] * len(store),
            }
        )

    def _driven(self, rain: Floats) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Deliveries of the logged days and how each was driven: slower in rain and on Mondays, sometimes unlucky."""
        company, seed = self.company, self.company.config.seed
        deliveries = self._deliveries_frame(self._days, self._load)
        load = np.stack(self._load)
        ordinal = np.array([day.toordinal() for day in self._days])
        weekday = (ordinal + 6) % 7
        wet = rain[:, company.store_region]
        luck = np.exp(0.18 * streams.normal(seed, "traffic", ordinal[:, None], company.store_keys[None, :]))
        jam = np.where(streams.uniform(seed, "jam", ordinal[:, None], company.store_keys[None, :]) < 0.04, 1.8, 1.0)
        slow = luck * jam * (1.0 + 0.04 * wet) * np.where(weekday == 0, 1.15, 1.0)[:, None]
        planned = 60.0 * self._leg / 48.0
        drive = planned[None, :] * slow * (load > 0)
        # Along its round, a stop waits for the stops before it.
        minutes = np.zeros_like(drive)
        for vehicle in range(len(self.vehicle_ids)):
            stores = np.flatnonzero(self.vehicle_of_store == vehicle)
            stores = stores[np.argsort(self._stop[stores])]
            clock = np.zeros(len(ordinal))
            for stop in stores:
                clock = clock + drive[:, stop]
                minutes[:, stop] = clock
                clock = clock + SERVICE_MINUTES * (load[:, stop] > 0)
        offset, store = np.nonzero(load > 0)
        departed = np.array(self._days, dtype="datetime64[us]")[offset] + np.timedelta64(5 * 60 + 30, "m")
        seconds = np.round(60.0 * minutes[offset, store]).astype("timedelta64[s]")
        promised = departed + np.round(60 * (planned + (SERVICE_MINUTES + planned) * self._stop)[store] * 1.1).astype(
            "timedelta64[s]"
        )
        trips = pl.DataFrame(
            {
                "delivery_id": deliveries["delivery_id"],
                "vehicle_id": pl.Series(self.vehicle_ids).gather(self.vehicle_of_store[store]),
                "departed_at": _utc(departed),
                "promised_at": _utc(promised),
                "arrived_at": _utc(departed + seconds),
                "km": np.round(self._leg[store], 2),
                "stop": self._stop[store] + 1,
                "planned_minutes": np.round(planned[store], 1),
                "rain_at_departure": np.round(wet[offset, store], 2),
            }
        )
        return deliveries, trips


def _km(a: Floats, b: Floats) -> Floats:
    """Great-circle distance between points (latitude, longitude in degrees), by the flat approximation for a region."""
    mean = np.radians((a[..., 0] + b[..., 0]) / 2.0)
    north = (a[..., 0] - b[..., 0]) * 111.2
    east = (a[..., 1] - b[..., 1]) * 111.2 * np.cos(mean)
    return np.asarray(np.hypot(north, east))


def _utc(stamps: np.ndarray) -> pl.Series:
    return pl.Series(stamps.astype("datetime64[us]"), dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")
