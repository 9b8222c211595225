"""Column generation by item, for many items that share few machines (Dantzig & Wolfe 1960; Manne 1958 for lot sizing).

The master program chooses, for every item, a mixture of plans within the capacities,

    minimize    sum c_p l_p + sum v_mt o_mt + dear * extra_mt
    subject to  sum_{p of i} l_p = 1,    sum_p use_pmt l_p - o_mt - extra_mt <= C_mt,    0 <= o_mt <= O_mt,    l >= 0,

and pricing finds each item's cheapest plan at given prices of machine minutes by Wagner & Whitin's recursion (1958), extended
to alternative machines and backlog (Zangwill 1969), for all items at once. Any prices give a proven bound (Lagrange). Family
setups, minimum lots and safety stocks are left out of the bound, which stays valid.

Where set-ups are kept from period to period (`carry_over`) the items' plans still pay for every set-up, and the bound gives
back the most that can be kept. At prices of minutes p >= 0 a plan costs at least as much as its items' plans with every lot
set up, less sum p C and the overtime that the prices make worth while, less what the items kept would pay; at most one item
is kept into each open period of a machine (the first only if its set-up at the start is known). So no plan costs less than

    sum_i v_i(p) - sum_mt p_mt C_mt + sum_mt min(v_mt - p_mt, 0) O_mt - sum_mt max_i (q_im + n_im p_mt);

families, which cost nothing in it, save nothing. This is weak for few items, for which it is not used.

Making a plan of the mixture does not belong here (see improve.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.linear import INF, Array, Index, Model, Solution, run_linear
from npq_assets.optimization.lot_sizing.problem import LotSizingProblem
from npq_assets.optimization.lot_sizing.pure import last_allowed, net_demand, sunk_cost, unserved_cost
from npq_assets.optimization.lot_sizing.tight import elastic_price


@dataclass
class Pricing:
    """The cheapest plan of every item at given prices of minutes."""

    problem: LotSizingProblem
    net: Array = field(init=False)

    def __post_init__(self) -> None:
        p = self.problem
        n, _, periods = p.shape
        self.net = net_demand(p)
        u = np.arange(periods)
        self._units = np.concatenate([np.zeros((n, 1)), np.cumsum(self.net, axis=1)], axis=1)
        self._moment = np.concatenate([np.zeros((n, 1)), np.cumsum(self.net * u, axis=1)], axis=1)
        self._late = np.nan_to_num(p.late_cost)
        self._last = np.stack([last_allowed(p, i) for i in range(n)]) if n else np.zeros((0, periods), np.int64)
        owed = np.stack([unserved_cost(p, i) for i in range(n)]) if n else np.zeros((0, periods))
        with np.errstate(invalid="ignore"):
            cost = np.where(self.net > 0, self.net * owed, 0.0)
        tail = np.cumsum(cost[:, ::-1], axis=1)[:, ::-1]
        self._owed = np.concatenate([tail, np.zeros((n, 1))], axis=1)
        self._run = np.where(p.eligible, p.run_time, 0.0)

    def solve(self, price: Array) -> tuple[Array, NDArray[np.int16], Array, Array]:
        """Cheapest plans.

        Args:
            price: Money per minute (M, T), >= 0.

        Returns:
            Value at these prices (n); lot that serves each period's demand as machine * T + period, -1 for none (n, T);
            cost in money without the minutes' price (n); minutes used (n, M, T).
        """
        p = self.problem
        n, machines, periods = p.shape
        fixed = p.setup_cost[:, :, None] + p.setup_time[:, :, None] * price
        unit = p.variable_cost + self._run[:, :, None] * price
        fixed = np.where(p.eligible[:, :, None], fixed, INF)
        room = p.capacity + np.minimum(p.overtime_limit, 1e9)
        fixed = np.where(room[None] > p.least_setup_time[:, :, None], fixed, INF)
        best = np.full((n, periods + 1), INF)  # value with the demand of all periods before t served
        best[:, 0] = 0.0
        opened = np.full((n, machines, periods), INF)  # ... and a lot in (m, t) that serves from some period on
        opened_at = np.zeros((n, machines, periods), np.int16)
        origin = np.full((n, periods + 1), -2, np.int32)  # lot whose service ends before t; -1: no demand in t - 1
        any_late = bool(p.may_be_late.any())
        for t in range(periods):
            # A lot in t may serve late demand from a <= t on: value before a plus lateness of a .. t - 1.
            first = 0 if any_late else t
            a = np.arange(first, t + 1)
            units = self._units[:, t][:, None] - self._units[:, a]
            moment = self._moment[:, t][:, None] - self._moment[:, a]
            lateness = self._late[:, None] * (t * units - moment)
            if any_late:
                # Demand a .. t - 1 must allow to be made in t.
                allowed = np.where(self.net[:, first:t] > 0, self._last[:, first:t] >= t, True)
                suffix = np.concatenate(
                    [np.logical_and.accumulate(allowed[:, ::-1], axis=1)[:, ::-1], np.ones((n, 1), bool)], 1
                )
                lateness = np.where(suffix, lateness, INF)
            value = (best[:, a] + lateness)[:, None, :] + units[:, None, :] * unit[:, :, t][:, :, None]
            pick = value.argmin(axis=2)
            opened[:, :, t] = np.take_along_axis(value, pick[:, :, None], 2)[:, :, 0] + fixed[:, :, t]
            opened_at[:, :, t] = a[pick]
            # It ends its service with the demand of t or a later one.
            b = np.arange(t + 1, periods + 1)
            units = self._units[:, b] - self._units[:, t][:, None]
            held = p.holding_cost[:, None] * (self._moment[:, b] - self._moment[:, t][:, None] - t * units)
            value = opened[:, :, t][:, :, None] + units[:, None, :] * unit[:, :, t][:, :, None] + held[:, None, :]
            machine = value.argmin(axis=1)
            value = np.take_along_axis(value, machine[:, None, :], 1)[:, 0, :]
            better = value < best[:, b] - 1e-12
            best[:, b] = np.where(better, value, best[:, b])
            origin[:, b] = np.where(better, machine * periods + t, origin[:, b])
            idle = (self.net[:, t] <= 0) & (best[:, t] <= best[:, t + 1])
            best[:, t + 1] = np.where(idle, best[:, t], best[:, t + 1])
            origin[:, t + 1] = np.where(idle, -1, origin[:, t + 1])
        # The demand of the last periods may stay owed.
        ends = best + self._owed
        end = ends.argmin(axis=1)
        total = np.take_along_axis(ends, end[:, None], 1)[:, 0]
        lot = np.full((n, periods), -1, np.int16)
        at = end.copy()
        for _ in range(periods):
            going = at > 0
            if not going.any():
                break
            rows = np.flatnonzero(going)
            source = origin[rows, at[rows]]
            idle = source == -1
            start = at[rows] - 1
            real = rows[~idle]
            m, s = source[~idle] // periods, source[~idle] % periods
            start[~idle] = opened_at[real, m, s]
            for row, first_, last_, which in zip(real, start[~idle], at[real], source[~idle], strict=True):
                lot[row, first_:last_] = which
            at[rows] = start
        cost, use = self.evaluate(lot)
        value_of: Array = total
        return value_of, lot, cost, use

    def kept(self, price: Array) -> float:
        """The most that set-ups kept from period to period can save at the prices of minutes (M, T); 0 without `carry_over`."""
        p = self.problem
        if not p.carry_over:
            return 0.0
        worth = p.setup_cost[:, :, None] + p.setup_time[:, :, None] * price
        most = np.where(p.eligible[:, :, None], worth, 0.0).max(axis=0, initial=0.0)
        opened = p.capacity + p.overtime_limit > 0
        for m, i in enumerate(p.standing_at_start):
            first = np.flatnonzero(opened[m])[:1]
            most[m, first] = worth[i, m, first] if i >= 0 and p.eligible[i, m] else 0.0
        return float(most[opened].sum())

    def evaluate(self, lot: NDArray[np.int16]) -> tuple[Array, Array]:
        """Money (n) and minutes (n, M, T) of plans given by the lot that serves each period."""
        p = self.problem
        n, machines, periods = p.shape
        i, u = np.nonzero((lot >= 0) & (self.net > 0))
        m, t = lot[i, u] // periods, lot[i, u] % periods
        made = np.zeros((n, machines, periods))
        np.add.at(made, (i, m, t), self.net[i, u])
        setup = made > 0
        carried = np.where(t <= u, p.holding_cost[i] * (u - t), self._late[i] * (t - u)) * self.net[i, u]
        cost = np.bincount(i, carried, minlength=n).astype(float)  # an integer count where nothing is served
        with np.errstate(invalid="ignore"):
            owed = np.diff(-self._owed, axis=1)
        cost += np.where((lot < 0) & (self.net > 0), owed, 0.0).sum(axis=1)
        cost += (p.variable_cost * made).sum(axis=(1, 2)) + (p.setup_cost[:, :, None] * setup).sum(axis=(1, 2))
        use = self._run[:, :, None] * made + p.setup_time[:, :, None] * setup
        money: Array = np.asarray(cost, float)
        return money, use


@dataclass
class Mixture:
    """The master's answer.

    Attributes:
        bound: Proven bound of the whole problem (money).
        value: Value of the mixture, extra minutes included (money).
        extra: Extra minutes of the mixture (M, T); beyond 0 no plan can keep the capacities, if the search was finished.
        price: Worth of a minute (M, T).
        weights: Weight of each column.
        item: Item of each column.
        lots: Lot serving each period, per column (columns, T).
        values: Cheapest value of each item at the best prices (n).
        finished: Whether the mixture is optimal.
        rounds: Rounds of pricing.
    """

    bound: float
    value: float
    extra: Array
    price: Array
    weights: Array
    item: Index
    lots: NDArray[np.int16]
    values: Array
    finished: bool
    rounds: int


def generate(
    problem: LotSizingProblem, *, seconds: float, gap: float = 2e-4, rounds: int = 300, smoothing: float = 0.5
) -> Mixture:
    """Column generation until the mixture is within `gap` of its bound."""
    started = time.monotonic()
    n, machines, periods = problem.shape
    pricing = Pricing(problem)
    constant = sunk_cost(problem)
    limit = np.minimum(problem.overtime_limit, 1e9)
    dear = elastic_price(problem)[0]
    model = Model()
    model.add_columns((machines, periods), problem.overtime_cost, 0.0, limit)
    extra = model.add_columns((machines, periods), dear)
    capacity = model.add_rows(machines * periods, high=problem.capacity.ravel())
    model.add_rows(n, 1.0, 1.0)
    model.add_entries(capacity, np.arange(machines * periods), -1.0)
    model.add_entries(capacity, extra.ravel(), -1.0)
    first = model.columns
    highs = model.load(relaxed=True)
    if n + machines * periods > 500:
        highs.setOptionValue("solver", "ipm")  # measured at 1,000 x 52 x 3: a third of the simplex method's time
    item: list[int] = []
    lots: list[NDArray[np.int16]] = []
    seen: list[set[bytes]] = [set() for _ in range(n)]

    def add(lot: NDArray[np.int16], cost: Array, use: Array, rows: Index) -> int:
        fresh = [int(i) for i in rows if lot[i].tobytes() not in seen[i]]
        if not fresh:
            return 0
        flat = use[fresh].reshape(len(fresh), -1)
        starts, index, value = [], [], []
        position = 0
        for k, i in enumerate(fresh):
            seen[i].add(lot[i].tobytes())
            which = np.flatnonzero(flat[k])
            starts.append(position)
            index.append(np.append(which, machines * periods + i))
            value.append(np.append(flat[k][which], 1.0))
            position += len(which) + 1
        highs.addCols(
            len(fresh), cost[fresh], np.zeros(len(fresh)), np.full(len(fresh), INF), position,
            np.array(starts, np.int32), np.concatenate(index).astype(np.int32), np.concatenate(value),
        )  # fmt: skip
        item.extend(fresh)
        lots.extend(lot[i].copy() for i in fresh)
        return len(fresh)

    def lagrange(values: Array, price: Array) -> float:
        overtime = np.minimum(problem.overtime_cost - price, 0.0) * limit
        return constant + float(values.sum() - (price * problem.capacity).sum() + overtime.sum()) - pricing.kept(price)

    centre = np.zeros((machines, periods))
    values, lot, cost, use = pricing.solve(centre)
    best, best_values, best_price = lagrange(values, centre), values, centre
    add(lot, cost, use, np.arange(n))
    # A few plans at rising prices of all minutes: a start that is near feasible.
    for share in (0.1, 0.5):
        trial = np.full((machines, periods), share * dear / 10.0)
        _, lot, cost, use = pricing.solve(trial)
        add(lot, cost, use, np.arange(n))
    finished, count = False, 0
    solution = Solution("none", None, INF, -INF)
    value = INF
    while count < rounds and time.monotonic() - started < seconds:
        count += 1
        highs.setOptionValue("time_limit", highs.getRunTime() + max(0.1, seconds - (time.monotonic() - started)))
        solution_new = run_linear(highs)
        if solution_new.duals is None:
            break
        solution = solution_new
        value = constant + solution.objective
        assert solution.duals is not None
        target = np.maximum(0.0, -solution.duals[: machines * periods]).reshape(machines, periods)
        convex = solution.duals[machines * periods :]
        added = 0
        for weight in (smoothing, 0.0):
            price = weight * centre + (1 - weight) * target
            values, lot, cost, use = pricing.solve(price)
            bound = lagrange(values, price)
            if bound > best:
                best, best_values, best_price, centre = bound, values, price, price
            reduced = cost + (use * target).sum(axis=(1, 2)) - convex
            added = add(lot, cost, use, np.flatnonzero(reduced < -1e-9 * (1 + np.abs(cost))))
            if added or weight == 0.0:
                break
        if value - best <= gap * abs(value):
            finished = True
            break
        if not added:
            finished = True
            break
    if solution.x is None:
        none = np.zeros(0)
        empty = np.zeros((0, periods), np.int16)
        return Mixture(
            best,
            INF,
            np.zeros((machines, periods)),
            best_price,
            none,
            np.zeros(0, np.int64),
            empty,
            best_values,
            False,
            count,
        )
    known = len(solution.x) - first
    beyond = solution.x[extra.ravel()].reshape(machines, periods)
    return Mixture(
        best, value, beyond, best_price, solution.x[first:], np.array(item[:known]), np.array(lots[:known]), best_values,
        finished, count,
    )  # fmt: skip


def support(
    problem: LotSizingProblem, mixture: Mixture, least: float = 1e-6
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Lots that some plan of the mixture has (n, M, T), and items whose mixture is one plan (n)."""
    n, machines, periods = problem.shape
    net = net_demand(problem)
    lots = np.zeros((n, machines, periods), bool)
    for k in np.flatnonzero(mixture.weights > least):
        i = mixture.item[k]
        which = mixture.lots[k][(net[i] > 0) & (mixture.lots[k] >= 0)].astype(int)
        lots[i, which // periods, which % periods] = True
    heaviest = np.zeros(n)
    np.maximum.at(heaviest, mixture.item, mixture.weights)
    return lots, heaviest > 1 - 1e-6
