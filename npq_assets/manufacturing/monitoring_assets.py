"""Alerts on machines as assets: each reads, calls one function, writes, attaches metadata."""

from collections.abc import Iterable

import dagster as dg

from npq_assets.contracts import DECISIONS
from npq_assets.errors import Unavailable
from npq_assets.orchestration import AS_OF, RETRY, HomeResource, as_of_of, preview
from npq_assets.publishing import write_decisions

MONITORING_KEY = dg.AssetKey(["plan", "manufacturing", "machine_monitoring"])
ALERTS_KEY = dg.AssetKey(["decisions", "manufacturing", "machine_alerts"])
TABLE = DECISIONS["manufacturing.machine_alerts"]
OWNERS = ["team:production"]


@dg.asset(
    key=MONITORING_KEY,
    deps=[
        dg.AssetKey(["marts", "manufacturing", "sensor_hour"]),
        dg.AssetKey(["marts", "manufacturing", "machines"]),
        *[
            dg.AssetKey(["raw", "manufacturing", name])
            for name in ("telemetry", "component_costs", "component_replacements")
        ],
    ],
    partitions_def=AS_OF,
    group_name="manufacturing_plan",
    kinds={"python", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="What machines do unlike themselves, and which sensors cannot be believed; alerts keep name and age over days.",
)
def machine_monitoring(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Judges the telemetry before the partition's day, or reads what the same inputs gave."""
    from npq_assets.manufacturing.monitoring import (
        load_monitoring,
        monitor,
        read_monitoring,
        save_monitoring,
        save_skipped,
    )

    day = as_of_of(context)
    try:
        inputs = read_monitoring(home.home, day)
    except Unavailable as reason:
        save_skipped(home.home, day, str(reason))
        context.log.warning(f"No alerts as of {day}: {reason}")
        return dg.MaterializeResult(metadata={"skipped": str(reason), "dagster/row_count": 0})
    found = load_monitoring(home.home, day, inputs.snapshot)
    stored = found is not None
    if found is None:
        found = monitor(inputs)
        save_monitoring(home.home, day, found, inputs.snapshot)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.facts["open"],
            "opened": found.facts["opened"],
            "closed": found.facts["closed"],
            "money at risk": found.facts["money_at_risk"],
            "share of earlier alerts that a failure followed": found.facts["right"],
            "read from store": stored,
            "preview": preview(
                found.rows.select("machine_id", "kind", "age_hours", "owner", "money_at_risk", "reason")
            ),
        }
    )


@dg.asset(
    key=ALERTS_KEY,
    deps=[MONITORING_KEY],
    partitions_def=AS_OF,
    group_name="manufacturing_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description=TABLE.description + " The contract file, written only if monitoring passed its checks.",
)
def machine_alerts(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the list in the columns of the contract."""
    from npq_assets.manufacturing.monitoring import load_monitoring

    day = as_of_of(context)
    found = load_monitoring(home.home, day)
    if found is None:
        raise dg.Failure(f"no monitoring as of {day}; materialize {MONITORING_KEY.to_user_string()} first")
    if "skipped" in found.facts:
        return dg.MaterializeResult(metadata={"skipped": found.facts["skipped"], "dagster/row_count": 0})
    place = write_decisions(home.home, TABLE, day, found.rows)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.rows.height,
            "file": dg.MetadataValue.path(str(place)),
            "preview": preview(found.rows),
        }
    )


@dg.multi_asset_check(
    name="machine_monitoring_checks",
    specs=[
        dg.AssetCheckSpec(name, asset=MONITORING_KEY, blocking=True, description=words)
        for name, words in (
            ("few_enough", "No more alerts than the list may have, each once; the rest is one row."),
            ("nothing_lost", "Alerts of the day before are open or closed at a moment; each unknown machine has one."),
            ("money_adds_up", "What is listed adds up to the money at risk in all."),
        )
    ],
)
def machine_monitoring_checks(
    context: dg.AssetCheckExecutionContext, home: HomeResource
) -> Iterable[dg.AssetCheckResult]:
    """What must hold of the alerts before anybody acts on them."""
    from npq_assets.manufacturing.monitoring import CHECKS, judge_monitoring, load_monitoring, read_monitoring

    day = as_of_of(context)
    found = load_monitoring(home.home, day)
    if found is None or "skipped" in found.facts:
        words = found.facts["skipped"] if found else "there is no monitoring"
        verdicts = [(name, found is not None, words) for name in CHECKS]
    else:
        verdicts = judge_monitoring(found, read_monitoring(home.home, day))
    for name, passed, words in verdicts:
        yield dg.AssetCheckResult(asset_key=MONITORING_KEY, check_name=name, passed=passed, metadata={"detail": words})
