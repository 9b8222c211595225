"""Retail's own assets: forecast, plan, decisions, outbox. Each reads, calls one function, writes, attaches metadata."""

from collections.abc import Iterable

import dagster as dg
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.errors import Unavailable
from npq_assets.orchestration import (
    AS_OF,
    DAILY_FRESHNESS,
    RETRY,
    HomeResource,
    as_of_of,
    check_results,
    preview,
    skipped,
)
from npq_assets.publishing import publisher_of, read_decisions, write_decisions
from npq_assets.version import code_version

ORDERS = DECISIONS["retail.replenishment_orders"]
FORECAST_KEY = dg.AssetKey(["forecast", "retail", "demand_forecast"])
PLAN_KEY = dg.AssetKey(["plan", "retail", "replenishment_plan"])
ORDERS_KEY = dg.AssetKey(["decisions", "retail", "replenishment_orders"])
JUDGEMENTS_KEY = dg.AssetKey(["evaluation", "retail", "judgements"])
OUTBOX_KEY = dg.AssetKey(["outbox", "retail", "replenishment_orders"])
OFFER_PLAN_KEY = dg.AssetKey(["plan", "retail", "offer_plan"])
INPUTS = [
    dg.AssetKey(["marts", domain, model])
    for domain, model in (
        ("retail", "demand"),
        ("retail", "stock_position"),
        ("retail", "open_orders"),
        ("retail", "supply_terms"),
        ("retail", "supplier_limits"),
        ("retail", "promotions"),
        ("retail", "forecast_overrides"),
        ("common", "events"),
        ("common", "products"),
        ("common", "sites"),
    )
]
OWNERS = ["team:retail"]
_EXPLAINED = 100


@dg.asset(
    key=FORECAST_KEY,
    deps=INPUTS,
    partitions_def=AS_OF,
    group_name="retail_forecast",
    kinds={"python", "lightgbm", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    freshness_policy=DAILY_FRESHNESS,
    description="Demand per site and product over the protection interval, as quantiles and scenarios, as of a day.",
)
def demand_forecast(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Forecasts demand as of the partition's day, or reads the forecast of the same inputs."""
    from npq_assets.reporting.plots import forecast_plot
    from npq_assets.retail.demand import explain_demand, forecast_demand, most_at_stake
    from npq_assets.retail.inputs import read_inputs
    from npq_assets.retail.output import load_explanation, load_forecast, save_explanation, save_forecast, save_skipped
    from npq_assets.storage import fingerprint

    day = as_of_of(context)
    try:
        inputs = read_inputs(home.home, day)
    except Unavailable as reason:
        save_skipped(home.home, day, str(reason))
        context.log.warning(f"No orders as of {day}: {reason}")
        return skipped(str(reason))
    wanted = fingerprint(inputs.snapshot, code_version())
    forecast = load_forecast(home.home, day, wanted)
    stored = forecast is not None
    if forecast is None:
        forecast = forecast_demand(inputs, home.home)
        save_explanation(home.home, day, explain_demand(inputs, most_at_stake(inputs, forecast, _EXPLAINED), home.home))
        save_forecast(home.home, day, forecast, wanted)
    explained = load_explanation(home.home, day)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": forecast.frame.height,
            "series": inputs.items.height,
            "model version": forecast.model_version,
            "model trained as of": forecast.model_trained_as_of.isoformat(),
            "input snapshot": inputs.snapshot,
            "read from store": stored,
            "skipped": list(inputs.skipped),
            "overridden by planners": len(forecast.overridden),
            "preview": preview(forecast.frame),
            "what moved the largest": preview(explained, 24) if explained is not None else "",
            "forecast against actuals": dg.MetadataValue.md(
                forecast_plot(inputs.history.rename({"period_start": "ds", "quantity": "y"}), forecast.frame)
            ),
        }
    )


@dg.asset(
    key=PLAN_KEY,
    deps=[FORECAST_KEY, OFFER_PLAN_KEY, *INPUTS],
    partitions_def=AS_OF,
    group_name="retail_plan",
    kinds={"python", "cvxpy", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="The orders of least expected holding and lost-sales cost, beside the naive rule's and a proven bound.",
)
def replenishment_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Solves the day's replenishment problem, or reads the plan of the same inputs."""
    from npq_assets.reporting.plots import cost_plot
    from npq_assets.retail.customer_link import link_of
    from npq_assets.retail.inputs import read_inputs
    from npq_assets.retail.output import load_forecast, load_plan, load_skipped, save_plan
    from npq_assets.retail.plan import plan_orders
    from npq_assets.storage import fingerprint

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        return skipped(reason)
    inputs = read_inputs(home.home, day)
    forecast = load_forecast(home.home, day)
    if forecast is None:
        raise dg.Failure(f"no forecast as of {day}; materialize {FORECAST_KEY.to_user_string()} first")
    link = link_of(home.home, day)
    wanted = fingerprint(inputs.snapshot, forecast.frame, code_version(), link.demand, link.defection)
    stored = load_plan(home.home, day, wanted)
    if stored is None:
        plan = plan_orders(inputs, forecast, link)
        save_plan(home.home, day, plan, wanted)
        orders, facts = plan.orders, plan.facts
    else:
        orders, facts = stored
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": orders.height,
            "expected cost": facts["expected_cost"],
            "naive cost": facts["naive_cost"],
            "proven bound": facts["lower_bound"],
            "gap": facts["gap"],
            "solver": f"{facts['solver']}: {facts['status']}",
            "read from store": stored is not None,
            "costs": dg.MetadataValue.md(cost_plot(facts["expected_cost"], facts["naive_cost"], facts["lower_bound"])),
            "preview": preview(orders.select(*ORDERS.key, "quantity", "expected_cost", "naive_quantity", "reason")),
        }
    )


@dg.asset(
    key=ORDERS_KEY,
    deps=[PLAN_KEY],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description=ORDERS.description + " The contract file, written only if the plan passed its checks.",
)
def replenishment_orders(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the plan's orders in the columns of the contract."""
    from npq_assets.retail.output import load_plan, load_skipped

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        return skipped(reason)
    plan = load_plan(home.home, day)
    if plan is None:
        raise dg.Failure(f"no plan as of {day}; materialize {PLAN_KEY.to_user_string()} first")
    place = write_decisions(home.home, ORDERS, day, plan[0])
    written = pl.read_parquet(place)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": written.height,
            "file": dg.MetadataValue.path(str(place)),
            "units ordered": float(written["quantity"].sum()),
            "preview": preview(written),
        }
    )


@dg.asset(
    key=OUTBOX_KEY,
    deps=[ORDERS_KEY],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "csv"},
    owners=OWNERS,
    description="Orders handed on to the company's systems: once each, and only if `publish = true` in npq.toml.",
)
def outbox(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Hands on what was not handed on before."""
    day = as_of_of(context)
    decisions = read_decisions(home.home, ORDERS, day)
    sent = publisher_of(home.home).publish(ORDERS, day, decisions.filter(pl.col("quantity") > 0))
    return dg.MaterializeResult(metadata={"handed on": len(sent), "dry run": not home.home.settings.publish})


@dg.asset(
    key=JUDGEMENTS_KEY,
    deps=[FORECAST_KEY],
    partitions_def=AS_OF,
    group_name="retail_evaluation",
    kinds={"python", "lightgbm", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="The model in service beside its predecessor and the simple method, on periods that none has seen: losses, "
    "the paired difference with its confidence interval, and the verdict.",
)
def judgements(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Judges the models of the partition's day; decisions do not wait for it."""
    from npq_assets.retail.inputs import read_inputs
    from npq_assets.retail.judging import judge_models, save_judgements
    from npq_assets.retail.output import load_forecast, load_skipped

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        return skipped(reason)
    forecast = load_forecast(home.home, day)
    if forecast is None:
        raise dg.Failure(f"no forecast as of {day}; materialize {FORECAST_KEY.to_user_string()} first")
    found = judge_models(read_inputs(home.home, day), home.home, forecast.model_version)
    save_judgements(home.home, day, found)
    return dg.MaterializeResult(metadata={"dagster/row_count": found.height, "preview": preview(found)})


@dg.multi_asset_check(
    name="forecast_checks",
    specs=[
        dg.AssetCheckSpec(
            "input_drift", asset=FORECAST_KEY, description="Sales, stock-outs, promotions and prices are as they were."
        ),
        dg.AssetCheckSpec(
            "error_drift", asset=FORECAST_KEY, description="Past forecasts neither lean nor lose more than they did."
        ),
        dg.AssetCheckSpec(
            "interval_coverage",
            asset=FORECAST_KEY,
            description="Outcomes fall into the 80 % range as often as they should.",
        ),
    ],
)
def forecast_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """Warns before decisions degrade."""
    from npq_assets.retail.watching import watch

    for verdict in watch(home.home, as_of_of(context)).verdicts():
        yield dg.AssetCheckResult(
            asset_key=FORECAST_KEY,
            check_name=verdict.name,
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"detail": verdict.detail},
        )


@dg.multi_asset_check(
    name="plan_checks",
    specs=[
        dg.AssetCheckSpec(
            "complete", asset=PLAN_KEY, blocking=True, description="Every pair with terms has an order, of 0 or more."
        ),
        dg.AssetCheckSpec(
            "packs", asset=PLAN_KEY, blocking=True, description="Orders are whole packs and not below the minimum."
        ),
        dg.AssetCheckSpec(
            "bound", asset=PLAN_KEY, blocking=True, description="No row costs less than its proven bound."
        ),
        dg.AssetCheckSpec(
            "limits", asset=PLAN_KEY, blocking=True, description="No supplier delivers or is paid more than its limit."
        ),
        dg.AssetCheckSpec(
            "beats_naive", asset=PLAN_KEY, description="The plan is expected to cost no more than the naive rule's."
        ),
    ],
)
def plan_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """What must hold of a plan before anybody acts on it."""
    from npq_assets.retail.checks import judge_plan, nothing_to_judge
    from npq_assets.retail.inputs import read_inputs
    from npq_assets.retail.output import load_plan, load_skipped

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        verdicts = nothing_to_judge(reason)
    else:
        plan = load_plan(home.home, day)
        verdicts = judge_plan(plan[0] if plan else None, read_inputs(home.home, day))
    yield from check_results(PLAN_KEY, verdicts)
