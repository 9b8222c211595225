"""When to replace which component: the program of least expected cost under crew and windows, with proven bound and prices.

Takes probabilities and money as they are; where they come from does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.equipment.learners import Array
from npq_assets.errors import NpqError
from npq_assets.optimization import highs


@dataclass(frozen=True)
class MaintenanceProblem:
    """Components over the days of a horizon; arrays are (components, days) unless said.

    Attributes:
        probability: Probability of failure on each day (shares of one outcome: they add up to the probability of any).
        cost: Cost of a replacement before the day opens, what production loses included (money).
        failure_cost: Cost of a failure, what production loses included (components).
        open: Whether the machine may be worked on that day.
        crew: Replacements possible on each day (days); None for no limit.
        value_of_waiting: What a further day of the old part saves (components): planned cost over mean life.
        caught: Share of the later failures that a later look is expected to see in time.
    """

    probability: Array
    cost: Array
    failure_cost: Array
    open: NDArray[np.bool_]
    crew: Array | None = None
    value_of_waiting: Array = field(default_factory=lambda: np.zeros(0))
    caught: float = 0.75


@dataclass(frozen=True)
class MaintenanceResult:
    """The plan of least expected cost.

    Attributes:
        day: Day of the replacement of each component, -1 for none.
        expected: Expected cost of each component under the plan.
        waiting: Expected cost of each without any replacement planned, later looks counted.
        bound: Proven lower bound of the sum of `expected`.
        crew_price: What one more replacement would save, by day.
        status: Status of the solver.
    """

    day: NDArray[np.int64]
    expected: Array
    waiting: Array
    bound: float
    crew_price: dict[int, float]
    status: str


def loss_of_waiting(problem: MaintenanceProblem) -> Array:
    """Cost of a failure on each day, if nothing is planned: on the first day a failure, later what later looks leave of it."""
    cheapest = np.where(problem.open, problem.cost, np.inf).min(axis=1)
    planned = np.where(np.isfinite(cheapest), np.minimum(cheapest, problem.failure_cost), problem.failure_cost)
    later = problem.caught * planned + (1.0 - problem.caught) * problem.failure_cost
    loss = np.repeat(later[:, None], problem.probability.shape[1], axis=1)
    loss[:, 0] = problem.failure_cost
    # A machine that nobody may touch until then cannot be saved by a later look.
    reachable = np.maximum.accumulate(problem.open, axis=1)
    return np.asarray(np.where(reachable, loss, problem.failure_cost[:, None]), float)


def _net(problem: MaintenanceProblem) -> Array:
    """What a replacement before each day saves against none, its cost taken off (components, days)."""
    count, days = problem.probability.shape
    loss = problem.probability * loss_of_waiting(problem)
    worth = problem.value_of_waiting if len(problem.value_of_waiting) else np.zeros(count)
    # Failures from day t on are spared by a replacement before t.
    spared = np.cumsum(loss[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(spared - problem.cost + worth[:, None] * np.arange(days), float)


def expected_of(problem: MaintenanceProblem, day: NDArray[np.int64]) -> Array:
    """Expected cost of each component that is replaced before a given day, -1 for none (components)."""
    waiting = (problem.probability * loss_of_waiting(problem)).sum(axis=1)
    gain = _net(problem)[np.arange(len(day)), day] if problem.probability.shape[1] else np.zeros(len(day))
    return np.asarray(waiting - np.where(day >= 0, gain, 0.0), float)


def solve(problem: MaintenanceProblem) -> MaintenanceResult:
    r"""The plan of least expected cost.

    With x[i,t] = 1 if component i is replaced before day t opens, cost c[i,t], probability p[i,h] and loss l[i,h] of a failure
    on day h (see `loss_of_waiting`), and w[i] what a day of waiting is worth,

        min  sum_it (c[i,t] - w[i] t) x[i,t] + sum_ih p[i,h] l[i,h] (1 - sum_{t <= h} x[i,t])
        s.t. sum_i x[i,t] <= crew[t],  sum_t x[i,t] <= 1,  x[i,t] = 0 where closed,  x >= 0.

    A new part is trusted to last the horizon. The constraints are those of a transport problem (totally unimodular), so that
    the linear program has whole-numbered vertices and its value is its own bound. After Barlow and Hunter (1960), with a
    predicted hazard in place of one of age. Solved with CVXPY and HiGHS' simplex.

    Raises:
        NpqError: The solver proved no optimum.
    """
    import cvxpy as cp

    count, days = problem.probability.shape
    waiting = (problem.probability * loss_of_waiting(problem)).sum(axis=1)
    net = np.where(problem.open, _net(problem), -1.0)
    rows = np.flatnonzero(net.max(axis=1, initial=-1.0) > 0)
    day = np.full(count, -1, dtype=np.int64)
    if not len(rows) or not days:
        return MaintenanceResult(day, waiting, waiting, float(waiting.sum()), {}, "optimal")
    x = cp.Variable((len(rows), days), nonneg=True)
    # Ties go to the earlier day: waiting without a reason is no plan.
    tie = 1e-7 * np.arange(days)
    limits: list[Any] = [cp.sum(x, axis=1) <= 1, x[~problem.open[rows]] == 0] if (~problem.open[rows]).any() else [
        cp.sum(x, axis=1) <= 1
    ]  # fmt: skip
    crew = [cp.sum(x, axis=0) <= problem.crew] if problem.crew is not None else []
    program = cp.Problem(cp.Maximize(cp.sum(cp.multiply(net[rows] - tie, x))), limits + crew)
    if not highs.solve(program) or program.status != cp.OPTIMAL or x.value is None:
        raise NpqError(f"maintenance: no plan proven optimal ({program.status})")
    for i, t in np.argwhere(np.asarray(x.value) > 0.5):
        if net[rows[i], t] > 0:
            day[rows[i]] = int(t)
    expected = expected_of(problem, day)
    bound = float(waiting.sum() - float(program.value) - tie.sum() * len(rows))
    price = {t: float(v) for t, v in enumerate(np.atleast_1d(crew[0].dual_value))} if crew else {}
    return MaintenanceResult(day, expected, waiting, min(bound, float(expected.sum())), price, str(program.status))


def run_to_failure(problem: MaintenanceProblem) -> Array:
    """Expected cost of each component if nobody looks and nothing is replaced before it fails."""
    return np.asarray(problem.probability.sum(axis=1) * problem.failure_cost, float)


def fixed_interval(problem: MaintenanceProblem, days_left: Array) -> Array:
    """Expected cost of each component if it is replaced when its fixed age is reached, on the first day open from then on.

    Args:
        problem: Probabilities and money.
        days_left: Days until each component reaches that age (components); infinite for never.
    """
    days = problem.probability.shape[1]
    due = (np.arange(days)[None, :] >= days_left[:, None]) & problem.open
    replaced = due.any(axis=1)
    on = np.where(replaced, due.argmax(axis=1), days)
    before = np.arange(days)[None, :] < on[:, None]
    cost = np.where(replaced, problem.cost[np.arange(len(on)), np.minimum(on, days - 1)], 0.0)
    return np.asarray((problem.probability * before).sum(axis=1) * problem.failure_cost + cost, float)
