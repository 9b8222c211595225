"""Logistics' own assets: traffic, plan, decisions, dispatch. Each reads, calls one function, writes, attaches metadata."""

from collections.abc import Iterable
from datetime import timedelta

import dagster as dg
import polars as pl

from npq_assets.contracts import DECISIONS, Table
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

FORECAST_KEY = dg.AssetKey(["forecast", "logistics", "traffic"])
PLAN_KEY = dg.AssetKey(["plan", "logistics", "route_plan"])
TABLES: dict[str, Table] = {
    name: DECISIONS[f"logistics.{name}"]
    for name in ("routes", "dropped_deliveries", "delivery_risks", "alerts", "sourcing")
}
_FRAME = {
    "routes": "routes",
    "dropped_deliveries": "dropped",
    "delivery_risks": "risks",
    "alerts": "alerts",
    "sourcing": "sourcing",
}
DECISION_KEYS = {name: dg.AssetKey(["decisions", "logistics", name]) for name in TABLES}
ORDERS_KEY = dg.AssetKey(["decisions", "retail", "replenishment_orders"])
PRODUCTION_KEY = dg.AssetKey(["decisions", "manufacturing", "production_plan"])
DISPATCH_KEY = dg.AssetKey(["decisions", "logistics", "dispatch"])
TRACKING_KEY = dg.AssetKey(["decisions", "logistics", "tracking"])
OUTBOX_KEY = dg.AssetKey(["outbox", "logistics", "routes"])
INPUTS = [
    dg.AssetKey(["marts", domain, model])
    for domain, model in (
        *(
            ("logistics", name)
            for name in (
                "deliveries",
                "vehicles",
                "legs",
                "road_nodes",
                "road_segments",
                "road_closures",
                "travel_times",
                "depot_terms",
                "lanes",
                "weather",
                "weather_forecasts",
            )
        ),
        ("common", "sites"),
        ("common", "products"),
    )
]
OWNERS = ["team:logistics"]


@dg.asset(
    key=FORECAST_KEY,
    deps=INPUTS,
    partitions_def=AS_OF,
    group_name="logistics_forecast",
    kinds={"python", "lightgbm"},
    owners=OWNERS,
    retry_policy=RETRY,
    freshness_policy=DAILY_FRESHNESS,
    description="How much longer than usual legs will take, as a distribution learned from legs that were driven.",
)
def traffic(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Learns the traffic as of the partition's day, or finds the model of the same legs."""
    from npq_assets.logistics.inputs import read_inputs
    from npq_assets.logistics.output import save_skipped
    from npq_assets.logistics.traffic import LEVELS, hours_of_day, learn

    day = as_of_of(context)
    try:
        inputs = read_inputs(home.home, day)
    except Unavailable as reason:
        save_skipped(home.home, day, str(reason))
        context.log.warning(f"No routes as of {day}: {reason}")
        return skipped(str(reason))
    learned = learn(inputs, home.home)
    grid = hours_of_day(inputs)
    shown = grid.select("depot_id", "region", "hour", "rain").with_columns(
        pl.Series(f"q{level:g}", values) for level, values in zip(LEVELS, learned.quantiles(grid).T, strict=True)
    )
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": learned.rows,
            "model version": learned.version,
            "model trained as of": learned.trained_as_of.isoformat(),
            "luck shared by a depot's legs": learned.together,
            "skipped": list(inputs.skipped),
            "factor on usual times": preview(shown, 12),
        }
    )


@dg.asset(
    key=PLAN_KEY,
    deps=[FORECAST_KEY, ORDERS_KEY, PRODUCTION_KEY, *INPUTS],
    partitions_def=AS_OF,
    group_name="logistics_plan",
    kinds={"python", "cvxpy", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Routes, risks, warnings and sourcing of least expected cost, beside the careful planner's and a proven bound.",
)
def route_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Plans the day, or reads the plan of the same inputs."""
    from npq_assets.logistics.inputs import read_inputs
    from npq_assets.logistics.output import load_picture, load_plan, load_skipped, save_plan
    from npq_assets.logistics.plan import plan_day
    from npq_assets.logistics.showing import route_map
    from npq_assets.logistics.traffic import learn
    from npq_assets.reporting.plots import cost_plot
    from npq_assets.storage import fingerprint

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        return skipped(reason)
    inputs = read_inputs(home.home, day)
    wanted = fingerprint(inputs.snapshot, code_version())
    found = load_plan(home.home, day, wanted)
    stored = found is not None
    if found is None:
        plan = plan_day(inputs, learn(inputs, home.home))
        depots = inputs.deliveries.select("delivery_id", "depot_id")
        picture = route_map(plan.routes.join(depots, on="delivery_id"), plan.dropped, inputs.places)
        save_plan(home.home, day, plan, inputs.places, picture, wanted)
        found = load_plan(home.home, day)
        assert found is not None
    frames, facts = found
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": frames["routes"].height,
            "expected cost": facts["expected_cost"],
            "naive cost": facts["naive_cost"],
            "proven bound": facts["lower_bound"],
            "gap": facts["gap"],
            "quantile planned with": facts["quantile"],
            "solver": f"{facts['solver']}: {facts['status']}",
            "read from store": stored,
            "costs": dg.MetadataValue.md(cost_plot(facts["expected_cost"], facts["naive_cost"], facts["lower_bound"])),
            "map": dg.MetadataValue.md(_embedded(load_picture(home.home, day))),
            "tours": preview(frames["tours"], 12),
            "what had to give": list(facts["relaxation"]),
        }
    )


def _embedded(svg: str) -> str:
    import base64

    return f"![routes](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})" if svg else "no routes"


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            key,
            deps=[PLAN_KEY],
            partitions_def=AS_OF,
            group_name="logistics_decisions",
            kinds={"python", "parquet", "csv"},
            owners=OWNERS,
            description=TABLES[name].description + " The contract file, written only if the plan passed its checks.",
        )
        for name, key in DECISION_KEYS.items()
    ],
    name="logistics_decisions",
    retry_policy=RETRY,
)
def logistics_decisions(context: dg.AssetExecutionContext, home: HomeResource) -> Iterable[dg.MaterializeResult[None]]:
    """Writes the plan in the columns of the contract."""
    from npq_assets.logistics.output import load_plan, load_skipped

    day = as_of_of(context)
    reason = load_skipped(home.home, day)
    found = None if reason is not None else load_plan(home.home, day)
    if reason is None and found is None:
        raise dg.Failure(f"no plan as of {day}; materialize {PLAN_KEY.to_user_string()} first")
    for name, key in DECISION_KEYS.items():
        if found is None:
            yield dg.MaterializeResult(asset_key=key, metadata={"skipped": str(reason), "dagster/row_count": 0})
            continue
        place = write_decisions(home.home, TABLES[name], day, found[0][_FRAME[name]])
        written = pl.read_parquet(place, hive_partitioning=False)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                "dagster/row_count": written.height,
                "file": dg.MetadataValue.path(str(place)),
                "preview": preview(written.drop("decision_id", "input_snapshot", "as_of")),
            },
        )


@dg.asset(
    key=DISPATCH_KEY,
    deps=[DECISION_KEYS["routes"], DECISION_KEYS["alerts"]],
    partitions_def=AS_OF,
    group_name="logistics_decisions",
    kinds={"python", "csv", "html"},
    owners=OWNERS,
    description="Dispatch lists: a CSV per driver and a page that prints.",
)
def dispatch(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the day's lists."""
    from npq_assets.logistics.output import load_plan, load_skipped
    from npq_assets.logistics.replanning import inputs_of_plan
    from npq_assets.logistics.showing import write_dispatch

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        return skipped(reason)
    routes, alerts = (read_decisions(home.home, TABLES[name], day) for name in ("routes", "alerts"))
    found = load_plan(home.home, day)
    if found is None:
        raise dg.Failure(f"no plan as of {day}; materialize {PLAN_KEY.to_user_string()} first")
    page = write_dispatch(home.home, day, routes, inputs_of_plan(home.home, day, *found).deliveries, alerts)
    return dg.MaterializeResult(
        metadata={"page": dg.MetadataValue.path(str(page)), "lists": routes["vehicle_id"].n_unique()}
    )


@dg.asset(
    key=TRACKING_KEY,
    deps=[DECISION_KEYS["routes"], dg.AssetKey(["marts", "logistics", "legs"])],
    partitions_def=AS_OF,
    group_name="logistics_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    description="Yesterday's plan, and today's as far as its trips have landed, beside what was driven: stops late, early, "
    "missing or to come, for customer service.",
)
def tracking(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Compares what was driven with what was planned."""
    from npq_assets.logistics.outcome import tracking_of
    from npq_assets.storage import write_csv_for_people, write_parquet

    day = as_of_of(context)
    frame = tracking_of(home.home, day)
    if frame is None:
        return skipped(f"nothing was planned for {day - timedelta(days=1)}, and no trip of {day} has landed")
    place = home.home.decisions("logistics", "tracking", day)
    write_parquet(frame, place)
    write_csv_for_people(frame, place.with_suffix(".csv"))
    states = dict(frame.group_by("state").len().sort("state").iter_rows())
    return dg.MaterializeResult(metadata={"dagster/row_count": frame.height, **states, "preview": preview(frame)})


@dg.asset(
    key=OUTBOX_KEY,
    deps=[DECISION_KEYS["routes"]],
    partitions_def=AS_OF,
    group_name="logistics_decisions",
    kinds={"python", "csv"},
    owners=OWNERS,
    description="Routes handed on to the company's systems: once each, and only if `publish = true` in npq.toml.",
)
def routes_outbox(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Hands on what was not handed on before."""
    day = as_of_of(context)
    sent = publisher_of(home.home).publish(TABLES["routes"], day, read_decisions(home.home, TABLES["routes"], day))
    return dg.MaterializeResult(metadata={"handed on": len(sent), "dry run": not home.home.settings.publish})


@dg.multi_asset_check(
    name="route_plan_checks",
    specs=[
        dg.AssetCheckSpec(
            "complete",
            asset=PLAN_KEY,
            blocking=True,
            description="Every delivery is on exactly one route, or dropped at its price.",
        ),
        dg.AssetCheckSpec(
            "capacity",
            asset=PLAN_KEY,
            blocking=True,
            description="No vehicle carries more than it can, or another depot's goods.",
        ),
        dg.AssetCheckSpec("windows", asset=PLAN_KEY, description="Stops are planned to be reached in their windows."),
        dg.AssetCheckSpec(
            "shifts", asset=PLAN_KEY, blocking=True, description="Vehicles keep to their shifts and distances."
        ),
        dg.AssetCheckSpec(
            "bound",
            asset=PLAN_KEY,
            blocking=True,
            description="No delivery costs less than its share of the proven bound.",
        ),
        dg.AssetCheckSpec(
            "beats_naive", asset=PLAN_KEY, description="The plan is expected to cost no more than the planner's routes."
        ),
    ],
)
def route_plan_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """What must hold of a plan before anybody drives it."""
    from npq_assets.logistics.checks import judge_plan, nothing_to_judge
    from npq_assets.logistics.output import load_plan, load_skipped
    from npq_assets.logistics.replanning import inputs_of_plan

    day = as_of_of(context)
    if (reason := load_skipped(home.home, day)) is not None:
        verdicts = nothing_to_judge(reason)
    elif (found := load_plan(home.home, day)) is None:
        verdicts = nothing_to_judge("there is no plan", passed=False)
    else:
        verdicts = judge_plan(*found, inputs_of_plan(home.home, day, *found))
    yield from check_results(PLAN_KEY, verdicts)
