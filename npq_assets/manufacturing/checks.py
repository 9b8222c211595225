"""What must hold of a production plan and of a schedule before anybody acts on them, as plain functions of frames."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from npq_assets.manufacturing.inputs import ManufacturingInputs
from npq_assets.manufacturing.plan import ProductionPlan
from npq_assets.verdicts import Verdict

_TOLERANCE = 1e-4
PLAN_CHECKS = ("complete", "balance", "capacity", "eligible", "bound", "beats_naive")
SCHEDULE_CHECKS = ("one_at_a_time", "sequence", "scheduled_as_planned")


def nothing_to_judge(reason: str, names: tuple[str, ...]) -> list[Verdict]:
    """The verdicts of a day for which nothing could be decided."""
    return [Verdict(name, True, name != "beats_naive", f"nothing was decided: {reason}") for name in names]


def judge_plan(plan: ProductionPlan | None, inputs: ManufacturingInputs) -> list[Verdict]:
    """Judges the plan of a day against the inputs it was made from."""
    if plan is None:
        return [Verdict(name, False, name != "beats_naive", "there is no plan") for name in PLAN_CHECKS]
    return [
        _complete(plan, inputs),
        _balance(plan, inputs),
        _capacity(plan, inputs),
        _eligible(plan, inputs),
        _bound(plan),
        _naive(plan),
    ]


def _verdict(name: str, broken: pl.DataFrame, good: str, *, blocking: bool = True) -> Verdict:
    if broken.is_empty():
        return Verdict(name, True, blocking, good)
    first = ", ".join(f"{key}={value}" for key, value in broken.row(0, named=True).items())
    return Verdict(name, False, blocking, f"{broken.height} rows, the first: {first}")


def _complete(plan: ProductionPlan, inputs: ManufacturingInputs) -> Verdict:
    routed = inputs.routings.select("product_id").unique().sort("product_id")
    return _verdict(
        "complete", routed.join(plan.accounts, on="product_id", how="anti"), "every product with a routing is planned"
    )


def _balance(plan: ProductionPlan, inputs: ManufacturingInputs) -> Verdict:
    """Stock at a period's end = stock before + made - delivered, for products that no other product consumes."""
    consumed = inputs.bills["component_id"].unique()
    start = inputs.products.select("product_id", pl.col("on_hand").alias("before"))
    rows = (
        plan.stock.filter(~pl.col("product_id").is_in(consumed.implode()))
        .join(start, on="product_id", how="inner")
        .sort("product_id", "period_start")
        .with_columns(
            pl.col("stock").shift(1).over("product_id").fill_null(pl.col("before")).alias("before"),
        )
    )
    off = (pl.col("before") + pl.col("made") - pl.col("delivered") - pl.col("stock")).abs()
    made = plan.lots.group_by("product_id", "period_start").agg(pl.col("quantity").sum().alias("in_lots"))
    rows = rows.join(made, on=["product_id", "period_start"], how="left").with_columns(pl.col("in_lots").fill_null(0.0))
    scale = _TOLERANCE * (1 + pl.col("stock") + pl.col("made"))
    broken = rows.filter((off > scale) | ((pl.col("made") - pl.col("in_lots")).abs() > 10 * scale))
    return _verdict("balance", broken, f"{rows.height} balances of stock hold")


def _capacity(plan: ProductionPlan, inputs: ManufacturingInputs) -> Verdict:
    """Overtime within what the machine allows."""
    days = inputs.days
    usual = inputs.machines.select("machine_id", (pl.col("overtime_minutes_per_day") * days).alias("limit"))
    special = (
        inputs.calendar.filter(pl.col("overtime_minutes").is_not_null()).select(
            "machine_id", pl.col("calendar_on").alias("period_start"), pl.col("overtime_minutes").alias("special")
        )
        if days == 1
        else pl.DataFrame(schema={"machine_id": pl.String, "period_start": pl.Date, "special": pl.Float64})
    )
    rows = plan.load.join(usual, on="machine_id").join(special, on=["machine_id", "period_start"], how="left")
    over = pl.col("overtime_minutes") > pl.coalesce("special", "limit") * (1 + _TOLERANCE) + 0.5
    detail = f"{rows.height} machine periods within regular time and overtime"
    if plan.facts.get("relaxed"):
        # No plan keeps all limits: that is reported, with what gives way; it blocks nobody from doing what can be done.
        return Verdict("capacity", True, True, "no plan keeps all limits: " + "; ".join(plan.facts["relaxed"][:3]))
    return _verdict("capacity", rows.filter(over), detail)


def _eligible(plan: ProductionPlan, inputs: ManufacturingInputs) -> Verdict:
    wrong = plan.lots.join(inputs.routings, on=["product_id", "machine_id"], how="anti")
    return _verdict(
        "eligible", wrong.select("period_start", "product_id", "machine_id"), "every lot on a machine of its routing"
    )


def _bound(plan: ProductionPlan) -> Verdict:
    slack = 1e-6 * (1 + pl.col("expected_cost").abs())
    broken = plan.accounts.filter(pl.col("expected_cost") < pl.col("lower_bound") - slack)
    return _verdict("bound", broken.select("product_id", "expected_cost", "lower_bound"), "no product below its bound")


def _naive(plan: ProductionPlan) -> Verdict:
    ours, naive = plan.facts["expected_cost"], plan.facts["naive_cost"]
    return Verdict("beats_naive", ours <= naive * (1 + 1e-6), False, f"expected {ours:,.2f}, naive {naive:,.2f}")


def judge_schedule(schedule: pl.DataFrame | None, plan: ProductionPlan | None) -> list[Verdict]:
    """Judges a day's schedule: `job_schedule` rows with product_id, quantity and lot_id."""
    if schedule is None or plan is None:
        return [Verdict(name, False, True, "there is no schedule") for name in SCHEDULE_CHECKS]
    ordered = schedule.sort("machine_id", "starts_at", "ends_at")
    overlap = ordered.with_columns(pl.col("ends_at").shift(1).over("machine_id").alias("before")).filter(
        pl.col("starts_at") < pl.col("before")
    )
    steps = schedule.sort("order_id", "operation").with_columns(
        pl.col("ends_at").shift(1).over("order_id").alias("before"),
        pl.col("starts_at").shift(1).over("order_id").alias("before_start"),
    )
    early = steps.filter((pl.col("starts_at") < pl.col("before_start")) | (pl.col("ends_at") < pl.col("before")))
    first = schedule.filter(pl.col("operation") == pl.col("operation").min().over("lot_id"))
    made = first.group_by("lot_id").agg(pl.col("quantity").sum())
    days = plan.facts.get("scheduled_days", 0)
    last = plan.lots["period_start"].min()
    planned = plan.lots.with_columns(
        pl.format("{}|{}|{}", pl.col("period_start").dt.to_string("%Y-%m-%d"), "product_id", "machine_id").alias(
            "lot_id"
        )
    )
    if days and last is not None:
        planned = planned.filter(pl.col("period_start") < pl.lit(last) + timedelta(days=int(days)))
    both = planned.join(made, on="lot_id", how="inner", suffix="_scheduled")
    off = both.filter((pl.col("quantity") - pl.col("quantity_scheduled")).abs() > 0.51 + 1e-3 * pl.col("quantity"))
    return [
        _verdict(
            "one_at_a_time", overlap.select("machine_id", "order_id", "starts_at"), "no two jobs at once on a machine"
        ),
        _verdict("sequence", early.select("order_id", "operation", "starts_at"), "operations follow each other"),
        _verdict("scheduled_as_planned", off.select("lot_id", "quantity"), f"{both.height} lots scheduled as planned"),
    ]
