"""Which vehicle makes which delivery, in which order and when: the vehicle routing problem of a day.

    minimize    sum_k F_k y_k + sum_k sum_ij (c_k d_ij x_ijk) + sum_k h_k T_k + sum_i l_i L_i + sum_i p_i u_i
    subject to  every stop i is on one route or dropped (u_i), loads keep to capacities, arrivals to windows or are late (L_i),
                routes to shifts, distances and the depot that the goods start from,

with y_k a vehicle used, d and T distance and time on the road, F, c, h its costs (Toth & Vigo, Vehicle Routing: Problems,
Methods, and Applications, 2nd ed., ch. 1 and 5; lateness and drops are priced). PyVRP searches; the bound, from which no plan
can escape, is that of column generation over relaxed routes, or of a linear program over arcs (see `route_bound`).

How roads become distances does not belong here (see `paths`), nor how late traffic makes a plan (see `evaluate`'s callers).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from npq_assets.optimization.result import Result
from npq_assets.optimization.road_hours import RoadHours
from npq_assets.optimization.route_bound import Effort as BoundEffort
from npq_assets.optimization.route_bound import arc_bound, route_bound
from npq_assets.optimization.route_pricing import ALWAYS, Kind
from npq_assets.optimization.route_rules import savings
from npq_assets.optimization.route_search import Effort, Found, Plan, as_solution, iterations_for, search

Array = NDArray[np.float64]
_FAR = 1e9
_TOLERANCE = 1e-6
LATE_STEPS = (10.0, 30.0, 90.0, 240.0)
"""Minutes late at which the search changes its price: a stop that is later than one step pays as if it were at the next."""
_PRICED_UP_TO = 150


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


def solve(
    problem: RoutingProblem,
    params: Params | None = None,
    start: Routes | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Result:
    """The cheapest routes found, with a proven bound.

    Args:
        problem: What is to be delivered, and with what.
        params: How long to search.
        start: Routes to start from.
        progress: Called with seconds and cost (money) at each better plan.

    Returns:
        A plan with a row a delivery: delivery_id, vehicle_id, stop (1, 2, …), arrives, begins, leaves (minutes), load (on
        arrival), km (from the stop before), late_minutes; vehicle_id is null where a delivery is dropped. `relaxation`
        names what could not be kept, with the price of forcing it in. Nothing that must be delivered is dropped in silence.
    """
    params = params or Params()
    began = time.monotonic()
    routes: Routes = {}
    for part in _parts(problem):
        routes |= _search(problem, part, params, start, progress)
    plan = schedule(problem, routes)
    objective = total_cost(problem, routes)
    bound = min(lower_bound(problem, left=left_out(problem, routes), start=routes), objective) if params.bound else 0.0
    messages = explanations(problem, routes, params)
    lost = plan.filter(pl.col("vehicle_id").is_null()).join(
        problem.stops.filter(pl.col("drop_cost").is_null()), on="delivery_id", how="semi"
    )
    status = (
        "relaxed" if lost.height else "optimal" if objective - bound <= _TOLERANCE * max(1.0, objective) else "feasible"
    )
    return Result(
        plan,
        status,
        objective,
        bound,
        relaxation=messages,
        solver="PyVRP; bound: column generation over ng-routes, HiGHS",
        seconds=time.monotonic() - began,
    )


def _parts(problem: RoutingProblem) -> list[tuple[list[int], list[int]]]:
    """Rows of stops and vehicles that can be planned apart: by depot, unless some stop may come from any."""
    stops, vehicles = problem.stops, problem.vehicles
    if stops["depot"].null_count():
        return [(list(range(stops.height)), list(range(vehicles.height)))]
    depots = sorted(set(stops["depot"].to_list()))
    at, home = stops["depot"].to_numpy(), vehicles["depot"].to_numpy()
    return [(np.flatnonzero(at == d).tolist(), np.flatnonzero(home == d).tolist()) for d in depots]


# The search --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PyvrpModel:
    """A part of the problem as PyVRP sees it: seconds, metres, and money in the smallest unit that keeps numbers small."""

    data: Any
    stop_of: list[int]  # row of the stop of each client (a stop has a client for each span in which it may begin)
    span_of: list[tuple[int, int]]  # seconds within which the service of each client begins
    vehicle_of: list[list[int]]  # rows of the vehicles of each type
    unit: float


def _search(
    problem: RoutingProblem,
    part: tuple[list[int], list[int]],
    params: Params,
    start: Routes | None,
    progress: Callable[[float, float], None] | None,
) -> Routes:
    stops, vehicles = part
    can = [s for s in stops if why_hopeless(problem, s, vehicles) is None]
    if not can or not vehicles:
        return {}
    best: tuple[float, Routes] = (np.inf, {})
    priced = bool((problem.stops["late_cost"].fill_null(0.0).gather(can) > 0).any())
    first = _starting(problem, can, vehicles, start)
    for soft in (False, True):
        whole = len({s for visits in best[1].values() for s in visits}) == len(can)
        if soft and (not priced or (whole and ("priced" not in params.windows or len(can) > _PRICED_UP_TO))):
            break
        if not soft and priced and "kept" not in params.windows:
            continue
        model, found = search_stops(problem, can, vehicles, params, first, progress, soft=soft)
        if found.cost is None:
            continue
        routes = _reassigned(problem, routes_found(model, found.plan), vehicles)
        served = {s for visits in routes.values() for s in visits}
        lost = sum(problem.stops["drop_cost"][s] is None for s in can if s not in served)
        worth = total_cost(problem, routes) + lost * 4.0 * (dearest(problem) + 1e3)
        if worth < best[0] - 1e-9:
            best = (worth, routes)
        first = best[1]
    return best[1]


def search_stops(
    problem: RoutingProblem,
    stops: Sequence[int],
    vehicles: Sequence[int],
    params: Params,
    start: Routes | None = None,
    progress: Callable[[float, float], None] | None = None,
    *,
    keep: bool = False,
    must: Collection[int] = (),
    **options: Any,
) -> tuple[PyvrpModel, Found]:
    """Searches routes for some stops on some vehicles.

    Stops that must be served are first required, which is searched faster; where no plan serves them all, they are
    searched again as stops that are dear to leave out.

    Args:
        problem: The day.
        stops: Rows to plan.
        vehicles: Rows to plan with.
        params: How long to search.
        start: Routes to start from.
        progress: Called with seconds and cost (money) at each better plan.
        keep: Whether to keep the routes that were met.
        must: Stops that must be served though they have a price.
        options: As of `pyvrp_model`.
    """
    effort = Effort(
        params.seconds if params.seconds is not None else seconds_for(len(stops)),
        params.iterations if params.iterations is not None else iterations_for(len(stops)),
    )
    wanted = {*must, *(s for s in stops if problem.stops["drop_cost"][s] is None)}
    load = sum(float(problem.stops["quantity"][s]) for s in wanted)
    fits = load <= sum(float(problem.vehicles["capacity"][v]) for v in vehicles) + 1e-9
    for required in (True, False) if wanted and fits else (False,):
        model = pyvrp_model(problem, stops, vehicles, must=wanted, required=required, **options)
        watch = None if progress is None else (lambda seconds, cost, u=model.unit: progress(seconds, cost / u))
        begin = plan_found(problem, model, start) if start else None
        found = search(model.data, effort, params.seed, begin, watch, keep=keep)
        if found.cost is not None:
            break
    return model, found


def _reassigned(problem: RoutingProblem, routes: Routes, vehicles: Sequence[int]) -> Routes:
    """The same routes on the vehicles that drive them cheapest: an assignment problem, which local search moves rarely see.

    No route breaks a rule or becomes later by it.
    """
    from scipy.optimize import linear_sum_assignment

    names = ("depot", "capacity", "fixed_cost", "cost_per_km", "cost_per_minute", "shift_start", "shift_end", "max_km")
    kind = {v: tuple(problem.vehicles[name][v] for name in names) for v in vehicles}
    if len(set(kind.values())) < 2 or not routes:
        return routes
    order, cars = sorted(routes), sorted(vehicles)
    price = np.full((len(order), len(cars)), _FAR)
    for i, own in enumerate(order):
        visits, known = routes[own], {kind[own]: total_cost_of(problem, own, routes[own])}
        for j, v in enumerate(cars):
            if kind[v] not in known:
                fits = not violations(problem, {v: visits}) and (
                    _lateness(problem, v, visits) <= _lateness(problem, own, visits) + 1e-6
                )
                known[kind[v]] = total_cost_of(problem, v, visits) if fits else _FAR
            price[i, j] = known[kind[v]]
    row, column = linear_sum_assignment(price)
    now = sum(price[i, cars.index(own)] for i, own in enumerate(order))
    if price[row, column].sum() > now - 1e-6:
        return routes
    return {cars[j]: routes[order[i]] for i, j in zip(row.tolist(), column.tolist(), strict=True)}


def _lateness(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> float:
    """Minutes after the windows' ends, all stops together."""
    _, arrivals, _, _ = timetable(problem, vehicle, visits)
    return sum(max(0.0, a - float(problem.stops["due"][s])) for a, s in zip(arrivals, visits, strict=True))


def seconds_for(stops: int) -> float:
    return float(np.clip(0.25 * stops, 5.0, 120.0))


def _starting(problem: RoutingProblem, can: list[int], vehicles: list[int], start: Routes | None) -> Routes:
    if start is None:
        return {}
    allowed = set(can)
    return {v: kept for v in vehicles if (kept := [s for s in start.get(v, []) if s in allowed])}


def _unit(problem: RoutingProblem) -> float:
    """Integer money units in one unit of money: a metre costs some hundreds, so that rounding is below a percent of a percent.

    PyVRP's penalties per second and unit of load are bounded, so money must not be written finer than needed.
    """
    v, s = problem.vehicles, problem.stops
    km = problem.km[np.isfinite(problem.km)]
    reach = float(km.max(initial=1.0))
    most = (
        2 * s.height * (reach * _max(v["cost_per_km"]) + 24 * 60 * _max(v["cost_per_minute"]))
        + v.height * _max(v["fixed_cost"])
        + s.height * _max(s["drop_cost"])
        + 1.0
    )
    rates = [float(rate) / 1000.0 for rate in v["cost_per_km"].to_list() if rate > 0]
    rates += [float(rate) / 60.0 for rate in v["cost_per_minute"].to_list() if rate > 0]
    wanted = 200.0 / min(rates) if rates else 1000.0
    return float(min(wanted, 1e12 / most))


def _load_unit(problem: RoutingProblem) -> float:
    """Integer units in one unit of load: a power of ten that makes capacities at least 1e5 and, if one does, loads whole.

    A full vehicle must stay feasible, so loads that are decimals must not be rounded; and PyVRP's penalties per unit of load
    are bounded, so units must be many.
    """
    loads = np.concatenate([problem.vehicles["capacity"].to_numpy(), problem.stops["quantity"].to_numpy()]).astype(
        float
    )
    largest = max(_max(problem.vehicles["capacity"]), 1e-9)
    least = 10.0 ** np.ceil(5 - np.log10(largest))
    for digits in range(6):
        scaled = loads * least * 10.0**digits
        if np.abs(scaled - np.round(scaled)).max(initial=0.0) < 1e-5:
            return float(least * 10.0**digits)
    return float(least * 1e4)


def _max(column: pl.Series) -> float:
    value = column.drop_nulls().max()
    return float(value) if value is not None else 0.0  # type: ignore[arg-type]


def pyvrp_model(
    problem: RoutingProblem,
    stops: Sequence[int],
    vehicles: Sequence[int],
    *,
    soft: bool,
    must: Collection[int] = (),
    required: bool = False,
    home: Mapping[int, int] | None = None,
    change_price: float = 0.0,
    hard: set[int] | None = None,
    told: Mapping[int, tuple[float, float, float]] | None = None,
) -> PyvrpModel:
    """Builds PyVRP's problem.

    Args:
        problem: The day.
        stops: Rows to plan.
        vehicles: Rows to plan with.
        soft: Whether a stop may be late at its price, as a second client of a group.
        must: Stops that may not be dropped, beside those whose price of dropping is unknown.
        required: Whether a plan without them is none; otherwise they are very dear to drop.
        home: Vehicle that each stop had; a profile per vehicle then charges for leaving it.
        change_price: Money per stop that leaves its vehicle.
        hard: Stops that may not be late even if `soft`.
        told: By stop, the span in which its service was to begin (minutes), and the price of beginning outside of it.
    """
    from pyvrp import Client, ClientGroup, Depot, Location, ProblemData

    unit = _unit(problem)
    rows, cars = problem.stops, problem.vehicles
    depots = sorted({int(cars["depot"][v]) for v in vehicles})
    places, stop_of = list(depots), []
    clients: list[Any] = []
    groups: list[Any] = []
    span_of: list[tuple[int, int]] = []
    forced = 4.0 * (_max(rows["drop_cost"]) + 1e3 + dearest(problem))
    load_unit = _load_unit(problem)  # quantities may be fractions: rounded up, against capacities rounded down
    for s in stops:
        row = rows.row(s, named=True)
        places.append(int(row["place"]))
        drop = row["drop_cost"]
        kept = drop is None or s in must
        prize = forced if kept else float(drop)
        if home is not None and s in home:  # dropping it is a change too
            prize += change_price + (0.0 if told is None or s not in told else told[s][2])
        shared: dict[str, Any] = {
            "location": len(places) - 1,
            "delivery": [int(np.ceil(load_unit * float(row["quantity"]) - 1e-5))],
            "service_duration": round(60 * float(row["service"])),
        }
        spans = _spans(row, prize, soft and not (hard and s in hard), None if told is None else told.get(s))
        group, kept = None, kept and required
        alone = kept and len(spans) == 1
        if len(spans) > 1:  # one of several ways to serve it; of the prizes not collected only the difference matters
            group = len(groups)
            groups.append(ClientGroup(list(range(len(clients), len(clients) + len(spans))), required=kept))
        if kept:
            least = min(gain for _, _, gain in spans)
            spans = [(begin, end, gain - least) for begin, end, gain in spans]
        for begin, end, gain in spans:
            clients.append(
                Client(**shared, tw_early=begin, tw_late=end, prize=round(gain * unit), required=alone, group=group)
            )
            stop_of.append(s)
            span_of.append((begin, end))
    index = np.array(places)
    far = 2**40
    metres = problem.km[np.ix_(index, index)] * 1000.0
    seconds = problem.minutes[np.ix_(index, index)] * 60.0
    blocked = ~np.isfinite(metres) | ~np.isfinite(seconds)
    distance = np.where(blocked, far, np.round(np.where(blocked, 0, metres))).astype(np.int64)
    duration = np.where(blocked, far, np.ceil(np.where(blocked, 0, seconds) - 1e-6)).astype(np.int64)
    np.fill_diagonal(distance, 0)
    np.fill_diagonal(duration, 0)
    distances, durations, kinds, members = _profiles(
        problem, list(stops), list(vehicles), depots, distance, duration, unit, home, change_price, far
    )
    coordinates = [Location(float(i), 0.0) for i in range(len(places))]
    data = ProblemData(
        coordinates,
        clients,
        [Depot(i) for i in range(len(depots))],
        kinds,
        distances,
        durations,
        groups=groups,
    )
    return PyvrpModel(data, stop_of, span_of, members, unit)


def _spans(
    row: Mapping[str, Any], prize: float, soft: bool, told: tuple[float, float, float] | None
) -> list[tuple[int, int, float]]:
    """Spans (seconds) in which a stop may begin, each with what is earned by serving it there, the dearest first."""
    ready, due = int(np.ceil(60 * row["ready"])), int(np.floor(60 * row["due"]))
    due = max(ready, due)
    spans: list[tuple[int, int, float]] = []
    change = 0.0
    if told is not None and told[2] > 0:
        low, high = max(ready, int(np.ceil(60 * told[0]))), min(due, int(np.floor(60 * told[1])))
        if low <= high:
            spans.append((low, high, prize))
            change = told[2]
    spans.append((ready, due, max(prize - change, 0.0)))
    rate = float(row["late_cost"] or 0.0)
    if soft and rate > 0:
        begin = due
        for step in LATE_STEPS:
            # Dearer than it is, so that no plan is taken for cheaper than it is.
            end = due + int(60 * step)
            spans.append((begin + 1, end, max(prize - change - rate * step, 0.0)))
            begin = end
    return spans


def _profiles(
    problem: RoutingProblem,
    stops: list[int],
    vehicles: list[int],
    depots: list[int],
    distance: NDArray[np.int64],
    duration: NDArray[np.int64],
    unit: float,
    home: Mapping[int, int] | None,
    change_price: float,
    far: int,
) -> tuple[list[Any], list[Any], list[Any], list[list[int]]]:
    """Distances and times by profile, vehicle types, and the vehicles of each type."""
    from pyvrp import VehicleType

    rows, cars = problem.stops, problem.vehicles
    distances: list[Any] = []
    durations: list[Any] = []
    kinds: list[Any] = []
    members: list[list[int]] = []
    known: dict[tuple[Any, ...], int] = {}
    profile_of: dict[tuple[Any, ...], int] = {}
    first, load_unit = len(depots), _load_unit(problem)
    for v in vehicles:
        row = cars.row(v, named=True)
        # Distance carries the cost of time as well as of kilometres would not do: shifts are limits of time alone.
        per_metre = max(1, round(row["cost_per_km"] * unit / 1000.0))
        per_second = round(row["cost_per_minute"] * unit / 60.0)
        profile_key = (int(row["depot"]),) if home is None else (int(row["depot"]), v)
        if profile_key not in profile_of:
            d, t = distance.copy(), duration.copy()
            for i, s in enumerate(stops):
                origin = rows["depot"][s]
                if origin is not None and int(origin) != int(row["depot"]):
                    d[:, first + i] = d[first + i, :] = t[:, first + i] = t[first + i, :] = far
                    d[first + i, first + i] = t[first + i, first + i] = 0
                elif home is not None and s in home and home[s] != v:
                    d[:, first + i] += round(change_price * unit / per_metre)
                    d[first + i, first + i] = 0
            profile_of[profile_key] = len(distances)
            distances.append(d)
            durations.append(t)
        extra = 0
        if home is not None and row["max_km"] is not None:
            extra = 3 * round(change_price * unit / per_metre)  # the price of change is no distance; checked afterwards
        key = (
            profile_of[profile_key],
            row["capacity"],
            row["fixed_cost"],
            per_metre,
            per_second,
            row["shift_start"],
            row["shift_end"],
            row["max_km"],
            v if home is not None else None,
        )
        if key in known:
            members[known[key]].append(v)
            continue
        known[key] = len(kinds)
        members.append([v])
        options: dict[str, Any] = {}
        if row["max_km"] is not None:
            options["max_distance"] = int(1000 * row["max_km"]) + extra
        kinds.append(
            VehicleType(
                1,
                [int(np.floor(load_unit * row["capacity"] + 1e-5))],
                start_depot=depots.index(int(row["depot"])),
                end_depot=depots.index(int(row["depot"])),
                fixed_cost=round(row["fixed_cost"] * unit),
                tw_early=int(np.ceil(60 * row["shift_start"])),
                tw_late=int(np.floor(60 * row["shift_end"])),
                unit_distance_cost=per_metre,
                unit_duration_cost=per_second,
                profile=profile_of[profile_key],
                **options,
            )
        )
    kinds = [kind.replace(num_available=len(members[k])) for k, kind in enumerate(kinds)]
    return distances, durations, kinds, members


def dearest(problem: RoutingProblem) -> float:
    """More than any single delivery can cost."""
    km = problem.km[np.isfinite(problem.km)]
    v = problem.vehicles
    return float(
        _max(v["fixed_cost"]) + 2 * km.max(initial=0.0) * _max(v["cost_per_km"]) + 24 * 60 * _max(v["cost_per_minute"])
    )


def routes_found(model: PyvrpModel, plan: Plan) -> Routes:
    waiting = [list(rows) for rows in model.vehicle_of]
    return {waiting[kind].pop(0): [model.stop_of[c] for c in visits] for kind, visits in plan}


def plan_found(problem: RoutingProblem, model: PyvrpModel, routes: Routes) -> Plan | None:
    """Routes as the model's plan, each stop as the client in whose span its service begins; None if it has no such plan."""
    clients_of: dict[int, list[int]] = {}
    for c, s in enumerate(model.stop_of):
        clients_of.setdefault(s, []).append(c)
    kind_of = {v: k for k, rows in enumerate(model.vehicle_of) for v in rows}
    plan: Plan = []
    for v, visits in routes.items():
        kept = [s for s in visits if s in clients_of]
        if v not in kind_of or not kept:
            continue
        chosen = [clients_of[s][0] for s in kept]
        if any(len(clients_of[s]) > 1 for s in kept):
            begins = timetable(problem, v, kept)[2]
            chosen = [
                min(
                    clients_of[s],
                    key=lambda c, at=60 * begin: (  # type: ignore[misc]
                        max(model.span_of[c][0] - at, at - model.span_of[c][1], 0.0), c
                    ),
                )
                for s, begin in zip(kept, begins, strict=True)
            ]  # fmt: skip
        plan.append((kind_of[v], chosen))
    try:
        as_solution(model.data, plan)
    except (RuntimeError, ValueError):
        return None
    return plan


# What a plan means ---------------------------------------------------------------------------------------------------------


def timetable(
    problem: RoutingProblem, vehicle: int, visits: Sequence[int], minutes: Array | None = None
) -> tuple[float, list[float], list[float], float]:
    """Departure, arrivals, starts of service and return of a route, leaving the depot as late as harms nobody.

    The latest start that makes no stop later than the earliest start would (forward time slack, Savelsbergh 1992); a vehicle
    whose departure is settled leaves then.
    """
    if minutes is None and problem.hours is not None and not _alike(problem, vehicle, visits):
        return _timed(problem, problem.hours, vehicle, visits)
    m = problem.minutes if minutes is None else minutes
    rows, car = problem.stops, problem.vehicles
    ready, due = rows["ready"].to_numpy(), rows["due"].to_numpy()
    service, place = rows["service"].to_numpy(), rows["place"].to_numpy()
    depot, shift = int(car["depot"][vehicle]), float(car["shift_start"][vehicle])

    def run(start: float) -> tuple[list[float], list[float], float]:
        clock, at, arrivals, begins = start, depot, [], []
        for s in visits:
            clock += m[at, place[s]]
            arrivals.append(float(clock))
            clock = max(clock, ready[s])
            begins.append(float(clock))
            clock, at = clock + service[s], place[s]
        return arrivals, begins, float(clock + m[at, depot])

    if vehicle in problem.departs:
        start = float(problem.departs[vehicle])
        return (start, *run(start))
    arrivals, begins, back = run(shift)
    slack, waited = np.inf, 0.0
    for s, arrival, begin in zip(visits, arrivals, begins, strict=True):
        waited += max(0.0, begin - arrival)
        # Later by this much, the stop still begins in its window (or, if late anyway, no later than it must).
        slack = min(slack, waited + max(0.0, due[s] - begin))
    start = shift + (min(slack, waited) if visits else 0.0)
    arrivals, begins, back = run(start)
    return start, arrivals, begins, back


def _path(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> list[int]:
    """Places of a route, its depot first and last."""
    depot, place = int(problem.vehicles["depot"][vehicle]), problem.stops["place"]
    return [depot, *(int(place[s]) for s in visits), depot]


def _alike(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> bool:
    """Whether a route's ways, which are then those of `km` and `minutes`, are the same at all times."""
    hours = problem.hours
    return hours is None or all(hours.alike[a, b] for a, b in itertools.pairwise(_path(problem, vehicle, visits)))


def _timed(
    problem: RoutingProblem, hours: RoadHours, vehicle: int, visits: Sequence[int]
) -> tuple[float, list[float], list[float], float]:
    """`timetable` with ways by time of day: of a late start on any way, and one on ways no longer in all, the cheaper.

    Both harm nobody. Leaving later makes no arrival sooner, so the former is the latest there is, found by halving.
    """
    rows, path = problem.stops, _path(problem, vehicle, visits)
    ready, due, service = (rows[name].gather(list(visits)).to_list() for name in ("ready", "due", "service"))

    def run(start: float) -> tuple[list[float], list[float], float, float, list[float]]:
        clock, far, arrivals, begins, waits = start, 0.0, [], [], []
        for k in range(len(visits)):
            arrival, km, usual = hours.leg(clock, path[k], path[k + 1], problem.stretch)
            begin = max(arrival, ready[k])
            # Time in which the vehicle does not drive, on the way or before the window.
            waits.append(begin - clock - problem.stretch * usual)
            arrivals.append(arrival)
            begins.append(begin)
            clock, far = begin + service[k], far + km
        back, km, _ = hours.leg(clock, path[-2], path[-1], problem.stretch)
        return arrivals, begins, back, far + km, waits

    if vehicle in problem.departs:
        start = float(problem.departs[vehicle])
        return (start, *run(start)[:3])
    shift = float(problem.vehicles["shift_start"][vehicle])
    _, first, back, far, waits = run(shift)
    slack, waited = np.inf, 0.0
    for wait, begin, end in zip(waits, first, due, strict=True):
        waited += wait
        slack = min(slack, waited + max(0.0, end - begin))
    most = shift + (min(slack, waited) if visits and np.isfinite(waited) else 0.0)
    cost = problem.cost_of(vehicle)
    best = (np.inf, shift)
    for longest in (far, np.inf):

        def harmless(start: float, longest: float = longest) -> bool:
            _, begins, home, km, _ = run(start)
            late = any(b > max(end, a) + 1e-6 for a, b, end in zip(first, begins, due, strict=True))
            return not late and home <= back + 1e-6 and km <= longest + 1e-9

        low = high = most
        if not harmless(most):
            low = shift
        while high - low > 1.0 / 60.0:
            middle = (low + high) / 2.0
            low, high = (middle, high) if harmless(middle) else (low, middle)
        _, _, home, km, _ = run(low)
        best = min(best, (round(float(cost.value(km, home - low)), 6), low))
    return (best[1], *run(best[1])[:3])


def kilometres(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> list[float]:
    """Km of each leg of a route as planned, the way home last."""
    path = _path(problem, vehicle, visits)
    hours = problem.hours
    if hours is None or _alike(problem, vehicle, visits):
        return [float(problem.km[a, b]) for a, b in itertools.pairwise(path)]
    start, _, begins, _ = timetable(problem, vehicle, visits)
    leaves = [start, *(b + float(problem.stops["service"][s]) for s, b in zip(visits, begins, strict=True))]
    return [
        hours.leg(clock, a, b, problem.stretch)[1]
        for clock, (a, b) in zip(leaves, itertools.pairwise(path), strict=True)
    ]


def schedule(problem: RoutingProblem, routes: Routes) -> pl.DataFrame:
    """The plan of `routes`: the columns that `solve` describes, by delivery."""
    rows: list[dict[str, Any]] = []
    stops = problem.stops
    quantity = stops["quantity"].to_numpy()
    due, service = stops["due"].to_numpy(), stops["service"].to_numpy()
    for vehicle, visits in sorted(routes.items()):
        start, arrivals, begins, _ = timetable(problem, vehicle, visits)
        km, left = kilometres(problem, vehicle, visits), float(sum(quantity[s] for s in visits))
        for k, s in enumerate(visits):
            rows.append(
                {
                    "delivery_id": stops["delivery_id"][s],
                    "vehicle_id": problem.vehicles["vehicle_id"][vehicle],
                    "stop": k + 1,
                    "departs": start,
                    "arrives": arrivals[k],
                    "begins": begins[k],
                    "leaves": begins[k] + float(service[s]),
                    "load": left,
                    "km": km[k],
                    "late_minutes": max(0.0, arrivals[k] - float(due[s])),
                }
            )
            left -= float(quantity[s])
    served = {row["delivery_id"] for row in rows}
    rows += [{"delivery_id": name} for name in stops["delivery_id"].to_list() if name not in served]
    return pl.DataFrame(rows, schema=PLAN)


PLAN = {
    "delivery_id": pl.String,
    "vehicle_id": pl.String,
    "stop": pl.Int64,
    "departs": pl.Float64,
    "arrives": pl.Float64,
    "begins": pl.Float64,
    "leaves": pl.Float64,
    "load": pl.Float64,
    "km": pl.Float64,
    "late_minutes": pl.Float64,
}


def routes_of(problem: RoutingProblem, plan: pl.DataFrame) -> Routes:
    """The routes of a plan frame, in rows of the problem; deliveries and vehicles that are gone are left out."""
    stop = {name: k for k, name in enumerate(problem.stops["delivery_id"].to_list())}
    car = {name: k for k, name in enumerate(problem.vehicles["vehicle_id"].to_list())}
    routes: Routes = {}
    for row in plan.drop_nulls("vehicle_id").sort("vehicle_id", "stop").to_dicts():
        if row["vehicle_id"] in car and row["delivery_id"] in stop:
            routes.setdefault(car[row["vehicle_id"]], []).append(stop[row["delivery_id"]])
    return routes


@dataclass(frozen=True)
class Outcome:
    """What routes cost, by delivery and scenario.

    Attributes:
        arrival: Minutes after midnight at which each stop is reached, (n, S); nan where dropped.
        driving: Cost of each stop's share of its route: its way there, and the way home and fixed cost shared by load (n, S).
        late: Cost of lateness (n, S).
        dropped: Cost of not delivering (n).
    """

    arrival: Array
    driving: Array
    late: Array
    dropped: Array

    @property
    def by_stop(self) -> Array:
        """Expected cost of each stop (n)."""
        total = self.driving.mean(axis=1) + self.late.mean(axis=1) + self.dropped
        return np.asarray(total)

    @property
    def total(self) -> float:
        """Expected cost of all."""
        return float(self.by_stop.sum())


def evaluate(
    problem: RoutingProblem, routes: Routes, usual: Array | None = None, slow: Mapping[int, Array] | None = None
) -> Outcome:
    """Drives routes as planned through scenarios of traffic: departures as planned, arrivals as they come.

    Args:
        problem: The day, with the times that were planned with.
        routes: What is driven.
        usual: Usual driving times (P, P), at which the problem's `hours` then hold; None: those that were planned with.
        slow: By vehicle, factors on the usual time of each leg, the way home last: (legs, S). None: all 1.
    """
    base = problem.minutes if usual is None else usual
    hours, stretch = problem.hours, problem.stretch if usual is None else 1.0
    rows = problem.stops
    n = rows.height
    scenarios = next(iter(slow.values())).shape[1] if slow else 1
    arrival = np.full((n, scenarios), np.nan)
    driving, late = np.zeros((n, scenarios)), np.zeros((n, scenarios))
    ready, due = rows["ready"].to_numpy(), rows["due"].to_numpy()
    service, place = rows["service"].to_numpy(), rows["place"].to_numpy()
    rate, quantity = rows["late_cost"].fill_null(0.0).to_numpy(), rows["quantity"].to_numpy()
    dropped = rows["drop_cost"].fill_null(0.0).to_numpy().astype(float).copy()

    def leg(clock: Array, a: int, b: int, factor: Array) -> tuple[Array, Any]:
        if hours is None or hours.alike[a, b]:
            return clock + base[a, b] * factor, problem.km[a, b]
        return hours.legs(clock, a, b, stretch * factor)

    for vehicle, visits in routes.items():
        if not visits:
            continue
        cost = problem.cost_of(vehicle)
        depot = int(problem.vehicles["depot"][vehicle])
        start, _, _, _ = timetable(problem, vehicle, visits)
        factor = slow[vehicle] if slow else np.ones((len(visits) + 1, 1))
        clock, at, left = np.full(scenarios, start), depot, np.full(scenarios, start)
        for k, s in enumerate(visits):
            reached, km = leg(clock, at, int(place[s]), np.broadcast_to(factor[k], clock.shape))
            arrival[s] = reached
            late[s] = RouteCost.late(rate[s], reached, due[s])
            clock = np.maximum(reached, ready[s]) + service[s]
            driving[s] = cost.per_km * km + cost.per_minute * (clock - left)
            left, at = clock, int(place[s])
            dropped[s] = 0.0
        if hours is None:
            home = (
                cost.fixed
                + cost.per_km * problem.km[at, depot]
                + cost.per_minute * base[at, depot] * factor[len(visits)]
            )
        else:
            back, km = leg(clock, at, depot, np.broadcast_to(factor[len(visits)], clock.shape))
            home = cost.fixed + cost.per_km * km + cost.per_minute * (back - clock)
        weight = np.asarray([max(quantity[s], 1e-9) for s in visits])
        for s, share in zip(visits, weight / weight.sum(), strict=True):
            driving[s] = driving[s] + share * home
    return Outcome(arrival, driving, late, dropped)


def total_cost(problem: RoutingProblem, routes: Routes) -> float:
    """Cost of routes if all goes as planned; a delivery that must be made and is not costs nothing here, but is named."""
    return evaluate(problem, routes).total


def left_out(problem: RoutingProblem, routes: Routes) -> set[int]:
    """Stops that must be delivered and are on no route."""
    served = {s for visits in routes.values() for s in visits}
    return {s for s, price in enumerate(problem.stops["drop_cost"].to_list()) if price is None and s not in served}


def violations(problem: RoutingProblem, routes: Routes) -> list[str]:
    """Rules that routes break, in words; empty if they keep all: capacity, shift, distance, depot, each stop at most once."""
    broken: list[str] = []
    rows, cars = problem.stops, problem.vehicles
    seen: set[int] = set()
    for vehicle, visits in routes.items():
        name = cars["vehicle_id"][vehicle]
        load = float(rows["quantity"].gather(visits).sum()) if visits else 0.0
        if load > float(cars["capacity"][vehicle]) * (1 + 1e-9) + 1e-3:
            broken.append(f"{name}: load {load:g} above capacity {cars['capacity'][vehicle]:g}")
        path = _path(problem, vehicle, visits)
        km = float(sum(kilometres(problem, vehicle, visits)))
        limit = cars["max_km"][vehicle]
        if limit is not None and km > float(limit) + 0.01 * len(path):
            broken.append(f"{name}: {km:.1f} km above its {limit:g}")
        if not np.isfinite(km):
            broken.append(f"{name}: drives where there is no way")
        if visits:
            start, _, _, back = timetable(problem, vehicle, visits)
            if back > float(cars["shift_end"][vehicle]) + 0.05 * len(path):
                broken.append(f"{name}: back at {clock_text(back)}, after its shift")
            if start < float(cars["shift_start"][vehicle]) - 1e-6:
                broken.append(f"{name}: leaves at {clock_text(start)}, before its shift")
        for s in visits:
            if s in seen:
                broken.append(f"{rows['delivery_id'][s]}: served twice")
            seen.add(s)
            origin = rows["depot"][s]
            if origin is not None and int(origin) != int(cars["depot"][vehicle]):
                broken.append(f"{rows['delivery_id'][s]}: its goods do not start from {name}'s depot")
    return broken


def clock_text(minutes: float) -> str:
    """Minutes after midnight as HH:MM."""
    if not np.isfinite(minutes):
        return "never"
    whole = round(minutes)
    return f"{whole // 60:02d}:{whole % 60:02d}"


# The rule of a careful planner ---------------------------------------------------------------------------------------------


def savings_routes(problem: RoutingProblem) -> Routes:
    """What a careful planner drives: Clarke and Wright's savings by depot for the vehicles there, windows kept.

    Routes take the cheapest vehicle that holds them; stops left over are put where they cost least.
    """
    routes: Routes = {}
    for stops, vehicles in _parts(problem):
        can = [s for s in stops if why_hopeless(problem, s, vehicles) is None]
        if can and vehicles:
            routes |= _savings_part(problem, can, vehicles)
    return routes


def _savings_part(problem: RoutingProblem, stops: list[int], vehicles: list[int]) -> Routes:
    rows, cars = problem.stops, problem.vehicles
    depot = int(cars["depot"][vehicles[0]])
    places = np.array([depot, *(int(rows["place"][s]) for s in stops)])
    km, minutes = problem.km[np.ix_(places, places)], problem.minutes[np.ix_(places, places)]
    km = np.where(np.isfinite(km), km, _FAR)
    minutes = np.where(np.isfinite(minutes), minutes, _FAR)
    limits = cars["max_km"].gather(vehicles).drop_nulls()
    start = float(cars["shift_start"].gather(vehicles).max())  # type: ignore[arg-type]
    end = float(cars["shift_end"].gather(vehicles).min())  # type: ignore[arg-type]

    def build(capacity: float) -> list[list[int]]:
        return savings(
            km,
            minutes,
            demand=np.array([0.0, *(float(rows["quantity"][s]) for s in stops)]),
            capacity=capacity,
            ready=np.array([start, *(float(rows["ready"][s]) for s in stops)]),
            due=np.array([end, *(float(rows["due"][s]) for s in stops)]),
            service=np.array([0.0, *(float(rows["service"][s]) for s in stops)]),
            max_distance=float(limits.min()) if len(limits) else np.inf,  # type: ignore[arg-type]
            reverse=False,
        )

    best: tuple[float, Routes] | None = None
    for capacity in sorted({float(c) for c in cars["capacity"].gather(vehicles)}):
        built = [[stops[k - 1] for k in route] for route in build(capacity)]
        routes = _assign(problem, built, vehicles)
        routes = insert_left(
            problem, routes, [s for s in stops if s not in {x for r in routes.values() for x in r}], vehicles
        )
        left = len(stops) - sum(map(len, routes.values()))
        worth = total_cost(problem, routes) + left * dearest(problem)
        if best is None or worth < best[0] - 1e-9:
            best = (worth, routes)
    return best[1] if best else {}


def _assign(problem: RoutingProblem, built: list[list[int]], vehicles: list[int]) -> Routes:
    free = list(vehicles)
    routes: Routes = {}
    loads = [float(problem.stops["quantity"].gather(route).sum()) for route in built]
    for k in sorted(range(len(built)), key=lambda k: (-loads[k], k)):
        fitting = [v for v in free if not violations(problem, {v: built[k]})]
        if fitting:
            pick = min(fitting, key=lambda v: (total_cost_of(problem, v, built[k]), v))
            routes[pick] = built[k]
            free.remove(pick)
    return routes


def total_cost_of(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> float:
    """Cost of one route as planned, lateness included."""
    if not visits:
        return 0.0
    start, arrivals, _, back = timetable(problem, vehicle, visits)
    km = float(sum(kilometres(problem, vehicle, visits)))
    late = sum(
        float(RouteCost.late(problem.stops["late_cost"][s] or 0.0, arrival, problem.stops["due"][s]))
        for s, arrival in zip(visits, arrivals, strict=True)
    )
    return float(problem.cost_of(vehicle).value(km, back - start)) + late


def insert_left(problem: RoutingProblem, routes: Routes, left: list[int], vehicles: list[int]) -> Routes:
    """Puts stops one by one where they add least cost, lateness priced, if that is less than dropping them."""
    routes = {v: list(r) for v, r in routes.items()}
    for s in left:
        drop = problem.stops["drop_cost"][s]
        limit = np.inf if drop is None else float(drop)
        best: tuple[float, int, int] | None = None
        for v in vehicles:
            now = routes.get(v, [])
            before = total_cost_of(problem, v, now)
            for k in range(len(now) + 1):
                tried = [*now[:k], s, *now[k:]]
                if violations(problem, {v: tried}):
                    continue
                extra = total_cost_of(problem, v, tried) - before
                if extra < limit and (best is None or extra < best[0] - 1e-9):
                    best = (extra, v, k)
        if best is not None:
            _, v, k = best
            routes.setdefault(v, []).insert(k, s)
    return routes


# Why a stop is dropped or late ---------------------------------------------------------------------------------------------


def why_hopeless(problem: RoutingProblem, stop: int, vehicles: Sequence[int]) -> str | None:
    """Why no vehicle can serve a stop, whatever the others get; None if one can."""
    row, cars = problem.stops.row(stop, named=True), problem.vehicles
    if not vehicles:
        return "no vehicle at its depot"
    if row["quantity"] > max(float(cars["capacity"][v]) for v in vehicles) + 1e-9:
        return f"its load {row['quantity']:g} is above the largest vehicle's capacity"
    here = row["place"]
    ways = [
        (float(problem.minutes[int(depot), here]), float(problem.minutes[here, int(depot)]), v)
        for v in vehicles
        for depot in (cars["depot"][v],)
    ]
    ways = [(a, b, v) for a, b, v in ways if np.isfinite(a) and np.isfinite(b)]
    if not ways:
        return "no road leads there and back"
    for there, back, v in ways:
        begin = max(float(cars["shift_start"][v]) + there, row["ready"])
        if begin + row["service"] + back <= float(cars["shift_end"][v]) + 1e-6:
            limit = cars["max_km"][v]
            depot = int(cars["depot"][v])
            if limit is None or problem.km[depot, row["place"]] + problem.km[row["place"], depot] <= float(limit):
                return None
    return "no vehicle gets there and back within its shift and distance"


def explanations(problem: RoutingProblem, routes: Routes, params: Params) -> pl.DataFrame:
    """Dropped and late stops, dearest first: constraint, amount (money it costs to force it in, or on time), message."""
    schema = {"constraint": pl.String, "amount": pl.Float64, "message": pl.String}
    outcome = evaluate(problem, routes)
    base = outcome.total
    served = {s for visits in routes.values() for s in visits}
    rows = problem.stops
    late_cost = outcome.late.mean(axis=1)
    concerned = [s for s in range(rows.height) if s not in served or late_cost[s] > _TOLERANCE]
    concerned.sort(key=lambda s: (-(float(rows["drop_cost"][s] or 1e12) if s not in served else late_cost[s]), s))
    found: list[tuple[str, float, str]] = []
    for count, s in enumerate(concerned):
        name, dropped = rows["delivery_id"][s], s not in served
        vehicles = [
            v
            for v in range(problem.vehicles.height)
            if rows["depot"][s] is None or int(problem.vehicles["depot"][v]) == int(rows["depot"][s])
        ]
        reason = why_hopeless(least(problem), s, vehicles)
        if reason is not None:
            found.append((name, float("inf"), f"{name}: dropped, {reason}"))
            continue
        price = _inserted(problem, routes, s, vehicles, base, late_cost[s])
        if count < params.explain:
            price = min(price, _force(problem, routes, s, vehicles, params, base, dropped))
        if dropped:
            own = float(rows["drop_cost"][s] or 0.0)
            text = (
                f"{name}: dropped at {own:,.2f}; serving it costs {price:,.2f} more in routes"
                if np.isfinite(price)
                else f"{name}: dropped; no plan was found that serves it"
            )
        else:
            text = (
                f"{name}: {outcome.arrival[s].mean() - rows['due'][s]:.0f} minutes late at {late_cost[s]:,.2f}; on time costs "
                f"{price:,.2f} more in routes"
                if np.isfinite(price)
                else f"{name}: late at {late_cost[s]:,.2f}; no plan was found that is on time"
            )
        found.append((name, price, text))
    return pl.DataFrame(found, schema=schema, orient="row")


def _inserted(
    problem: RoutingProblem, routes: Routes, stop: int, vehicles: list[int], base: float, late: float
) -> float:
    """As `_force`, with the stop put where it adds least to the routes as they are; inf if it fits nowhere in its window."""
    without = {v: [s for s in r if s != stop] for v, r in routes.items()}
    best = float("inf")
    rest = total_cost(problem, without) - float(problem.stops["drop_cost"][stop] or 0.0)
    for v in vehicles:
        now = without.get(v, [])
        before = total_cost_of(problem, v, now)
        for k in range(len(now) + 1):
            tried = [*now[:k], stop, *now[k:]]
            if violations(problem, {v: tried}) or timetable(problem, v, tried)[1][k] > float(
                problem.stops["due"][stop]
            ):
                continue
            best = min(best, rest + total_cost_of(problem, v, tried) - before)
    served = any(stop in r for r in routes.values())
    own = late if served else float(problem.stops["drop_cost"][stop] or 0.0)
    return best - (base - own)


def _force(
    problem: RoutingProblem, routes: Routes, stop: int, vehicles: list[int], params: Params, base: float, dropped: bool
) -> float:
    """Money by which routes cost more, the stop's own drop or late cost left out, if it must be served in its window."""
    others = [s for s in range(problem.stops.height) if why_hopeless(problem, s, vehicles) is None]
    others = [
        s
        for s in others
        if problem.stops["depot"][s] is None or problem.stops["depot"][stop] is None
        or int(problem.stops["depot"][s]) == int(problem.stops["depot"][stop])
    ]  # fmt: skip
    quick = replace(params, seconds=5.0, iterations=max(300, (params.iterations or iterations_for(len(others))) // 4))
    model, found = search_stops(problem, others, vehicles, quick, routes, soft=True, must={stop}, hard={stop})
    if found.cost is None:
        return float("inf")
    forced = {v: r for v, r in routes.items() if v not in vehicles} | routes_found(model, found.plan)
    outcome = evaluate(problem, forced)
    if stop not in {s for r in forced.values() for s in r} or outcome.late[stop].mean() > _TOLERANCE:
        return float("inf")
    now = evaluate(problem, routes)
    own = now.dropped[stop] if dropped else now.late[stop].mean()
    return float(outcome.total - (base - own))


# What a vehicle is worth -----------------------------------------------------------------------------------------------------

VEHICLE_WORTH = {
    "subject": pl.String,
    "limit": pl.String,
    "amount": pl.Float64,
    "used": pl.Float64,
    "worth_per_unit": pl.Float64,
    "method": pl.String,
}


def worth_of_vehicles(problem: RoutingProblem, routes: Routes, params: Params, most: int = 8) -> pl.DataFrame:
    """What one vehicle more of each kind would save, and one fewer would cost, its own costs of the day counted.

    A route is all or nothing, so no dual tells: the day is solved again with the vehicle added or taken away. Where a vehicle of
    a kind stands idle, one more or fewer changes nothing.

    Args:
        problem: The day.
        routes: Its plan.
        params: How long to search.
        most: Re-solves at most, the largest kinds first.

    Returns:
        subject, limit (`one vehicle more`, `one vehicle fewer`), amount (vehicles of the kind), used, worth_per_unit (money a
        day), method (`re-solve`, or `idle` where none was needed).
    """
    cars = problem.vehicles
    names = ("depot", "capacity", "fixed_cost", "cost_per_km", "cost_per_minute", "shift_start", "shift_end", "max_km")
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for v in range(cars.height):
        kinds.setdefault(tuple(cars[name][v] for name in names), []).append(v)
    quick = replace(params, bound=False, explain=0)
    rows: list[tuple[str, str, float, float, float | None, str]] = []
    solved = 0
    for kind, members in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[1][0])):
        used = [v for v in members if routes.get(v)]
        subject = f"vehicles like {cars['vehicle_id'][members[0]]} (capacity {float(kind[1]):g})"
        sizes = (float(len(members)), float(len(used)))
        if len(used) < len(members):
            rows += [(subject, f"one vehicle {word}", *sizes, 0.0, "idle") for word in ("more", "fewer")]
            continue
        if solved + 2 > most:
            continue
        solved += 2
        shared = [
            (stops, vehicles) for stops, vehicles in _parts(problem) if members[0] in vehicles
        ]  # vehicles of one depot
        stops, vehicles = shared[0]
        least = min(used, key=lambda v: (total_cost_of(problem, v, routes[v]), v))
        for word, more, fewer in (("more", [members[0]], []), ("fewer", [], [least])):
            kept = [v for v in vehicles if v not in fewer]
            chosen = pl.concat([cars[kept], cars[more].with_columns(pl.lit("one more").alias("vehicle_id"))])
            part = replace(problem, stops=problem.stops[stops], vehicles=chosen, departs={})
            stop_at = {s: k for k, s in enumerate(stops)}
            start = {k: [stop_at[s] for s in routes[v]] for k, v in enumerate(kept) if routes.get(v)}
            now = total_cost(replace(problem, stops=problem.stops[stops], vehicles=cars[vehicles], departs={}), {
                k: [stop_at[s] for s in routes[v]] for k, v in enumerate(vehicles) if routes.get(v)
            })  # fmt: skip
            found = solve(part, quick, start)
            if found.status == "relaxed":  # deliveries that must be made are left: no money says what that is worth
                rows.append((subject, f"one vehicle {word}", *sizes, None, "re-solve: not all can be served"))
                continue
            saved = now - found.objective if more else found.objective - now
            rows.append((subject, f"one vehicle {word}", *sizes, max(0.0, saved), "re-solve"))
    return pl.DataFrame(rows, schema=VEHICLE_WORTH, orient="row")


# The bound -----------------------------------------------------------------------------------------------------------------

_COSTS = ("depot", "capacity", "fixed_cost", "cost_per_km", "cost_per_minute")
_LIMITS = ("shift_start", "shift_end", "max_km")


def lower_bound(
    problem: RoutingProblem,
    minutes: Array | None = None,
    rounds: int = 8,
    largest: int = 250,
    *,
    left: Collection[int] | None = None,
    spared: Array | None = None,
    start: Routes | None = None,
    effort: BoundEffort | None = None,
) -> float:
    """No plan costs less: the larger of two relaxations, part by part.

    One is a linear program over arcs by kind of vehicle with rounded capacity cuts, in which waiting, lateness, shifts and windows
    cost nothing. The other is column generation over ng-routes (see `route_bound`), which counts them. Both hold for plans as
    planned (`minutes` None: `total_cost` of routes without `violations`, whenever their vehicles leave), and for expected costs
    under uncertain times (`evaluate` with scenarios) if `minutes` are no more than the expected ones of every leg:

    - Routes and departures are settled before traffic is known. Then arrivals and the return are sums and maxima of times of legs,
      so convex and not decreasing in them, and so are lateness and, the departure settled, the time on the road. By Jensen's
      inequality (for dependent legs too) their expectations are at least what they are at expected times, and those are at least
      what they are at `minutes`, at the same departure, and so at the best one.
    - Capacities, shifts and longest distances limit what is planned, in the times of `problem.minutes`: the bound holds for plans
      whose vehicles are back in their shifts at these or longer times. Where `minutes` are longer by up to a factor, the shift is
      longer by it here, since times that are stretched as a whole stretch the way back by no more.
    - Ways by time of day (`problem.hours`) take no less than the least km and minutes of all times, which stand for them here.
    - A window may be broken at its price (`late_cost`), so it limits nothing. With `spared`, lateness counts at most what buys it
      off, so the bound also holds for what is left to pay after warnings.

    Args:
        problem: The day.
        minutes: Driving times that cost money (P, P); None: those of the problem.
        rounds: Rounds of cuts at most.
        largest: Stops up to which programs are solved; above it a part is bounded by the cheapest arc into each stop.
        left: Stops that must be delivered (no drop cost) and that the plans concerned leave out, at no cost; the bound holds for
            plans that leave out no others but those that no vehicle can serve. None: they may leave out any.
        spared: Money for which each stop's lateness can be bought off (n); inf: not at all.
        start: Routes to start from: they save work.
        effort: Limits by work of column generation.
    """
    problem = least(problem)
    times = problem.minutes if minutes is None else minutes
    total, limits = 0.0, effort or BoundEffort()
    parts = _parts(problem)
    size = sum(len(stops) ** 2 for stops, _ in parts if len(stops) <= largest)
    for stops, vehicles in parts:
        prices = [problem.stops["drop_cost"][s] for s in stops]
        drop = np.array([0.0 if price is None else float(price) for price in prices])
        if not vehicles or not stops:
            total += float(drop.sum())
            continue
        hopeless = np.array([why_hopeless(problem, s, vehicles) is not None for s in stops])
        must = np.array(
            [left is not None and price is None and s not in left for s, price in zip(stops, prices, strict=True)]
        )
        must &= ~hopeless
        arcs = arc_bound(_kinds(problem, stops, vehicles, times, _COSTS, spared), drop, must, rounds, largest)
        if len(stops) > largest:
            total += arcs
            continue
        kinds = _kinds(problem, stops, vehicles, times, _COSTS + _LIMITS, spared)
        row_of = {s: k for k, s in enumerate(stops)}
        kind_of = {v: k for k, (_, members) in enumerate(kinds) for v in members}
        routes = [
            (kind_of[v], [row_of[s] + 1 for s in visits])
            for v, visits in sorted((start or {}).items())
            if v in kind_of and visits and all(s in row_of for s in visits)
        ]
        # Work is shared out as stops by stops, which is what a state of the same time and memory costs.
        own = replace(limits, states=int(limits.states * len(stops) ** 2 / size))
        total += max(arcs, route_bound([kind for kind, _ in kinds], drop, must, routes, own).value)
    return total


def _kinds(
    problem: RoutingProblem,
    stops: list[int],
    vehicles: list[int],
    minutes: Array,
    names: Sequence[str],
    spared: Array | None,
) -> list[tuple[Kind, list[int]]]:
    """Vehicles of a part that are alike in `names`, as arrays, and their rows; stops that a kind may not serve have no legs."""
    rows, cars = problem.stops, problem.vehicles
    alike: dict[tuple[Any, ...], list[int]] = {}
    for v in vehicles:
        # A vehicle without a limit of distance comes after those with one.
        key = tuple(np.inf if cars[name][v] is None else cars[name][v] for name in names)
        alike.setdefault(key, []).append(v)
    n = len(stops)
    column = lambda name: np.concatenate([[0.0], rows[name].gather(stops).fill_null(0.0).to_numpy().astype(float)])  # noqa: E731
    quantity, service = column("quantity"), column("service")
    origin = [rows["depot"][s] for s in stops]
    bought = np.full(n + 1, np.inf)
    if spared is not None:
        bought[1:] = np.asarray(spared, float)[stops]
    found = []
    for key, members in sorted(alike.items()):
        car = cars.row(members[0], named=True)
        depot, capacity, start, end = (
            int(key[0]),
            float(car["capacity"]),
            float(car["shift_start"]),
            float(car["shift_end"]),
        )
        places = np.array([depot, *(int(rows["place"][s]) for s in stops)])
        grid = np.ix_(places, places)
        km, driving, planned = problem.km[grid], minutes[grid], problem.minutes[grid]
        there = np.isfinite(km) & np.isfinite(driving) & np.isfinite(planned)
        for i, o in enumerate(origin):
            if (o is not None and int(o) != depot) or quantity[i + 1] > capacity * (1 + 1e-9) + 1e-3:
                there[i + 1, :] = there[:, i + 1] = False
        np.fill_diagonal(there, False)
        # A rate of zero must not turn a road that is not there into no number.
        km, driving = np.where(there, km, 0.0), np.where(there, driving, 0.0)
        cost = km * car["cost_per_km"] + car["cost_per_minute"] * (driving + service[:, None])
        stretched = there & (driving > planned)
        with np.errstate(divide="ignore"):
            factor = float(np.max(driving[stretched] / planned[stretched], initial=1.0))
        # What the rules forgive (see `violations`) is forgiven here: per place on the way, of which there are at most so many.
        longest = 2 + min(
            n,
            int((np.cumsum(np.sort(quantity[1:])) <= capacity * (1 + 1e-9) + 1e-3).sum()),
            int((np.cumsum(np.sort(service[1:])) <= end - start + 0.05 * (n + 2)).sum()),
        )
        back = start + factor * (end + 0.05 * longest + 1e-6 - start)
        found.append(
            (
                Kind(
                    len(members), float(car["fixed_cost"]), float(car["cost_per_minute"]), np.where(there, cost, np.inf),
                    driving, km, quantity, column("ready"), column("due"), service, column("late_cost"), bought,
                    capacity * (1 + 1e-9) + 2e-3, start - 1e-6, min(back, ALWAYS),
                    np.inf if car["max_km"] is None else float(car["max_km"]) + 0.01 * longest + 1e-6,
                ),
                members,
            )
        )  # fmt: skip
    return found


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
