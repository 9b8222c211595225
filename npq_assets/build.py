"""Puts the house together: the assets of all systems, jobs, sensors, schedule, resources."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from npq_assets import logistics, manufacturing, retail
from npq_assets.contracts import DOMAINS
from npq_assets.ingestion.assets import landing_specs, raw_assets
from npq_assets.ingestion.sensor import landing_sensor, telemetry_sensor
from npq_assets.ledger import KEY as LEDGER_KEY
from npq_assets.ledger import ledger_asset
from npq_assets.manufacturing.monitoring_assets import ALERTS_KEY, MONITORING_KEY
from npq_assets.orchestration import AS_OF, HomeResource
from npq_assets.periods import latest_as_of
from npq_assets.reporting.assets import report_asset
from npq_assets.runs import PROGRESS_LOGGER
from npq_assets.settings import Home
from npq_assets.warehouse.assets import domain_models
from npq_assets.warehouse.docs import docs_asset

SYSTEMS = {"retail": retail, "manufacturing": manufacturing, "logistics": logistics}


def build_defs(home: Home | None = None, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The Dagster definitions of npq.

    Args:
        home: The home to work on; else NPQ_HOME, else ./.npq, when a run starts.
        resources: Replace resources by name, as tests do.
    """
    warehouse = {domain: domain_models(domain) for domain in DOMAINS}
    systems = [definition for system in SYSTEMS.values() for definition in system.system_assets()]
    checks = [check for system in SYSTEMS.values() for check in system.system_checks()]
    assets: list[Any] = [spec for domain in DOMAINS for spec in landing_specs(domain)]
    assets += [raw_assets(domain) for domain in DOMAINS]
    decided = [key for system in SYSTEMS.values() for key in system.system_decisions()]
    evaluated = [key for definition in systems for key in definition.keys if key.path[0] == "evaluation"]
    assets += [*warehouse.values(), *systems, ledger_asset(decided), report_asset([LEDGER_KEY, *sorted(evaluated)])]
    assets.append(docs_asset(sorted(key for models in warehouse.values() for key in models.keys)))
    jobs = _jobs()
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=list(jobs.values()),
        sensors=[
            landing_sensor(jobs["transform"]),
            telemetry_sensor(jobs["everything"], [MONITORING_KEY, ALERTS_KEY]),
            _facts_sensor(jobs["decide"]),
        ],
        schedules=[_daily(jobs["everything"])],
        resources={"home": HomeResource(root=str(home.root) if home else ""), **(resources or {})},
        executor=dg.in_process_executor,
        loggers={"npq": _progress_logger, "console": dg.colored_console_logger},
    )


def _jobs() -> dict[str, UnresolvedAssetJobDefinition]:
    everything = dg.AssetSelection.all() - dg.AssetSelection.groups("documentation")
    ingest = dg.AssetSelection.key_prefixes(*[["raw", domain] for domain in DOMAINS])
    models = dg.AssetSelection.key_prefixes(["staging"], ["intermediate"], ["marts"])
    selections = {
        "everything": (everything, "All systems, from landing files to decisions and the report."),
        "ingest": (ingest, "Takes new files in."),
        "transform": (ingest | models, "Takes new files in and rebuilds what the warehouse makes of them."),
        "decide": (
            everything - ingest - models,
            "Forecasts, plans, decisions, ledger and report from the warehouse as it stands.",
        ),
        "documentation": (dg.AssetSelection.groups("documentation").upstream(), "dbt docs, and what they describe."),
    }
    for domain in SYSTEMS:
        chosen = [
            dg.AssetSelection.groups(f"{part}_{layer}")
            for part in ("common", domain)
            for layer in ("raw", "staging", "intermediate", "marts", "forecast", "plan", "decisions", "evaluation")
        ]
        selection: dg.AssetSelection = chosen[0]
        for more in chosen[1:]:
            selection = selection | more
        # What models read from another system (deliveries to a store's customers, say) is taken in and staged with them.
        selection = selection | (selection.upstream() & dg.AssetSelection.key_prefixes(["raw"], ["staging"]))
        selections[domain] = (
            selection | dg.AssetSelection.groups("ledger", "reports"),
            f"The {domain} system, from landing files to decisions and the report.",
        )
    return {
        name: dg.define_asset_job(name, selection, description=description)
        for name, (selection, description) in selections.items()
    }


def _daily(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(name="every_morning", job=job, cron_schedule="0 5 * * *", default_status=_STOPPED)
    def every_morning(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        """Decides for the day that is about to open."""
        return dg.RunRequest(partition_key=context.scheduled_execution_time.date().isoformat())

    return every_morning


_STOPPED = dg.DefaultScheduleStatus.STOPPED


def _facts_sensor(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    @dg.sensor(name="new_facts", job=job, minimum_interval_seconds=30)
    def new_facts(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.RunRequest | dg.SkipReason:
        """Decides anew when the warehouse knows more than when the last decision was requested."""
        # Roll-ups of telemetry change every minute of a live stream; what they are worth waking for has a sensor of its own.
        marts = [m for m in (home.home.root / "marts").glob("*/*.parquet") if not m.name.startswith("sensor_")]
        if not marts:
            return dg.SkipReason("No marts yet.")
        state = str(max(mart.stat().st_mtime_ns for mart in marts))
        if context.cursor == state:
            return dg.SkipReason("Nothing new in the warehouse.")
        day = min(latest_as_of(home.home), date.today())
        context.update_cursor(state)
        return dg.RunRequest(run_key=f"{day}:{state}", partition_key=day.isoformat())

    return new_facts


@dg.logger(config_schema={}, description="Steps as they start and end, for a person at a terminal.")
def _progress_logger(_: dg.InitLoggerContext) -> Any:
    import logging

    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.setLevel(logging.DEBUG)
    return logger


__all__ = ["AS_OF", "SYSTEMS", "build_defs"]
