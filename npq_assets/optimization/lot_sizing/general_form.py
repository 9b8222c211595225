"""The planning problem stated in CVXPY, as the docstring of `problem.py` writes it: the reference for the faster forms.

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
    for (i, m), lots in x.items():
        cost += problem.variable_cost[i, m] @ lots + problem.setup_cost[i, m] * cp.sum(y[i, m])
        limits += [lots <= cp.multiply(lot[i, m], y[i, m]), lots >= problem.minimum_lot[i] * y[i, m]]
        if of[i] >= 0:
            limits.append(y[i, m] <= z[int(of[i]), m])
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
        quantity[i, m] = np.where(setup[i, m], np.maximum(value, 0.0), 0.0)
    return float(program.value), Production(quantity, setup)
