"""From a mixture or a poor plan to a good one: integer programs over a part of the decisions, the rest fixed.

Fix-and-optimize (Pochet & Wolsey 2006, sec. 3.6; Helber & Sahling 2010): setups outside a window of periods or a group of
items are fixed, all quantities stay free. For many items the same with the other items' plans fixed as used minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.linear import INF, Array, solve_integer, solve_linear
from npq_assets.optimization.lot_sizing.decomposition import Mixture, Pricing, support
from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, Production, flow, price
from npq_assets.optimization.lot_sizing.pure import PureForm, build_pure, net_demand
from npq_assets.optimization.lot_sizing.tight import Form, elastic_price

# Of HiGHS' searches at the root node, measured on daily plans of 100 to 600 setups: RENS finds nearly all that the three find
# together, in half the time.
SHORT = {"mip_heuristic_run_rins": False, "mip_heuristic_run_root_reduced_cost": False}
Setups = NDArray[np.bool_]
Clock = Callable[[], float]  # seconds left


@dataclass
class Best:
    """The best plan so far.

    Attributes:
        production: The plan.
        value: Its cost, with the price of the limits that it breaks (money).
        broken: Whether it breaks any: no price makes up for that, since a minute too many can save a whole setup.
    """

    production: Production
    value: float = INF
    broken: bool = True

    def offer(self, problem: LotSizingProblem, production: Production) -> bool:
        """Takes the plan if it is better."""
        value, broken = penalized(problem, production)
        cheaper = value < self.value - (1e-9 * max(1.0, abs(self.value)) if np.isfinite(self.value) else 0.0)
        if (self.broken and not broken) or (broken == self.broken and cheaper):
            self.production, self.value, self.broken = production, value, broken
            return True
        return False


def penalized(problem: LotSizingProblem, production: Production) -> tuple[float, bool]:
    """Cost of a plan, limits that it breaks priced above all others (money), and whether it breaks any."""
    f = flow(problem, production)
    minute, unit = elastic_price(problem)
    over = np.maximum(0.0, f.overtime - problem.overtime_limit)
    over = np.where(over > 1e-6 * np.maximum(1.0, problem.capacity), over, 0.0)
    allowed = np.where(problem.may_be_late[:, None], problem.max_backlog, 0.0)
    late = np.maximum(0.0, f.backlog - allowed)
    late = np.where(late > 1e-6 * np.maximum(1.0, problem.demand), late, 0.0)
    broken = float(((late + np.where(f.short > 1e-6, f.short, 0.0)).sum(axis=1) * unit).sum())
    least = problem.minimum_lot[:, None, None]
    small = (production.quantity > 1e-6) & (production.quantity < least * (1 - 1e-5) - 1e-5)
    broken += float((np.where(small, least - production.quantity, 0.0).sum(axis=(1, 2)) * unit).sum())
    penalty = minute * float(over.sum()) + broken
    return price(problem, production, f).total + penalty, penalty > 0


def window_neighbourhoods(problem: LotSizingProblem, seed: int, *, binaries: int = 90) -> Iterator[Setups]:
    """Setups that are free, in turn: windows of periods over all items, then groups of items over all periods."""
    n, machines, periods = problem.shape
    rng = np.random.default_rng(seed)
    per_period = max(1, int(problem.eligible.sum()))
    width = int(np.clip(binaries // per_period, 2, periods))
    group = int(np.clip(binaries * n // max(1, per_period * periods), 1, n))
    while True:
        if per_period * 2 <= 4 * binaries:
            for start in range(0, max(1, periods - width // 2), max(1, width // 2)):
                free = np.zeros((n, machines, periods), bool)
                free[:, :, start : start + width] = True
                yield free
        order = rng.permutation(n)
        for start in range(0, n, group):
            free = np.zeros((n, machines, periods), bool)
            free[order[start : start + group]] = True
            yield free
        if per_period * 2 > 4 * binaries or n > 3 * group:
            # Both at once, for larger plans.
            some = rng.choice(n, min(n, 4 * group), replace=False)
            first = int(rng.integers(0, max(1, periods - periods // 3)))
            free = np.zeros((n, machines, periods), bool)
            free[some, :, first : first + max(2, periods // 3)] = True
            yield free


def fix_and_optimize(
    problem: LotSizingProblem, form: Form | PureForm, best: Best, left: Clock, *, passes: int, nodes: int | None,
    found: Callable[[Production], None], seed: int = 0, until_feasible: bool = False, target: float = -INF,
    gap: float = 1e-4, binaries: int = 90, options: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Improves `best` until the passes, the time or all neighbourhoods are spent.

    Args:
        problem: The data.
        form: The whole program; its setups' limits are changed and put back.
        best: The plan to improve, in place.
        left: Seconds left.
        passes: How many neighbourhoods at most.
        nodes: Node limit of each program; None leaves time slices.
        found: Called with every better plan.
        seed: Of the order of neighbourhoods.
        until_feasible: Stop at the first plan that keeps all limits.
        target: Stop at this value.
        gap: Relative gap at which each program stops.
        binaries: Setups that are free in a neighbourhood, about.
        options: Of HiGHS.
    """
    known = form.y >= 0
    low, high = form.model.low.copy(), form.model.high.copy()
    idle = 0
    neighbourhoods = window_neighbourhoods(problem, seed, binaries=binaries)
    for _ in range(passes):
        if left() <= 0.5 or idle > 12 + 2 * len(problem.periods) or (not best.broken and best.value <= target):
            break
        free = next(neighbourhoods)
        setup = made(problem, best.production)
        fixed = known & ~free
        form.model.low[form.y[fixed]] = np.maximum(low[form.y[fixed]], setup[fixed])
        form.model.high[form.y[fixed]] = np.maximum(low[form.y[fixed]], setup[fixed])
        start = start_of(problem, form, best.production)
        limit = left() if nodes is not None else min(left(), 4.0)
        solution = solve_integer(form.model, seconds=limit, gap=gap, nodes=nodes or 300, start=start, options=options)
        form.model.low[:], form.model.high[:] = low, high
        if solution.x is not None and best.offer(problem, form.production(solution.x, problem)):
            idle = 0
            found(best.production)
            if until_feasible and not best.broken:
                break
        else:
            idle += 1


def made(problem: LotSizingProblem, production: Production) -> Setups:
    """Set-ups that a plan makes (n, M, T)."""
    return flow(problem, production).setup if problem.carry_over else production.setup


def start_of(problem: LotSizingProblem, form: Form | PureForm, production: Production) -> Array:
    """The set-ups of a plan as a point; everything else is left to the solver."""
    point = np.full(form.model.columns, np.nan)
    known, linked = form.y >= 0, form.links.item >= 0
    setup, family = production.setup, None
    if linked.any():
        f = flow(problem, production)
        setup, family = f.setup, f.family_setup
        point[form.links.item[linked]] = form.links.values(f.linked.kept)
    point[form.y[known]] = np.maximum(setup[known], form.model.low[form.y[known]])
    if len(form.z):
        _, _, of = problem.family_arrays()
        if family is None:
            family = np.stack([setup[of == k].any(axis=0) for k in range(len(form.z))])
        point[form.z.ravel()] = family.ravel().astype(float)
    return point


def fix(problem: LotSizingProblem, form: Form | PureForm, production: Production) -> None:
    """Fixes the set-ups of a program to those of a plan, and what is kept from period to period."""
    f = flow(problem, production)
    form.fix_setups(f.setup, f.linked.kept)
    if len(form.z):
        form.model.low[form.z.ravel()] = f.family_setup.ravel()
    if isinstance(form, Form):
        known = form.there >= 0
        lots = (production.quantity[known] > 1e-6).astype(float)
        form.model.low[form.there[known]], form.model.high[form.there[known]] = lots, lots


def round_up(problem: LotSizingProblem, form: Form | PureForm, relaxed: Array) -> Production:
    """Sets up wherever the relaxation does, and plans the quantities again: a start that is dear but rarely broken."""
    low, high = form.model.low.copy(), form.model.high.copy()
    known = form.y >= 0
    on = np.zeros(form.y.shape, bool)
    share = np.zeros(form.y.shape)
    share[known] = relaxed[form.y[known]]
    linked = form.links.item >= 0
    share[linked] += relaxed[form.links.item[linked]]
    for least in (0.5, 0.1, 1e-6):
        on[known] = share[known] > least
        form.fix_setups(on)
        if len(form.z):
            form.model.low[form.z.ravel()] = 0.0
        solution = solve_linear(form.model)
        form.model.low[:], form.model.high[:] = low, high
        if solution.x is not None:
            return form.production(solution.x, problem)
    return Production(np.zeros(problem.shape), np.zeros(problem.shape, bool))


def plan_of_lots(problem: LotSizingProblem, lots: NDArray[np.int16]) -> Production:
    """The plan in which demand of period u is made in lot lots[i, u]."""
    n, machines, periods = problem.shape
    net = net_demand(problem)
    quantity = np.zeros((n, machines, periods))
    i, u = np.nonzero((lots >= 0) & (net > 0))
    np.add.at(quantity, (i, lots[i, u] // periods, lots[i, u] % periods), net[i, u])
    return Production(quantity, quantity > 0)


def round_mixture(problem: LotSizingProblem, mixture: Mixture) -> Production:
    """Every item's heaviest plan."""
    n, _, periods = problem.shape
    lots = np.full((n, periods), -1, np.int16)
    weight = np.full(n, -1.0)
    for k, i in enumerate(mixture.item):
        if mixture.weights[k] > weight[i]:
            weight[i], lots[i] = mixture.weights[k], mixture.lots[k]
    return plan_of_lots(problem, lots)


def improve_items(
    problem: LotSizingProblem, mixture: Mixture, best: Best, left: Clock, *, passes: int, nodes: int | None,
    found: Callable[[Production], None], target: float, seed: int = 0,
) -> None:  # fmt: skip
    """Improves a plan of many items: first those whose mixture is no single plan, then groups with the largest gap."""
    n, machines, periods = problem.shape
    rng = np.random.default_rng(seed)
    held, single = support(problem, mixture)
    pooled = np.zeros((n, machines, periods), bool)
    net = net_demand(problem) > 0
    flat = pooled.reshape(n, -1)
    for i, lot in zip(mixture.item, mixture.lots, strict=True):
        flat[i, lot[net[i] & (lot >= 0)]] = True
    mixed = np.flatnonzero(~single)
    size = max(10, 1500 // periods)
    for turn in range(passes):
        if left() <= 1.0 or (not best.broken and best.value <= target):
            break
        setup = best.production.setup
        gap = item_gaps(problem, mixture, best.production)
        free = np.zeros(n, bool)
        loose = np.zeros(n, bool)
        if turn == 0:
            free[mixed] = True
            others = np.flatnonzero(~free)
            loose[rng.permutation(others)[: max(0, 3 * size - len(mixed))]] = True
            allowed = held | setup
        else:
            worst = np.argsort(-gap * rng.uniform(0.3, 1.0, n), kind="stable")
            free[worst[:size]] = True
            loose[rng.permutation(np.flatnonzero(~free))[: 2 * size]] = True
            allowed = pooled | setup | shifted(setup)
        allowed = np.where(free[:, None, None], allowed, setup & loose[:, None, None])
        forced = setup & (loose & ~free)[:, None, None]
        chosen = free | loose
        rest = Production(
            np.where(chosen[:, None, None], 0.0, best.production.quantity), setup & ~chosen[:, None, None]
        )
        others_flow = flow(problem, rest)
        form = build_pure(
            problem, items=chosen, allowed=allowed, forced=forced, used=others_flow.used,
            family_on=others_flow.family_setup, earlier_lots=4, elastic=best.broken, linked=False,
        )  # fmt: skip
        limit = left() if nodes is not None else min(left(), 20.0 if turn == 0 else 8.0)
        solution = solve_integer(
            form.model, seconds=limit, gap=2e-5, nodes=nodes or 400, start=start_of(problem, form, best.production)
        )
        if solution.x is None:
            continue
        part = form.production(solution.x, problem)
        merged = Production(rest.quantity + part.quantity, rest.setup | part.setup)
        if best.offer(problem, merged):
            found(best.production)


def item_gaps(problem: LotSizingProblem, mixture: Mixture, production: Production) -> Array:
    """How much dearer each item's plan is than its best, at the prices of the bound (n)."""
    pricing_value = mixture.values
    f = flow(problem, production)
    run = np.where(problem.eligible, problem.run_time, 0.0)
    minutes = run[:, :, None] * production.quantity + problem.setup_time[:, :, None] * production.setup
    late = np.nan_to_num(problem.late_cost)
    cost = (problem.variable_cost * production.quantity).sum(axis=(1, 2))
    cost += (problem.setup_cost[:, :, None] * production.setup).sum(axis=(1, 2))
    cost += problem.holding_cost * f.stock.sum(axis=1) + late * f.backlog.sum(axis=1)
    cost += problem.end_late_cost * f.backlog[:, -1] + (minutes * mixture.price).sum(axis=(1, 2))
    gap: Array = np.maximum(0.0, cost - pricing_value)
    return gap


def shifted(setup: Setups) -> Setups:
    """Lots a period earlier or later."""
    near = np.zeros_like(setup)
    near[:, :, :-1] |= setup[:, :, 1:]
    near[:, :, 1:] |= setup[:, :, :-1]
    return near


__all__ = ["Best", "Pricing", "fix_and_optimize", "improve_items", "penalized", "round_mixture", "round_up"]
