"""How much each site should order of each product on a day, under limits that products share.

One order per item arrives at the opening of one period; the next chance comes a period later. Ordering q packs of size b
costs c_i(q) = E[h (x + b q - d)^+ + p (d - x - b q)^+] over scenarios of the stock x then and the demand d of that period,
convex in q. The problem is

    minimize    sum_i c_i(q_i)
    subject to  sum_{i in g} b_i q_i <= Q_g,   sum_{i in g} a_i b_i q_i <= M_g    for each supplier and arrival day g
                q_i = 0 or q_i >= minimum order, q_i integer.

Without shared limits it falls apart into newsvendors (Snyder & Shen, Fundamentals of Supply Chain Theory, sec. 4.3) and is
solved in closed form. With them, c_i is written by its slopes between sorted breakpoints: a linear program in CVXPY gives
the worth of each limit, a Lagrangian over the exact c_i the bound, rounding and, where that leaves a gap, an integer
program the plan.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.optimization import highs
from npq_assets.optimization.costs import InventoryCost
from npq_assets.optimization.result import DUALS, RELAXATION, Result

Array = NDArray[np.float64]
_GROUP = ["supplier_id", "arrives_on"]
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class ReplenishmentProblem:
    """Items that may be ordered today.

    Attributes:
        items: One row an item: site_id, product_id, holding_cost (money per unit left at the period's end),
            shortage_cost (money per unit lost), unit_cost (money per unit), pack_size (units), min_order (units),
            supplier_id, arrives_on.
        x: Stock at the opening of the arrival period before the order (n, S).
        d: Demand of that period (n, S).
        limits: supplier_id, arrives_on, max_quantity (units), max_spend (money); null is no limit.
    """

    items: pl.DataFrame
    x: Array
    d: Array
    limits: pl.DataFrame

    @property
    def cost(self) -> InventoryCost:
        """The cost object that prices every plan of this problem."""
        return InventoryCost.of(_finite(self.items, "holding_cost"), _finite(self.items, "shortage_cost"))


@dataclass(frozen=True)
class Params:
    """How long to search.

    Attributes:
        nodes: Branch-and-bound nodes of the integer program: the limit that makes runs repeatable.
        seconds: Clock behind it, for a machine that is too slow.
        gap: A plan this close to its bound is good enough.
    """

    nodes: int = 2_000
    seconds: float = 30.0
    gap: float = 1e-4


def price(problem: ReplenishmentProblem, quantity: Array) -> Array:
    """Expected cost of ordering `quantity` units, item by item (n)."""
    expected: Array = problem.cost.value(problem.x + np.asarray(quantity, float)[:, None], problem.d).mean(axis=1)
    return expected


def solve(problem: ReplenishmentProblem, params: Params | None = None) -> Result:
    """The orders of least expected cost.

    Returns:
        A plan with quantity, expected_cost, lower_bound (the rows' bounds add up to the proven bound) and solver_reason.
        Limits that no plan can meet are named in `relaxation`; there is an order, of 0 or more, for every item.
    """
    params = params or Params()
    started = time.monotonic()
    curves = _Curves.of(problem)
    packs, free_bound = curves.unconstrained()
    bounds, duals, messages = free_bound.copy(), [], curves.messages
    groups = _groups(problem)
    status, solver = "optimal", "closed form"
    words = np.array([curves.words(i, packs[i]) for i in range(curves.n)], dtype=object)
    for group in groups:
        if group.kept_by(packs, curves):
            duals += group.report(np.zeros(2), packs, curves)
            continue
        chosen, bound, worth = _solve_group(group, packs, curves, params)
        solver = "CVXPY and HiGHS"
        packs[group.rows], bounds[group.rows] = chosen, bound
        duals += group.report(worth, packs, curves)
        for i in group.rows:
            words[i] = curves.words(i, packs[i], cut_by=group.name if packs[i] < curves.best[i] else "")
        messages += group.conflicts(curves)
    quantity = packs * curves.pack
    cost = price(problem, quantity)
    objective, bound_total = float(cost.sum()), float(bounds.sum())
    if objective - bound_total > params.gap * max(1.0, abs(objective)):
        status = "feasible"
    if messages:
        status = "relaxed"
    plan = problem.items.select("site_id", "product_id").with_columns(
        pl.Series("quantity", quantity),
        pl.Series("expected_cost", cost),
        pl.Series("lower_bound", np.minimum(bounds, cost)),
        pl.Series("solver_reason", words.tolist(), dtype=pl.String),
    )
    return Result(
        plan,
        status,
        objective,
        min(bound_total, objective),
        pl.DataFrame(duals, schema=DUALS, orient="row"),
        pl.DataFrame(messages, schema=RELAXATION, orient="row").sort("amount", "constraint"),
        solver,
        time.monotonic() - started,
    )


def _finite(items: pl.DataFrame, column: str) -> Array:
    return np.nan_to_num(
        items[column].cast(pl.Float64).fill_null(0.0).to_numpy(), nan=0.0, posinf=0.0, neginf=0.0
    ).clip(0)


@dataclass
class _Curves:
    """Expected cost of every item by packs ordered, evaluated where needed.

    `best` is the cheapest number of packs without shared limits, `least` the smallest allowed above zero.
    """

    problem: ReplenishmentProblem
    pack: Array
    least: Array
    best: Array
    need: Array
    holding: Array
    shortage: Array
    messages: list[tuple[str, float, str]]

    @property
    def n(self) -> int:
        return len(self.pack)

    @classmethod
    def of(cls, problem: ReplenishmentProblem) -> _Curves:
        items = problem.items
        pack = _finite(items, "pack_size")
        pack = np.where(pack > 0, pack, 1.0)
        least = np.maximum(1.0, np.ceil(_finite(items, "min_order") / pack - _TOLERANCE))
        need = np.sort(problem.d - problem.x, axis=1)
        messages = []
        for column in ("holding_cost", "shortage_cost"):
            values = items[column].cast(pl.Float64)
            for i in (~(values.is_finite() & (values >= 0)).fill_null(False)).arg_true():
                name = f"{items['product_id'][i]} at {items['site_id'][i]}"
                messages.append((f"{column} of {name}", 0.0, f"{column} of {name} is {values[i]}; 0 assumed"))
        rates = _finite(items, "holding_cost"), _finite(items, "shortage_cost")
        curves = cls(problem, pack, least, np.zeros(len(pack)), need, *rates, messages)
        curves.best = curves._cheapest()
        return curves

    def cost(self, packs: Array, rows: NDArray[np.int64] | None = None) -> Array:
        rows = np.arange(self.n) if rows is None else rows
        available = self.problem.x[rows] + (packs * self.pack[rows])[:, None]
        prices = InventoryCost.of(self.holding[rows], self.shortage[rows])
        expected: Array = prices.value(available, self.problem.d[rows]).mean(axis=1)
        return expected

    def _cheapest(self) -> Array:
        """The newsvendor: the critical-ratio quantile of what is missing, on the pack grid, against not ordering."""
        if self.n == 0:
            return np.zeros(0)
        scenarios = self.need.shape[1]
        ratio = self.problem.cost.critical_ratio
        rank = np.clip(np.ceil(ratio * scenarios - 1e-9).astype(int) - 1, 0, scenarios - 1)
        target = np.where(ratio > 0, self.need[np.arange(self.n), rank], 0.0)
        low = np.maximum(np.floor(target / self.pack + _TOLERANCE), 0.0)
        choices = np.stack([low, low + 1, np.maximum(low - 1, 0)])
        choices = np.where((choices > 0) & (choices < self.least), self.least, choices)
        choices = np.concatenate([np.zeros((1, self.n)), choices])
        costs = np.stack([self.cost(choice) for choice in choices])
        # Of equally cheap orders the smallest, so that rounding noise never orders.
        costs = costs + 1e-12 * (1 + costs) * choices
        best: Array = choices[np.argmin(costs, axis=0), np.arange(self.n)]
        return best

    def unconstrained(self) -> tuple[Array, Array]:
        return self.best.copy(), self.cost(self.best)

    def breakpoints(self, i: int) -> Array:
        """Packs between which the cost of item i is linear, from 0 to its cheapest order."""
        edges = self.need[i] / self.pack[i]
        points = np.concatenate([np.floor(edges), np.ceil(edges), [0.0, self.best[i], self.least[i]]])
        return np.unique(points[(points >= 0) & (points <= self.best[i])])

    def words(self, i: int, packs: float, cut_by: str = "") -> str:
        rates = self.holding[i] + self.shortage[i]
        ratio = float(self.shortage[i] / rates) if rates > 0 else 0.0
        if cut_by:
            return f"{self.best[i] * self.pack[i]:g} would pay, {packs * self.pack[i]:g} ordered: {cut_by} is short"
        if packs == 0:
            return f"enough for a service of {ratio:.0%}" if ratio else "nothing to gain from an order"
        return f"ordered for a service of {ratio:.0%}"


@dataclass(frozen=True)
class _Group:
    """The items that share the limits of a supplier on a day."""

    name: str
    key: tuple[Any, Any]
    rows: NDArray[np.int64]
    amounts: Array  # quantity, spend; inf where there is no limit
    use: Array  # (2, items of the group): units and money per pack

    def used(self, packs: Array) -> Array:
        total: Array = self.use @ packs[self.rows]
        return total

    def kept_by(self, packs: Array, curves: _Curves) -> bool:
        return bool((self.used(packs) <= self.amounts + _TOLERANCE * (1 + self._scale())).all())

    def _scale(self) -> Array:
        return np.where(np.isfinite(self.amounts), np.abs(self.amounts), 0.0)

    def report(self, worth: Array, packs: Array, curves: _Curves) -> list[tuple[Any, ...]]:
        used = self.used(packs)
        return [
            (*self.key, name, float(self.amounts[k]), float(used[k]), float(worth[k]), "dual of the relaxation")
            for k, name in enumerate(("max_quantity", "max_spend"))
            if np.isfinite(self.amounts[k])
        ]

    def conflicts(self, curves: _Curves) -> list[tuple[str, float, str]]:
        """Minimum orders that alone exceed a limit: ordering none keeps it, raising it by the amount would not be needed."""
        found = []
        items = curves.problem.items
        for position, i in enumerate(self.rows.tolist()):
            over = self.use[:, position] * curves.least[i] - self.amounts
            if curves.least[i] > 1 and curves.best[i] > 0 and (over > _TOLERANCE).any():
                short = float(over.max())
                name = f"{items['product_id'][i]} at {items['site_id'][i]}"
                saving = float(
                    curves.cost(np.zeros(1), np.array([i]))[0] - curves.cost(curves.best[[i]], np.array([i]))[0]
                )
                found.append(
                    (
                        f"minimum order of {name} and limit of {self.name}",
                        short,
                        f"the minimum order of {name} exceeds the limit of {self.name} by {short:g}; none ordered; "
                        f"{short:g} more would save up to {saving:.2f}",
                    )
                )
        return found


def _groups(problem: ReplenishmentProblem) -> list[_Group]:
    items = problem.items.with_row_index("row").with_columns(
        pl.col("supplier_id").cast(pl.String), pl.col("arrives_on").cast(pl.Date)
    )
    limits = problem.limits.filter(pl.col("max_quantity").is_not_null() | pl.col("max_spend").is_not_null())
    joined = items.join(limits, on=_GROUP, how="inner").sort(*_GROUP, "row")
    pack, cost = _Curves.of(problem).pack if joined.height else np.zeros(0), _finite(problem.items, "unit_cost")
    groups = []
    for key, part in joined.group_by(_GROUP, maintain_order=True):
        rows = part["row"].to_numpy().astype(np.int64)
        amounts = np.array(
            [
                np.inf if (value := part[name][0]) is None or not np.isfinite(value) else max(float(value), 0.0)
                for name in ("max_quantity", "max_spend")
            ]
        )
        name = f"supplier {key[0]} on {key[1]}"
        groups.append(_Group(name, (key[0], key[1]), rows, amounts, np.stack([pack[rows], pack[rows] * cost[rows]])))
    return groups


def _solve_group(group: _Group, packs: Array, curves: _Curves, params: Params) -> tuple[Array, Array, Array]:
    """Packs, row bounds and the worth of the two limits, for items whose cheapest orders break a limit."""
    rows = group.rows
    owner, widths, slopes = _segments(rows, curves)
    worth = _worth(group, owner, widths, slopes)
    chosen = _rounded(group, curves, worth)
    bounds, total = _lagrangian(group, curves, worth, chosen)
    cost = float(curves.cost(chosen, rows).sum())
    if cost - total > params.gap * max(1.0, abs(cost)):
        better = _integer(group, curves, owner, widths, slopes, params)
        if better is not None and float(curves.cost(better, rows).sum()) < cost:
            chosen = better
            bounds, _ = _lagrangian(group, curves, worth, chosen)
    return chosen, bounds, worth


def _segments(rows: NDArray[np.int64], curves: _Curves) -> tuple[NDArray[np.int64], Array, Array]:
    """The cost curves up to the cheapest order, as linear pieces: item (position in the group), packs, money per pack."""
    owner, points = [], []
    for position, i in enumerate(rows):
        grid = curves.breakpoints(i)
        owner.append(np.full(len(grid), position))
        points.append(grid)
    where, at = np.concatenate(owner), np.concatenate(points)
    cost = curves.cost(at, rows[where])
    same = where[1:] == where[:-1]
    widths = np.diff(at)[same]
    return where[1:][same], widths, np.diff(cost)[same] / widths


def _worth(group: _Group, owner: NDArray[np.int64], widths: Array, slopes: Array) -> Array:
    """Money that one more unit of each limit would save: duals of the linear relaxation."""
    import cvxpy as cp

    if not len(widths):
        return np.zeros(2)
    order = cp.Variable(len(widths), bounds=[0, widths])
    limited = [k for k in range(2) if np.isfinite(group.amounts[k])]
    constraints = [group.use[k][owner] @ order <= group.amounts[k] for k in limited]
    problem = cp.Problem(cp.Minimize(slopes @ order), constraints)
    if not highs.solve(problem) or order.value is None:
        return np.zeros(2)
    worth = np.zeros(2)
    for k, constraint in zip(limited, constraints, strict=True):
        worth[k] = max(0.0, float(constraint.dual_value))
    return worth


def _lagrangian(group: _Group, curves: _Curves, worth: Array, chosen: Array) -> tuple[Array, float]:
    """Row bounds that add up to the Lagrangian bound, each at most the row's cost at `chosen`.

    L(w) = sum_i min_q [c_i(q) + w.u_i q] - w.A; the rebate w.A is shared out as the plan uses the limits.
    """
    rows = group.rows
    toll = worth @ group.use
    least_cost = np.array([_cheapest_with_toll(curves, i, toll[position]) for position, i in enumerate(rows)])
    rebate = np.zeros(len(rows))
    for k in range(2):
        if worth[k] > 0:
            use = group.use[k] * chosen
            share = use / use.sum() if use.sum() > 0 else np.full(len(rows), 1 / len(rows))
            rebate += worth[k] * group.amounts[k] * share
    bounds = least_cost - rebate
    return bounds, float(bounds.sum())


def _cheapest_with_toll(curves: _Curves, i: int, toll: float) -> float:
    grid = curves.breakpoints(i)
    grid = grid[(grid == 0) | (grid >= curves.least[i])]
    return float((curves.cost(grid, np.full(len(grid), i)) + toll * grid).min())


def _rounded(group: _Group, curves: _Curves, worth: Array) -> Array:
    """A feasible plan near the relaxation: cheapest orders at the limits' worth, cut back, then filled up greedily."""
    rows, toll = group.rows, worth @ group.use
    chosen = np.zeros(len(rows))
    for position, i in enumerate(rows):
        grid = curves.breakpoints(i)
        grid = grid[(grid == 0) | (grid >= curves.least[i])]
        chosen[position] = grid[int(np.argmin(curves.cost(grid, np.full(len(grid), i)) + toll[position] * grid))]
    left = group.amounts - group.use @ chosen
    while (left < -_TOLERANCE * (1 + group._scale())).any():
        below = np.where(chosen > curves.least[rows], chosen - 1, 0.0)
        loss = np.where(chosen > 0, curves.cost(below, rows) - curves.cost(chosen, rows), np.inf)
        freed = group.use * (chosen - below)
        short = left < -_TOLERANCE * (1 + group._scale())
        relief = np.minimum(freed[short], -left[short][:, None]).sum(axis=0)
        score = np.where(relief > 0, loss / np.maximum(relief, 1e-12), np.inf)
        give = int(np.argmin(score))
        if not np.isfinite(score[give]):
            break
        chosen[give] = below[give]
        left = group.amounts - group.use @ chosen
    while True:
        above = np.where(chosen == 0, curves.least[rows], chosen + 1)
        extra = group.use * (above - chosen)
        gain = curves.cost(chosen, rows) - curves.cost(above, rows)
        fits = (extra <= left[:, None] + _TOLERANCE * (1 + group._scale())[:, None]).all(axis=0)
        fits &= (above <= curves.best[rows]) & (gain > 0)
        if not fits.any():
            return chosen
        effort = np.where(np.isfinite(group.amounts)[:, None], extra / np.maximum(group._scale(), 1e-12)[:, None], 0.0)
        score = np.where(fits, gain / np.maximum(effort.sum(axis=0), 1e-12), -np.inf)
        take = int(np.argmax(score))
        chosen[take] = above[take]
        left = group.amounts - group.use @ chosen


def _integer(
    group: _Group, curves: _Curves, owner: NDArray[np.int64], widths: Array, slopes: Array, params: Params
) -> Array | None:
    """The same by branch and bound, stopped by nodes before it is stopped by the clock; None if it finds nothing."""
    import cvxpy as cp

    rows, items = group.rows, len(group.rows)
    order = cp.Variable(len(widths), integer=True)
    constraints: list[Any] = [order >= 0, order <= widths]
    constraints += [group.use[k][owner] @ order <= group.amounts[k] for k in range(2) if np.isfinite(group.amounts[k])]
    floors = np.nonzero(curves.least[rows] > 1)[0]
    if len(floors):
        import scipy.sparse as sp

        placed = cp.Variable(len(floors), boolean=True)
        total = sp.csr_array((np.ones(len(widths)), (owner, np.arange(len(widths)))), shape=(items, len(widths)))
        some = total[floors] @ order
        constraints += [
            some >= cp.multiply(curves.least[rows][floors], placed),
            some <= cp.multiply(curves.best[rows][floors], placed),
        ]
    problem = cp.Problem(cp.Minimize(slopes @ order), constraints)
    found = highs.solve(problem, mip_max_nodes=params.nodes, time_limit=params.seconds, mip_rel_gap=params.gap / 10)
    if not found or order.value is None:
        return None
    chosen = np.bincount(owner, weights=np.round(order.value), minlength=items).astype(float)
    kept = (group.use @ chosen <= group.amounts + _TOLERANCE * (1 + group._scale())).all()
    allowed = (chosen == 0) | (chosen >= curves.least[rows])
    return chosen if bool(kept and allowed.all()) else None
