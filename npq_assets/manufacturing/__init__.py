"""Smart manufacturing: from machine data to plan and schedule, and to maintenance, quality and control.

The way: `inputs` (what was known when) > `demand` (what will be due) > `plan` (lots) > `schedule` (sequence) > `checks` >
`assets` (Dagster) > `outcome` (what it did cost). Equipment goes the same way: `equipment_inputs` > `maintenance` (before the
production plan, which takes its standstill as given), `quality`, `control` > `equipment_output` > `equipment_checks` >
`equipment_assets`; `approval` is the gate between a proposed setting and a machine.
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
    from npq_assets.manufacturing.equipment_assets import equipment_decisions, maintenance, quality_and_settings
    from npq_assets.manufacturing.monitoring_assets import machine_alerts, machine_monitoring
    from npq_assets.warehouse.assets import evaluation_models

    plans = [maintenance, production_plan, job_schedule_plan, quality_and_settings, machine_monitoring]
    decisions = [manufacturing_decisions, equipment_decisions, machine_alerts]
    return [*plans, *decisions, driver_findings, production_forecast, evaluation_models("manufacturing")]


def system_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of those assets."""
    from npq_assets.manufacturing.assets import job_schedule_checks, production_plan_checks
    from npq_assets.manufacturing.equipment_assets import equipment_checks, maintenance_checks
    from npq_assets.manufacturing.monitoring_assets import machine_monitoring_checks

    plans = [maintenance_checks, production_plan_checks, job_schedule_checks]
    return [*plans, equipment_checks, machine_monitoring_checks]


def system_decisions() -> list[dg.AssetKey]:
    """Keys of its decision tables, which the ledger accounts for."""
    from npq_assets.manufacturing.assets import DRIVERS_KEY, LATE_KEY, PLAN_TABLE_KEY, SCHEDULE_TABLE_KEY, WORTH_KEY
    from npq_assets.manufacturing.equipment_assets import DECISION_KEYS
    from npq_assets.manufacturing.monitoring_assets import ALERTS_KEY

    return [PLAN_TABLE_KEY, SCHEDULE_TABLE_KEY, LATE_KEY, WORTH_KEY, DRIVERS_KEY, *DECISION_KEYS, ALERTS_KEY]
