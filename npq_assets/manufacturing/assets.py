"""Manufacturing's own assets: plan, schedule, decisions. Each reads, calls one function, writes, attaches metadata."""

from collections.abc import Iterable

import dagster as dg
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.errors import Unavailable
from npq_assets.manufacturing.equipment_assets import MAINTENANCE_KEY
from npq_assets.orchestration import AS_OF, RETRY, HomeResource, as_of_of, check_results, preview, skipped
from npq_assets.publishing import write_decisions
from npq_assets.version import code_version

PLAN_KEY = dg.AssetKey(["plan", "manufacturing", "production_plan"])
SCHEDULE_KEY = dg.AssetKey(["plan", "manufacturing", "job_schedule"])
PLAN_TABLE_KEY = dg.AssetKey(["decisions", "manufacturing", "production_plan"])
SCHEDULE_TABLE_KEY = dg.AssetKey(["decisions", "manufacturing", "job_schedule"])
LATE_KEY = dg.AssetKey(["decisions", "manufacturing", "late_orders"])
WORTH_KEY = dg.AssetKey(["decisions", "manufacturing", "capacity_worth"])
DRIVERS_KEY = dg.AssetKey(["decisions", "manufacturing", "driver_findings"])
FORECAST_KEY = dg.AssetKey(["forecast", "manufacturing", "production_forecast"])
DRIVER_INPUTS = [
    dg.AssetKey(["marts", domain, model])
    for domain, model in (
        ("manufacturing", "production_day"),
        ("manufacturing", "machines"),
        ("manufacturing", "sensor_day"),
        ("common", "products"),
    )
]
INPUTS = [
    dg.AssetKey(["marts", domain, model])
    for domain, model in (
        ("manufacturing", "machines"),
        ("manufacturing", "routings"),
        ("manufacturing", "bills_of_material"),
        ("manufacturing", "machine_calendar"),
        ("manufacturing", "customer_orders"),
        ("manufacturing", "plant_stock"),
        ("manufacturing", "component_receipts"),
        ("manufacturing", "energy_prices"),
        ("manufacturing", "production_day"),
        ("common", "products"),
    )
]
OWNERS = ["team:production"]


@dg.asset(
    key=PLAN_KEY,
    deps=[MAINTENANCE_KEY, *INPUTS, FORECAST_KEY],
    partitions_def=AS_OF,
    group_name="manufacturing_plan",
    kinds={"python", "cvxpy", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Lots of least cost in setups, overtime, stock and lateness, beside the naive rule's and a proven bound.",
)
def production_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Plans as of the partition's day, or reads the plan of the same inputs."""
    from npq_assets.manufacturing.inputs import read_inputs
    from npq_assets.manufacturing.output import load_plan, save_plan, save_skipped
    from npq_assets.manufacturing.plan import plan_production
    from npq_assets.reporting.plots import cost_plot
    from npq_assets.storage import fingerprint

    day = as_of_of(context)
    try:
        inputs = read_inputs(home.home, day)
    except Unavailable as reason:
        save_skipped(home.home, day, str(reason))
        context.log.warning(f"No production plan as of {day}: {reason}")
        return skipped(str(reason))
    wanted = fingerprint(inputs.snapshot, code_version())
    plan = load_plan(home.home, day, wanted)
    stored = plan is not None
    if plan is None:
        plan = plan_production(inputs)
        save_plan(home.home, day, plan, wanted)
    facts = plan.facts
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": plan.lots.height,
            "expected cost": facts["expected_cost"],
            "naive cost": facts["naive_cost"],
            "proven bound": facts["lower_bound"],
            "gap": facts["gap"],
            "costs by kind": facts["costs"],
            "cells": facts["cells"],
            "late orders": plan.late.height,
            "solver": f"{facts['solver']}: {facts['status']}",
            "read from store": stored,
            "skipped": list(facts["skipped"]),
            "costs": dg.MetadataValue.md(cost_plot(facts["expected_cost"], facts["naive_cost"], facts["lower_bound"])),
            "preview": preview(
                plan.lots.select("period_start", "product_id", "machine_id", "quantity", "expected_cost", "reason")
            ),
        }
    )


@dg.asset(
    key=SCHEDULE_KEY,
    deps=[PLAN_KEY, *INPUTS],
    partitions_def=AS_OF,
    group_name="manufacturing_plan",
    kinds={"python", "ortools", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="The plan's first days in sequence: a flexible job shop with setups, calendars and a price of change.",
)
def job_schedule_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Schedules as of the partition's day, or reads the schedule of the same inputs."""
    from npq_assets.manufacturing.inputs import read_inputs
    from npq_assets.manufacturing.output import load_plan, load_schedule, load_skipped, save_schedule
    from npq_assets.manufacturing.schedule import schedule_jobs
    from npq_assets.manufacturing.showing import change_curve, gantt_markdown
    from npq_assets.storage import fingerprint

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        return skipped(reason)
    plan = load_plan(home.home, day)
    if plan is None:
        raise dg.Failure(f"no plan as of {day}; materialize {PLAN_KEY.to_user_string()} first")
    inputs = read_inputs(home.home, day)
    wanted = fingerprint(inputs.snapshot, plan.lots, code_version())
    schedule = load_schedule(home.home, day, wanted)
    stored = schedule is not None
    if schedule is None:
        schedule = schedule_jobs(inputs, plan)
        save_schedule(home.home, day, schedule, wanted)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": schedule.rows.height,
            "lots": schedule.facts["jobs"],
            "expected cost": schedule.facts["expected_cost"],
            "naive cost": schedule.facts["naive_cost"],
            "proven bound": schedule.facts["lower_bound"],
            "moved against the schedule in force": schedule.facts.get("moved", 0),
            "frozen operations": schedule.facts.get("frozen", 0),
            "cost against change": dg.MetadataValue.md(change_curve(schedule.facts)),
            "solver": f"{schedule.facts['solver']}: {schedule.facts['status']}",
            "read from store": stored,
            "schedule": dg.MetadataValue.md(gantt_markdown(schedule.jobs, day)),
        }
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            key,
            deps=deps,
            group_name="manufacturing_decisions",
            kinds={"python", "parquet", "csv"},
            owners=OWNERS,
            partitions_def=AS_OF,
            description=DECISIONS[f"manufacturing.{key.path[-1]}"].description
            + " The contract file, written only if plan and schedule passed their checks.",
        )
        for key, deps in (
            (PLAN_TABLE_KEY, [PLAN_KEY]),
            (SCHEDULE_TABLE_KEY, [SCHEDULE_KEY]),
            (LATE_KEY, [PLAN_KEY]),
            (WORTH_KEY, [PLAN_KEY]),
        )
    ],
    name="manufacturing_decisions",
    retry_policy=RETRY,
)
def manufacturing_decisions(
    context: dg.AssetExecutionContext, home: HomeResource
) -> Iterable[dg.MaterializeResult[None]]:
    """Writes plan, schedule, late orders and the worth of capacity in the columns of the contract, and dispatch lists."""
    from npq_assets.manufacturing.output import load_plan, load_schedule, load_skipped, write_dispatch_lists

    day = as_of_of(context)
    reason = load_skipped(home.home, day)
    plan, schedule = load_plan(home.home, day), load_schedule(home.home, day)
    if reason is None and (plan is None or schedule is None):
        raise dg.Failure(f"no plan and schedule as of {day}; materialize {SCHEDULE_KEY.to_user_string()} first")
    for key in (PLAN_TABLE_KEY, SCHEDULE_TABLE_KEY, LATE_KEY, WORTH_KEY):
        if reason is not None or plan is None or schedule is None:
            yield dg.MaterializeResult(asset_key=key, metadata={"skipped": reason or "", "dagster/row_count": 0})
            continue
        table = DECISIONS[f"manufacturing.{key.path[-1]}"]
        frames = {
            PLAN_TABLE_KEY: plan.lots,
            SCHEDULE_TABLE_KEY: schedule.rows,
            LATE_KEY: plan.late,
            WORTH_KEY: plan.worth,
        }
        place = write_decisions(home.home, table, day, frames[key])
        more = {}
        if key == SCHEDULE_TABLE_KEY:
            more["dispatch lists"] = [str(p) for p in write_dispatch_lists(home.home, day, schedule.rows)]
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                "dagster/row_count": frames[key].height,
                "file": dg.MetadataValue.path(str(place)),
                "preview": preview(pl.read_parquet(place, hive_partitioning=False)),
                **more,
            },
        )


@dg.asset(
    key=DRIVERS_KEY,
    deps=DRIVER_INPUTS,
    partitions_def=AS_OF,
    group_name="manufacturing_decisions",
    kinds={"python", "statsmodels", "lightgbm", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description=DECISIONS["manufacturing.driver_findings"].description + " Judged once a week, as of its Monday.",
)
def driver_findings(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Finds what moves output, scrap and energy, or reads the findings of the same log."""
    from npq_assets.manufacturing.output import findings_of

    day = as_of_of(context)
    found, stored = findings_of(home.home, day)
    place = write_decisions(home.home, DECISIONS["manufacturing.driver_findings"], day, found.findings)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.findings.height,
            "conclusive": int(found.findings["conclusive"].sum()),
            "in words": dg.MetadataValue.md("\n".join(f"* {line}" for line in found.summary["sentence"])),
            "read from store": stored,
            "file": dg.MetadataValue.path(str(place)),
            "preview": preview(found.findings.select("target", "factor", "effect", "low", "high", "vif", "sentence")),
        }
    )


@dg.asset(
    key=FORECAST_KEY,
    deps=[dg.AssetKey(["marts", "manufacturing", model]) for model in ("customer_orders", "routings", "machines")],
    partitions_def=AS_OF,
    group_name="manufacturing_forecast",
    kinds={"python", "lightgbm", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Units due by product, line and week of the coming quarter, from history and orders in hand, with the back-test "
    "in which orders in hand earned their place or did not. Made once a week, as of its Monday.",
)
def production_forecast(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Forecasts as of the Monday of the partition's day, or reads the forecast of the same orders."""
    from npq_assets.manufacturing.output import forecast_of

    found, stored = forecast_of(home.home, as_of_of(context))
    facts = found.facts
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.weeks.height,
            "skipped": facts["skipped"],
            "orders in hand": facts["sentence"] or "not tried",
            "read from store": stored,
            "back-test": preview(found.backtest.by_step) if found.backtest else "none",
            "lines": preview(found.lines),
        }
    )


def _spec(name: str, asset: dg.AssetKey, words: str, blocking: bool = True) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=asset, blocking=blocking, description=words)


@dg.multi_asset_check(
    name="production_plan_checks",
    specs=[
        _spec("complete", PLAN_KEY, "Every product with a routing is planned."),
        _spec(
            "balance", PLAN_KEY, "Stock before, made and delivered add up in every period, and lots to what is made."
        ),
        _spec("capacity", PLAN_KEY, "No machine works longer than regular time and overtime allow."),
        _spec("eligible", PLAN_KEY, "Every lot is made on a machine of its routing."),
        _spec("bound", PLAN_KEY, "No product costs less than its proven bound."),
        _spec("beats_naive", PLAN_KEY, "The plan is expected to cost no more than the naive rule's.", blocking=False),
    ],
)
def production_plan_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """What must hold of a plan before anybody acts on it."""
    from npq_assets.manufacturing.checks import PLAN_CHECKS, judge_plan, nothing_to_judge
    from npq_assets.manufacturing.inputs import read_inputs
    from npq_assets.manufacturing.output import load_plan, load_skipped

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        verdicts = nothing_to_judge(reason, PLAN_CHECKS)
    else:
        verdicts = judge_plan(load_plan(home.home, day), read_inputs(home.home, day))
    yield from check_results(PLAN_KEY, verdicts)


@dg.multi_asset_check(
    name="job_schedule_checks",
    specs=[
        _spec("one_at_a_time", SCHEDULE_KEY, "No machine does two jobs at once."),
        _spec("sequence", SCHEDULE_KEY, "No operation runs before the one it follows."),
        _spec("scheduled_as_planned", SCHEDULE_KEY, "The lots of the schedule have the plan's quantities."),
    ],
)
def job_schedule_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """What must hold of a schedule before anybody acts on it."""
    from npq_assets.manufacturing.checks import SCHEDULE_CHECKS, judge_schedule, nothing_to_judge
    from npq_assets.manufacturing.output import load_plan, load_schedule, load_skipped

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        verdicts = nothing_to_judge(reason, SCHEDULE_CHECKS)
    else:
        schedule = load_schedule(home.home, day)
        verdicts = judge_schedule(schedule.rows if schedule else None, load_plan(home.home, day))
    yield from check_results(SCHEDULE_KEY, verdicts)
