"""A planner's question before saying yes: what changes if an order is due on another day?

Solves the order's cell again, all else equal; nothing is written. The plan itself does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from npq_assets.errors import NpqError
from npq_assets.manufacturing.inputs import ManufacturingInputs
from npq_assets.manufacturing.plan import (
    GAP,
    NODES,
    Cell,
    PlannedCell,
    ProductionPlan,
    cells_of,
    late_orders_of,
    production_of,
)
from npq_assets.optimization.lot_sizing import (
    LotSizingProblem,
    LotSizingResult,
    Params,
    Production,
    price,
    solve,
    violations,
)


@dataclass(frozen=True)
class OrderMoved:
    """What another due date would change.

    Attributes:
        order_id: The order.
        product_id: Its product.
        due_before: Its due date.
        due_on: The date asked for.
        cost_before: The cell's plan as it is (money).
        cost: The cell's plan with the order moved.
        bound: Proven least cost with the order moved.
        lots: period_start, product_id, machine_id, before, after: lots that would change (units).
        late: order_id, late_cost_before, late_cost: orders whose lateness would change.
    """

    order_id: str
    product_id: str
    due_before: date
    due_on: date
    cost_before: float
    cost: float
    bound: float
    lots: pl.DataFrame
    late: pl.DataFrame

    @property
    def sentence(self) -> str:
        """The answer in words."""
        more = self.cost - self.cost_before
        lots = (
            f"{self.lots.height} lots change" if self.lots.height != 1 else "one lot changes"
        ) if self.lots.height else "no lot changes"  # fmt: skip
        late = f"; lateness changes for {', '.join(self.late['order_id'].head(5))}" if self.late.height else ""
        return (
            f"Order {self.order_id} ({self.product_id}) due {self.due_on} instead of {self.due_before}: the plan costs "
            f"{abs(more):,.2f} {'more' if more > 0 else 'less'} ({self.cost_before:,.2f} to {self.cost:,.2f}, proven at least "
            f"{self.bound:,.2f}); {lots}{late}."
        )


def move_order(inputs: ManufacturingInputs, plan: ProductionPlan, order_id: str, due_on: date) -> OrderMoved:
    """Plans the order's cell with the order due on another day, and sets it beside the plan as it is.

    Args:
        inputs: What the plan was made from.
        plan: The day's plan.
        order_id: An order in hand.
        due_on: The day asked for.

    Raises:
        NpqError: The order is not in hand, its product is not planned, or the day is past.
    """
    moved = inputs.with_order_due(order_id, due_on)
    order = inputs.orders.filter(pl.col("order_id") == order_id).row(0, named=True)
    product = str(order["product_id"])
    now, then = _cell(inputs, product), _cell(moved, product)
    before = production_of(now.problem, plan.lots, plan.setups)
    start = before if now.problem.shape == then.problem.shape else None
    params = Params(seconds=inputs.settings.solver_seconds, gap=GAP, nodes=NODES, worth=False)
    result = solve(then.problem, params, start)
    assert result.production is not None
    ours = result.production
    if start is not None and not violations(then.problem, start):
        # As a plan of the same day: it gives way only to a cheaper one.
        ours = start if price(then.problem, start).total <= price(then.problem, ours).total + 1e-6 else ours
    lots = _lots(now.problem, before).join(
        _lots(then.problem, ours), on=["period_start", "product_id", "machine_id"], how="full", coalesce=True, suffix="_after"
    )  # fmt: skip
    lots = lots.rename({"quantity": "before", "quantity_after": "after"}).with_columns(
        pl.col("before", "after").fill_null(0.0)
    )
    late = _late(inputs, now, before).join(
        _late(moved, then, ours), on="order_id", how="full", coalesce=True, suffix="_after"
    )
    late = late.rename({"late_cost": "late_cost_before", "late_cost_after": "late_cost"}).with_columns(
        pl.col("late_cost_before", "late_cost").fill_null(0.0)
    )
    cost = price(then.problem, ours).total
    return OrderMoved(
        order_id, product, order["due_on"], due_on, price(now.problem, before).total, cost, min(result.bound, cost),
        lots.filter((pl.col("after") - pl.col("before")).abs() > 0.5).sort("period_start", "product_id", "machine_id"),
        late.filter((pl.col("late_cost") - pl.col("late_cost_before")).abs() > 0.005).sort("order_id"),
    )  # fmt: skip


def _cell(inputs: ManufacturingInputs, product: str) -> Cell:
    for cell in cells_of(inputs):
        if product in cell.products:
            return cell
    raise NpqError(f"product {product!r} is in no plan: it has no routing on a machine; see manufacturing.routings")


def _lots(p: LotSizingProblem, plan: Production) -> pl.DataFrame:
    rows: list[tuple[Any, ...]] = [
        (date.fromisoformat(p.periods[t]), p.items[i], p.machines[m], float(plan.quantity[i, m, t]))
        for i, m, t in np.argwhere(plan.quantity > 1e-6)
    ]
    schema = {"period_start": pl.Date, "product_id": pl.String, "machine_id": pl.String, "quantity": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _late(inputs: ManufacturingInputs, cell: Cell, plan: Production) -> pl.DataFrame:
    result = LotSizingResult(
        plan=pl.DataFrame(), status="feasible", objective=0.0, bound=0.0, solver="", production=plan
    )
    one = PlannedCell(cell, result, plan, True, 0, 0.0, 0.0, inputs.as_of)
    rows = [(row[0], row[7]) for row in late_orders_of(inputs, one)]
    return pl.DataFrame(rows, schema={"order_id": pl.String, "late_cost": pl.Float64}, orient="row")
