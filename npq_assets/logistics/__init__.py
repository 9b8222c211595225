"""Smart logistics: from roads, vehicles and drops to sourcing, routes, risks and deliveries.

The way: `inputs` (what was known when; for sourcing `sourcing_inputs`; from place to place `ways`) > `traffic` (how slow) > `plan`
(routes, risks, warnings, sourcing) > `checks` > `assets` (Dagster); then `outcome` (tracking, what it did cost). How routes are
found does not belong here (see `npq_assets.optimization`).
"""

from __future__ import annotations

from typing import Any

import dagster as dg


def system_assets() -> list[Any]:
    """The system's own assets behind its marts."""
    from npq_assets.logistics.assets import dispatch, logistics_decisions, route_plan, routes_outbox, tracking, traffic

    return [traffic, route_plan, logistics_decisions, dispatch, tracking, routes_outbox]


def system_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of those assets."""
    from npq_assets.logistics.assets import route_plan_checks

    return [route_plan_checks]


def system_decisions() -> list[dg.AssetKey]:
    """Keys of its decision tables, which the ledger accounts for."""
    from npq_assets.logistics.assets import DECISION_KEYS

    return list(DECISION_KEYS.values())
