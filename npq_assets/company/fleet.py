"""The fleet: trucks and vans that carry from warehouses to stores what was ordered, and to customers' homes what they bought.

Its history is driven on the company's own fixed tours; whoever drives goes round closed roads by the same rules (see `detours`).
Routes decided by npq do not belong here (see `logistics_world`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.closures import Closures
from npq_assets.company.demand import Demand
from npq_assets.company.detours import Detours
from npq_assets.company.roads import Roads, km_between, utc
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company

TableFile = tuple[str, str, pl.DataFrame]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STORES_PER_TRUCK = 4
HOMES_PER_STORE = 3
HOMES_PER_VAN = 7
TRUCK, VAN = 1600.0, 420.0
SLOTS = (8 * 60, 10 * 60, 12 * 60, 14 * 60)
SLOT_MINUTES = 150
_COLUMNS = {
    "delivery_id": pl.String,
    "depot_id": pl.String,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
    "node_id": pl.String,
    "quantity": pl.Float64,
    "ready_at": pl.Datetime("us", "UTC"),
    "due_at": pl.Datetime("us", "UTC"),
    "service_minutes": pl.Float64,
    "late_cost_per_minute": pl.Float64,
    "drop_cost": pl.Float64,
    "site_id": pl.String,
    "rebook_cost": pl.Float64,
}


@dataclass(frozen=True)
class Drop:
    """A delivery as the fleet sees it; minutes are after midnight of its day.

    Attributes:
        delivery_id: Its id.
        node: Node of the road graph.
        store: The store that gets it, or that it belongs to.
        home: Whether it goes to a customer's home.
        quantity: Load (kg).
        ready: Start of the window.
        due: End of the window.
        service: Minutes at the drop.
        late_cost: Money per minute.
        drop_cost: Money if it is not made.
        rebook_cost: Money for agreeing on a later time ahead.
    """

    delivery_id: str
    node: int
    store: int
    home: bool
    quantity: float
    ready: float
    due: float
    service: float
    late_cost: float
    drop_cost: float
    rebook_cost: float | None


@dataclass(frozen=True)
class Driven:
    """A stop as it was driven: arrival and km of the leg to it; minutes after midnight."""

    delivery_id: str
    vehicle_id: str
    departed: float
    arrived: float
    km: float


@dataclass(frozen=True)
class Tour:
    """A route as it was driven: its stops, its km in all and the minute it was back."""

    stops: tuple[Driven, ...]
    km: float
    departed: float
    back: float


class Fleet:
    """Vehicles, deliveries and trips.

    Attributes:
        company: Whose fleet it is.
        roads: What it drives on.
        closures: What of it is closed or slow when.
        detours: How it is driven then.
        nearest_depot: Index of the warehouse nearest to each store.
        vehicles: `logistics.vehicles`.
        depot_terms: `logistics.depot_terms`.
        lanes: `logistics.lanes`.
    """

    def __init__(self, company: Company, demand: Demand) -> None:
        self.company = company
        self.roads = Roads(company, demand)
        self.closures = Closures(self.roads)
        self.detours = Detours(self.roads)
        self._days: list[date] = []
        self._load: list[Floats] = []
        first, junction = self.roads.first_store, self.roads.first_junction
        to_stores = self.roads.minutes[:first, first:junction]
        self.nearest_depot: Ints = np.argmin(to_stores, axis=0)
        places = self.roads.location
        away = km_between(places[first:junction, None, :], places[None, junction:, :])
        # Homes lie at the junctions round their store.
        self._homes: Ints = junction + np.argsort(away, axis=1, kind="stable")[:, :8]
        self.vehicles = self._vehicles_frame()
        self.depot_terms = self._depot_terms_frame()
        self.lanes = self._lanes_frame()

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
        yield "logistics.vehicles", "vehicles", self.vehicles
        yield "logistics.road_nodes", "road-nodes", self.roads.nodes_frame()
        yield "logistics.road_segments", "road-segments", self.roads.segments
        yield "logistics.depot_terms", "depot-terms", self.depot_terms
        yield "logistics.lanes", "lanes", self.lanes
        if not self._days:
            return
        yield "logistics.weather", f"weather-{as_of}", self.roads.weather_frame(self._days)
        yield "logistics.weather_forecasts", f"weather-forecast-{as_of}", self.roads.forecast_frame(as_of)
        closures = self.closures.known_frame(None, as_of - timedelta(days=1), self._days[0])
        yield "logistics.road_closures", f"road-closures-{as_of}", closures
        deliveries, trips = self._history()
        if due is not None:
            deliveries.append(self.deliveries_frame(as_of, self.drops(as_of, due), self.nearest_depot))
        yield "logistics.deliveries", f"deliveries-{as_of}", pl.concat(deliveries)
        yield "logistics.trips", f"trips-{as_of}", pl.concat(trips)

    # Master data -----------------------------------------------------------------------------------------------------------

    def _vehicles_frame(self) -> pl.DataFrame:
        rows: list[dict[str, float | str]] = []
        for depot, name in enumerate(self.company.warehouse_ids):
            stores = int((self.nearest_depot == depot).sum())
            # A vehicle more than the usual day needs, since loads swing and sourcing may shift stores.
            trucks = 1 + -(-stores // STORES_PER_TRUCK)
            vans = 1 + -(-stores * HOMES_PER_STORE // HOMES_PER_VAN)
            for truck in (True,) * trucks + (False,) * vans:
                rows.append(
                    {
                        "vehicle_id": f"V{len(rows) + 1:03d}",
                        "depot_id": name,
                        "capacity": TRUCK if truck else VAN,
                        "fixed_cost": 70.0 if truck else 38.0,
                        "cost_per_km": 0.68 if truck else 0.36,
                        "cost_per_hour": 26.0 if truck else 21.0,
                        "shift_start": "04:30" if truck else "06:30",
                        "shift_end": "14:30" if truck else "18:00",
                        "max_km": 420.0,
                    }
                )
        return pl.DataFrame(rows)

    def mean_load(self) -> Floats:
        """Load that each store gets on a usual day (kg)."""
        return np.asarray(self.company.base_demand @ self.company.weight_kg)

    def _depot_terms_frame(self) -> pl.DataFrame:
        load = float(self.mean_load().sum())
        count = len(self.company.warehouse_ids)
        rows: list[dict[str, object]] = [
            {"site_id": plant, "capacity": None, "handling_cost": 0.0, "overflow_cost": None, "stock": None}
            for plant in self.company.plant_ids
        ]
        for k, name in enumerate(self.company.warehouse_ids):
            rows.append(
                {
                    "site_id": name,
                    "capacity": round((1.8 if k % 2 else 1.05) * load / count, 1),
                    "handling_cost": 0.03 if k % 2 else 0.06,
                    "overflow_cost": 0.15,
                    "stock": 0.0,
                }
            )
        kinds = {"capacity": pl.Float64, "overflow_cost": pl.Float64, "stock": pl.Float64}
        return pl.DataFrame(rows, schema_overrides=kinds)

    def _lanes_frame(self) -> pl.DataFrame:
        sites = self.company.sites_frame()
        plants = sites.filter(pl.col("kind") == "plant").select("site_id", "latitude", "longitude")
        houses = sites.filter(pl.col("kind") == "warehouse").select("site_id", "latitude", "longitude")
        rows = []
        for plant, *here in plants.iter_rows():
            for house, *there in houses.iter_rows():
                km = 1.25 * float(km_between(np.array(here), np.array(there)))
                rows.append({"from_id": plant, "to_id": house, "cost_per_unit": round(0.004 + 0.0006 * km, 4)})
        return pl.DataFrame(rows)

    # Deliveries ------------------------------------------------------------------------------------------------------------

    def drops(self, day: date, load: Floats) -> list[Drop]:
        """Deliveries of a day: a drop at each store that gets something, and some homes round each store."""
        company, seed, ordinal = self.company, self.company.config.seed, day.toordinal()
        found = []
        for s in np.flatnonzero(load > 0).tolist():
            morning = 6 * 60 + 60 * int(3 * float(streams.uniform(seed, "dock slot", company.store_keys[s])[0]))
            found.append(
                Drop(
                    f"D-{day:%Y%m%d}-{company.store_ids[s]}",
                    self.roads.first_store + s,
                    s,
                    False,
                    round(float(load[s]), 2),
                    morning,
                    morning + 120,
                    14.0 + round(float(load[s]) / 60.0, 1),
                    0.9,
                    400.0,
                    None,
                )
            )
        if day.weekday() == 6:
            return found
        shops, homes = np.meshgrid(np.arange(len(company.store_ids)), np.arange(HOMES_PER_STORE + 1), indexing="ij")
        keys = company.store_keys[shops]
        here = streams.uniform(seed, "home ordered", ordinal, keys, homes) < HOMES_PER_STORE / (HOMES_PER_STORE + 1)
        where = (streams.uniform(seed, "home place", ordinal, keys, homes) * self._homes.shape[1]).astype(np.int64)
        weight = 6.0 * np.exp(0.7 * streams.normal(seed, "home weight", ordinal, keys, homes))
        slot = (streams.uniform(seed, "home slot", ordinal, keys, homes) * len(SLOTS)).astype(np.int64)
        for a, b in zip(*np.nonzero(here), strict=True):
            ready = float(SLOTS[slot[a, b]])
            found.append(
                Drop(
                    f"H-{day:%Y%m%d}-{company.store_ids[a]}-{b + 1}",
                    int(self._homes[a, where[a, b]]),
                    int(a),
                    True,
                    round(float(weight[a, b]), 2),
                    ready,
                    ready + SLOT_MINUTES,
                    6.0,
                    0.5,
                    90.0,
                    2.5,
                )
            )
        return found

    def depot_of(self, drop: Drop, depot_of_store: Ints) -> int:
        """Warehouse that a delivery starts from: a store's as decided, a home's the one nearest to its store."""
        return int(self.nearest_depot[drop.store] if drop.home else depot_of_store[drop.store])

    def deliveries_frame(self, day: date, drops: Sequence[Drop], depot_of_store: Ints) -> pl.DataFrame:
        """`logistics.deliveries` of a day."""
        opened = np.datetime64(day, "us")

        def at(minutes: float) -> np.datetime64:
            return np.datetime64(opened + np.timedelta64(round(60 * minutes), "s"))

        rows = []
        for drop in drops:
            latitude, longitude = self.roads.location[drop.node]
            rows.append(
                {
                    "delivery_id": drop.delivery_id,
                    "depot_id": self.company.warehouse_ids[self.depot_of(drop, depot_of_store)],
                    "latitude": float(latitude),
                    "longitude": float(longitude),
                    "node_id": self.roads.node_ids[drop.node],
                    "quantity": drop.quantity,
                    "service_minutes": drop.service,
                    "late_cost_per_minute": drop.late_cost,
                    "drop_cost": drop.drop_cost,
                    "site_id": None if drop.home else self.company.store_ids[drop.store],
                    "rebook_cost": drop.rebook_cost,
                }
            )
        stamps = {
            "ready_at": utc(np.array([at(d.ready) for d in drops], dtype="datetime64[us]")),
            "due_at": utc(np.array([at(d.due) for d in drops], dtype="datetime64[us]")),
        }
        schema: Any = {k: v for k, v in _COLUMNS.items() if k not in stamps}
        frame = pl.DataFrame(rows, schema=schema)
        return frame.with_columns(**stamps).select(list(_COLUMNS))

    # Driving ---------------------------------------------------------------------------------------------------------------

    def drive(
        self,
        day: date,
        routes: Sequence[tuple[str, int, float, Sequence[Drop]]],
        rain: Floats | None = None,
    ) -> list[Tour]:
        """Drives routes (vehicle, node of its depot, minute it leaves, drops in order) in the day's traffic, on open roads."""
        roads = self.roads
        wet = roads.rain([day])[0] if rain is None else rain
        legs = [
            (a, b)
            for _, depot, _, drops in routes
            for a, b in zip([depot, *(d.node for d in drops)], [*(d.node for d in drops), depot], strict=True)
        ]
        if not legs:
            return []
        start, end = np.array(legs).T
        slow = iter(roads.slowness(day, start, end).tolist())
        closures = self.closures.on(day)
        met = iter(self.detours.concerned(start, end, closures).tolist())

        def leg(clock: float, at: int, to: int) -> tuple[float, float]:
            slowness = next(slow)
            usual = clock + roads.on_the_way(wet, clock, at, to, slowness)
            if next(met):
                way = self.detours.leg(clock, at, to, roads.pace(wet, clock, to, slowness), closures)
                # Who meets nothing drives to the last bit as if there were nothing.
                if way.arrived > usual + 1e-6:
                    return way.arrived, way.km
            return usual, float(roads.km[at, to])

        tours = []
        for vehicle, depot, leaves, drops in routes:
            clock, at, km, stops = float(leaves), depot, 0.0, []
            for drop in drops:
                clock, length = leg(clock, at, drop.node)
                stops.append(Driven(drop.delivery_id, vehicle, float(leaves), clock, length))
                clock, at, km = max(clock, drop.ready) + drop.service, drop.node, km + length
            clock, length = leg(clock, at, depot)
            tours.append(Tour(tuple(stops), km + length, float(leaves), clock))
        return tours

    def fixed_tours(self, drops: Sequence[Drop]) -> list[tuple[str, int, float, list[Drop]]]:
        """The company's own tours: stores by angle in fours, homes by slot and angle; each leaves in time for its first stop."""
        routes = []
        for depot, name in enumerate(self.company.warehouse_ids):
            mine = [d for d in drops if self.depot_of(d, self.nearest_depot) == depot]
            here = self.roads.location[depot]
            cars = self.vehicles.filter(pl.col("depot_id") == name)
            trucks = cars.filter(pl.col("capacity") == TRUCK)["vehicle_id"].to_list()
            vans = cars.filter(pl.col("capacity") == VAN)["vehicle_id"].to_list()

            def angle(drop: Drop, here: Floats = here) -> float:
                place = self.roads.location[drop.node]
                return float(np.arctan2(place[0] - here[0], place[1] - here[1]))

            stores = sorted((d for d in mine if not d.home), key=lambda d: (angle(d), d.delivery_id))
            homes = sorted((d for d in mine if d.home), key=angle)
            for group, fleet, opens in ((stores, trucks, 4.5 * 60), (homes, vans, 6.5 * 60)):
                chunks = _chunks(group, len(fleet), TRUCK if fleet is trucks else VAN)
                for vehicle, chunk in zip(fleet, chunks, strict=False):
                    tour = sorted(chunk, key=lambda d: (d.due, angle(d), d.delivery_id))
                    leaves = max(opens, tour[0].ready - float(self.roads.minutes[depot, tour[0].node]))
                    routes.append((vehicle, depot, leaves, tour))
        return routes

    def trips_frame(
        self, day: date, tours: Sequence[Tour], promised: Mapping[str, float], agreed: Mapping[str, float] | None = None
    ) -> pl.DataFrame:
        """`logistics.trips` of a day.

        Args:
            day: The day.
            tours: As driven.
            promised: Minute by which each delivery was promised.
            agreed: Minute up to which was agreed on instead, of deliveries whose customers were asked; None: nobody asks anybody.
        """
        opened = np.datetime64(day, "us")
        driven = [stop for tour in tours for stop in tour.stops]

        def stamps(minutes: Sequence[float]) -> pl.Series:
            return utc(opened + np.round(60 * np.array(minutes, dtype=float)).astype("timedelta64[s]"))

        asked = [] if agreed is None else [agreed.get(d.delivery_id, np.nan) for d in driven]
        later = pl.Series("agreed_until", [None] * len(driven), dtype=pl.Datetime("us", "UTC"))
        if asked:
            later = pl.select(
                pl.when(pl.Series(np.isfinite(asked))).then(stamps(np.nan_to_num(asked).tolist())).alias("agreed_until")
            ).to_series()
        return pl.DataFrame(
            {
                "delivery_id": pl.Series([d.delivery_id for d in driven], dtype=pl.String),
                "vehicle_id": pl.Series([d.vehicle_id for d in driven], dtype=pl.String),
                "departed_at": stamps([d.departed for d in driven]),
                "promised_at": stamps([promised[d.delivery_id] for d in driven]),
                "arrived_at": stamps([d.arrived for d in driven]),
                "km": pl.Series([round(d.km, 3) for d in driven], dtype=pl.Float64),
                "stop": pl.Series([k + 1 for tour in tours for k in range(len(tour.stops))], dtype=pl.Int64),
                **({} if agreed is None else {"agreed_until": later}),
            }
        )

    def _history(self) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
        deliveries, trips = [], []
        rain = self.roads.rain(self._days)
        for k, day in enumerate(self._days):
            drops = self.drops(day, self._load[k])
            deliveries.append(self.deliveries_frame(day, drops, self.nearest_depot))
            tours = self.drive(day, self.fixed_tours(drops), rain[k])
            trips.append(self.trips_frame(day, tours, {d.delivery_id: d.due for d in drops}))
        return deliveries, trips


def _chunks(group: list[Drop], count: int, capacity: float) -> list[list[Drop]]:
    """At most `count` runs of about equal length; the load of a run keeps to the capacity, what is left over waits."""
    size = max(1, -(-len(group) // max(count, 1)))
    chunks: list[list[Drop]] = []
    for drop in group:
        room = chunks and len(chunks[-1]) < size and sum(d.quantity for d in chunks[-1]) + drop.quantity <= capacity
        if room:
            chunks[-1].append(drop)
        else:
            chunks.append([drop])
    return chunks[:count]
