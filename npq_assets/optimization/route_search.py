"""How routes are searched: PyVRP's iterated local search, alone or on several processes that share one plan.

Works on PyVRP's own problem object. What a stop, a vehicle or a euro is does not belong here (see `route_model`).

Several processes first search the whole problem from different seeds. On large problems the best plan is then cut into
regions, by the angle at which routes lie from their common centre, or along lines of any direction where there are several
depots (barycentre clustering: Santini, Schneider, Vidal and Vigo, Decomposition strategies for vehicle routing heuristics,
INFORMS J. on Computing 35, 2023); each process improves its regions, they are joined, and the next cut is turned, so that no
border stays. After a round the best plan is put together anew from the routes that all processes met (see `route_pool`), less
and less often while that brings nothing. A round that brings next to nothing makes the next ones more patient: late acceptance
then looks back on more plans (Burke and Bykov, The late acceptance hill-climbing heuristic, European J. of Operational
Research 258, 2017), which is slower and ends better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

import numpy as np

from npq_assets.optimization.route_pool import Kept, Plan, RoutePool, recombined

Penalties = tuple[list[float], float, float]
"""What the search charges for a unit of load, a second and a metre too many."""

_DECOMPOSE_FROM = 250
_FIRST_SHARE_WHOLE = 0.4  # where the problem is not cut into regions
_ROUND_SECONDS = 6.0
_LEAST_SECONDS = 5.0  # a shorter search would spend its time on starting rounds
_RECOMBINE_SECONDS = 2.0
_MAX_PENALTY = 1e7
_LITTLE = 0.0005  # a round that gains a smaller share of the cost
_PATIENCE = 3  # makes the history so many times as long
_MOST_HISTORY = 10_000
_LONGEST_REST = 7  # rounds without putting a plan together


@dataclass(frozen=True)
class Style:
    """How the search moves.

    Attributes:
        history: Plans that late acceptance looks back on: few are greedy, which pays where iterations are few.
        shakes: Most places that a perturbation changes at once: few make iterations cheap.
        penalty: First price of breaking a rule, in prices of an average way (see `first_penalties`).
        neighbours: Clients beside each client that moves are tried with.
        region: Clients of a region, where the problem is cut.
        whole: Share of the time before it is cut.
    """

    history: int = 300
    shakes: int = 25
    penalty: float = 1.0
    neighbours: int = 50
    region: int = 250
    whole: float = 0.1


def style_for(data: Any, large: bool = False) -> Style:
    """Patient where there are windows, greedy where there are none or where time allows few iterations.

    Windows make an iteration several times as dear, so a large problem with windows, or several depots, also changes less at
    once, tries fewer moves, is cut finer and sooner: in a region an iteration costs a fraction of one on the whole. Where
    clients may be left out the search stays patient (a greedy one made re-planned days dearer).
    """
    if optional(data):
        return Style()
    if not any(c.tw_early > 0 for c in data.clients()):
        return Style(history=100, penalty=10.0)
    if data.num_depots > 1:
        # Several depots come late to plans as good as one does: they pay for patience as soon as there is time for it.
        return Style(1000 if large else 100, shakes=10, penalty=1.0, neighbours=30, region=150, whole=0.04)
    return Style(history=400, shakes=10, penalty=10.0, neighbours=30, region=150, whole=0.04) if large else Style()


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
        routes: Routes met, if they were to be kept.
        penalties: What breaking rules cost in the end, to go on with.
    """

    plan: Plan
    cost: int | None
    iterations: int = 0
    seconds: float = field(default=0.0, compare=False)
    routes: list[Kept] = field(default_factory=list, compare=False, repr=False)
    penalties: Penalties | None = field(default=None, compare=False)


def iterations_for(stops: int) -> int:
    """Iterations after which a problem of this size has usually settled: the limit by work of planning runs."""
    return int(np.clip(120 * stops, 1_500, 30_000))


def search(
    data: Any,
    effort: Effort,
    seed: int = 0,
    start: Plan | None = None,
    progress: Callable[[float, int], None] | None = None,
    *,
    penalties: Penalties | None = None,
    style: Style | None = None,
    keep: bool = False,
) -> Found:
    """Searches one problem in this process.

    Args:
        data: `pyvrp.ProblemData`.
        effort: When to stop.
        seed: Of the random moves.
        start: A plan to start from.
        progress: Called with seconds and cost at each better plan.
        penalties: What to charge for broken rules at first; None: see `first_penalties`.
        style: How to move; None: see `style_for`.
        keep: Whether to keep the routes that were met.
    """
    from pyvrp import (
        IteratedLocalSearch,
        IteratedLocalSearchCallbacks,
        IteratedLocalSearchParams,
        PenaltyManager,
        PenaltyParams,
        RandomNumberGenerator,
        Solution,
    )
    from pyvrp.search import (
        OPERATORS,
        LocalSearch,
        NeighbourhoodParams,
        PerturbationManager,
        PerturbationParams,
        compute_neighbours,
    )
    from pyvrp.stop import MaxIterations, MaxRuntime, MultipleCriteria, NoImprovement

    began = time.monotonic()
    stops: list[Any] = [MaxRuntime(max(effort.seconds, 0.01))]
    if effort.iterations is not None:
        stops.append(MaxIterations(effort.iterations))
    if effort.stall is not None:
        stops.append(NoImprovement(effort.stall))
    pool, style = RoutePool(), style or style_for(data)

    class Watch(IteratedLocalSearchCallbacks):
        def on_best(self, best: Any) -> None:
            if keep:
                pool.note(best)
            if progress is not None:
                progress(time.monotonic() - began, cost_of(data, best))

        def on_iteration(self, current: Any, candidate: Any, best: Any, cost_evaluator: Any) -> None:
            if keep and candidate is current:  # accepted
                pool.note(candidate)

    # The parts of `pyvrp.solve`, whose penalties start so high (the middle of the allowed range) that a search of a minute
    # never gets to weigh a broken rule against money.
    rng = RandomNumberGenerator(seed=seed)
    moves = LocalSearch(
        data,
        rng,
        compute_neighbours(data, NeighbourhoodParams(num_neighbours=style.neighbours)),
        PerturbationManager(PerturbationParams(1, style.shakes)),
    )
    for operator in OPERATORS:
        if operator.supports(data):
            moves.add_operator(operator(data))
    manager = PenaltyManager(penalties or first_penalties(data, style.penalty), PenaltyParams(max_penalty=_MAX_PENALTY))
    first = (
        moves(Solution.make_random(data, rng), manager.max_cost_evaluator(), exhaustive=True)
        if start is None
        else as_solution(data, start)
    )
    params = IteratedLocalSearchParams(history_length=style.history, callbacks=Watch())
    result = IteratedLocalSearch(data, manager, moves, first, params).run(MultipleCriteria(stops), collect_stats=False)
    best = result.best
    cost = cost_of(data, best) if best.is_feasible() else None
    return Found(
        as_plan(best), cost, int(result.num_iterations), time.monotonic() - began, pool.routes(), manager.penalties()
    )


def first_penalties(data: Any, ways: float) -> Penalties:
    """What breaking a rule costs at first: so many average ways per average load, second and metre.

    Where clients may be left out a broken rule must never pay for a prize, so there they start in the middle of what is
    allowed. The search raises and lowers penalties by how many of its plans keep the rules.
    """
    if optional(data):
        middle = _MAX_PENALTY / 2
        return [middle] * data.num_load_dimensions, middle, middle
    kinds = {(k.unit_distance_cost, k.unit_duration_cost, k.profile) for k in data.vehicle_types()}
    metres, seconds, costs = [], [], []
    for per_metre, per_second, profile in sorted(kinds):
        # The median: ways that are not there are written as very long ones.
        metre = float(np.median(data.distance_matrix(profile)))
        second = float(np.median(data.duration_matrix(profile)))
        metres.append(metre)
        seconds.append(second)
        costs.append(per_metre * metre + per_second * second)
    way = ways * max(min(costs, default=1.0), 1.0)
    loads = np.zeros((1, data.num_load_dimensions))
    if data.num_clients:
        loads = np.array(
            [[max(d, p) for d, p in zip(c.delivery, c.pickup, strict=True)] for c in data.clients()], float
        )
    load = np.maximum(loads.mean(axis=0), 1.0) if loads.size else np.ones(data.num_load_dimensions)
    return (
        [way / unit for unit in load.tolist()],
        way / max(float(np.mean(seconds)), 1.0),
        way / max(float(np.mean(metres)), 1.0),
    )


def optional(data: Any) -> bool:
    """Whether some client may be left out."""
    return any(not c.required and c.group is None for c in data.clients()) or any(not g.required for g in data.groups())


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
        pool, style = RoutePool(), style_for(data, large)
        first, later = (seconds * style.whole, _ROUND_SECONDS) if large else (seconds * _FIRST_SHARE_WHOLE, seconds / 5)
        # Part of each round's time, also of the last, is for putting the best plan together anew.
        choice = min(_RECOMBINE_SECONDS, 0.05 * seconds)
        best = self._together(data, start, max(first - choice, 0.3), seed, None, style, pool)
        best = self._recombined(data, best, pool, choice)
        turn, rest, pause = 0, 0, 0
        while True:
            left = seconds - (time.monotonic() - began) - choice - 0.1
            if left < min(2.0, 0.25 * later):
                break
            turn += 1
            last = left < 1.5 * later
            share = left if last else later - choice
            before = best
            if large and best.cost is not None:
                best = self._round(data, best, share, seed + 101 * turn, turn, style, pool)
            else:  # regions of a plan that breaks rules would keep breaking them
                found = self._together(data, best.plan, share, seed + 101 * turn, best.penalties, style, pool)
                best = min(best, found, key=_rank)
            if before.cost is not None and best.cost is not None and before.cost - best.cost < _LITTLE * before.cost:
                style = replace(style, history=min(_PATIENCE * style.history, _MOST_HISTORY))
            if rest and not last:
                rest -= 1
                continue
            chosen = self._recombined(data, best, pool, choice)
            pause = min(2 * pause + 1, _LONGEST_REST) if chosen is best else 0
            best, rest = chosen, pause
        return Found(best.plan, best.cost, best.iterations, time.monotonic() - began)

    def _together(
        self,
        data: Any,
        start: Plan | None,
        seconds: float,
        seed: int,
        penalties: Penalties | None,
        style: Style,
        pool: RoutePool,
    ) -> Found:
        """The best of what all processes find on the whole problem."""
        assert self._pool is not None
        jobs = [
            self._pool.submit(
                search, data, Effort(seconds), seed + k, start, penalties=penalties, style=style, keep=True
            )
            for k in range(self.workers)
        ]
        found = [job.result() for job in jobs]
        for one in found:
            pool.extend(one.routes)
        best = min(found, key=_rank)
        return replace(best, routes=[], iterations=sum(one.iterations for one in found))

    def _round(
        self, data: Any, best: Found, seconds: float, seed: int, turn: int, style: Style, pool: RoutePool
    ) -> Found:
        """Every process improves regions of the best plan; they are joined."""
        assert self._pool is not None
        regions_wanted = self.workers * max(1, round(data.num_clients / style.region / self.workers))
        parts = cut(data, best.plan, min(regions_wanted, len(best.plan)), turn)
        if len(parts) < 2:
            return min(best, self._together(data, best.plan, seconds, seed, best.penalties, style, pool), key=_rank)
        regions = [Region.of(data, best.plan, routes, parts) for routes in parts]
        # Each process works through its regions one after the other.
        share = seconds * self.workers / max(len(regions), self.workers)
        jobs = [
            self._pool.submit(
                search,
                region.data,
                Effort(share),
                seed + k,
                region.start,
                penalties=best.penalties,
                style=style,
                keep=True,
            )
            for k, region in enumerate(regions)
        ]
        plan: Plan = []
        penalties, iterations = best.penalties, best.iterations
        for region, job in zip(regions, jobs, strict=True):
            found = job.result()
            iterations += found.iterations
            penalties = found.penalties
            plan += region.whole(found.plan if found.cost is not None else region.start)
            pool.extend(region.kept(found.routes))
        joined = as_solution(data, plan)
        cost = cost_of(data, joined) if joined.is_feasible() else None
        if cost is None or (best.cost is not None and cost > best.cost):
            return replace(best, penalties=penalties, iterations=iterations)
        return Found(plan, cost, iterations, penalties=penalties)

    def _recombined(self, data: Any, best: Found, pool: RoutePool, seconds: float) -> Found:
        """The best plan, or a better one of routes in the pool."""
        if best.cost is None or not best.plan:
            return best
        plan = recombined(data, pool.routes(), best.plan, best.cost, seconds=seconds)
        if plan is None:
            return best
        whole = as_solution(data, plan)
        cost = cost_of(data, whole) if whole.is_feasible() else None
        return best if cost is None or cost >= best.cost else replace(best, plan=plan, cost=cost)


def _rank(found: Found) -> tuple[bool, int]:
    return found.cost is None, found.cost or 0


def _warm(_: int) -> None:
    import pyvrp  # noqa: F401


def cut(data: Any, plan: Plan, parts: int, turn: int) -> list[list[int]]:
    """Indices of routes by region: swept by angle from a start that turns, each region about as many clients."""
    where = np.array([(data.location(data.client(k).location).x, data.location(data.client(k).location).y)
                      for k in range(data.num_clients)], dtype=float)  # fmt: skip
    centres = np.array([where[visits].mean(axis=0) for _, visits in plan])
    sizes = np.array([len(visits) for _, visits in plan])
    if data.num_depots > 1:
        return _halved(centres, sizes, np.arange(len(plan)), parts, np.random.default_rng(turn))
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


def _halved(centres: Any, sizes: Any, routes: Any, parts: int, rng: np.random.Generator) -> list[list[int]]:
    """Routes cut in two along a line of any direction, again and again."""
    if parts < 2 or len(routes) < 2:
        return [sorted(routes.tolist())]
    angle = rng.uniform(0.0, np.pi)
    order = routes[np.argsort(centres[routes] @ np.array([np.cos(angle), np.sin(angle)]), kind="stable")]
    share = np.cumsum(sizes[order]) - sizes[order] / 2
    first = int(np.clip(np.searchsorted(share, sizes[order].sum() * (parts // 2) / parts), 1, len(order) - 1))
    return [
        *_halved(centres, sizes, order[:first], parts // 2, rng),
        *_halved(centres, sizes, order[first:], parts - parts // 2, rng),
    ]


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

    def kept(self, routes: Sequence[Kept]) -> list[Kept]:
        """Kept routes of this region in the numbering of the whole problem."""
        return [(self.kinds[kind], tuple(self.clients[k] for k in visits), cost) for kind, visits, cost in routes]

    def whole(self, plan: Plan) -> Plan:
        """Routes of this region in the numbering of the whole problem."""
        return [(self.kinds[kind], [self.clients[k] for k in visits]) for kind, visits in plan]
