"""From demand scenarios to orders with a price: the replenishment problem of a day, solved and put in words.

Thin: the problem and its solution are `npq_assets.optimization.replenishment`; this file fills it in and explains it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import polars as pl

from npq_assets.evaluation.ledger import decision_id
from npq_assets.evaluation.policies import OrderUpTo, arrivals_by_step
from npq_assets.optimization.inventory import carrying_periods, project_stock
from npq_assets.optimization.replenishment import Params, ReplenishmentProblem, price, solve
from npq_assets.optimization.result import Result
from npq_assets.retail.demand import DemandForecast
from npq_assets.retail.inputs import RetailInputs

NAIVE = OrderUpTo()


@dataclass(frozen=True)
class ReplenishmentPlan:
    """Orders of a day with what they are expected to cost.

    Attributes:
        orders: One row a pair: the columns of the decision table and lower_bound, on_hand, under_way, demand_mean.
        overrides: A row an overridden pair: its order's columns, the planner's and the engine's demand of the arrival period,
            and the order that the engine's forecast would have led to, at what expected cost if the planner is right.
        result: What the solver said.
        facts: Everything about the plan that is one number or word, for metadata and the report.
    """

    orders: pl.DataFrame
    overrides: pl.DataFrame
    result: Result
    facts: dict[str, Any] = field(default_factory=dict)


def problem_of(inputs: RetailInputs, forecast: DemandForecast) -> ReplenishmentProblem:
    """The day's problem: stock projected to each order's arrival, demand of the period that it must cover."""
    items = inputs.items
    lead = items["lead_time_periods"].to_numpy().astype(int)
    arrivals = arrivals_by_step(inputs, int(lead.max(initial=0)) + 1)
    stock, demand = project_stock(items["on_hand"].to_numpy(), arrivals, forecast.scenarios, lead)
    # A unit left over is paid for until an order that knows of it can arrive: that is its price here, in the naive rule's
    # expected cost and in the ledger.
    periods = carrying_periods(
        stock, forecast.scenarios, lead, items["holding_cost"].to_numpy(), items["shortage_cost"].to_numpy()
    )
    arrives_on = [inputs.as_of + timedelta(days=int(count) * inputs.days) for count in lead]
    return ReplenishmentProblem(
        items=items.select(
            "site_id",
            "product_id",
            pl.col("holding_cost") * pl.Series(periods),
            "shortage_cost",
            "unit_cost",
            "pack_size",
            "min_order",
            "supplier_id",
        ).with_columns(pl.Series("arrives_on", arrives_on, dtype=pl.Date)),
        x=stock,
        d=demand,
        limits=inputs.limits,
    )


def plan_orders(inputs: RetailInputs, forecast: DemandForecast) -> ReplenishmentPlan:
    """Solves the day's problem and sets the naive rule's order beside each of ours, priced on the same scenarios."""
    problem = problem_of(inputs, forecast)
    result = solve(problem, Params(seconds=inputs.settings.solver_seconds))
    naive = NAIVE.orders(inputs)
    items = inputs.items.select(
        "unique_id",
        "site_id",
        "product_id",
        "on_hand",
        "assumptions",
        "holding_cost",
        "shortage_cost",
        "pack_size",
        "min_order",
    )
    items = items.with_columns(
        (problem.items["holding_cost"] / items["holding_cost"]).fill_nan(1.0).alias("carrying_periods"),
        problem.items["holding_cost"],
    )
    orders = items.join(result.plan, on=["site_id", "product_id"], how="left").join(
        naive.rename({"quantity": "naive_quantity"}), on=["site_id", "product_id"], how="left"
    )
    orders = orders.with_columns(pl.col("naive_quantity").fill_null(0.0))
    under_way = inputs.arrivals.group_by("unique_id").agg(pl.col("quantity").sum().alias("under_way"))
    orders = orders.join(under_way, on="unique_id", how="left").with_columns(pl.col("under_way").fill_null(0.0))
    orders = orders.with_columns(
        pl.Series("naive_expected_cost", price(problem, orders["naive_quantity"].to_numpy())),
        pl.Series("arrives_on", problem.items["arrives_on"]),
        pl.Series("demand_mean", problem.d.mean(axis=1)),
        pl.Series("stock_mean", problem.x.mean(axis=1)),
        pl.lit(inputs.as_of).alias("as_of"),
        pl.lit(inputs.snapshot).alias("input_snapshot"),
    )
    engine = _engine_orders(inputs, forecast, problem)
    orders = orders.join(engine, on=["site_id", "product_id"], how="left", maintain_order="left")
    orders = orders.with_columns(
        pl.Series("reason", [_reason(row) for row in orders.iter_rows(named=True)]),
        pl.Series(
            "decision_id",
            [
                decision_id(inputs.as_of, "retail", "replenishment_orders", (row[0], row[1]), inputs.snapshot)
                for row in orders.select("site_id", "product_id").iter_rows()
            ],
        ),
    )
    overridden = orders.filter(pl.col("engine_quantity").is_not_null()).select(list(OVERRIDE_COLUMNS))
    return ReplenishmentPlan(orders.drop(*_ENGINE), overridden, result, _facts(inputs, forecast, result, orders))


_ENGINE = {
    "engine_quantity": pl.Float64(), "engine_expected_cost": pl.Float64(), "engine_mean": pl.Float64(),
    "override_mean": pl.Float64(), "planner": pl.String(), "override_reason": pl.String(), "made_on": pl.Date(),
}  # fmt: skip
OVERRIDE_COLUMNS: dict[str, pl.DataType] = {
    "decision_id": pl.String(), "as_of": pl.Date(), "site_id": pl.String(), "product_id": pl.String(),
    "arrives_on": pl.Date(), "quantity": pl.Float64(), "expected_cost": pl.Float64(), "holding_cost": pl.Float64(),
    "shortage_cost": pl.Float64(), "pack_size": pl.Float64(), "min_order": pl.Float64(), **_ENGINE,
}  # fmt: skip


def _engine_orders(inputs: RetailInputs, forecast: DemandForecast, problem: ReplenishmentProblem) -> pl.DataFrame:
    """What the engine's own forecast would have ordered of the overridden pairs; no rows if there are none."""
    if not len(forecast.overridden):
        return pl.DataFrame(schema={"site_id": pl.String, "product_id": pl.String, **_ENGINE})
    own = problem_of(inputs, forecast.engine)
    orders = inputs.items.select("site_id", "product_id").join(
        solve(own, Params(seconds=inputs.settings.solver_seconds)).plan.select("site_id", "product_id", "quantity"),
        on=["site_id", "product_id"],
        how="left",
        maintain_order="left",
    )
    quantity = orders["quantity"].fill_null(0.0)
    made = inputs.overrides.group_by("unique_id").agg(
        pl.col("planner", "reason", "made_on").sort_by("made_on", "period_start").last()
    )
    return (
        inputs.items.select("unique_id", "site_id", "product_id")
        .with_columns(
            quantity.alias("engine_quantity"),
            pl.Series("engine_expected_cost", price(problem, quantity.to_numpy())),
            pl.Series("engine_mean", own.d.mean(axis=1)),
            pl.Series("override_mean", problem.d.mean(axis=1)),
        )[forecast.overridden]
        .join(made.rename({"reason": "override_reason"}), on="unique_id", how="left", maintain_order="left")
        .drop("unique_id")
    )


def _reason(row: dict[str, Any]) -> str:
    words = [
        f"{row['demand_mean']:.1f} wanted in the period of arrival, {row['stock_mean']:.1f} left by then "
        f"({row['on_hand']:.0f} on hand, {row['under_way']:.0f} under way)"
    ]
    if row.get("engine_quantity") is not None:
        who = row["planner"] or "planner"
        why = f" ({row['override_reason']})" if row["override_reason"] else ""
        words.append(
            f"by the {who}'s numbers of {row['made_on']}{why}: {row['override_mean']:.1f} wanted where the engine expects "
            f"{row['engine_mean']:.1f} and would order {row['engine_quantity']:g}"
        )
    if row.get("solver_reason"):
        words.append(row["solver_reason"])
    if row["assumptions"]:
        words.append(row["assumptions"])
    return "; ".join(words)


def _facts(inputs: RetailInputs, forecast: DemandForecast, result: Result, orders: pl.DataFrame) -> dict[str, Any]:
    return {
        "as_of": inputs.as_of.isoformat(),
        "period": inputs.period,
        "decisions": orders.height,
        "orders placed": orders.filter(pl.col("quantity") > 0).height,
        "expected_cost": float(orders["expected_cost"].sum()),
        "naive_cost": float(orders["naive_expected_cost"].sum()),
        "lower_bound": float(result.bound),
        "gap": float(result.gap),
        "status": result.status,
        "solver": result.solver,
        "model_version": forecast.model_version,
        "model_trained_as_of": forecast.model_trained_as_of.isoformat(),
        "input_snapshot": inputs.snapshot,
        "skipped": list(inputs.skipped),
    }
