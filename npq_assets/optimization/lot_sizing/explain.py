"""A planner's questions: why is this order late, what would it cost to force it in, what is an hour worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from npq_assets.errors import NpqError
from npq_assets.optimization.linear import Array, solve_integer, solve_linear
from npq_assets.optimization.lot_sizing import improve, pure, tight
from npq_assets.optimization.lot_sizing.link_cuts import solve_tightened
from npq_assets.optimization.lot_sizing.problem import (
    WORTH,
    LotSizingProblem,
    LotSizingResult,
    Params,
    Production,
    flow,
    named,
    result_of,
    violations,
)
from npq_assets.optimization.lot_sizing.solving import solve, worth_frame
from npq_assets.optimization.result import RELAXATION

LATE = {
    "order_id": pl.String, "item": pl.String, "quantity": pl.Float64, "due": pl.String, "delivered": pl.String,
    "late_periods": pl.Int64, "late_quantity": pl.Float64, "late_cost": pl.Float64, "reason": pl.String,
    "cost_to_force": pl.Float64, "force_note": pl.String,
}  # fmt: skip
SMALL = 1e-6


def explain_late(
    problem: LotSizingProblem, result: LotSizingResult, orders: pl.DataFrame, params: Params | None = None,
    *, force: int = 5,
) -> pl.DataFrame:  # fmt: skip
    """Every late order with the reason, and what the plan would cost more if it had to be in time.

    Deliveries go to what is owed before the first period, then to an item's demand by due period; within a period to the
    orders in the frame's sequence, then to demand without an order (a forecast).

    Args:
        problem: What was solved.
        result: Its plan.
        orders: order_id, item, quantity, due (a name of `problem.periods`; null for orders that were due before the first
            period and stand in `initial_backlog`). Several orders may share an item and period.
        params: How to re-solve for `cost_to_force`.
        force: For how many late orders (costliest lateness first) the plan is re-solved; others have null.

    Returns:
        The columns of `LATE`, costliest first; `delivered` is null when the order is not complete within the horizon,
        `late_periods` then counts to its end. `late_quantity` is what is missing at the due period's end.

    Raises:
        NpqError: An order's item or period is unknown.
    """
    assert result.flow is not None
    served = np.cumsum(result.flow.delivered, axis=1)
    _, _, periods = problem.shape
    rows = []
    owed = dict.fromkeys(range(len(problem.items)), 0.0)
    placed: dict[int, list[tuple[int, float, dict[str, object]]]] = {}
    for order in orders.iter_rows(named=True):
        i = named(problem.items, order["item"], "item")
        due = -1 if order["due"] is None else named(problem.periods, order["due"], "period")
        placed.setdefault(i, []).append((due, float(order["quantity"]), order))
    for i, mine in placed.items():
        owed[i] = 0.0
        for due, quantity, order in sorted(mine, key=lambda entry: entry[0]):
            # All demand due before, and the orders of the same period that stand before this one.
            before = problem.initial_backlog[i] + problem.demand[i, :due].sum() if due >= 0 else 0.0
            beside = sum(q for d, q, o in mine if d == due and _stands_before(mine, o, order))
            first, last = before + beside, before + beside + quantity
            complete = np.flatnonzero(served[i] >= last - SMALL * max(1.0, last))
            end = int(complete[0]) if len(complete) else None
            late = (periods if end is None else end) - max(due, 0) + (1 if due < 0 else 0)
            if end is not None and late <= 0:
                continue
            window = range(max(due, 0), periods if end is None else end)
            missing = [min(quantity, max(0.0, last - max(served[i, t], first))) for t in window]
            cost = float(np.nan_to_num(problem.late_cost[i]) * sum(missing))
            if end is None:
                cost += float(problem.end_late_cost[i] * missing[-1])
            rows.append(
                {
                    "order_id": str(order["order_id"]), "item": problem.items[i], "quantity": quantity,
                    "due": None if due < 0 else problem.periods[due], "delivered": None if end is None else problem.periods[end],
                    "late_periods": int(late), "late_quantity": float(missing[0]) if missing else quantity,
                    "late_cost": cost, "reason": why_late(problem, result, i, max(due, 0), end),
                    "cost_to_force": None, "force_note": "",
                }
            )  # fmt: skip
    rows.sort(key=lambda row: (-row["late_cost"], row["order_id"]))  # type: ignore[operator]
    answers: dict[tuple[str, str], tuple[float | None, str]] = {}
    for row in rows:
        key = str(row["item"]), str(row["due"] or problem.periods[0])
        if key not in answers:
            if len(answers) >= force:
                continue
            answers[key] = _price_of_force(problem, result, *key, params)
        row["cost_to_force"], row["force_note"] = answers[key]
    return pl.DataFrame(rows, schema=LATE, orient="row")


def _stands_before(
    mine: Sequence[tuple[int, float, dict[str, object]]], other: dict[str, object], order: dict[str, object]
) -> bool:
    positions = {id(o): k for k, (_, _, o) in enumerate(mine)}
    return positions[id(other)] < positions[id(order)]


def _price_of_force(
    problem: LotSizingProblem, result: LotSizingResult, item: str, period: str, params: Params | None
) -> tuple[float | None, str]:
    forced = force_in(problem, result, item, period, params)
    if forced.status == "relaxed":
        missing = "; ".join(forced.relaxation["message"].to_list()[:2])
        return None, f"cannot be in time: {missing}"
    at_least = max(0.0, forced.bound - result.objective)
    return max(0.0, forced.objective - result.objective), f"re-solve; proven at least {at_least:,.0f}"


def why_late(problem: LotSizingProblem, result: LotSizingResult, i: int, due: int, end: int | None) -> str:
    """One sentence: what stood in the way of item i for the demand of period `due`."""
    assert result.flow is not None
    machines = np.flatnonzero(problem.eligible[i])
    if not len(machines):
        return f"no machine can make {problem.items[i]}"
    lead = int(problem.lead_time[i])
    if due < lead:
        return f"{problem.items[i]} takes {lead} periods: too late to start when the plan begins"
    latest = due - lead
    room = problem.capacity + np.minimum(problem.overtime_limit, 1e9) - result.flow.used
    least = _smallest_lot_minutes(problem, i)
    full = room[machines][:, : latest + 1] < least[machines][:, None] + SMALL
    closed = (problem.capacity + problem.overtime_limit)[machines][:, : latest + 1] < least[machines][:, None]
    names = " and ".join(problem.machines[m] for m in machines)
    if closed.all():
        return f"{names}: closed or down until {problem.periods[latest]}"
    for c in np.flatnonzero(problem.bill[:, i] > 0):
        stock = result.flow.stock[c, latest : (end if end is not None else len(problem.periods))]
        if len(stock) and (stock < problem.bill[c, i] - SMALL).all() and not full.all():
            return f"waits for component {problem.items[c]}: none is left from {problem.periods[latest]} on"
    if full.all():
        span = problem.periods[latest] if latest == 0 else f"{problem.periods[0]} to {problem.periods[latest]}"
        return f"{names} full, overtime included, in {span}: other orders pay more there"
    m, t = (int(k) for k in np.argwhere(~full)[-1])
    m = int(machines[m])
    setup = problem.setup_cost[i, m] + problem.setup_time[i, m] * problem.overtime_cost[m, t]
    return (
        f"room is left on {problem.machines[m]} in {problem.periods[t]}, but a further lot there (setup {setup:,.0f}, and"
        " the stock, overtime and lots it displaces) costs more than being late"
    )


def _smallest_lot_minutes(problem: LotSizingProblem, i: int) -> Array:
    """Minutes that the smallest sensible lot of item i takes, by machine (M)."""
    units = max(1.0, float(problem.minimum_lot[i]))
    minutes: Array = problem.setup_time[i] + units * np.where(problem.eligible[i], problem.run_time[i], 0.0)
    return minutes


def force_in(
    problem: LotSizingProblem, result: LotSizingResult, item: str, period: str, params: Params | None = None
) -> LotSizingResult:
    """The best plan in which nothing of the item that is due by the period is owed at its end (re-solved).

    Raises:
        NpqError: The item or period is unknown.
    """
    i, t = named(problem.items, item, "item"), named(problem.periods, period, "period")
    limits = problem.max_backlog.copy()
    limits[i, t] = 0.0
    return solve(replace(problem, max_backlog=limits), params, start=result.production)


def force_near(
    problem: LotSizingProblem, plan: Production, i: int, t: int, *, seconds: float = 30.0
) -> LotSizingResult:
    """The cheapest plan found near a given one in which nothing of item i that is due by period t is owed at its end.

    Free are the item's own lots, all lots of the items that share its machines up to period t and the one behind it, and a
    period's shift of every other lot of these; so it takes a second where `force_in` searches as long as for a whole plan.

    Returns:
        `bound` is that of the forced problem's relaxation. `status` is `relaxed` where no such plan keeps all limits;
        `conflict` is not empty only if no plan at all does.
    """
    limits = problem.max_backlog.copy()
    limits[i, t] = 0.0
    forced = replace(problem, max_backlog=limits)
    is_pure = pure.is_pure(forced)
    form: Any = pure.build_pure(forced, elastic=True) if is_pure else tight.build(forced, elastic=True)
    constant = form.constant if isinstance(form, pure.PureForm) else 0.0
    relaxed, _ = solve_tightened(forced, form, seconds=seconds, rounds=1)
    lacking = [form.extra[form.extra >= 0]] + ([] if is_pure else [form.unmet[form.unmet >= 0]])
    short = relaxed.x is not None and float(relaxed.x[np.concatenate(lacking)].sum()) > SMALL
    machines = forced.eligible[i]
    setup = flow(forced, plan).setup
    beside = forced.eligible & machines[None, :]
    free = np.zeros(forced.shape, bool)
    free[:, :, : t + 2] = beside[:, :, None]
    free |= improve.shifted(plan.setup | (plan.quantity > SMALL)) & beside[:, :, None]
    free[i] |= forced.eligible[i][:, None]
    best = improve.Best(plan)
    best.offer(forced, plan)
    low, high = form.model.low.copy(), form.model.high.copy()
    fixed = (form.y >= 0) & ~free
    value = np.maximum(low[form.y[fixed]], setup[fixed])
    form.model.low[form.y[fixed]], form.model.high[form.y[fixed]] = value, value
    solution = solve_integer(
        form.model, seconds=seconds, gap=5e-3, nodes=1, start=improve.start_of(forced, form, plan), options=improve.SHORT
    )  # fmt: skip
    form.model.low[:], form.model.high[:] = low, high
    if solution.x is not None:
        best.offer(forced, form.production(solution.x, forced))
    broken = violations(forced, best.production)
    more: dict[str, Any] = {}
    if broken:
        more["relaxation"] = pl.DataFrame(broken, schema=RELAXATION, orient="row").sort("amount", "constraint")
        more["conflict"] = tuple(name for name, _, _ in broken) if short else ()
    bound = relaxed.bound + constant if relaxed.x is not None else 0.0
    return result_of(forced, best.production, bound, gap=5e-3, solver="near the plan, HiGHS", seconds=0.0, **more)


def worth_of_capacity(problem: LotSizingProblem, plan: Production, seconds: float = 30.0) -> pl.DataFrame:
    """What a further minute of each machine and period brings a given plan: duals with its setups as they are.

    Returns:
        The columns of `WORTH`; empty if the linear program was not solved in time.
    """
    form: Any = pure.build_pure(problem, elastic=True) if pure.is_pure(problem) else None
    form = form or tight.build(problem, elastic=True, split=False)
    improve.fix(problem, form, plan)
    solution = solve_linear(form.model, seconds=seconds)
    if solution.duals is None:
        return worth_frame(problem, plan, None)
    price = np.maximum(0.0, -solution.duals[form.capacity_rows])
    # Where nothing is set up nothing more would be made. The dual of such a row, on a closed day say, is any number up to the
    # penalty that keeps the program feasible.
    price = np.where(plan.setup.any(axis=0), price, 0.0)
    return worth_frame(problem, plan, (price, "dual, setups as planned"))


def worth_by_resolving(
    problem: LotSizingProblem, result: LotSizingResult, machine: str, period: str, minutes: float = 60.0,
    params: Params | None = None,
) -> pl.DataFrame:  # fmt: skip
    """What further regular minutes on a machine in a period bring, by solving again with them.

    Returns:
        One row of `WORTH` (method `re-solve`; worth_per_hour scaled to 60 minutes) with least_worth and most_worth: what
        the two proven bounds allow.

    Raises:
        NpqError: The machine or period is unknown, or minutes is not positive.
    """
    if minutes <= 0:
        raise NpqError(f"the worth of {minutes:g} minutes: give a positive number")
    assert result.flow is not None
    m, t = named(problem.machines, machine, "machine"), named(problem.periods, period, "period")
    capacity = problem.capacity.copy()
    capacity[m, t] += minutes
    again = solve(replace(problem, capacity=capacity), params, start=result.production)
    hour = 60.0 / minutes
    row = {
        "machine": machine, "period": period, "capacity": float(problem.capacity[m, t]),
        "used": float(result.flow.used[m, t]), "overtime": float(result.flow.overtime[m, t]),
        "worth_per_hour": hour * max(0.0, result.objective - again.objective), "method": "re-solve",
        "least_worth": hour * max(0.0, result.bound - again.objective),
        "most_worth": hour * max(0.0, result.objective - again.bound),
    }  # fmt: skip
    return pl.DataFrame([row], schema={**WORTH, "least_worth": pl.Float64, "most_worth": pl.Float64}, orient="row")
