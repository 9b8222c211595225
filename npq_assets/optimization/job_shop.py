"""Which operation runs when on which machine: the flexible job shop with calendars, setups, transport and a price of change.

For operations (j, k) with alternatives m of duration d_jkm, starts S, ends E, presence a_jkm, in whole minutes:

    minimize    max E   or   sum_j w_j max(0, E_j,last - D_j) + sum_m sum_(a then b on m) q_m,ab   + sum_j c_j moved_j
    subject to  sum_m a_jkm = 1,   S_jk >= R_j,   S_j,k+1 >= E_jk + transport(m, m') (or after the first transport batch)
                on each machine: no overlap; between consecutive operations the setup from family to family
                work only in open time: an operation that meets a closed interval pauses, or waits if it must not pause.

Constraint programming with OR-Tools CP-SAT (interval variables, circuits for setups; Laborie et al., IBM ILOG CP optimizer for
scheduling, Constraints 23, 2018, for the modelling of alternatives). Lot sizes do not belong here.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import polars as pl

from npq_assets.errors import NpqError, RunError
from npq_assets.optimization.result import RELAXATION, Result

SCHEDULE = {
    "job": pl.String, "operation": pl.Int64, "machine": pl.String, "start": pl.Int64, "end": pl.Int64,
    "setup_start": pl.Int64, "setup_minutes": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """A step of a job.

    Attributes:
        operation: Position in the job: 1, 2, ….
        minutes: Working minutes on each machine that can do it.
        family: Setup family; "" is a family like any other, and setups between equal families follow the table too.
        first_batch: Share of the work after which the first transport batch leaves (0 < share <= 1): the next operation may
            start then, but does not end before this one's end plus the last batch's share of its own work.
        may_pause: Whether the work may pause over closed time.
    """

    operation: int
    minutes: Mapping[str, int]
    family: str = ""
    first_batch: float = 1.0
    may_pause: bool = True


@dataclass(frozen=True)
class Job:
    """Operations in sequence.

    Attributes:
        job: Identifies the job, e.g. an order.
        operations: In order.
        release: Minute from which it may start.
        due: Minute by which it should end; None has no due time.
        late_cost: Money per minute late.
        move_cost: Money for moving it against the previous schedule, where the call does not say.
    """

    job: str
    operations: tuple[Operation, ...]
    release: int = 0
    due: int | None = None
    late_cost: float = 1.0
    move_cost: float | None = None


@dataclass(frozen=True)
class JobShopProblem:
    """Jobs and machines; minute 0 is the opening of the first day.

    Attributes:
        jobs: What to do.
        machines: Names of the machines.
        closed: Intervals [start, end) of minutes in which a machine stands still (shifts, downtime, maintenance).
        setup_minutes: By machine, minutes from one family to the next: {(from, to): minutes}; absent pairs need none.
        setup_cost: By machine, money from one family to the next: {(from, to): money}; part of the objective `lateness`.
        first_family: Family each machine is set up for at minute 0.
        transport_minutes: Minutes from a machine to another: {(from, to): minutes}; absent pairs need none.
        objective: `lateness` (money: lateness and setups) or `makespan` (minutes).
    """

    jobs: tuple[Job, ...]
    machines: tuple[str, ...]
    closed: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    setup_minutes: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    first_family: Mapping[str, str] = field(default_factory=dict)
    transport_minutes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    objective: str = "lateness"
    setup_cost: Mapping[str, Mapping[tuple[str, str], float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.objective not in ("lateness", "makespan"):
            raise NpqError(f"job schedule: there is no objective {self.objective!r}; lateness or makespan")
        known, names = set(self.machines), set()
        for job in self.jobs:
            if job.job in names:
                raise NpqError(f"job schedule: job {job.job} is there twice")
            names.add(job.job)
            for operation in job.operations:
                place = f"job {job.job}, operation {operation.operation}"
                if not operation.minutes:
                    raise NpqError(f"job schedule: {place}: no machine can do it; add a routing")
                for machine, minutes in operation.minutes.items():
                    if machine not in known:
                        raise NpqError(f"job schedule: {place}: machine {machine!r} is unknown")
                    if minutes < 0 or minutes != int(minutes):
                        raise NpqError(
                            f"job schedule: {place}: {minutes} minutes on {machine}; give whole minutes of at least 0"
                        )
                if not 0 < operation.first_batch <= 1:
                    raise NpqError(f"job schedule: {place}: first_batch {operation.first_batch} is not in (0, 1]")


@dataclass(frozen=True)
class JobShopParams:
    """How long to search.

    Attributes:
        seconds: Wall-clock limit.
        work: Deterministic time (CP-SAT's own unit, about a second of an idle core): the limit that makes runs repeatable,
            with `workers` interleaved. None: only the clock, and runs may differ.
        workers: Parallel search threads.
        gap: A schedule proven this close to the best is good enough.
        seed: Of the search.
    """

    seconds: float = 30.0
    work: float | None = None
    workers: int = 2
    gap: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Replanning:
    """How to treat the schedule that people already follow.

    Attributes:
        previous: The schedule in force: columns of `SCHEDULE` (setup columns may be absent). Unknown jobs are ignored.
        frozen_until: Operations that start before this minute stay as they are.
        earliest: Minute from which everything else may start; None: `frozen_until`, which is now then. What is frozen and starts
            later has its setup still to come.
        price: Money (or minutes, for makespan) for every job of which an operation changes its machine or its start by more
            than `tolerance`.
        tolerance: Minutes of shift that nobody minds.
    """

    previous: pl.DataFrame
    frozen_until: int = 0
    price: float = 0.0
    tolerance: int = 0
    earliest: int | None = None


@dataclass(frozen=True)
class JobShopResult(Result):
    """A schedule: `plan` has the columns of `SCHEDULE`; `objective` and `bound` in money or minutes.

    Attributes:
        lateness: job, due, end, late_minutes, late_cost.
        makespan: Minutes to the end of the last operation.
        schedule_cost: The objective without the price of change.
        moved: Jobs that moved against the previous schedule.
    """

    lateness: pl.DataFrame = field(default_factory=pl.DataFrame)
    makespan: int = 0
    schedule_cost: float = 0.0
    moved: tuple[str, ...] = ()


def solve(
    problem: JobShopProblem, params: JobShopParams | None = None, replanning: Replanning | None = None
) -> JobShopResult:
    """The best schedule found, with a proven bound; at worst the better of the dispatch rules (it is the start).

    Args:
        problem: Jobs, machines, calendars.
        params: How long to search.
        replanning: What is followed already, and the price of moving it.

    Returns:
        `status` is `optimal`, `feasible`, or `relaxed` where the frozen operations cannot stay (`relaxation` says which).
    """
    params = params or JobShopParams()
    started = time.monotonic()
    plan = _Kept.of(problem, replanning)
    if not any(job.operations for job in problem.jobs):
        return replace(_result(problem, plan, [], 0.0, "optimal", "none"), seconds=time.monotonic() - started)
    starts = [_dispatched(problem, rule, plan) for rule in RULES]
    if plan.previous:
        starts.append(_dispatched(problem, "previous", plan))
    ready = [s for s in starts if not (plan.frozen and _broken(problem, s))]
    start = min(ready or starts, key=lambda rows: _objective(problem, plan, rows)[0])
    rows, bound, status = _search(problem, params, plan, start, seconds=params.seconds - (time.monotonic() - started))
    gave_way = set(plan.loose)
    if status == "infeasible" and plan.frozen:
        gave_way |= set(plan.frozen)
        plan = replace(plan, frozen={})
        start = _dispatched(problem, RULES[0], plan)
        left = max(1.0, params.seconds - (time.monotonic() - started))
        rows, bound, status = _search(problem, params, plan, start, seconds=left)
    rows = _left_shifted(problem, plan, rows)
    relaxation = [
        (f"frozen operation {k} of {j}", 0.0,
         f"operation {k} of job {j} cannot stay at minute {plan.previous[j, k].start} on {plan.previous[j, k].machine}")
        for j, k in sorted(gave_way)
    ]  # fmt: skip
    result = _result(problem, plan, rows, bound, "relaxed" if relaxation else status, "CP-SAT", params.gap)
    return replace(
        result,
        relaxation=pl.DataFrame(relaxation, schema=RELAXATION, orient="row"),
        seconds=time.monotonic() - started,
    )


def dispatch(
    problem: JobShopProblem, rule: str = "earliest_due_date", replanning: Replanning | None = None
) -> JobShopResult:
    """A schedule by a dispatch rule without delay: `earliest_due_date`, `most_work_remaining` or `least_setup`; ties by job.

    Whenever a machine could start something, the waiting operation that comes first by the rule starts, on its machine that
    finishes it first (Pinedo, Scheduling, 5th ed., sec. 14.1).
    """
    if rule not in RULES:
        raise NpqError(f"job schedule: there is no rule {rule!r}; one of {', '.join(RULES)}")
    started = time.monotonic()
    plan = _Kept.of(problem, replanning)
    rows = _dispatched(problem, rule, plan)
    return replace(_result(problem, plan, rows, 0.0, "feasible", rule), seconds=time.monotonic() - started)


def violations(problem: JobShopProblem, schedule: pl.DataFrame) -> list[str]:
    """What a schedule breaks, one sentence each; empty for a feasible schedule."""
    return _broken(
        problem,
        [_Row(r["job"], r["operation"], r["machine"], r["start"], r["end"]) for r in schedule.iter_rows(named=True)],
    )


def cost_of_change(
    problem: JobShopProblem, replanning: Replanning, prices: Sequence[float], params: JobShopParams | None = None
) -> pl.DataFrame:
    """The curve of cost against change: price, schedule_cost, moved_jobs, bound, status; one row a price.

    At each price the best of all schedules found stands, so that less is moved where moving is dearer. `bound` is of schedule
    cost and price of change together. Jobs with a `move_cost` of their own keep it.
    """
    found = [solve(problem, params, replace(replanning, price=float(price))) for price in prices]
    rows = []
    for price, own in zip(prices, found, strict=True):
        best = min(found, key=lambda r: (r.schedule_cost + price * len(r.moved), len(r.moved)))
        status = own.status if best is own or best.schedule_cost == own.schedule_cost else "feasible"
        rows.append((float(price), best.schedule_cost, len(best.moved), own.bound, status))
    schema = {
        "price": pl.Float64, "schedule_cost": pl.Float64, "moved_jobs": pl.Int64, "bound": pl.Float64, "status": pl.String,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


RULES = ("earliest_due_date", "most_work_remaining", "least_setup")
FAR = 1 << 40


@dataclass(frozen=True)
class _Row:
    job: str
    operation: int
    machine: str
    start: int
    end: int
    setup_start: int = -1
    setup_minutes: int = 0


class _Calendar:
    """Open and closed time of a machine."""

    def __init__(self, closed: Sequence[tuple[int, int]]) -> None:
        merged: list[list[int]] = []
        for start, end in sorted((int(a), int(b)) for a, b in closed if b > a):
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        self.closed = [(a, b) for a, b in merged]
        self._starts = [a for a, _ in self.closed]

    def open_from(self, minute: int) -> int:
        """The first open minute at or after."""
        k = bisect_right(self._starts, minute) - 1
        return self.closed[k][1] if k >= 0 and minute < self.closed[k][1] else minute

    def advance(self, start: int, minutes: int) -> int:
        """When so many open minutes have passed from an open start; the end may touch a closed interval."""
        end = start + minutes
        for a, b in self.closed[bisect_right(self._starts, start) :]:
            if a >= end:
                break
            end += b - a
        return end

    def open_minutes(self, start: int, end: int) -> int:
        """Open minutes between two points in time."""
        return end - start - sum(max(0, min(b, end) - max(a, start)) for a, b in self.closed)

    def fit(self, start: int, minutes: int, may_pause: bool) -> int:
        """The first start at or after at which the work can be done."""
        start = self.open_from(start)
        while not may_pause and self.advance(start, minutes) > start + minutes:
            following = self._starts[bisect_right(self._starts, start)]
            start = self.open_from(following)
        return start


@dataclass(frozen=True)
class _Kept:
    """What is followed already, by job and operation."""

    previous: dict[tuple[str, int], _Row]
    frozen: dict[tuple[str, int], _Row]
    earliest: int
    tolerance: int
    price: dict[str, float]
    loose: tuple[tuple[str, int], ...] = ()  # frozen operations that cannot stay

    def begun(self, key: tuple[str, int]) -> bool:
        """Whether an operation runs already when everything else may start: its setup is done."""
        return key in self.frozen and self.frozen[key].start < self.earliest

    @classmethod
    def of(cls, problem: JobShopProblem, replanning: Replanning | None) -> _Kept:
        if replanning is None:
            return cls({}, {}, 0, 0, {})
        wanted = {(j.job, o.operation): o for j in problem.jobs for o in j.operations}
        previous = {}
        for r in replanning.previous.iter_rows(named=True):
            key = (str(r["job"]), int(r["operation"]))
            if key in wanted and r["machine"] in wanted[key].minutes:
                previous[key] = _Row(*key, str(r["machine"]), int(r["start"]), int(r["end"]))
        earliest = replanning.frozen_until if replanning.earliest is None else replanning.earliest
        wished = {key: row for key, row in previous.items() if row.start < replanning.frozen_until}
        frozen = _staying(problem, wished, earliest)
        price = {j.job: replanning.price if j.move_cost is None else j.move_cost for j in problem.jobs}
        loose = tuple(sorted(set(wished) - set(frozen)))
        return cls(previous, frozen, earliest, replanning.tolerance, price, loose)

    def moved(self, rows: Sequence[_Row]) -> list[str]:
        """Jobs of which an operation runs elsewhere or at another time."""
        away = {
            r.job
            for r in rows
            if (p := self.previous.get((r.job, r.operation))) is not None
            and (p.machine != r.machine or abs(p.start - r.start) > self.tolerance)
        }
        return sorted(away)


def _setup(problem: JobShopProblem, machine: str, before: str, after: str) -> int:
    return int(problem.setup_minutes.get(machine, {}).get((before, after), 0))


def _setup_cost(problem: JobShopProblem, machine: str, before: str, after: str) -> float:
    return float(problem.setup_cost.get(machine, {}).get((before, after), 0.0))


def setup_money(problem: JobShopProblem, schedule: pl.DataFrame) -> dict[str, float]:
    """Money for the setups that the sequence of a schedule needs, by the job they stand before; jobs without are left out."""
    return _setup_money(
        problem,
        [_Row(r["job"], r["operation"], r["machine"], r["start"], r["end"]) for r in schedule.iter_rows(named=True)],
    )


def _setup_money(problem: JobShopProblem, rows: Sequence[_Row]) -> dict[str, float]:
    found: dict[str, float] = {}
    if not problem.setup_cost:
        return found
    family = {(j.job, o.operation): o.family for j in problem.jobs for o in j.operations}
    at = dict(problem.first_family)
    for row in sorted(rows, key=lambda r: (r.start, r.end, r.job, r.operation)):
        money = _setup_cost(problem, row.machine, at.get(row.machine, ""), family[row.job, row.operation])
        if money:
            found[row.job] = found.get(row.job, 0.0) + money
        at[row.machine] = family[row.job, row.operation]
    return found


def _transport(problem: JobShopProblem, before: str, after: str) -> int:
    return int(problem.transport_minutes.get((before, after), 0))


def _staying(
    problem: JobShopProblem, wished: Mapping[tuple[str, int], _Row], earliest: int
) -> dict[tuple[str, int], _Row]:
    """Of the operations that should stay as they are, in the order of their starts, those that can; with their new ends."""
    calendars = {m: _Calendar(problem.closed.get(m, ())) for m in problem.machines}
    operations = {(j.job, o.operation): (j, k) for j in problem.jobs for k, o in enumerate(j.operations)}
    free = dict.fromkeys(problem.machines, 0)
    family = {m: problem.first_family.get(m, "") for m in problem.machines}
    staying: dict[tuple[str, int], _Row] = {}
    for key, row in sorted(wished.items(), key=lambda item: (item[1].start, item[1].end, item[0])):
        job, k = operations[key]
        operation, m = job.operations[k], row.machine
        calendar, minutes = calendars[m], int(operation.minutes[m])
        end = calendar.advance(row.start, minutes)
        good = row.start >= max(job.release, free[m]) and calendar.open_from(row.start) == row.start
        good = good and (operation.may_pause or end == row.start + minutes)
        if row.start >= earliest:
            setup = _setup(problem, m, family[m], operation.family)
            good = good and calendar.open_minutes(max(free[m], earliest), row.start) >= setup
        if k and good:
            previous = job.operations[k - 1]
            before = staying.get((job.job, previous.operation))
            good = before is not None
            if before is not None:
                way = _transport(problem, before.machine, m)
                share = _share(previous, int(previous.minutes[before.machine]))
                whole = previous.first_batch >= 1
                ready = before.end if whole else calendars[before.machine].advance(before.start, share)
                good = row.start >= ready + way
                good = good and (whole or end >= before.end + way - int(-previous.first_batch * minutes // 1))
        if good:
            staying[key] = replace(row, end=end)
            free[m], family[m] = end, operation.family
    return staying


def _share(operation: Operation, minutes: int) -> int:
    """Working minutes until the first transport batch leaves."""
    return -int(-operation.first_batch * minutes // 1)


def _dispatched(problem: JobShopProblem, rule: str, plan: _Kept) -> list[_Row]:
    """List scheduling without delay; frozen operations first, as they are."""
    calendars = {m: _Calendar(problem.closed.get(m, ())) for m in problem.machines}
    free = dict.fromkeys(problem.machines, plan.earliest)
    family = {m: problem.first_family.get(m, "") for m in problem.machines}
    rows: list[_Row] = []
    position = {job.job: 0 for job in problem.jobs}
    last: dict[str, tuple[Operation, _Row] | None] = {job.job: None for job in problem.jobs}
    by_name = {job.job: job for job in problem.jobs}
    for fixed in sorted(plan.frozen.values(), key=lambda r: (r.start, r.job, r.operation)):
        job = by_name[fixed.job]
        operation = next(o for o in job.operations if o.operation == fixed.operation)
        end = calendars[fixed.machine].advance(fixed.start, operation.minutes[fixed.machine])
        stays = replace(fixed, end=end, setup_start=fixed.start)
        rows.append(stays)
        free[fixed.machine] = max(free[fixed.machine], end)
        family[fixed.machine] = operation.family
        position[fixed.job] = max(position[fixed.job], job.operations.index(operation) + 1)
        last[fixed.job] = (operation, stays)
    work = {j.job: sum(min(o.minutes.values()) for o in j.operations) for j in problem.jobs}
    done = dict.fromkeys(by_name, 0)

    def candidate(job: Job, machine: str) -> _Row:
        operation = job.operations[position[job.job]]
        minutes, calendar = int(operation.minutes[machine]), calendars[machine]
        earliest, finish = max(job.release, plan.earliest), 0
        before = last[job.job]
        if before is not None:
            previous, row = before
            way = _transport(problem, row.machine, machine)
            batch = _share(previous, previous.minutes[row.machine])
            ready = row.end if previous.first_batch >= 1 else calendars[row.machine].advance(row.start, batch)
            earliest = max(earliest, ready + way)
            if previous.first_batch < 1:
                tail = -int(-previous.first_batch * minutes // 1)
                finish = row.end + way + tail
        setup = _setup(problem, machine, family[machine], operation.family)
        begin = calendar.open_from(free[machine])
        start = calendar.fit(
            max(calendar.advance(begin, setup) if setup else begin, earliest), minutes, operation.may_pause
        )
        while calendar.advance(start, minutes) < finish:
            lacking = finish - calendar.advance(start, minutes)
            start = calendar.fit(start + lacking, minutes, operation.may_pause)
        return _Row(job.job, operation.operation, machine, start, calendar.advance(start, minutes), begin, setup)

    def rank(row: _Row) -> tuple[float, ...]:
        job = by_name[row.job]
        if rule == "previous":
            kept = plan.previous.get((row.job, row.operation))
            return (float(kept.start) if kept else float(FAR),)
        if rule == "earliest_due_date":
            return (float(job.due if job.due is not None else FAR), -float(work[row.job] - done[row.job]))
        if rule == "least_setup":
            to = job.operations[position[row.job]].family
            money = _setup_cost(problem, row.machine, family[row.machine], to)
            return (money, float(row.setup_minutes), float(job.due if job.due is not None else FAR))
        return (-float(work[row.job] - done[row.job]), float(job.due if job.due is not None else FAR))

    waiting = {j.job for j in problem.jobs if position[j.job] < len(j.operations)}
    while waiting:
        offers = []
        for name in sorted(waiting):
            job = by_name[name]
            operation = job.operations[position[name]]
            kept = plan.previous.get((name, operation.operation)) if rule == "previous" else None
            machines = [kept.machine] if kept else sorted(operation.minutes)
            choices = [candidate(job, m) for m in machines]
            offers.append(min(choices, key=lambda r: (r.end, r.start, r.machine)))
        soonest = min(r.start for r in offers)
        able = offers if rule == "previous" else [r for r in offers if r.start <= soonest]
        row = min(able, key=lambda r: (*rank(r), r.job))
        job = by_name[row.job]
        operation = job.operations[position[row.job]]
        rows.append(row)
        free[row.machine] = row.end
        family[row.machine] = operation.family
        last[row.job] = (operation, row)
        done[row.job] += min(operation.minutes.values())
        position[row.job] += 1
        if position[row.job] == len(job.operations):
            waiting.discard(row.job)
    return rows


def _left_shifted(problem: JobShopProblem, plan: _Kept, rows: Sequence[_Row]) -> list[_Row]:
    """The same sequences and machines, every operation as early as it can be."""
    follow = _Kept({(r.job, r.operation): r for r in rows}, plan.frozen, plan.earliest, 0, {})
    shifted = _dispatched(problem, "previous", follow)
    if _objective(problem, plan, shifted)[0] <= _objective(problem, plan, rows)[0] and not _broken(problem, shifted):
        return shifted
    return list(rows)


def _ends(rows: Sequence[_Row]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for r in rows:
        ends[r.job] = max(ends.get(r.job, 0), r.end)
    return ends


def _objective(problem: JobShopProblem, plan: _Kept, rows: Sequence[_Row]) -> tuple[float, float]:
    """Cost with and without the price of change."""
    ends = _ends(rows)
    if problem.objective == "makespan":
        cost = float(max(ends.values(), default=0))
    else:
        cost = sum(
            j.late_cost * max(0, ends[j.job] - j.due) for j in problem.jobs if j.due is not None and j.job in ends
        )
        cost += sum(_setup_money(problem, rows).values())
    return cost + sum(plan.price.get(j, 0.0) for j in plan.moved(rows)), float(cost)


def _result(
    problem: JobShopProblem, plan: _Kept, rows: Sequence[_Row], bound: float, status: str, solver: str, gap: float = 0.0
) -> JobShopResult:
    total, cost = _objective(problem, plan, rows)
    bound = min(bound, total)
    if status == "feasible" and total - bound <= gap * total + 1e-9:
        status = "optimal"
    rows = sorted(rows, key=lambda r: (r.start, r.machine, r.job, r.operation))
    frame = pl.DataFrame(
        [
            (
                r.job,
                r.operation,
                r.machine,
                r.start,
                r.end,
                r.start if r.setup_start < 0 else r.setup_start,
                r.setup_minutes,
            )
            for r in rows
        ],
        schema=SCHEDULE,
        orient="row",
    )
    ends = _ends(rows)
    late = [
        (j.job, j.due, ends[j.job], max(0, ends[j.job] - j.due) if j.due is not None else 0)
        for j in problem.jobs
        if j.job in ends
    ]
    costs = {j.job: j.late_cost for j in problem.jobs}
    lateness = pl.DataFrame(
        [(*row, costs[row[0]] * row[3]) for row in late],
        schema={"job": pl.String, "due": pl.Int64, "end": pl.Int64, "late_minutes": pl.Int64, "late_cost": pl.Float64},
        orient="row",
    )
    return JobShopResult(
        frame, status, total, bound, solver=solver, lateness=lateness, makespan=max(ends.values(), default=0),
        schedule_cost=cost, moved=tuple(plan.moved(rows)),
    )  # fmt: skip


def _broken(problem: JobShopProblem, rows: Sequence[_Row]) -> list[str]:
    found = []
    calendars = {m: _Calendar(problem.closed.get(m, ())) for m in problem.machines}
    at = {(r.job, r.operation): r for r in rows}
    if len(at) < len(rows):
        found.append("an operation is there twice")
    wanted = {(j.job, o.operation): o for j in problem.jobs for o in j.operations}
    found += [f"operation {k} of job {j} is missing" for j, k in sorted(set(wanted) - set(at))]
    found += [f"operation {k} of job {j} is unknown" for j, k in sorted(set(at) - set(wanted))]
    for job in problem.jobs:
        before: tuple[Operation, _Row] | None = None
        for operation in job.operations:
            row = at.get((job.job, operation.operation))
            if row is None:
                continue
            name = f"operation {row.operation} of job {row.job}"
            if row.machine not in operation.minutes:
                found.append(f"{name}: {row.machine} cannot do it")
                continue
            calendar, minutes = calendars[row.machine], int(operation.minutes[row.machine])
            if row.start < job.release:
                found.append(f"{name} starts at {row.start}, before its release at {job.release}")
            if calendar.open_from(row.start) != row.start and minutes > 0:
                found.append(f"{name} starts at {row.start}, while {row.machine} is closed")
            elif calendar.advance(row.start, minutes) != row.end:
                found.append(f"{name} ends at {row.end}, not at {calendar.advance(row.start, minutes)}")
            if not operation.may_pause and row.end - row.start != minutes:
                found.append(f"{name} must not pause")
            if before is not None:
                previous, earlier = before
                way = _transport(problem, earlier.machine, row.machine)
                ready = earlier.end
                if previous.first_batch < 1:
                    share = _share(previous, previous.minutes[earlier.machine])
                    ready = calendars[earlier.machine].advance(earlier.start, share)
                    if row.end < earlier.end + way - int(-previous.first_batch * minutes // 1):
                        found.append(f"{name} ends before the last batch of operation {earlier.operation} is through")
                if row.start < ready + way:
                    found.append(f"{name} starts at {row.start}, before it arrives at {ready + way}")
            before = (operation, row)
    for machine in problem.machines:
        family, end = problem.first_family.get(machine, ""), 0
        mine = sorted(
            (r for r in rows if r.machine == machine and (r.job, r.operation) in wanted), key=lambda r: (r.start, r.end)
        )
        for k, row in enumerate(mine):
            operation = wanted[row.job, row.operation]
            setup = _setup(problem, machine, family, operation.family)
            if row.end > row.start and k and row.start < end:
                found.append(
                    f"{machine}: operation {row.operation} of job {row.job} starts before the one ahead ends at {end}"
                )
            elif calendars[machine].open_minutes(end, row.start) < setup:
                found.append(
                    f"{machine}: {setup} minutes of setup do not fit before operation {row.operation} of job {row.job}"
                )
            family, end = operation.family, max(end, row.end)
    return found


def _search(
    problem: JobShopProblem, params: JobShopParams, plan: _Kept, start: Sequence[_Row], *, seconds: float
) -> tuple[list[_Row], float, str]:
    """CP-SAT from a start: schedule, bound, status."""
    from ortools.sat.python import cp_model

    build = _Model(problem, plan, start)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.1, seconds)
    solver.parameters.num_workers = params.workers
    solver.parameters.random_seed = params.seed
    solver.parameters.relative_gap_limit = params.gap
    if params.work is not None:
        solver.parameters.max_deterministic_time = params.work
        solver.parameters.interleave_search = True
    status = solver.solve(build.model)
    if status == cp_model.MODEL_INVALID:
        raise RunError(f"job schedule: {build.model.validate().splitlines()[0]}")
    if status == cp_model.INFEASIBLE:
        return list(start), 0.0, "infeasible"
    bound = max(0.0, solver.best_objective_bound / build.scale)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return list(start), bound, "feasible"
    rows = build.rows(solver)
    if _objective(problem, plan, rows)[0] > _objective(problem, plan, start)[0] + 1e-6 and not _broken(problem, start):
        rows = list(start)
    if status == cp_model.OPTIMAL and params.gap == 0:
        return rows, bound, "optimal"
    return rows, bound, "feasible"


class _Model:
    """The CP-SAT model: start, end and presence of every operation; bools for closed time; circuits for setups."""

    def __init__(self, problem: JobShopProblem, plan: _Kept, start: Sequence[_Row]) -> None:
        from ortools.sat.python import cp_model

        self.problem, self.plan = problem, plan
        self.model = cp_model.CpModel()
        self.calendars = {m: _Calendar(problem.closed.get(m, ())) for m in problem.machines}
        self.horizon = self._horizon(start)
        self.start: dict[tuple[str, int], Any] = {}
        self.end: dict[tuple[str, int], Any] = {}
        self.begin: dict[tuple[str, int], Any] = {}
        # When the first transport batch leaves, where one leaves before the end.
        self.ready: dict[tuple[str, int], Any] = {}
        self.setup: dict[tuple[str, int], Any] = {}
        self.on: dict[tuple[str, int, str], Any] = {}
        self._after: dict[Any, Any] = {}
        self.setup_machines = {
            m for m in problem.machines if any(v > 0 for v in problem.setup_minutes.get(m, {}).values())
        }
        priced = problem.objective == "lateness"
        self.sequenced = self.setup_machines | {
            m for m in problem.machines if priced and any(v > 0 for v in problem.setup_cost.get(m, {}).values())
        }
        # Arcs of the machines' sequences, by the operations they lead from (None: the machine's state at first) and to.
        self.arcs: dict[tuple[str, tuple[str, int] | None, tuple[str, int] | None], Any] = {}
        self.setup_costs: list[tuple[float, Any]] = []
        intervals: dict[str, list[Any]] = {m: [] for m in problem.machines}
        for job in problem.jobs:
            for operation in job.operations:
                self._operation(job, operation, intervals)
            self._sequence(job)
        for machine, mine in intervals.items():
            self.model.add_no_overlap(mine)
            if machine in self.sequenced:
                self._circuit(machine)
        self.scale = self._minimize()
        self._hint(start)

    def _horizon(self, start: Sequence[_Row]) -> int:
        """No best schedule lasts longer: all work one after the other, after the last release and all closed time."""
        problem = self.problem
        if problem.objective == "makespan" and not self.plan.previous:
            return max((r.end for r in start), default=0)
        work = sum(max(o.minutes.values()) for j in problem.jobs for o in j.operations)
        count = sum(len(j.operations) for j in problem.jobs)
        setups = max((v for table in problem.setup_minutes.values() for v in table.values()), default=0)
        ways = max(problem.transport_minutes.values(), default=0)
        closed = sum(b - a for c in self.calendars.values() for a, b in c.closed)
        last = max(
            [self.plan.earliest, *(j.release for j in problem.jobs), *(p.end for p in self.plan.frozen.values())]
        )
        serial = last + work + count * (setups + ways) + closed
        return int(max(serial, max((r.end for r in start), default=0)))

    def _operation(self, job: Job, operation: Operation, intervals: dict[str, list[Any]]) -> None:
        model, key = self.model, (job.job, operation.operation)
        name = f"{job.job}/{operation.operation}"
        frozen = self.plan.frozen.get(key)
        earliest = job.release if frozen else max(job.release, self.plan.earliest)
        if frozen:
            earliest = frozen.start
        start = model.new_int_var(earliest, max(earliest, self.horizon), f"start {name}")
        end = model.new_int_var(earliest, max(self.horizon, earliest + max(operation.minutes.values())), f"end {name}")
        needs_setup = any(m in self.setup_machines for m in operation.minutes) and not self.plan.begun(key)
        begin: Any = start
        setup: Any = 0
        if needs_setup:
            most = max(
                (
                    v
                    for m in operation.minutes
                    for (_, to), v in self.problem.setup_minutes.get(m, {}).items()
                    if to == operation.family
                ),
                default=0,
            )
            begin = model.new_int_var(self.plan.earliest, max(self.plan.earliest, self.horizon), f"setup {name}")
            setup = model.new_int_var(0, int(most), f"setup minutes {name}")
            model.add(begin <= start)
        self.start[key], self.end[key], self.begin[key], self.setup[key] = start, end, begin, setup
        if operation.first_batch < 1 and operation is not job.operations[-1]:
            most = max(self.horizon, earliest + max(operation.minutes.values()))
            self.ready[key] = model.new_int_var(earliest, most, f"batch {name}")
        literals = []
        plain = not needs_setup and not any(self.calendars[m].closed for m in operation.minutes)
        for machine, minutes in sorted(operation.minutes.items()):
            on = model.new_bool_var(f"{name} on {machine}") if len(operation.minutes) > 1 else model.new_constant(1)
            self.on[*key, machine] = on
            literals.append(on)
            size: Any
            closed = (
                [(a, b) for a, b in self.calendars[machine].closed if b > earliest and a < self.horizon]
                if minutes
                else []
            )
            if closed:
                across = [self._across(key, start, end, gap, on, operation.may_pause) for gap in closed]
                paused = sum((b - a) * c for (a, b), c in zip(closed, across, strict=True))
                model.add(end == start + int(minutes) + paused).only_enforce_if(on)
                size = model.new_int_var(0, self.horizon, "")
                model.add(size == end - begin)
            elif needs_setup:
                model.add(end == start + int(minutes)).only_enforce_if(on)
                size = model.new_int_var(0, self.horizon, "")
                model.add(size == end - begin)
            else:
                size = int(minutes)
            if (ready := self.ready.get(key)) is not None:
                batch = [self._across(key, start, ready, gap, on, True, "batch") for gap in closed]
                waits = sum((b - a) * c for (a, b), c in zip(closed, batch, strict=True))
                model.add(ready == start + _share(operation, int(minutes)) + waits).only_enforce_if(on)
            if needs_setup:
                gaps = self.calendars[machine].closed
                gaps = [(a, b) for a, b in gaps if b > self.plan.earliest and a < self.horizon]
                lost = sum(
                    (b - a)
                    * (self._is_after(key, "start", start, (a, b)) - self._is_after(key, "begin", begin, (a, b), on))
                    for a, b in gaps
                )
                model.add(start - begin >= setup + lost).only_enforce_if(on)
            intervals[machine].append(model.new_optional_interval_var(begin, size, end, on, f"{name} {machine}"))
        model.add_exactly_one(literals)
        if plain and len(literals) > 1:
            # Redundant, and what the linear relaxation knows of an operation's length before its machine is chosen.
            taken = zip(sorted(operation.minutes.items()), literals, strict=True)
            model.add(end == start + sum(int(minutes) * on for (_, minutes), on in taken))
        if frozen:
            model.add(start == frozen.start)
            model.add(self.on[*key, frozen.machine] == 1)

    def _is_after(self, key: tuple[str, int], what: str, variable: Any, gap: tuple[int, int], on: Any = None) -> Any:
        """Whether the point in time is at or after the end of a closed interval; with `on`, it must not be inside."""
        entry = (key, what, gap)
        if entry not in self._after:
            after = self.model.new_bool_var("")
            self.model.add(variable >= gap[1]).only_enforce_if(after)
            self.model.add(variable < gap[1]).only_enforce_if(~after)
            self._after[entry] = after
        after = self._after[entry]
        if on is not None:
            self.model.add(variable < gap[0]).only_enforce_if([~after, on])
        return after

    def _across(
        self,
        key: tuple[str, int],
        start: Any,
        end: Any,
        gap: tuple[int, int],
        on: Any,
        may_pause: bool,
        what: str = "end",
    ) -> Any:
        """Whether the work up to a point in time pauses over a closed interval; on its machine it must not start inside."""
        after = self._is_after(key, "start", start, gap, on)
        entry = (key, f"across {what}", gap)
        if entry not in self._after:
            across = self.model.new_bool_var("")
            self.model.add_implication(across, ~after)
            self.model.add(end > gap[1]).only_enforce_if(across)
            self._after[entry] = across
        across = self._after[entry]
        self.model.add(end <= gap[0]).only_enforce_if([~across, ~after, on])
        if not may_pause:
            self.model.add_implication(on, ~across)
        return across

    def _sequence(self, job: Job) -> None:
        model, problem = self.model, self.problem
        for before, after in zip(job.operations, job.operations[1:], strict=False):
            a, b = (job.job, before.operation), (job.job, after.operation)
            if b in self.plan.frozen and a in self.plan.frozen:
                continue
            if before.first_batch >= 1:
                model.add(self.start[b] >= self.end[a])
            for m in before.minutes:
                for k in after.minutes:
                    way = _transport(problem, m, k)
                    both = [self.on[*a, m], self.on[*b, k]]
                    if before.first_batch >= 1:
                        if way:
                            model.add(self.start[b] >= self.end[a] + way).only_enforce_if(both)
                        continue
                    model.add(self.start[b] >= self.ready[a] + way).only_enforce_if(both)
                    tail = -int(-before.first_batch * int(after.minutes[k]) // 1)
                    model.add(self.end[b] >= self.end[a] + way + tail).only_enforce_if(both)

    def _circuit(self, machine: str) -> None:
        """The sequence on a machine with setups: an arc from each operation to the next; 0 is idle before and after."""
        model, problem = self.model, self.problem
        mine = [((j.job, o.operation), o) for j in problem.jobs for o in j.operations if machine in o.minutes]
        arcs = []
        first_family = problem.first_family.get(machine, "")
        for i, (a, before) in enumerate(mine, start=1):
            on = self.on[*a, machine]
            arcs.append((i, i, ~on))
            opening, closing = model.new_bool_var(""), model.new_bool_var("")
            arcs += [(0, i, opening), (i, 0, closing)]
            self.arcs[machine, None, a], self.arcs[machine, a, None] = opening, closing
            self._set_up(machine, a, first_family, before.family, opening, None)
            for j, (b, after) in enumerate(mine, start=1):
                if i == j or (a[0] == b[0] and a[1] > b[1]):
                    continue
                arc = model.new_bool_var("")
                arcs.append((i, j, arc))
                self.arcs[machine, a, b] = arc
                self._set_up(machine, b, before.family, after.family, arc, a)
        if mine:
            empty = model.new_bool_var("")
            arcs.append((0, 0, empty))
            self.arcs[machine, None, None] = empty
            model.add_circuit(arcs)

    def _set_up(
        self, machine: str, key: tuple[str, int], of: str, to: str, arc: Any, before: tuple[str, int] | None
    ) -> None:
        minutes, money = _setup(self.problem, machine, of, to), _setup_cost(self.problem, machine, of, to)
        if money > 0:
            self.setup_costs.append((money, arc))
        if before is not None:
            self.model.add(self.begin[key] >= self.end[before]).only_enforce_if(arc)
        if minutes and not self.plan.begun(key):
            self.model.add(self.setup[key] >= minutes).only_enforce_if(arc)

    def _minimize(self) -> float:
        """Adds the objective; returns how many of its units are one of money or minutes."""
        model, problem = self.model, self.problem
        weights = [j.late_cost for j in problem.jobs if j.due is not None] if problem.objective == "lateness" else [1.0]
        prices = [v for v in self.plan.price.values() if v > 0]
        if problem.objective == "lateness":
            prices += [money for money, _ in self.setup_costs]
        scale = 1.0
        if any(w != int(w) for w in [*weights, *prices]):
            # The smallest price keeps three digits; rounded down, so that a bound in these units is one in money.
            most = max([*weights, *prices, 1e-9])
            least = min([w for w in [*weights, *prices] if w > 0], default=most)
            scale = min(max(1e6 / most, 1e3 / least), 1e9 / most)
        terms = []
        ends = {j.job: [self.end[j.job, o.operation] for o in j.operations] for j in problem.jobs if j.operations}
        if problem.objective == "makespan":
            makespan = model.new_int_var(0, self.horizon, "makespan")
            for mine in ends.values():
                model.add(makespan >= mine[-1])
            # Redundant, and what the bound lives on: no machine is done before its work is.
            for machine in problem.machines:
                work = [
                    int(o.minutes[machine]) * self.on[j.job, o.operation, machine]
                    for j in problem.jobs
                    for o in j.operations
                    if machine in o.minutes
                ]
                if work:
                    model.add(makespan >= sum(work))
            terms.append(round(scale) * makespan)
            scale = float(round(scale))
        else:
            for job in problem.jobs:
                if job.due is None or job.late_cost <= 0 or job.job not in ends:
                    continue
                late = model.new_int_var(0, max(0, self.horizon - job.due) + 1, f"late {job.job}")
                for end in ends[job.job]:
                    model.add(late >= end - job.due)
                terms.append(int(job.late_cost * scale) * late)
            terms += [int(money * scale) * arc for money, arc in self.setup_costs]
        for job in problem.jobs:
            mine = [(job.job, o.operation) for o in job.operations if (job.job, o.operation) in self.plan.previous]
            mine = [k for k in mine if k not in self.plan.frozen]
            price = self.plan.price.get(job.job, 0.0)
            if price <= 0 or not mine:
                continue
            moved = model.new_bool_var(f"moved {job.job}")
            for key in mine:
                kept = self.plan.previous[key]
                model.add(self.start[key] <= kept.start + self.plan.tolerance).only_enforce_if(~moved)
                model.add(self.start[key] >= kept.start - self.plan.tolerance).only_enforce_if(~moved)
                model.add(self.on[*key, kept.machine] == 1).only_enforce_if(~moved)
            terms.append(int(price * scale) * moved)
        model.minimize(sum(terms))
        return scale

    def _hint(self, start: Sequence[_Row]) -> None:
        at = {(r.job, r.operation): r for r in start}
        hinted: set[int] = set()
        for key, variable in self.start.items():
            if key in at:
                self.model.add_hint(variable, at[key].start)
                self.model.add_hint(self.end[key], at[key].end)
        for (job, operation, machine), on in self.on.items():
            row = at.get((job, operation))
            if row is not None and on.index not in hinted:
                hinted.add(on.index)  # operations without an alternative share one constant
                self.model.add_hint(on, int(row.machine == machine))
        for machine in self.sequenced:
            mine = sorted((r for r in start if r.machine == machine), key=lambda r: (r.start, r.end))
            keys = [None, *((r.job, r.operation) for r in mine), None]
            there = set(pairwise(keys))
            for (place, a, b), arc in self.arcs.items():
                if place == machine:
                    self.model.add_hint(arc, int((a, b) in there))

    def rows(self, solver: Any) -> list[_Row]:
        """The schedule found."""
        rows = []
        for (job, operation, machine), on in self.on.items():
            if solver.value(on):
                key = (job, operation)
                setup = self.setup[key]
                minutes = setup if isinstance(setup, int) else int(solver.value(setup))
                begin = int(solver.value(self.begin[key]))
                rows.append(
                    _Row(
                        job,
                        operation,
                        machine,
                        int(solver.value(self.start[key])),
                        int(solver.value(self.end[key])),
                        begin,
                        minutes,
                    )
                )
        return self._with_setups(rows)

    def _with_setups(self, rows: list[_Row]) -> list[_Row]:
        """Setup minutes as the sequence needs them, as late as they can be done."""
        out = []
        wanted = {(j.job, o.operation): o for j in self.problem.jobs for o in j.operations}
        for machine in self.problem.machines:
            family = self.problem.first_family.get(machine, "")
            for row in sorted((r for r in rows if r.machine == machine), key=lambda r: (r.start, r.end)):
                after = wanted[row.job, row.operation].family
                minutes = _setup(self.problem, machine, family, after)
                out.append(replace(row, setup_minutes=minutes, setup_start=row.setup_start if minutes else row.start))
                family = after
        return out
