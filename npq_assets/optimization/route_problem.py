"""The vehicle routing problem of a day: its deliveries and vehicles, what routes cost, and how they are to be searched for.

How a plan is found, timed or priced does not belong here (see `routing`, `route_timing` and `route_evaluation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from npq_assets.optimization.road_hours import RoadHours

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RouteCost:
    """What routes cost: one object prices the search, the simulation of a plan, the sample company and the ledger.

    Attributes:
        fixed: Of using a vehicle on a day (money).
        per_km: Of driving (money per km).
        per_minute: Of time on the road, from leaving the depot to being back (money per minute).
    """

    fixed: float
    per_km: float
    per_minute: float

    def value(self, km: ArrayLike, minutes: ArrayLike) -> Array:
        """Cost of a route of `km` and `minutes` (any shape)."""
        return self.fixed + self.per_km * np.asarray(km, float) + self.per_minute * np.asarray(minutes, float)

    @staticmethod
    def late(rate: ArrayLike, arrival: ArrayLike, due: ArrayLike) -> Array:
        """Cost of arriving after the window's end, at `rate` money a minute."""
        return np.asarray(rate, float) * np.maximum(np.asarray(arrival, float) - np.asarray(due, float), 0.0)


@dataclass(frozen=True)
class RoutingProblem:
    """A day's deliveries and vehicles. Times are minutes after midnight of the day.

    Attributes:
        stops: One row a delivery: delivery_id, place, depot (place its goods start from; null: any), quantity, ready, due,
            service, late_cost (money per minute), drop_cost (money; null: must be delivered).
        vehicles: One row a vehicle: vehicle_id, depot (place), capacity, fixed_cost, cost_per_km, cost_per_minute,
            shift_start, shift_end, max_km (null: none).
        km: Distances between places (P, P); inf where there is no way.
        minutes: Driving times to plan with (P, P).
        departs: Minute at which a vehicle (row) leaves its depot, where that is settled; else as late as harms nobody.
        hours: Ways by time of day, by which plans are timed and priced; the search and the bound look at `km` and `minutes` alone.
            None: the same all day.
        stretch: How many times the usual driving time of `hours` is planned with.
    """

    stops: pl.DataFrame
    vehicles: pl.DataFrame
    km: Array
    minutes: Array
    departs: Mapping[int, float] = field(default_factory=dict)
    hours: RoadHours | None = None
    stretch: float = 1.0

    def cost_of(self, vehicle: int) -> RouteCost:
        """What the vehicle in row `vehicle` costs."""
        row = self.vehicles.row(vehicle, named=True)
        return RouteCost(row["fixed_cost"], row["cost_per_km"], row["cost_per_minute"])


@dataclass(frozen=True)
class Params:
    """How to search.

    Attributes:
        seconds: Clock limit behind the limit by work; None: by size.
        iterations: Limit by work; None: by size.
        seed: Of the random moves.
        bound: Whether to prove a bound.
        explain: How many dropped or late stops to explain by planning anew with them forced in; the others are priced by
            inserting them into the routes as they are.
        windows: In which ways to search, one after the other, of which the cheapest is taken: `kept` lets no stop be late
            (as long as all can be served so), `priced` lets a stop be late at its price where that is cheaper.
    """

    seconds: float | None = None
    iterations: int | None = None
    seed: int = 0
    bound: bool = True
    explain: int = 5
    windows: tuple[str, ...] = ("kept", "priced")


Routes = dict[int, list[int]]
"""A plan: row of the vehicle -> rows of the stops in order."""


def parts_of(problem: RoutingProblem) -> list[tuple[list[int], list[int]]]:
    """Rows of stops and vehicles that can be planned apart: by depot, unless some stop may come from any."""
    stops, vehicles = problem.stops, problem.vehicles
    if stops["depot"].null_count():
        return [(list(range(stops.height)), list(range(vehicles.height)))]
    depots = sorted(set(stops["depot"].to_list()))
    at, home = stops["depot"].to_numpy(), vehicles["depot"].to_numpy()
    return [(np.flatnonzero(at == d).tolist(), np.flatnonzero(home == d).tolist()) for d in depots]


LATE_STEPS = (10.0, 30.0, 90.0, 240.0)
"""Minutes late at which the search changes its price: a stop that is later than one step pays as if it were at the next."""


def dearest(problem: RoutingProblem) -> float:
    """More than any single delivery can cost, as late as searches plan it."""
    km = problem.km[np.isfinite(problem.km)]
    v = problem.vehicles
    return float(
        largest_of(v["fixed_cost"])
        + 2 * km.max(initial=0.0) * largest_of(v["cost_per_km"])
        + 24 * 60 * largest_of(v["cost_per_minute"])
        + LATE_STEPS[-1] * largest_of(problem.stops["late_cost"])
    )


def largest_of(column: pl.Series) -> float:
    """Largest number of a column; 0 where it has none."""
    value = column.drop_nulls().max()
    return float(value) if value is not None else 0.0  # type: ignore[arg-type]


def with_minutes(problem: RoutingProblem, minutes: Array) -> RoutingProblem:
    """The same day planned with other driving times, the same at all hours."""
    return replace(problem, minutes=minutes, hours=None)


def stretched(problem: RoutingProblem, factor: float) -> RoutingProblem:
    """The same day planned with driving times that are all `factor` times as long."""
    return replace(problem, minutes=problem.minutes * factor, stretch=problem.stretch * factor)


def searched_with(problem: RoutingProblem, ways: int) -> RoutingProblem:
    """The same day, timed and priced as before, for a search that looks at one set of the ways of its `hours`."""
    assert problem.hours is not None
    return replace(problem, km=problem.hours.km[ways], minutes=problem.hours.minutes[ways] * problem.stretch)


def least(problem: RoutingProblem) -> RoutingProblem:
    """The day with the least km and minutes of all hours, of which no plan drives less."""
    if problem.hours is None:
        return problem
    hours = problem.hours
    return replace(problem, km=hours.least_km, minutes=hours.least_minutes * problem.stretch, hours=None)
