"""Smart retail: from sales and stock to priced orders, and from baskets to customers, offers and service.

The way of orders: `inputs` (what was known when) > `demand` (forecast) > `plan` (orders) > `checks` > `assets` (Dagster).
The way of customers: `customer_inputs` > `customer_book` (prospects, segments, ranked products) > `recommending`, `offering`,
`messaging`, `serving` > `customer_checks` > `customer_assets`; `privacy` and `mail` stand at the two ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Commands that read a plan or forget a customer need no Dagster, which takes a second to load.
    import dagster as dg


def system_assets() -> list[Any]:
    """The system's own assets behind its marts."""
    from npq_assets.retail import customer_assets as customers
    from npq_assets.retail.assets import demand_forecast, judgements, outbox, replenishment_orders, replenishment_plan
    from npq_assets.warehouse.assets import evaluation_models

    orders = [
        demand_forecast, replenishment_plan, replenishment_orders, outbox, judgements, evaluation_models("retail")
    ]  # fmt: skip
    plans = [customers.pseudonyms, customers.customer_book, customers.offer_plan, customers.service_plan]
    decided = [
        customers.customer_segments,
        customers.recommendations,
        customers.offers_sent,
        customers.messages,
        customers.service_queue,
        customers.service_staffing,
        customers.message_outbox,
    ]
    return [*orders, *plans, *decided]


def system_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of those assets."""
    from npq_assets.retail.assets import forecast_checks, plan_checks
    from npq_assets.retail.customer_assets import customer_checks

    return [forecast_checks, plan_checks, customer_checks]


def system_decisions() -> list[dg.AssetKey]:
    """Keys of its decision tables, which the ledger accounts for."""
    from npq_assets.retail.assets import ORDERS_KEY
    from npq_assets.retail.customer_assets import DECIDED

    return [ORDERS_KEY, *DECIDED]
