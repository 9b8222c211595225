"""Smart retail: from sales and stock to priced orders (and, next, to customers, offers and service).

The way: `inputs` (what was known when) > `demand` (forecast) > `plan` (orders) > `checks` > `assets` (Dagster).
"""

from __future__ import annotations

from typing import Any

import dagster as dg


def system_assets() -> list[Any]:
    """The system's own assets behind its marts."""
    from npq_assets.retail.assets import demand_forecast, judgements, outbox, replenishment_orders, replenishment_plan
    from npq_assets.warehouse.assets import evaluation_models

    return [
        demand_forecast, replenishment_plan, replenishment_orders, outbox, judgements, evaluation_models("retail")
    ]  # fmt: skip


def system_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of those assets."""
    from npq_assets.retail.assets import forecast_checks, plan_checks

    return [forecast_checks, plan_checks]


def system_decisions() -> list[dg.AssetKey]:
    """Keys of its decision tables, which the ledger accounts for."""
    from npq_assets.retail.assets import ORDERS_KEY

    return [ORDERS_KEY]
