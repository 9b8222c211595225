"""The fleet in the closed loop: npq's routes, sources and warnings against nearest warehouses and savings routes.

How a leg is driven does not belong here (see `roads`, `fleet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company.fleet import Drop, Tour
from npq_assets.company.history import live
from npq_assets.company.landing import Beginning, LandingFolder
from npq_assets.company.worlds import CostRow, Service
from npq_assets.errors import RunError
from npq_assets.optimization.route_construction import savings_routes
from npq_assets.optimization.route_problem import RouteCost, RoutingProblem, stretched
from npq_assets.optimization.route_timing import timetable
from npq_assets.settings import Home

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Route = tuple[str, int, float, list[Drop]]


@dataclass(frozen=True)
class Day:
    """What one world drove on a day.

    Attributes:
        tours: The routes as driven.
        served: Deliveries that were made.
        on_time: Of these, in the window that was promised at first.
        kilometres: Cost of driving, carrying to depots and handling, by store.
        lateness: Cost of lateness, of deliveries not made and of times agreed anew, by store.
    """

    tours: list[Tour]
    served: int
    on_time: int
    kilometres: Floats
    lateness: Floats


class LogisticsWorld:
    """The fleet, lived under `decisions/logistics` and under a careful planner without a solver.

    Each day both worlds have the same deliveries, vehicles and traffic. npq's stores are supplied from the warehouses that its
    sourcing of the day before named, its vehicles drive its routes, and its warnings are acted on where they say that it pays.
    The planner supplies stores from the nearest warehouse and drives savings routes with the times that legs take on average.
    Both plan with the closed roads that were known when the day opened, by the hours of the day, and both drive round what comes
    up by the same rules.
    """

    domain = "logistics"
    kinds: tuple[str, ...] = ("lateness", "kilometres")

    def __init__(self, beginning: Beginning) -> None:
        self._fleet = beginning.fleet
        self._demand = beginning.demand
        self._present = beginning.present.copy()
        company = self._fleet.company
        self._first = company.config.as_of
        self._under_way = self._present.stores.arrivals_by_day(self._first).copy()
        self._ours: Ints = self._fleet.nearest_depot.copy()
        load = (self._under_way[0] * company.weight_kg).sum(axis=1)
        self._drops = self._fleet.drops(self._first, load)
        self._counts = np.zeros((2, 2))

    def open(self, folder: LandingFolder, first_day: date, last_day: date) -> None:
        """Nothing: the first day's deliveries have landed with the history."""

    def step(self, home: Home, folder: LandingFolder, day: date) -> list[CostRow]:
        """Lives a day in both worlds; see `worlds.World`."""
        fleet, company = self._fleet, self._fleet.company
        routes, agreed = read_decisions(home, day, self._drops, fleet.vehicles, company.warehouse_ids)
        ours = self._lived(day, routes, self._ours, agreed)
        theirs = self._lived(day, self._planned(day), fleet.nearest_depot, {})
        self._counts += np.array([[len(self._drops), lived.on_time] for lived in (ours, theirs)], dtype=float)
        self._land(home, folder, day, ours, agreed)
        return [
            CostRow(day, site, kind, float(getattr(ours, kind)[s]), float(getattr(theirs, kind)[s]))
            for kind in self.kinds
            for s, site in enumerate(company.store_ids)
        ]

    def service(self) -> Service:
        """Deliveries wanted, and made in the window that was promised first."""
        (npq_wanted, npq_made), (naive_wanted, naive_made) = self._counts.tolist()
        return Service((npq_wanted, naive_wanted), (npq_made, naive_made))

    # The planner -----------------------------------------------------------------------------------------------------------

    def _planned(self, day: date) -> list[Route]:
        """Savings routes from the nearest warehouses, in times that legs take on average, by what was known of closed roads."""
        fleet = self._fleet
        shifts = fleet.vehicles.select(_minutes("shift_start").min(), _minutes("shift_end").max()).row(0)
        known = [closure for closure in fleet.closures.on(day) if closure.known < 0]
        km, minutes, hours = fleet.detours.planned(known, *shifts)
        problem = RoutingProblem(
            pl.DataFrame(
                [
                    {
                        "delivery_id": d.delivery_id,
                        "place": d.node,
                        "depot": fleet.depot_of(d, fleet.nearest_depot),
                        "quantity": d.quantity,
                        "ready": d.ready,
                        "due": d.due,
                        "service": d.service,
                        "late_cost": d.late_cost,
                        "drop_cost": d.drop_cost,
                    }
                    for d in self._drops
                ]
            ),
            fleet.vehicles.select(
                "vehicle_id",
                pl.col("depot_id")
                .replace_strict({name: k for k, name in enumerate(fleet.company.warehouse_ids)}, return_dtype=pl.Int64)
                .alias("depot"),
                "capacity",
                "fixed_cost",
                "cost_per_km",
                (pl.col("cost_per_hour") / 60.0).alias("cost_per_minute"),
                *(_minutes(name) for name in ("shift_start", "shift_end")),
                "max_km",
            ),
            km,
            minutes,
            hours=hours,
        )
        problem = stretched(problem, fleet.roads.usual_factor)
        found: list[Route] = []
        for vehicle, visits in sorted(savings_routes(problem).items()):
            start, _, _, _ = timetable(problem, vehicle, visits)
            depot = int(problem.vehicles["depot"][vehicle])
            found.append((problem.vehicles["vehicle_id"][vehicle], depot, start, [self._drops[s] for s in visits]))
        return found

    # A day -----------------------------------------------------------------------------------------------------------------

    def _lived(self, day: date, routes: Sequence[Route], depot_of_store: Ints, agreed: Mapping[str, float]) -> Day:
        fleet = self._fleet
        tours = fleet.drive(day, routes)
        kilometres = self._supply(depot_of_store)
        lateness = np.zeros(len(fleet.company.store_ids))
        by_id = {d.delivery_id: d for d in self._drops}
        costs = {
            name: RouteCost(fixed, per_km, per_hour / 60.0)
            for name, fixed, per_km, per_hour in fleet.vehicles.select(
                "vehicle_id", "fixed_cost", "cost_per_km", "cost_per_hour"
            ).iter_rows()
        }
        made: set[str] = set()
        on_time = 0
        for tour in tours:
            if not tour.stops:
                continue
            cost = float(costs[tour.stops[0].vehicle_id].value(tour.km, tour.back - tour.departed))
            for stop in tour.stops:
                drop = by_id[stop.delivery_id]
                made.add(stop.delivery_id)
                on_time += stop.arrived <= drop.due
                kilometres[drop.store] += cost / len(tour.stops)
                due = max(drop.due, agreed.get(stop.delivery_id, drop.due))
                lateness[drop.store] += float(RouteCost.late(drop.late_cost, stop.arrived, due))
        for drop in self._drops:
            if drop.delivery_id not in made:
                lateness[drop.store] += drop.drop_cost
            elif drop.delivery_id in agreed:
                lateness[drop.store] += drop.rebook_cost or 0.0
        return Day(tours, len(made), on_time, kilometres, lateness)

    def _supply(self, depot_of_store: Ints) -> Floats:
        """Cost of bringing the stores' goods to their depots and handling them there, overflow included, by store."""
        fleet, company = self._fleet, self._fleet.company
        load = np.zeros(len(company.store_ids))
        for drop in self._drops:
            if not drop.home:
                load[drop.store] += drop.quantity
        inbound = dict(fleet.lanes.group_by("to_id").agg(pl.col("cost_per_unit").min()).iter_rows())
        terms = {row["site_id"]: row for row in fleet.depot_terms.to_dicts()}
        cost = np.zeros(len(load))
        for depot, name in enumerate(company.warehouse_ids):
            mine = depot_of_store == depot
            total = float(load[mine].sum())
            if total <= 0:
                continue
            row = terms[name]
            over = max(0.0, total - float(row["capacity"]))
            each = inbound[name] + float(row["handling_cost"]) + float(row["overflow_cost"]) * over / total
            cost[mine] += each * load[mine]
        return cost

    def _land(self, home: Home, folder: LandingFolder, day: date, ours: Day, agreed: Mapping[str, float]) -> None:
        """Lands the day's trips, with times agreed on, weather and news of roads; of the next day deliveries and a forecast."""
        fleet = self._fleet
        by_id = {d.delivery_id: d for d in self._drops}
        trips = fleet.trips_frame(day, ours.tours, {name: d.due for name, d in by_id.items()}, agreed)
        folder.write("logistics.trips", f"trips-{day}", trips)
        folder.write("logistics.weather", f"weather-{day}", fleet.roads.weather_frame([day]))
        folder.write("logistics.road_closures", f"road-news-{day}", fleet.closures.known_frame(day, day, day))
        following = day + timedelta(days=1)
        self._ours = read_sourcing(home, day, self._ours, fleet.company.store_ids, fleet.company.warehouse_ids)
        live(self._present, self._demand)
        self._drops = fleet.drops(following, self._load(folder, following))
        deliveries = fleet.deliveries_frame(following, self._drops, self._ours)
        folder.write("logistics.deliveries", f"deliveries-{following}", deliveries)
        folder.write(
            "logistics.weather_forecasts", f"weather-forecast-{following}", fleet.roads.forecast_frame(following)
        )

    def _load(self, folder: LandingFolder, day: date) -> Floats:
        """What each store gets on a day (kg): by the orders that landed, if somebody lives the stores, else by the planner's."""
        company = self._fleet.company
        files = [
            folder.out / "retail" / "open_orders" / f"open-orders-{self._first + timedelta(days=k)}.csv"
            for k in range((day - self._first).days)
        ]
        files = [file for file in files[-10:] if file.exists()]
        if not files:
            return np.asarray((self._present.stores.arrivals_by_day(day)[0] * company.weight_kg).sum(axis=1))
        ahead = (day - self._first).days
        units = self._under_way[ahead].copy() if ahead < len(self._under_way) else np.zeros(company.shape)
        stores = {name: k for k, name in enumerate(company.store_ids)}
        products = {name: k for k, name in enumerate(company.product_ids)}
        for file in files:
            landed = pl.read_csv(file, try_parse_dates=True).filter(pl.col("arrives_on") == day)
            for store, product, quantity in landed.select("site_id", "product_id", "quantity").iter_rows():
                units[stores[store], products[product]] += quantity
        return np.asarray((units * company.weight_kg).sum(axis=1))


# What npq decided ----------------------------------------------------------------------------------------------------------


def read_decisions(
    home: Home, day: date, drops: Sequence[Drop], vehicles: pl.DataFrame, depots: Sequence[str]
) -> tuple[list[Route], dict[str, float]]:
    """Routes as of a day, and the times that warnings say to agree on (minutes after midnight, by delivery).

    Raises:
        RunError: There is no decision file, or it names an unknown vehicle or delivery, or serves one twice.
    """
    path = home.decisions("logistics", "routes", day)
    if not path.exists():
        raise RunError(f"{path.parent}: no decisions as of {day}; see the run's log for why it did not decide")
    by_id = {d.delivery_id: d for d in drops}
    depot_of = {name: depots.index(depot) for name, depot in vehicles.select("vehicle_id", "depot_id").iter_rows()}
    frame = pl.read_parquet(path, hive_partitioning=False).sort("vehicle_id", "stop")
    routes: list[Route] = []
    seen: set[str] = set()
    for (vehicle,), group in frame.group_by("vehicle_id", maintain_order=True):
        if vehicle not in depot_of:
            raise RunError(f"{path.name}: {vehicle!r} is no vehicle of the fleet")
        stops: list[Drop] = []
        for name in group["delivery_id"].to_list():
            if name not in by_id or name in seen:
                raise RunError(f"{path.name}: {name!r} is no delivery of {day}, or is served twice")
            seen.add(name)
            stops.append(by_id[name])
        routes.append((str(vehicle), depot_of[str(vehicle)], _minute(group["departs_at"][0], day), stops))
    place = home.decisions("logistics", "alerts", day)
    agreed: dict[str, float] = {}
    if place.exists():
        alerts = pl.read_parquet(place, hive_partitioning=False).drop_nulls("agreed_until")
        for name, until in alerts.select("subject", "agreed_until").iter_rows():
            if name in by_id:
                agreed[name] = _minute(until, day)
    return routes, agreed


def read_sourcing(home: Home, day: date, now: Ints, stores: Sequence[str], depots: Sequence[str]) -> Ints:
    """Depot of each store from the sourcing decided as of a day; stores that it does not name keep theirs.

    A store that is served by several sources takes the one that sends most.
    """
    path = home.decisions("logistics", "sourcing", day)
    chosen = now.copy()
    if not path.exists():
        return chosen
    frame = pl.read_parquet(path, hive_partitioning=False).sort("quantity")
    for site, source in frame.select("site_id", "source_id").iter_rows():
        if site in stores and source in depots:
            chosen[stores.index(site)] = depots.index(source)
    return chosen


def _minute(moment: datetime, day: date) -> float:
    return (moment - datetime(day.year, day.month, day.day, tzinfo=UTC)).total_seconds() / 60.0


def _minutes(column: str) -> pl.Expr:
    """Minutes after midnight of `HH:MM`."""
    text = pl.col(column).str
    return (text.slice(0, 2).cast(pl.Float64) * 60.0 + text.slice(3, 2).cast(pl.Float64)).alias(column)
