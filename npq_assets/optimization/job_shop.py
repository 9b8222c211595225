"""Which operation runs when on which machine: the flexible job shop with calendars, setups, transport and a price of change.

For operations (j, k) with alternatives m of duration d_jkm, starts S, ends E, presence a_jkm, in whole minutes:

    minimize    max E   or   sum_j w_j max(0, E_j,last - D_j)   + sum_j c_j moved_j
    subject to  sum_m a_jkm = 1,   S_jk >= R_j,   S_j,k+1 >= E_jk + transport(m, m') (or after the first transport batch)
                on each machine: no overlap; between consecutive operations the setup from family to family
                work only in open time: an operation that meets a closed interval pauses, or waits if it must not pause.

Constraint programming with OR-Tools CP-SAT (interval variables, circuits for setups; Laborie et al., IBM ILOG CP optimizer for
scheduling, Constraints 23, 2018, for the modelling of alternatives). Lot sizes do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from npq_assets.optimization.result import Result

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
        family: Setup family; setups between equal families follow the table too. "" needs no setup.
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
        first_family: Family each machine is set up for at minute 0.
        transport_minutes: Minutes from a machine to another: {(from, to): minutes}; absent pairs need none.
        objective: `lateness` (money) or `makespan` (minutes).
    """

    jobs: tuple[Job, ...]
    machines: tuple[str, ...]
    closed: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    setup_minutes: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    first_family: Mapping[str, str] = field(default_factory=dict)
    transport_minutes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    objective: str = "lateness"


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
        frozen_until: Operations that started before this minute stay as they are.
        price: Money (or minutes, for makespan) for every job of which an operation changes its machine or its start by more
            than `tolerance`.
        tolerance: Minutes of shift that nobody minds.
    """

    previous: pl.DataFrame
    frozen_until: int = 0
    price: float = 0.0
    tolerance: int = 0


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
    """The best schedule found, with a proven bound; at worst the better of the dispatch rules (it is the start)."""
    raise NotImplementedError


def dispatch(
    problem: JobShopProblem, rule: str = "earliest_due_date", frozen: pl.DataFrame | None = None
) -> JobShopResult:
    """A schedule by a dispatch rule: `earliest_due_date` or `most_work_remaining`; ties by job and machine name."""
    raise NotImplementedError


def violations(problem: JobShopProblem, schedule: pl.DataFrame) -> list[str]:
    """What a schedule breaks, one sentence each; empty for a feasible schedule."""
    raise NotImplementedError


def cost_of_change(
    problem: JobShopProblem, replanning: Replanning, prices: Sequence[float], params: JobShopParams | None = None
) -> pl.DataFrame:
    """The curve of cost against change: price, schedule_cost, moved_jobs, bound, status; one row a price."""
    raise NotImplementedError
