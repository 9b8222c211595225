"""Smart manufacturing: from machine data to plan and schedule (and, next, to maintenance, quality and control).

The way: `inputs` (what was known when) > `demand` (what will be due) > `plan` (lots) > `schedule` (sequence) > `checks` >
`assets` (Dagster) > `outcome` (what it did cost).
"""

from __future__ import annotations

from typing import Any

import dagster as dg


def system_assets() -> list[Any]:
    """The system's own assets behind its marts."""
    from npq_assets.manufacturing.assets import (
        driver_findings,
        job_schedule_plan,
        manufacturing_decisions,
        production_forecast,
        production_plan,
    )
    from npq_assets.manufacturing.monitoring_assets import machine_alerts, machine_monitoring

    watched = [machine_monitoring, machine_alerts]
    return [production_plan, job_schedule_plan, manufacturing_decisions, driver_findings, production_forecast, *watched]


def system_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of those assets."""
    from npq_assets.manufacturing.assets import job_schedule_checks, production_plan_checks
    from npq_assets.manufacturing.monitoring_assets import machine_monitoring_checks

    return [production_plan_checks, job_schedule_checks, machine_monitoring_checks]


def system_decisions() -> list[dg.AssetKey]:
    """Keys of its decision tables, which the ledger accounts for."""
    from npq_assets.manufacturing.assets import DRIVERS_KEY, LATE_KEY, PLAN_TABLE_KEY, SCHEDULE_TABLE_KEY, WORTH_KEY
    from npq_assets.manufacturing.monitoring_assets import ALERTS_KEY

    return [PLAN_TABLE_KEY, SCHEDULE_TABLE_KEY, LATE_KEY, WORTH_KEY, DRIVERS_KEY, ALERTS_KEY]
