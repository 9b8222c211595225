"""How routes are searched: PyVRP's iterated local search, alone or on several processes that share one plan.

Works on PyVRP's own problem object. What a stop, a vehicle or a euro is does not belong here (see `routing`).

Several processes first search the whole problem from different seeds. On large problems the best plan is then cut into as
many regions as there are processes, by the angle at which routes lie from their common centre (barycentre clustering:
Santini, Schneider, Vidal and Vigo, Decomposition strategies for vehicle routing heuristics, INFORMS J. on Computing 35,
2023); each process improves its region, the regions are joined, and the next cut is turned, so that no border stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np

Plan = list[tuple[int, list[int]]]
"""Routes as (index of the vehicle type, indices of the clients in order)."""

_DECOMPOSE_FROM = 250
_FIRST_SHARE = 0.1
_ROUND_SECONDS = 6.0
_LEAST_SECONDS = 5.0  # a shorter search would spend its time on starting rounds
_REGION_CLIENTS = 250


@dataclass(frozen=True)
class Effort:
    """How long to search.

    Attributes:
        seconds: Clock limit.
        iterations: Limit by work, which makes a run repeatable; None: the clock alone.
        stall: Stop when so many iterations brought nothing; None: go on.
    """

    seconds: float = 10.0
    iterations: int | None = None
    stall: int | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        plan: The routes.
        cost: In the problem's integer money; None if the plan breaks a rule.
        iterations: Work done.
    """

    plan: Plan
    cost: int | None
    iterations: int = 0
    seconds: float = field(default=0.0, compare=False)


def iterations_for(stops: int) -> int:
    """Iterations after which a problem of this size has usually settled: the limit by work of planning runs."""
    return int(np.clip(120 * stops, 1_500, 30_000))


def search(
    data: Any,
    effort: Effort,
    seed: int = 0,
    start: Plan | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> Found:
    """Searches one problem in this process.

    Args:
        data: `pyvrp.ProblemData`.
        effort: When to stop.
        seed: Of the random moves.
        start: A plan to start from.
        progress: Called with seconds and cost at each better plan.
    """
    from pyvrp import IteratedLocalSearchCallbacks, IteratedLocalSearchParams, PenaltyParams, SolveParams, solve
    from pyvrp.stop import MaxIterations, MaxRuntime, MultipleCriteria, NoImprovement

    began = time.monotonic()
    stops: list[Any] = [MaxRuntime(max(effort.seconds, 0.01))]
    if effort.iterations is not None:
        stops.append(MaxIterations(effort.iterations))
    if effort.stall is not None:
        stops.append(NoImprovement(effort.stall))

    class Watch(IteratedLocalSearchCallbacks):
        def on_best(self, best: Any) -> None:
            if progress is not None:
                progress(time.monotonic() - began, cost_of(data, best))

    result = solve(
        data,
        MultipleCriteria(stops),
        seed=seed,
        collect_stats=False,
        params=SolveParams(ils=IteratedLocalSearchParams(callbacks=Watch()), penalty=PenaltyParams(max_penalty=1e7)),
        initial_solution=None if start is None else as_solution(data, start),
    )
    best = result.best
    cost = cost_of(data, best) if best.is_feasible() else None
    return Found(as_plan(best), cost, int(result.num_iterations), time.monotonic() - began)


def cost_of(data: Any, solution: Any) -> int:
    """Cost of a solution without any penalty: distance, time, fixed and uncollected prizes."""
    return int(
        solution.distance_cost()
        + solution.duration_cost()
        + solution.fixed_vehicle_cost()
        + solution.uncollected_prizes()
    )


def as_plan(solution: Any) -> Plan:
    """A PyVRP solution as plain lists."""
    return [
        (route.vehicle_type(), [visit.idx for visit in route.schedule() if visit.is_client()])
        for route in solution.routes()
        if route.num_clients()
    ]


def as_solution(data: Any, plan: Plan) -> Any:
    """Plain lists as a PyVRP solution."""
    from pyvrp import Activity, ActivityType, Route, Solution

    routes = [Route(data, [Activity(ActivityType.CLIENT, k) for k in visits], kind) for kind, visits in plan if visits]
    return Solution(data, routes)


# Several processes -----------------------------------------------------------------------------------------------------


class Team:
    """Processes that search together; keep it for several problems, since processes take time to start."""

    def __init__(self, workers: int = 2) -> None:
        self.workers = max(1, workers)
        self._pool = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) if self.workers > 1 else None
        if self._pool is not None:
            list(self._pool.map(_warm, range(self.workers)))

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def search(self, data: Any, seconds: float, seed: int = 0, start: Plan | None = None) -> Found:
        """Searches one problem with all processes for `seconds` on the clock."""
        began = time.monotonic()
        if self._pool is None:
            return search(data, Effort(seconds), seed, start)
        large = data.num_clients >= _DECOMPOSE_FROM and data.num_groups == 0 and seconds >= _LEAST_SECONDS
        first = seconds * _FIRST_SHARE if large else seconds
        found = self._together([(data, start)] * self.workers, first - 0.2, seed)
        best = min(found, key=lambda f: (f.cost is None, f.cost or 0))
        turn = 0
        while large:
            left = seconds - (time.monotonic() - began) - 0.5
            if left < 2.0:
                break
            share = left if left < 1.5 * _ROUND_SECONDS else _ROUND_SECONDS
            turn += 1
            if best.cost is None:  # regions of a plan that breaks rules would keep breaking them: all of it once more
                found = self._together([(data, best.plan)] * self.workers, share, seed + 101 * turn)
                best = min(found, key=lambda f: (f.cost is None, f.cost or 0))
                continue
            best = self._round(data, best, share, seed + 101 * turn, turn)
        return Found(best.plan, best.cost, best.iterations, time.monotonic() - began)

    def _together(self, work: Sequence[tuple[Any, Plan | None]], seconds: float, seed: int) -> list[Found]:
        assert self._pool is not None
        jobs = [
            self._pool.submit(search, data, Effort(seconds), seed + k, start) for k, (data, start) in enumerate(work)
        ]
        return [job.result() for job in jobs]

    def _round(self, data: Any, best: Found, seconds: float, seed: int, turn: int) -> Found:
        regions_wanted = self.workers * max(1, round(data.num_clients / _REGION_CLIENTS / self.workers))
        parts = cut(data, best.plan, min(regions_wanted, len(best.plan)), turn)
        if len(parts) < 2:
            found = self._together([(data, best.plan)] * self.workers, seconds, seed)
            return min([best, *found], key=lambda f: (f.cost is None, f.cost or 0))
        regions = [Region.of(data, best.plan, routes, parts) for routes in parts]
        # Each process works through its regions one after the other.
        share = seconds * self.workers / max(len(regions), self.workers)
        found = self._together([(region.data, region.start) for region in regions], share, seed)
        plan = [
            route
            for region, improved in zip(regions, found, strict=True)
            for route in region.whole(improved.plan if improved.cost is not None else region.start)
        ]
        joined = as_solution(data, plan)
        cost = cost_of(data, joined) if joined.is_feasible() else None
        if cost is None or (best.cost is not None and cost > best.cost):
            return best
        return Found(plan, cost, best.iterations + sum(f.iterations for f in found))


def _warm(_: int) -> None:
    import pyvrp  # noqa: F401


def cut(data: Any, plan: Plan, parts: int, turn: int) -> list[list[int]]:
    """Indices of routes by region: swept by angle from a start that turns, each region about as many clients."""
    where = np.array([(data.location(data.client(k).location).x, data.location(data.client(k).location).y)
                      for k in range(data.num_clients)], dtype=float)  # fmt: skip
    centres = np.array([where[visits].mean(axis=0) for _, visits in plan])
    sizes = np.array([len(visits) for _, visits in plan])
    # A golden-ratio turn never comes back to an old border.
    middle = np.average(centres, axis=0, weights=sizes)
    offset = 2 * np.pi * ((turn * 0.618034) % 1.0)
    if turn % 3 == 0:  # now and then cut by distance along an axis instead: strips
        order = np.argsort(centres @ np.array([np.cos(offset), np.sin(offset)]), kind="stable")
    else:
        angle = (np.arctan2(centres[:, 1] - middle[1], centres[:, 0] - middle[0]) - offset) % (2 * np.pi)
        order = np.argsort(angle, kind="stable")
    share = np.cumsum(sizes[order]) - sizes[order] / 2
    part = np.minimum((share * parts / sizes.sum()).astype(int), parts - 1)
    return [found for k in range(parts) if (found := [int(r) for r in order[part == k]])]


@dataclass(frozen=True)
class Region:
    """A part of a problem with the clients of some routes, and the way back.

    Attributes:
        data: The smaller problem.
        start: Those routes in its numbering.
        clients: Index in the whole problem of each client.
        kinds: Index in the whole problem of each vehicle type.
    """

    data: Any
    start: Plan
    clients: list[int]
    kinds: list[int]

    @classmethod
    def of(cls, data: Any, plan: Plan, routes: list[int], parts: list[list[int]]) -> Region:
        """Cuts out the clients of `routes`, with their vehicles and a fair share of the idle ones."""
        from pyvrp import Client, Depot, ProblemData

        served = {k for _, visits in plan for k in visits}
        mine = sorted(k for r in routes for k in plan[r][1])
        if routes is parts[0] or routes == parts[0]:
            mine = sorted({*mine, *(k for k in range(data.num_clients) if k not in served)})
        used_all, used = np.zeros(data.num_vehicle_types, int), np.zeros(data.num_vehicle_types, int)
        for r, (kind, _) in enumerate(plan):
            used_all[kind] += 1
            used[kind] += r in set(routes)
        place = parts.index(routes)
        kinds, types = [], []
        for k, kind in enumerate(data.vehicle_types()):
            idle = kind.num_available - int(used_all[k])
            spare = idle // len(parts) + (1 if place < idle % len(parts) else 0)
            if used[k] + spare:
                kinds.append(k)
                types.append(kind.replace(num_available=int(used[k]) + spare))
        places = [depot.location for depot in data.depots()] + [data.client(k).location for k in mine]
        index = np.array(places)
        new_depots = [
            Depot(i, d.tw_early, d.tw_late, d.service_duration, name=d.name) for i, d in enumerate(data.depots())
        ]
        clients = []
        for i, k in enumerate(mine):
            c = data.client(k)
            clients.append(
                Client(
                    len(new_depots) + i,
                    c.delivery,
                    c.pickup,
                    c.service_duration,
                    c.tw_early,
                    c.tw_late,
                    c.release_time,
                    c.prize,
                    c.required,
                    name=c.name,
                )
            )
        grid = np.ix_(index, index)
        small = ProblemData(
            [data.location(p) for p in places],
            clients,
            new_depots,
            types,
            [np.ascontiguousarray(m[grid]) for m in data.distance_matrices()],  # type: ignore[misc]
            [np.ascontiguousarray(m[grid]) for m in data.duration_matrices()],  # type: ignore[misc]
        )
        back = {k: i for i, k in enumerate(mine)}
        kind_back = {k: i for i, k in enumerate(kinds)}
        start = [(kind_back[plan[r][0]], [back[k] for k in plan[r][1]]) for r in routes]
        return cls(small, start, mine, kinds)

    def whole(self, plan: Plan) -> Plan:
        """Routes of this region in the numbering of the whole problem."""
        return [(self.kinds[kind], [self.clients[k] for k in visits]) for kind, visits in plan]
