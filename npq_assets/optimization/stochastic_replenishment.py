"""Orders over several periods for many products that share capacities, against demand scenarios.

With backlog accounting the cost of product i in period t depends on its cumulative order Q_it alone,

    f_it(Q) = mean over scenarios of  h_i (I_i + Q - D_its)^+ + p_i (D_its - I_i - Q)^+ ,

D being cumulative demand and I the stock at hand: convex and piecewise linear. The problem

    minimize    sum_it f_it(Q_it)
    subject to  Q_i0 = 0 <= Q_i1 <= Q_i2 <= … ,   sum_i u_i (Q_it - Q_i,t-1) <= C_t

is solved in CVXPY without a variable per scenario: Q_it is a sum of bounded steps between sorted breakpoints of f_it, each
with the slope of f_it there; since the slopes rise, the steps fill in order. Where all breakpoints are too many, those around
the plan that the prices of a sample of products suggest are enough, with a proof: the program's duals, put into the exact
costs, give the Lagrangian bound

    L = sum_it min_Q [ f_it(Q) + (u_i (l_t - l_t+1) - m_it + m_i,t+1) Q ] - sum_t l_t C_t

in closed form (l: worth of capacity, m: price of not taking orders back), and breakpoints are added where it and the plan
differ, until they agree. The extensive form, a variable per product, scenario and period, has the same optimum and does not
end at this size. Separable simple recourse: Birge & Louveaux, Introduction to Stochastic Programming, 2nd ed., sec. 3.1d.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from npq_assets.errors import NpqError
from npq_assets.optimization import highs
from npq_assets.optimization.costs import InventoryCost

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StochasticProblem:
    """Products that share capacities over T periods.

    Attributes:
        demand: Demand scenarios (n, S, T), units per period.
        on_hand: Stock before the first period (n).
        holding_cost: Money per unit left at a period's end (n).
        shortage_cost: Money per unit short at a period's end (n).
        capacity: Units of capacity per period (T); inf for none.
        use: Units of capacity per unit ordered (n); ones if None.
    """

    demand: Array
    on_hand: Array
    holding_cost: Array
    shortage_cost: Array
    capacity: Array
    use: Array | None = None

    @property
    def net(self) -> Array:
        """Units that must have been ordered by the end of a period to meet all demand till then (n, S, T)."""
        return np.cumsum(self.demand, axis=2) - self.on_hand[:, None, None]


@dataclass(frozen=True)
class StochasticResult:
    """A plan with its proof.

    Attributes:
        orders: Units to order by product and period (n, T).
        objective: Expected cost of the plan, evaluated on all scenarios.
        bound: No plan can cost less.
        worth: Money that one more unit of capacity would save, by period (T).
        status: `optimal` if the gap is within tolerance, else `feasible`.
        rounds: Linear programs solved.
        seconds: Wall-clock time.
    """

    orders: Array
    objective: float
    bound: float
    worth: Array
    status: str
    rounds: int
    seconds: float

    @property
    def gap(self) -> float:
        """Share of the objective by which the plan may cost more than the best."""
        return max(0.0, self.objective - self.bound) / max(abs(self.objective), 1e-12)


def expected_cost(problem: StochasticProblem, orders: Array) -> float:
    """Expected cost of orders (n, T), on all scenarios."""
    cost = InventoryCost.of(problem.holding_cost, problem.shortage_cost)
    cumulative = np.cumsum(orders, axis=1)
    total = 0.0
    net = problem.net
    for t in range(net.shape[2]):
        total += float(
            cost.value(np.repeat(cumulative[:, t, None], net.shape[1], axis=1), net[:, :, t]).mean(axis=1).sum()
        )
    return total


def solve(
    problem: StochasticProblem, *, tolerance: float = 1e-6, seconds: float = 120.0, rounds: int = 40
) -> StochasticResult:
    """The cheapest orders within the capacities, with a proven bound.

    Args:
        problem: The problem.
        tolerance: Relative gap at which a plan counts as optimal.
        seconds: Clock limit, checked between linear programs; each gets what is left.
        rounds: Linear programs at most.

    Raises:
        NpqError: Shapes differ, or numbers are negative or not finite.
    """
    _check(problem)
    started = time.monotonic()
    if not problem.demand.shape[0]:
        periods = problem.demand.shape[2]
        return StochasticResult(np.zeros((0, periods)), 0.0, 0.0, np.zeros(periods), "optimal", 0, 0.0)
    curves = _Curves(problem)
    n, periods = curves.shape
    grid = (
        _everything(curves)
        if n * periods * curves.scenarios <= _SMALL
        else _near(curves, _prices(problem, seconds / 4))
    )
    best, best_cost, bound, worth = np.zeros(curves.shape), np.inf, -np.inf, np.zeros(periods)
    count = 0
    while count < rounds and (left := seconds - (time.monotonic() - started)) > 0:
        count += 1
        program = _Program(problem, curves, grid)
        if not program.solve(left):
            break
        cost = float(curves.value(program.cumulative).sum())
        if cost < best_cost:
            best, best_cost = program.cumulative, cost
        lower, cheapest = _lagrangian(problem, curves, program)
        if lower > bound:
            bound, worth = lower, program.worth
        if best_cost - bound <= tolerance * max(1.0, abs(best_cost)):
            break
        near = [_around(curves, program.cumulative, 4), _around(curves, cheapest, 3)]
        # The first, coarse grid has told where to look; from then on breakpoints are only added.
        kept = [np.zeros((n, periods, 1)), curves.top[:, :, None]] if count == 1 else [grid]
        grid = np.sort(np.concatenate([*kept, *near], axis=2), axis=2)
    if not np.isfinite(best_cost):  # no program was solved in time
        best = _scaled(problem, curves)
        best_cost = float(curves.value(best).sum())
    if not np.isfinite(bound):
        bound = float(curves.value(curves.cheapest(np.zeros(curves.shape))).sum())
    orders = np.maximum(np.diff(best, axis=1, prepend=0.0), 0.0)
    status = "optimal" if best_cost - bound <= tolerance * max(1.0, abs(best_cost)) else "feasible"
    return StochasticResult(orders, best_cost, min(bound, best_cost), worth, status, count, time.monotonic() - started)


def _scaled(problem: StochasticProblem, curves: _Curves) -> Array:
    """Cumulative orders of the newsvendors, each period's cut in proportion to what the capacity has room for (n, T)."""
    wanted = np.maximum.accumulate(curves.cheapest(np.zeros(curves.shape)), axis=1)
    use = np.ones(curves.shape[0]) if problem.use is None else problem.use
    plan, so_far = np.zeros(curves.shape), np.zeros(curves.shape[0])
    for t in range(curves.shape[1]):
        more = np.maximum(wanted[:, t] - so_far, 0.0)
        needed = float(use @ more)
        so_far = so_far + more * min(1.0, float(problem.capacity[t]) / needed if needed > 0 else 1.0)
        plan[:, t] = so_far
    return plan


_SMALL = 1_000_000
_SAMPLE = 500


def plan_ahead(problem: StochasticProblem, *, tolerance: float = 1e-4, seconds: float = 30.0) -> Array:
    """What to order in the first period (n) when later capacities are known to bind: the plan's first step."""
    first: Array = solve(problem, tolerance=tolerance, seconds=seconds).orders[:, 0]
    return first


def extensive_form(problem: StochasticProblem, **options: Any) -> tuple[float, Array]:
    """The same by a variable per product, scenario and period: the slow, obvious reference for small cases."""
    import cvxpy as cp

    n, scenarios, periods = problem.demand.shape
    use = np.ones(n) if problem.use is None else problem.use
    order = cp.Variable((n, periods), nonneg=True)
    cumulative = cp.cumsum(order, axis=1)
    net = problem.net
    cost = InventoryCost.of(problem.holding_cost, problem.shortage_cost)
    total = 0
    for t in range(periods):
        wide = cp.reshape(cumulative[:, t], (n, 1), order="C") @ np.ones((1, scenarios))
        total = total + cp.sum(cost.expression(wide, net[:, :, t])) / scenarios
    limits = [use @ order[:, t] <= problem.capacity[t] for t in range(periods) if np.isfinite(problem.capacity[t])]
    program = cp.Problem(cp.Minimize(total), limits)
    if not highs.solve(program, **options) or program.status != cp.OPTIMAL:
        return float("nan"), np.zeros((n, periods))
    return float(program.value), np.asarray(order.value)


def _check(problem: StochasticProblem) -> None:
    n, _, periods = problem.demand.shape
    use = np.ones(n) if problem.use is None else problem.use
    for name, values, shape in (
        ("on_hand", problem.on_hand, (n,)),
        ("holding_cost", problem.holding_cost, (n,)),
        ("shortage_cost", problem.shortage_cost, (n,)),
        ("capacity", problem.capacity, (periods,)),
        ("use", use, (n,)),
    ):
        if np.shape(values) != shape:
            raise NpqError(
                f"{name} has shape {np.shape(values)}; {shape} expected for {n} products and {periods} periods"
            )
        if np.isnan(values).any() or (np.asarray(values) < 0).any():
            raise NpqError(
                f"{name} holds a negative number or none at position {int(np.argmax(~(np.asarray(values) >= 0)))}"
            )
    for name in ("demand", "on_hand", "holding_cost", "shortage_cost"):
        if not np.isfinite(getattr(problem, name)).all():
            raise NpqError(f"{name} holds numbers that are not finite")


class _Curves:
    """The convex costs of all products and periods, as sorted breakpoints with values and slopes."""

    def __init__(self, problem: StochasticProblem) -> None:
        n, scenarios, periods = problem.demand.shape
        self.shape = (n, periods)
        self.scenarios = scenarios
        self.points = np.sort(problem.net.transpose(0, 2, 1), axis=2)  # (n, T, S)
        # Nobody gains by ordering more than the largest demand through the last period, but may order it early.
        self.top = np.maximum(self.points[:, :, -1].max(axis=1), 0.0)[:, None].repeat(periods, axis=1)
        self._h, self._p = problem.holding_cost[:, None], problem.shortage_cost[:, None]
        self._sums = np.concatenate([np.zeros((n, periods, 1)), np.cumsum(self.points, axis=2)], axis=2)

    def rank(self, q: Array) -> NDArray[np.int64]:
        """Number of scenarios with net demand of at most q, by bisection (n, T, …)."""
        low = np.zeros(q.shape, np.int64)
        high = np.full(q.shape, self.scenarios, np.int64)
        wide = q.reshape(*self.shape, -1)
        low, high = low.reshape(wide.shape), high.reshape(wide.shape)
        while (low < high).any():
            middle = (low + high) // 2
            at = np.take_along_axis(self.points, np.minimum(middle, self.scenarios - 1), axis=2)
            up = (low < high) & (at <= wide)
            high = np.where((low < high) & ~up, middle, high)
            low = np.where(up, middle + 1, low)
        return low.reshape(q.shape)

    def value(self, q: Array) -> Array:
        """f at q (n, T, …)."""
        wide = q.reshape(*self.shape, -1)
        k = self.rank(wide)
        under = np.take_along_axis(self._sums, k, axis=2)
        over = self._sums[:, :, -1:] - under
        left, short = k * wide - under, over - (self.scenarios - k) * wide
        cost = (self._h[:, :, None] * left + self._p[:, :, None] * short) / self.scenarios
        result: Array = cost.reshape(q.shape)
        return result

    def cheapest(self, toll: Array) -> Array:
        """argmin over Q >= 0 of f(Q) + toll Q (n, T): the newsvendor's quantile at a toll."""
        ratio = (self._p - toll) / np.maximum(self._h + self._p, 1e-12)
        rank = np.clip(np.ceil(ratio * self.scenarios - 1e-9).astype(np.int64) - 1, 0, self.scenarios - 1)
        q = np.take_along_axis(self.points, rank[:, :, None], axis=2)[:, :, 0]
        result: Array = np.where(ratio > 0, np.maximum(q, 0.0), 0.0)
        return result


def _everything(curves: _Curves) -> Array:
    zero = np.zeros((*curves.shape, 1))
    return np.sort(np.concatenate([zero, np.maximum(curves.points, 0.0), curves.top[:, :, None]], axis=2), axis=2)


def _around(curves: _Curves, q: Array, reach: int) -> Array:
    """The breakpoints on both sides of q (n, T, 2 reach + 1), by rank."""
    rank = curves.rank(q)[:, :, None] + np.arange(-reach - 1, reach)
    points = np.take_along_axis(curves.points, np.clip(rank, 0, curves.scenarios - 1), axis=2)
    return np.concatenate([np.maximum(points, 0.0), q[:, :, None]], axis=2)


def _near(curves: _Curves, worth: Array) -> Array:
    """Breakpoints around what these prices suggest, fine near it and coarse further off."""
    toll = np.broadcast_to(worth - np.append(worth[1:], 0.0), curves.shape)
    guess = np.maximum.accumulate(curves.cheapest(toll), axis=1)
    steps = np.array([-60, -30, -16, -8, -4, -2, 0, 2, 4, 8, 16, 30, 60]) * curves.scenarios // 200
    rank = np.clip(curves.rank(guess)[:, :, None] - 1 + steps, 0, curves.scenarios - 1)
    points = np.maximum(np.take_along_axis(curves.points, rank, axis=2), 0.0)
    ends = np.maximum(curves.points[:, :, -1:], 0.0)
    parts = [np.zeros((*curves.shape, 1)), points, guess[:, :, None], ends, curves.top[:, :, None]]
    return np.sort(np.concatenate(parts, axis=2), axis=2)


def _prices(problem: StochasticProblem, seconds: float) -> Array:
    """Worth of capacity as a sample of the products sees it, with its share of the capacity."""
    n = problem.demand.shape[0]
    chosen = np.sort(np.random.default_rng(0).choice(n, min(_SAMPLE, n), replace=False))
    use = np.ones(n) if problem.use is None else problem.use
    weight = use * problem.demand.mean(axis=(1, 2))
    share = weight[chosen].sum() / max(weight.sum(), 1e-12)
    sample = StochasticProblem(
        problem.demand[chosen], problem.on_hand[chosen], problem.holding_cost[chosen], problem.shortage_cost[chosen],
        problem.capacity * share, use[chosen],
    )  # fmt: skip
    curves = _Curves(sample)
    program = _Program(sample, curves, _everything(curves))
    program.solve(seconds)
    return program.worth


class _Program:
    """The linear program over the steps of a grid of breakpoints (n, T, K), sorted, from 0."""

    def __init__(self, problem: StochasticProblem, curves: _Curves, grid: Array) -> None:
        self._problem = problem
        self._shape = curves.shape
        cost = curves.value(grid)
        width = np.diff(grid, axis=2)
        some = width > 1e-9
        self._row = np.nonzero(some.reshape(-1, some.shape[2]))[0]
        self._width = width[some]
        self._slope = (np.diff(cost, axis=2)[some]) / self._width
        self.worth = np.zeros(curves.shape[1])
        self.backing = np.zeros(curves.shape)
        self.cumulative = np.zeros(curves.shape)

    def solve(self, seconds: float) -> bool:
        """Whether an optimum was found; sets the plan and the duals."""
        import cvxpy as cp

        n, periods = self._shape
        rows, steps = n * periods, len(self._row)
        at = np.arange(steps)
        total = sp.csr_array((np.ones(steps), (self._row, at)), shape=(rows, steps))
        index = np.arange(rows)
        later = index[index % periods > 0]
        previous = sp.csr_array((np.ones(len(later)), (later, later - 1)), shape=(rows, rows))
        ordered = (sp.eye_array(rows, format="csr") - previous) @ total
        step = cp.Variable(steps, bounds=[0, self._width])
        constraints: list[Any] = [ordered[later] @ step >= 0]
        limited = [t for t in range(periods) if np.isfinite(self._problem.capacity[t])]
        use = np.ones(n) if self._problem.use is None else self._problem.use
        if limited:
            positions = np.concatenate([np.arange(n) * periods + t for t in limited])
            gather = sp.csr_array(
                (np.tile(use, len(limited)), (np.repeat(np.arange(len(limited)), n), positions)),
                shape=(len(limited), rows),
            )
            constraints.append((gather @ ordered) @ step <= self._problem.capacity[limited])
        program = cp.Problem(cp.Minimize(self._slope @ step), constraints)
        if not highs.solve(program, time_limit=max(seconds, 1.0)) or program.status != cp.OPTIMAL:
            return False
        self.cumulative = np.maximum.accumulate(
            (total @ np.clip(np.asarray(step.value), 0, self._width)).reshape(n, periods), axis=1
        )
        self.backing.ravel()[later] = np.maximum(constraints[0].dual_value, 0.0)
        if limited:
            self.worth[limited] = np.maximum(constraints[1].dual_value, 0.0)
        return True


def _lagrangian(problem: StochasticProblem, curves: _Curves, program: _Program) -> tuple[float, Array]:
    """The bound that the program's duals prove on the exact costs, and where each cost is least under them."""
    use = (np.ones(curves.shape[0]) if problem.use is None else problem.use)[:, None]
    worth, backing = program.worth, program.backing
    after = np.append(worth[1:], 0.0)
    toll = use * (worth - after) - backing + np.concatenate([backing[:, 1:], np.zeros((curves.shape[0], 1))], axis=1)
    cheapest, top = curves.cheapest(toll), curves.top
    at_top = curves.value(top) + toll * top
    at_cheapest = curves.value(cheapest) + toll * cheapest
    least = np.minimum(at_cheapest, at_top)
    finite = np.where(np.isfinite(problem.capacity), problem.capacity, 0.0)
    return float(least.sum() - worth @ finite), np.where(at_top < at_cheapest, top, cheapest)
