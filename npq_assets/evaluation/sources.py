"""Which landed rows a decision came from: by table, the columns that lead there and what was known when.

One entry a decision table. How rows are read and shown does not belong here (see `trace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Known = Literal["always", "before", "by", "from"]


@dataclass(frozen=True)
class Source:
    """Rows of a landing table that a decision looked at.

    Attributes:
        table: `domain.table`.
        on: Columns of the landing table by the column of the decision whose values they must hold; none: all rows.
        time: The column that says when a row is of; None for master data.
        known: Of which time rows count: `before` the as-of day, `by` its opening (counts), `from` it on (what is under way).
        last: Rows shown, the latest.
    """

    table: str
    on: Mapping[str, str] = field(default_factory=dict)
    time: str | None = None
    known: Known = "always"
    last: int = 3


def _by(*columns: str) -> dict[str, str]:
    return {column: column for column in columns}


_PAIR = _by("site_id", "product_id")
_CUSTOMER = _by("customer_id")
_MACHINE = _by("machine_id")
_PART = _by("machine_id", "component")
_DELIVERY = _by("delivery_id")

_PERSON = (
    Source("retail.customers", _CUSTOMER),
    Source("retail.baskets", _CUSTOMER, "bought_at", "before", 6),
)
_OFFERED = (
    *_PERSON,
    Source("retail.offer_responses", _CUSTOMER, "sent_on", "before"),
    Source("retail.message_replies", _CUSTOMER, "replied_at", "before"),
)
_MADE = (
    Source("manufacturing.routings", _by("product_id")),
    Source("manufacturing.plant_stock", _by("product_id"), "counted_on", "by", 1),
    Source("manufacturing.bills_of_material", _by("product_id")),
)
_HEALTH = (
    Source("manufacturing.component_replacements", _PART, "replaced_at", "before"),
    Source("manufacturing.component_costs", _by("component")),
    Source("manufacturing.machine_errors", _MACHINE, "occurred_at", "before"),
    Source("manufacturing.telemetry", _MACHINE, "measured_at", "before", 6),
)
_DRIVEN = (
    Source("logistics.deliveries", _DELIVERY),
    Source("logistics.trips", {}, "departed_at", "before"),
    Source("logistics.weather_forecasts", {}, "issued_at", "before"),
)

SOURCES: Mapping[str, tuple[Source, ...]] = {
    "retail.replenishment_orders": (
        Source("retail.supply_terms", _PAIR),
        Source("retail.stock", _PAIR, "counted_on", "by", 1),
        Source("retail.open_orders", _PAIR, "arrives_on", "from", 5),
        Source("retail.sales", _PAIR, "sold_on", "before", 6),
        Source("retail.availability", _PAIR, "sold_on", "before"),
        Source("common.products", _by("product_id")),
    ),
    "retail.customer_segments": _PERSON,
    "retail.recommendations": (*_PERSON, Source("retail.stock", _by("product_id"), "counted_on", "by")),
    "retail.offers_sent": (Source("retail.offers", _by("offer_id")), *_OFFERED),
    "retail.messages": _OFFERED,
    "retail.service_queue": (Source("retail.service_requests", _by("request_id")), *_PERSON),
    "retail.service_staffing": (Source("retail.service_requests", {}, "opened_at", "before", 6),),
    "manufacturing.production_plan": (
        Source("manufacturing.customer_orders", _by("product_id"), "ordered_on", "before", 6),
        *_MADE,
        Source("manufacturing.production_log", _by("product_id", "machine_id"), "produced_on", "before"),
        Source("manufacturing.machines", _MACHINE),
    ),
    "manufacturing.job_schedule": (
        Source("manufacturing.customer_orders", _by("order_id")),
        Source("manufacturing.routings", _by("product_id", "machine_id")),
        Source("manufacturing.machines", _MACHINE),
    ),
    "manufacturing.late_orders": (Source("manufacturing.customer_orders", _by("order_id")), *_MADE),
    "manufacturing.capacity_worth": (
        Source("manufacturing.machines", _MACHINE),
        Source("manufacturing.machine_calendar", {"machine_id": "machine_id", "period_start": "calendar_on"}),
    ),
    "manufacturing.driver_findings": (Source("manufacturing.production_log", {}, "produced_on", "before", 6),),
    "manufacturing.machine_alerts": (Source("manufacturing.telemetry", _MACHINE, "measured_at", "before", 6),),
    "manufacturing.maintenance_plan": _HEALTH,
    "manufacturing.component_risks": _HEALTH,
    "manufacturing.quality_alerts": (
        Source("manufacturing.measurements", _by("unit_id"), last=12),
        Source("manufacturing.inspections", _by("machine_id", "product_id"), "inspected_at", "before", 6),
        Source("manufacturing.quality_costs", {}),
    ),
    "manufacturing.process_signals": (
        Source("manufacturing.measurements", _by("machine_id", "feature"), "measured_at", "before", 8),
    ),
    "manufacturing.machine_settings": (
        Source("manufacturing.process_settings", _by("machine_id", "setting")),
        Source("manufacturing.setting_changes", _by("machine_id", "setting"), "changed_at", "before", 6),
        Source("manufacturing.production_log", _MACHINE, "produced_on", "before"),
    ),
    "logistics.routes": (*_DRIVEN, Source("logistics.vehicles", _by("vehicle_id"))),
    "logistics.dropped_deliveries": (*_DRIVEN, Source("logistics.vehicles", {})),
    "logistics.delivery_risks": _DRIVEN,
    "logistics.alerts": (Source("logistics.deliveries", {"subject": "delivery_id"}), *_DRIVEN[1:]),
    "logistics.sourcing": (
        Source("logistics.depot_terms", {"source_id": "site_id"}),
        Source("logistics.lanes", {"source_id": "from_id", "site_id": "to_id"}),
        Source("logistics.deliveries", _by("site_id"), "ready_at", "before"),
    ),
}
