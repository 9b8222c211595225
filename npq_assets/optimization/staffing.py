"""How many people answer requests in each shift: staff against late first responses, a small integer program.

    min   sum_s w_s n_s + (1/K) sum_k (sum_t l q_kt + e q_kT)
    s.t.  q_kt >= q_k,t-1 + a_kt - mu sum_{s covers t} n_s,  q_kt >= 0,  n_s whole, 0 <= n_s <= N

a_kt are the requests of hour t in scenario k, mu the requests that one person answers in an hour, q the requests waiting at
the hour's end, l the cost of a request waiting an hour beyond it, e the cost of one left at the end, which somebody must still
answer (a fluid queue; Green, Kolesar and Whitt 2007).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.errors import NpqError
from npq_assets.optimization import highs
from npq_assets.optimization.result import Result

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StaffingProblem:
    """The shifts of some days.

    Attributes:
        arrivals: Requests by scenario and hour (K, T).
        covers: Whether a shift covers an hour (shifts, T).
        shift_cost: Cost of a person for the shift (shifts, money).
        answers_per_hour: Requests that one person answers in an hour.
        waiting_cost: Cost of a request waiting an hour (money).
        most: People at most in a shift.
        waiting: Requests waiting at the beginning.
        left_cost: Cost of a request left when the last hour ends (money).
    """

    arrivals: Floats
    covers: NDArray[np.bool_]
    shift_cost: Floats
    answers_per_hour: float
    waiting_cost: float
    most: int = 50
    waiting: float = 0.0
    left_cost: float = 0.0


def price(problem: StaffingProblem, agents: NDArray[np.int64]) -> Floats:
    """Expected cost of a staffing by shift (shifts): its people, and the requests that wait in its hours.

    Hours that no shift covers are charged to the shift that covers the next hour, else to the last.
    """
    capacity = problem.answers_per_hour * (agents[:, None] * problem.covers).sum(axis=0)
    waiting = np.full(len(problem.arrivals), problem.waiting)
    cost = problem.shift_cost * agents.astype(float)
    for hour in range(problem.arrivals.shape[1]):
        waiting = np.maximum(waiting + problem.arrivals[:, hour] - capacity[hour], 0.0)
        cost[_owner(problem, hour)] += problem.waiting_cost * waiting.mean()
    cost[-1] += problem.left_cost * waiting.mean()
    return cost


@dataclass(frozen=True)
class FirstResponse:
    """When requests are first answered under a staffing, in the order in which they came.

    Attributes:
        hours: Hours from coming in to the answer, by scenario and hour of coming in (K, T); infinite where the last hour
            ends first.
        waiting: Hours until each of the requests that wait at the beginning is answered, in their order (waiting).
    """

    hours: Floats
    waiting: Floats


def first_response(problem: StaffingProblem, agents: NDArray[np.int64]) -> FirstResponse:
    """Forecasts first responses: a fluid queue, first come first served, those waiting at the beginning before all others.

    The request in the middle of an hour's arrivals stands for all of them; it is answered when the cumulative number answered
    reaches its place in the queue.
    """
    capacity = problem.answers_per_hour * (agents[:, None] * problem.covers).sum(axis=0)
    count, hours = problem.arrivals.shape
    ends = np.arange(hours + 1, dtype=float)
    out = np.empty((count, hours))
    for k in range(count):
        came = problem.waiting + np.cumsum(problem.arrivals[k])
        answered, total = np.zeros(hours + 1), 0.0
        for hour in range(hours):
            total = min(came[hour], total + capacity[hour])
            answered[hour + 1] = total
        place = came - problem.arrivals[k] / 2
        out[k] = np.maximum(_moment(place, answered, ends) - (np.arange(hours) + 0.5), 0.0)
    first = np.minimum(np.concatenate([[0.0], np.cumsum(capacity)]), problem.waiting)
    return FirstResponse(out, _moment(np.arange(1, int(problem.waiting) + 1, dtype=float), first, ends))


def _moment(place: Floats, answered: Floats, ends: Floats) -> Floats:
    """When the cumulative number answered reaches each place; infinite if never."""
    later = np.searchsorted(answered, place - 1e-9, side="left")
    inside = np.clip(later, 1, len(ends) - 1)
    before, after = answered[inside - 1], answered[inside]
    share = np.clip((place - before) / np.maximum(after - before, 1e-12), 0.0, 1.0)
    moment = ends[inside - 1] + share * (ends[inside] - ends[inside - 1])
    return np.where(later >= len(ends), np.inf, moment)


def owners(problem: StaffingProblem) -> NDArray[np.int64]:
    """Shift to which each hour belongs (T): the one that covers it, else the next one, else the last."""
    return np.array([_owner(problem, hour) for hour in range(problem.covers.shape[1])], np.int64)


def _owner(problem: StaffingProblem, hour: int) -> int:
    for later in range(hour, problem.covers.shape[1]):
        shifts = np.flatnonzero(problem.covers[:, later])
        if len(shifts):
            return int(shifts[0])
    return len(problem.covers) - 1


def solve(problem: StaffingProblem, seconds: float = 30.0) -> Result:
    """The staffing of least expected cost.

    Returns:
        A result whose plan holds shift (position), agents, expected_cost.

    Raises:
        NpqError: There are no shifts, or a number is out of range.
    """
    import cvxpy as cp

    started = time.monotonic()
    if not len(problem.covers) or problem.answers_per_hour <= 0:
        raise NpqError("staffing: there is no shift, or nobody answers anything; give shifts and answers per hour > 0")
    count, hours = problem.arrivals.shape
    n = cp.Variable(len(problem.covers), integer=True)
    q = cp.Variable((count, hours))
    capacity = problem.answers_per_hour * (problem.covers.T.astype(float) @ n)
    constraints = [q >= 0, n >= 0, n <= problem.most]
    previous: object = problem.waiting
    for hour in range(hours):
        constraints.append(q[:, hour] >= previous + problem.arrivals[:, hour] - capacity[hour])  # type: ignore[operator]
        previous = q[:, hour]
    cost = problem.shift_cost @ n + (problem.waiting_cost * cp.sum(q) + problem.left_cost * cp.sum(q[:, -1])) / count
    program = cp.Problem(cp.Minimize(cost), constraints)
    if not highs.solve(program, highs_options={"time_limit": seconds, "mip_rel_gap": 1e-4, "mip_max_nodes": 2000}):
        raise NpqError("staffing: the solver found no plan in time; raise solver_seconds in npq.toml")
    agents = np.round(np.asarray(n.value)).astype(np.int64)
    costs = price(problem, agents)
    total = float(costs.sum())
    found = getattr(getattr(program.solver_stats, "extra_stats", None), "mip_dual_bound", None)
    bound = min(total, float(found)) if found is not None and np.isfinite(found) else min(total, float(program.value))
    plan = pl.DataFrame({"shift": np.arange(len(agents)), "agents": agents, "expected_cost": costs})
    status = "optimal" if total - bound <= 1e-3 * max(1.0, abs(total)) else "feasible"
    return Result(plan, status, total, bound, solver="HiGHS", seconds=time.monotonic() - started)


def careful_rule(problem: StaffingProblem, day: NDArray[np.int64], reserve: float = 1.2) -> NDArray[np.int64]:
    """The naive rule: each day as many shifts as its mean load and a fifth more need, the first shifts first.

    Args:
        problem: The problem.
        day: Number of the day of each shift (shifts).
        reserve: What is planned over the mean.
    """
    mean = problem.arrivals.mean(axis=0)
    load = np.zeros(len(problem.covers))
    for hour in range(problem.arrivals.shape[1]):
        load[_owner(problem, hour)] += mean[hour]
    load[0] += problem.waiting
    agents = np.zeros(len(problem.covers), np.int64)
    capacity = problem.answers_per_hour * problem.covers.sum(axis=1)
    for number in np.unique(day):
        mine = np.flatnonzero(day == number)
        wanted = int(np.ceil(reserve * load[mine].sum() / max(float(capacity[mine].mean()), 1e-9) - 1e-9))
        for k in range(wanted):
            agents[mine[k % len(mine)]] += 1
    return np.minimum(agents, problem.most)
