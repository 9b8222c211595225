"""Equipment's own assets: maintenance before the production plan; alerts and settings; their decision tables."""

from collections.abc import Iterable

import dagster as dg
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.orchestration import AS_OF, RETRY, HomeResource, as_of_of, check_results, preview
from npq_assets.publishing import write_decisions

MAINTENANCE_KEY = dg.AssetKey(["plan", "manufacturing", "maintenance"])
EQUIPMENT_KEY = dg.AssetKey(["plan", "manufacturing", "quality_and_settings"])
TABLES = {
    "maintenance_plan": ("maintenance", "plan"),
    "component_risks": ("maintenance", "risks"),
    "quality_alerts": ("quality", "alerts"),
    "process_signals": ("quality", "signals"),
    "machine_settings": ("control", "settings"),
}
DECISION_KEYS = [dg.AssetKey(["decisions", "manufacturing", name]) for name in TABLES]
OWNERS = ["team:maintenance"]


def _marts(*models: str) -> list[dg.AssetKey]:
    return [dg.AssetKey(["marts", "manufacturing", model]) for model in models]


@dg.asset(
    key=MAINTENANCE_KEY,
    deps=_marts("component_life", "component_costs", "sensor_day", "machine_error_day", "machines", "machine_calendar"),
    partitions_def=AS_OF,
    group_name="manufacturing_plan",
    kinds={"python", "cvxpy", "lightgbm", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Failure probabilities, remaining life and the replacements of least expected cost, beside run-to-failure and "
    "the best fixed interval. Decided before the production plan, with machine time at the prices of the plan in force.",
)
def maintenance(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Decides as of the partition's day, or reads what was decided of the same inputs."""
    from npq_assets.manufacturing.equipment_output import maintenance_of
    from npq_assets.reporting.plots import cost_plot

    found, how = maintenance_of(home.home, as_of_of(context))
    if found is None:
        context.log.warning(f"No maintenance plan: {how}")
        return dg.MaterializeResult(metadata={"skipped": how, "dagster/row_count": 0})
    facts = found.facts
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.plan.height,
            "expected cost": facts["expected_cost"],
            "run to failure": facts["run_to_failure_cost"],
            "best fixed interval": facts["fixed_interval_cost"],
            "intervals (days)": facts["intervals"],
            "proven bound": facts["lower_bound"],
            "solver": f"{facts['solver']}: {facts['status']}",
            "skipped": list(facts["skipped"]),
            "read from store": how == "stored",
            "costs": dg.MetadataValue.md(cost_plot(facts["expected_cost"], facts["naive_cost"], facts["lower_bound"])),
            "preview": preview(found.plan.select("machine_id", "component", "planned_on", "expected_saving", "reason")),
        }
    )


@dg.asset(
    key=EQUIPMENT_KEY,
    deps=[
        *_marts("unit_quality", "process_capability", "quality_costs", "process_settings", "setting_changes"),
        *_marts("production_day", "machines", "energy_prices"),
        dg.AssetKey(["marts", "common", "products"]),
    ],
    partitions_def=AS_OF,
    group_name="manufacturing_plan",
    kinds={"python", "cvxpy", "scikitlearn", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Units to inspect by the cost of a miss against an inspection, control charts, and settings of least cost "
    "within limits, ramps and what the log has seen.",
)
def quality_and_settings(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Decides as of the partition's day, or reads what was decided of the same inputs."""
    from npq_assets.manufacturing.equipment_output import control_of, quality_of

    day = as_of_of(context)
    quality, quality_how = quality_of(home.home, day)
    control, control_how = control_of(home.home, day)
    skipped = [how for found, how in ((quality, quality_how), (control, control_how)) if found is None]
    for reason in skipped:
        context.log.warning(reason)
    more = {} if quality is None else {
        "alerts": quality.facts["alerts"],
        "threshold": quality.facts.get("threshold") or "never",
        "signals": quality.signals.height,
    }  # fmt: skip
    if control is not None:
        more["proposals"] = control.facts["proposals"]
        more["refused"] = dict(control.refusals.iter_rows())
    rows = (quality.alerts.height if quality else 0) + (control.settings.height if control else 0)
    skipped += [line for found in (quality, control) if found is not None for line in found.facts["skipped"]]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows,
            "skipped": skipped,
            "read from store": (quality_how, control_how) == ("stored", "stored"),
            **more,
        }
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            key,
            deps=[MAINTENANCE_KEY if TABLES[key.path[-1]][0] == "maintenance" else EQUIPMENT_KEY],
            group_name="manufacturing_decisions",
            kinds={"python", "parquet", "csv"},
            owners=OWNERS,
            partitions_def=AS_OF,
            description=DECISIONS[f"manufacturing.{key.path[-1]}"].description
            + " The contract file, written only if what was decided passed its checks.",
        )
        for key in DECISION_KEYS
    ],
    name="equipment_decisions",
    retry_policy=RETRY,
)
def equipment_decisions(context: dg.AssetExecutionContext, home: HomeResource) -> Iterable[dg.MaterializeResult[None]]:
    """Writes what was decided about equipment in the columns of the contract."""
    from npq_assets.manufacturing.equipment_output import load, skipped

    day = as_of_of(context)
    for key in DECISION_KEYS:
        part, frame = TABLES[key.path[-1]]
        found = load(home.home, day, part)
        if found is None:
            reason = skipped(home.home, day, part)
            if reason is None:
                raise dg.Failure(f"nothing decided as of {day}; materialize {MAINTENANCE_KEY.to_user_string()} first")
            yield dg.MaterializeResult(asset_key=key, metadata={"skipped": reason, "dagster/row_count": 0})
            continue
        rows = getattr(found, frame)
        place = write_decisions(home.home, DECISIONS[f"manufacturing.{key.path[-1]}"], day, rows)
        yield dg.MaterializeResult(
            asset_key=key,
            metadata={
                "dagster/row_count": rows.height,
                "file": dg.MetadataValue.path(str(place)),
                "preview": preview(pl.read_parquet(place, hive_partitioning=False)),
            },
        )


def _spec(name: str, asset: dg.AssetKey, words: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=asset, blocking=True, description=words)


@dg.multi_asset_check(
    name="maintenance_checks",
    specs=[
        _spec(
            "probabilities", MAINTENANCE_KEY, "Probabilities lie between 0 and 1, and remaining lives in their order."
        ),
        _spec("crew", MAINTENANCE_KEY, "No day has more replacements than the crew can do."),
        _spec("maintenance_bound", MAINTENANCE_KEY, "No component costs less than its proven bound."),
    ],
)
def maintenance_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """What must hold of a maintenance plan before the production plan takes it as given."""
    from npq_assets.manufacturing.equipment_checks import judge_maintenance
    from npq_assets.manufacturing.equipment_output import load, skipped

    day = as_of_of(context)
    found, reason = load(home.home, day, "maintenance"), skipped(home.home, day, "maintenance")
    yield from check_results(MAINTENANCE_KEY, judge_maintenance(found, home.home.settings.crew_replacements, reason))


@dg.multi_asset_check(
    name="quality_and_settings_checks",
    specs=[
        _spec("within_limits", EQUIPMENT_KEY, "Every set-point lies within its limits and what the log has seen."),
        _spec("alerts_pay", EQUIPMENT_KEY, "Every unit with an alert reaches the threshold."),
    ],
)
def equipment_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """What must hold of alerts and set-points before they are written down."""
    from npq_assets.manufacturing.equipment_checks import judge_equipment
    from npq_assets.manufacturing.equipment_output import load, skipped

    day = as_of_of(context)
    parts = {part: load(home.home, day, part) for part in ("quality", "control")}
    reasons = {part: skipped(home.home, day, part) for part in parts}
    yield from check_results(EQUIPMENT_KEY, judge_equipment(parts["quality"], parts["control"], reasons))
