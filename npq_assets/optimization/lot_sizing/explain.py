"""A planner's questions: why is this order late, what would it cost to force it in, what is an hour worth."""

from __future__ import annotations

import polars as pl

from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, LotSizingResult, Params

LATE = {
    "order_id": pl.String, "item": pl.String, "quantity": pl.Float64, "due": pl.String, "delivered": pl.String,
    "late_periods": pl.Int64, "late_quantity": pl.Float64, "late_cost": pl.Float64, "reason": pl.String,
    "cost_to_force": pl.Float64, "force_note": pl.String,
}  # fmt: skip


def explain_late(
    problem: LotSizingProblem, result: LotSizingResult, orders: pl.DataFrame, params: Params | None = None,
    *, force: int = 5,
) -> pl.DataFrame:  # fmt: skip
    """Every late order with the reason, and what the plan would cost more if it had to be in time.

    Deliveries go to an item's orders by due period, then by their place in the frame.

    Args:
        problem: What was solved.
        result: Its plan.
        orders: order_id, item, quantity, due (a name of `problem.periods`); several orders may share an item and period.
            Orders must not exceed the demand of the item up to their period (forecast demand may be beside them).
        params: How to re-solve for `cost_to_force`.
        force: For how many late orders (costliest lateness first) the plan is re-solved; others have null.

    Returns:
        The columns of `LATE`; `delivered` is null when the order is not complete within the horizon.
    """
    raise NotImplementedError


def force_in(
    problem: LotSizingProblem, result: LotSizingResult, item: str, period: str, params: Params | None = None
) -> LotSizingResult:
    """The best plan in which nothing of the item is owed at the end of the period (re-solved)."""
    raise NotImplementedError


def worth_by_resolving(
    problem: LotSizingProblem, result: LotSizingResult, machine: str, period: str, minutes: float = 60.0,
    params: Params | None = None,
) -> pl.DataFrame:  # fmt: skip
    """What further regular minutes on a machine in a period bring, by solving again with them.

    Returns:
        One row of `WORTH` (method `re-solve`; worth_per_hour scaled to 60 minutes) with least_worth and most_worth: what
        the two proven bounds allow.
    """
    raise NotImplementedError
