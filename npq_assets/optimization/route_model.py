"""A day's deliveries and vehicles as PyVRP's problem, and the search of routes on it.

How PyVRP's moves are steered does not belong here (see `route_search`), nor which plan of several is taken (see `routing`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.route_problem import LATE_STEPS, Params, Routes, RoutingProblem, dearest, largest_of
from npq_assets.optimization.route_search import Effort, Found, Plan, as_solution, iterations_for, search
from npq_assets.optimization.route_timing import timetable


@dataclass(frozen=True)
class PyvrpModel:
    """A part of the problem as PyVRP sees it: seconds, metres, and money in the smallest unit that keeps numbers small."""

    data: Any
    stop_of: list[int]  # row of the stop of each client (a stop has a client for each span in which it may begin)
    span_of: list[tuple[int, int]]  # seconds within which the service of each client begins
    vehicle_of: list[list[int]]  # rows of the vehicles of each type
    unit: float


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


def seconds_for(stops: int) -> float:
    """Clock limit of a search by its size (seconds)."""
    return float(np.clip(0.25 * stops, 5.0, 120.0))


def _unit(problem: RoutingProblem) -> float:
    """Integer money units in one unit of money: a metre costs some hundreds, so that rounding is below a percent of a percent.

    PyVRP's penalties per second and unit of load are bounded, so money must not be written finer than needed.
    """
    v, s = problem.vehicles, problem.stops
    km = problem.km[np.isfinite(problem.km)]
    reach = float(km.max(initial=1.0))
    most = (
        2 * s.height * (reach * largest_of(v["cost_per_km"]) + 24 * 60 * largest_of(v["cost_per_minute"]))
        + v.height * largest_of(v["fixed_cost"])
        + s.height * largest_of(s["drop_cost"])
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
    largest = max(largest_of(problem.vehicles["capacity"]), 1e-9)
    least = 10.0 ** np.ceil(5 - np.log10(largest))
    for digits in range(6):
        scaled = loads * least * 10.0**digits
        if np.abs(scaled - np.round(scaled)).max(initial=0.0) < 1e-5:
            return float(least * 10.0**digits)
    return float(least * 1e4)


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
    forced = 4.0 * (largest_of(rows["drop_cost"]) + 1e3 + dearest(problem))
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
        late = soft and not (hard and s in hard)
        steps = _late_steps(problem, s, vehicles, kept) if late else ()
        spans = _spans(row, prize, steps, None if told is None else told.get(s))
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


def _late_steps(problem: RoutingProblem, stop: int, vehicles: Sequence[int], must: bool) -> tuple[float, ...]:
    """Minutes late at which a stop's price changes; one that must be served may be as late as it has to be."""
    cars, place, due = problem.vehicles, int(problem.stops["place"][stop]), float(problem.stops["due"][stop])
    soonest = min(float(cars["shift_start"][v] + problem.minutes[int(cars["depot"][v]), place]) for v in vehicles) - due
    if not must or not LATE_STEPS[-1] < soonest < np.inf:
        return LATE_STEPS
    latest = max(float(cars["shift_end"][v]) for v in vehicles) - due
    return (*LATE_STEPS, *sorted({min(soonest + 60.0, latest), latest}))


def _spans(
    row: Mapping[str, Any], prize: float, steps: Sequence[float], told: tuple[float, float, float] | None
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
    if rate > 0:
        begin = due
        for step in steps:
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


def routes_found(model: PyvrpModel, plan: Plan) -> Routes:
    """A plan of the model as routes in rows of the problem; vehicles of a type are taken in their order."""
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
