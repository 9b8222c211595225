"""The planning problem stated in CVXPY, as `problem.py` and `linking.py` write it: the reference for the faster forms.

Solves small plans; the forms that are solved at size must agree with it (the tests compare them).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npq_assets.optimization import highs
from npq_assets.optimization.linear import Array
from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, Production
from npq_assets.optimization.lot_sizing.tight import echelon_demand, largest_lot


def general_form(problem: LotSizingProblem) -> tuple[Any, dict[tuple[int, int], Any], dict[tuple[int, int], Any]]:
    """The CVXPY problem, and its production and setup variables by item and machine (each over T)."""
    import cvxpy as cp

    n, machines, periods = problem.shape
    lot = largest_lot(problem, echelon_demand(problem)[0])
    pairs = [(i, m) for i in range(n) for m in range(machines) if problem.eligible[i, m]]
    x = {pair: cp.Variable(periods, nonneg=True) for pair in pairs}
    y = {pair: cp.Variable(periods, boolean=True) for pair in pairs}
    family_time, family_cost, of = problem.family_arrays()
    z = {(k, m): cp.Variable(periods, boolean=True) for k in range(len(family_time)) for m in range(machines)}
    overtime = cp.Variable((machines, periods), nonneg=True)
    stock, backlog = cp.Variable((n, periods), nonneg=True), cp.Variable((n, periods), nonneg=True)
    missing = cp.Variable((n, periods), nonneg=True)
    finite = np.minimum(problem.overtime_limit, 1e9)
    limits = [overtime <= finite, missing >= problem.safety_stock[:, None] - stock]
    late = np.nan_to_num(problem.late_cost)
    allowed = np.where(problem.may_be_late[:, None], np.minimum(problem.max_backlog, 1e9), 0.0)
    limits.append(backlog <= allowed)
    cost = cp.sum(cp.multiply(problem.overtime_cost, overtime))
    cost += cp.sum(problem.holding_cost @ stock) + cp.sum(late @ backlog) + problem.end_late_cost @ backlog[:, -1]
    cost += cp.sum(problem.safety_cost @ missing)
    kept: dict[tuple[int, int], Any] = dict.fromkeys(pairs, np.zeros(periods))
    family_kept: dict[tuple[int, int], Any] = dict.fromkeys(z, np.zeros(periods))
    if problem.carry_over:
        kept = {pair: cp.Variable(periods, boolean=True) for pair in pairs}
        family_kept = {pair: cp.Variable(periods, boolean=True) for pair in z}
        limits += _links(problem, y, z, kept, family_kept)
    for (i, m), lots in x.items():
        cost += problem.variable_cost[i, m] @ lots + problem.setup_cost[i, m] * cp.sum(y[i, m])
        on = y[i, m] + kept[i, m]
        there = y[i, m]
        if problem.carry_over and problem.minimum_lot[i] > 0:
            there = cp.Variable(periods, boolean=True)  # a machine may stand set up for an item and make none of it
            limits.append(lots <= cp.multiply(lot[i, m], there))
        limits += [lots <= cp.multiply(lot[i, m], on), lots >= problem.minimum_lot[i] * there]
        if of[i] >= 0:
            limits.append(y[i, m] <= z[int(of[i]), m] + family_kept[int(of[i]), m])
    for (k, m), on in z.items():
        cost += family_cost[k, m] * cp.sum(on)
    for m in range(machines):
        minutes: Any = sum(
            (problem.run_time[i, k] * x[i, k] + problem.setup_time[i, k] * y[i, k] for i, k in pairs if k == m),
            np.zeros(periods),
        )
        minutes += sum((family_time[k, j] * on for (k, j), on in z.items() if j == m), np.zeros(periods))
        limits.append(minutes <= problem.capacity[m] + overtime[m])
    for i in range(n):
        lead = int(problem.lead_time[i])
        made: Any = sum((x[j, m] for j, m in pairs if j == i), np.zeros(periods))
        drawn = sum((problem.bill[i, j] * x[j, m] for j, m in pairs if problem.bill[i, j] > 0), np.zeros(periods))
        for t in range(periods):
            ready = made[t - lead] if t >= lead else 0.0
            before = stock[i, t - 1] if t else problem.initial_stock[i]
            owed = backlog[i, t - 1] if t else problem.initial_backlog[i]
            delivered = problem.demand[i, t] + owed - backlog[i, t]
            limits += [delivered >= 0, before + ready + problem.supply[i, t] - drawn[t] - delivered == stock[i, t]]
    return cp.Problem(cp.Minimize(cost), limits), x, y


def _links(problem: LotSizingProblem, y: Any, z: Any, kept: Any, family_kept: Any) -> list[Any]:
    """The rows of `linking.py`; every period counts as open here, since what is closed changes no set-up."""
    import cvxpy as cp

    periods, of, limits = len(problem.periods), problem.family_arrays()[2], []
    start = problem.standing_at_start
    for m in range(len(problem.machines)):
        items = [i for i, k in y if k == m]
        families = [k for k, j in z if j == m]
        through = {i: cp.Variable(periods, nonneg=True) for i in items}
        family_through = {k: cp.Variable(periods, nonneg=True) for k in families}
        alone: Any = sum((kept[i, m] for i in items if of[i] < 0), np.zeros(periods))
        limits.append(alone + sum((family_kept[k, m] for k in families), np.zeros(periods)) <= 1)
        for members, link, made, held, first in (
            (items, kept, y, through, start[m]),
            (families, family_kept, z, family_through, of[start[m]] if start[m] >= 0 else -1),
        ):
            for i in members:
                limits += [held[i] <= link[i, m], link[i, m][0] <= float(i == first)]
                limits.append(link[i, m][1:] <= made[i, m][:-1] + held[i][:-1])
        for i in items:
            limits += [y[i, m] + kept[i, m] <= 1, y[i, m] + sum(through.values()) <= 1]
            if of[i] >= 0:
                limits.append(y[i, m] <= z[int(of[i]), m] + family_kept[int(of[i]), m])
            elif families:
                limits.append(y[i, m] + sum(family_through.values()) <= 1)
        for k in families:
            mine = [i for i in items if of[i] == k]
            limits.append(z[k, m] + sum(family_through.values()) <= 1)
            limits.append(sum((kept[i, m] for i in mine), np.zeros(periods)) <= family_kept[k, m])
            limits.append(z[k, m] <= sum((y[i, m] for i in mine), np.zeros(periods)))
    return limits


def solve_general(problem: LotSizingProblem, *, gap: float = 1e-6) -> tuple[float, Production] | None:
    """The optimum by CVXPY and HiGHS, for small plans; None where no plan keeps all limits."""
    program, x, y = general_form(problem)
    if not highs.solve(program, mip_rel_gap=gap):
        return None
    quantity = np.zeros(problem.shape)
    setup = np.zeros(problem.shape, bool)
    for (i, m), made in x.items():
        value: Array = np.asarray(made.value)
        setup[i, m] = np.asarray(y[i, m].value) > 0.5
        quantity[i, m] = (
            np.maximum(value, 0.0) if problem.carry_over else np.where(setup[i, m], np.maximum(value, 0.0), 0.0)
        )
    return float(program.value), Production(quantity, setup)
