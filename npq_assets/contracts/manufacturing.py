"""Landing tables of the manufacturing system."""

from typing import Any

from npq_assets.contracts.base import Kind, Table, key, optional, required

_SITE: dict[str, Any] = {"references": "common.sites"}
_PRODUCT: dict[str, Any] = {"references": "common.products"}
_MACHINE: dict[str, Any] = {"references": "manufacturing.machines"}

TABLES = (
    Table(
        "manufacturing",
        "machines",
        "A machine of a plant.",
        (
            key("machine_id", "Identifies the machine."),
            required("site_id", Kind.ID, "The plant it stands in.", **_SITE),
            optional("model", Kind.TEXT, "Type of the machine."),
            optional("installed_on", Kind.DATE, "Day it was put to work."),
            required("minutes_per_day", Kind.NUMBER, "Regular working time (minutes per day).", low=0, high=1440),
            optional("cost_per_minute", Kind.NUMBER, "Cost of regular time (money per minute).", low=0),
            optional("overtime_minutes_per_day", Kind.NUMBER, "Overtime possible (minutes per day).", low=0, high=1440),
            optional("overtime_cost_per_minute", Kind.NUMBER, "Cost of overtime (money per minute).", low=0),
            optional("line", Kind.TEXT, "Line or work centre it belongs to."),
            optional("power_kw", Kind.NUMBER, "Power drawn while producing (kW).", low=0),
        ),
    ),
    Table(
        "manufacturing",
        "machine_calendar",
        "Working time of a machine on a day that differs from its usual one: closed days, short shifts, planned downtime.",
        (
            key("machine_id", "The machine.", **_MACHINE),
            key("calendar_on", "The day.", Kind.DATE),
            required(
                "minutes", Kind.NUMBER, "Regular working time on that day (minutes); 0 is closed.", low=0, high=1440
            ),
            optional("overtime_minutes", Kind.NUMBER, "Overtime possible on that day (minutes).", low=0, high=1440),
            optional("reason", Kind.TEXT, "Why it differs."),
            optional(
                "maintenance_minutes",
                Kind.NUMBER,
                "Time outside working time in which a crew may work on the machine (minutes).",
                low=0,
                high=1440,
            ),
        ),
    ),
    Table(
        "manufacturing",
        "routings",
        "An operation of a product on a machine; alternatives are further rows.",
        (
            key("product_id", "The product made.", **_PRODUCT),
            key("operation", "Position in the sequence: 1, 2, ….", Kind.INTEGER, low=1, high=10_000),
            key("machine_id", "A machine that can do it.", **_MACHINE),
            required("minutes_per_unit", Kind.NUMBER, "Run time (minutes per unit).", low=0),
            required("setup_minutes", Kind.NUMBER, "Time to set up (minutes).", low=0),
            required("setup_cost", Kind.NUMBER, "Cost to set up beside the time (money).", low=0),
            optional("setup_family", Kind.TEXT, "Products of one family follow each other without the family's setup."),
            optional(
                "family_setup_minutes", Kind.NUMBER, "Further time when the family before was another (minutes).", low=0
            ),
            optional(
                "family_setup_cost", Kind.NUMBER, "Further cost when the family before was another (money).", low=0
            ),
            optional("minimum_lot", Kind.NUMBER, "Smallest lot worth starting (units).", low=0),
            optional(
                "transport_batch",
                Kind.NUMBER,
                "Units after which the first go on to the next operation (units).",
                low=0,
            ),
        ),
    ),
    Table(
        "manufacturing",
        "bills_of_material",
        "How much of a component goes into one unit of a product.",
        (
            key("product_id", "The product made.", **_PRODUCT),
            key("component_id", "The product consumed.", **_PRODUCT),
            required("quantity", Kind.NUMBER, "Units of the component per unit of the product.", low=0),
        ),
    ),
    Table(
        "manufacturing",
        "customer_orders",
        "An order in hand: what a customer wants by when.",
        (
            key("order_id", "Identifies the order."),
            required("product_id", Kind.ID, "What is wanted.", **_PRODUCT),
            required("quantity", Kind.NUMBER, "Units wanted.", low=0, high=1e9),
            required("ordered_on", Kind.DATE, "Day the order came in."),
            required("due_on", Kind.DATE, "Day it is due."),
            optional(
                "late_cost_per_day",
                Kind.NUMBER,
                "Cost of each day late, in proportion to the units still owed (money per day).",
                low=0,
            ),
            optional("delivered_quantity", Kind.NUMBER, "Units delivered so far.", low=0, high=1e9),
            optional("delivered_on", Kind.DATE, "Day on which the last unit was delivered; empty while it is open."),
        ),
        time_column="ordered_on",
    ),
    Table(
        "manufacturing",
        "production_log",
        "What a machine made of a product in a day.",
        (
            key("produced_on", "The day.", Kind.DATE),
            key("machine_id", "The machine.", **_MACHINE),
            key("product_id", "The product.", **_PRODUCT),
            required("good_quantity", Kind.NUMBER, "Good units made.", low=0, high=1e9),
            required("scrap_quantity", Kind.NUMBER, "Units scrapped.", low=0, high=1e9),
            required("run_minutes", Kind.NUMBER, "Time producing (minutes).", low=0, high=1440),
            optional("setup_minutes", Kind.NUMBER, "Time setting up (minutes).", low=0, high=1440),
            required("down_minutes", Kind.NUMBER, "Time standing still unplanned (minutes).", low=0, high=1440),
            optional("energy_kwh", Kind.NUMBER, "Energy used (kWh).", low=0),
            optional("shift", Kind.TEXT, "The shift; empty where the log does not tell shifts apart.", key=True),
        ),
        time_column="produced_on",
    ),
    Table(
        "manufacturing",
        "component_receipts",
        "Components bought that arrive, or have arrived, in the plant.",
        (
            key("product_id", "The component.", **_PRODUCT),
            key("arrives_on", "Day from whose opening the units can be used.", Kind.DATE),
            required("quantity", Kind.NUMBER, "Units that arrive.", low=0, high=1e12),
            optional("ordered_on", Kind.DATE, "Day before whose opening they were ordered."),
        ),
        time_column="arrives_on",
    ),
    Table(
        "manufacturing",
        "energy_prices",
        "Price of energy in an hour, known ahead.",
        (
            key("valid_at", "Begin of the hour.", Kind.TIMESTAMP),
            required("price_per_kwh", Kind.NUMBER, "Price (money per kWh).", low=0),
        ),
        time_column="valid_at",
    ),
    Table(
        "manufacturing",
        "plant_stock",
        "Units of a product or component in the plant when a day opens.",
        (
            key("counted_on", "Day at whose opening the stock was counted.", Kind.DATE),
            key("product_id", "What lies there.", **_PRODUCT),
            required("on_hand", Kind.NUMBER, "Units on hand.", low=0, high=1e12),
        ),
        time_column="counted_on",
    ),
    Table(
        "manufacturing",
        "telemetry",
        "One reading of one sensor.",
        (
            key("measured_at", "When it was read, by the machine's clock.", Kind.TIMESTAMP, past=True),
            key("machine_id", "The machine.", **_MACHINE),
            key("sensor", "Name of the sensor.", Kind.TEXT),
            required("value", Kind.NUMBER, "The reading, in the sensor's unit."),
            optional(
                "received_at", Kind.TIMESTAMP, "When it was heard from the live stream, by the clock of the plant."
            ),
        ),
        time_column="measured_at",
        by_day=True,
    ),
    Table(
        "manufacturing",
        "machine_errors",
        "An error that a machine reported.",
        (
            key("occurred_at", "When.", Kind.TIMESTAMP),
            key("machine_id", "The machine.", **_MACHINE),
            key("error_code", "The machine's own code.", Kind.TEXT),
        ),
        time_column="occurred_at",
    ),
    Table(
        "manufacturing",
        "component_replacements",
        "A component of a machine was replaced.",
        (
            key("replaced_at", "When.", Kind.TIMESTAMP),
            key("machine_id", "The machine.", **_MACHINE),
            key("component", "Which component.", Kind.TEXT),
            required("cause", Kind.TEXT, "Why.", choices=("planned", "failure")),
        ),
        time_column="replaced_at",
    ),
    Table(
        "manufacturing",
        "component_costs",
        "What it costs to replace a component in time or after it failed.",
        (
            key("component", "Which component.", Kind.TEXT),
            required("planned_cost", Kind.NUMBER, "Cost of a planned replacement (money).", low=0),
            required("failure_cost", Kind.NUMBER, "Cost of a replacement after failure (money).", low=0),
            optional("planned_minutes", Kind.NUMBER, "Standstill of a planned replacement (minutes).", low=0),
            optional("failure_minutes", Kind.NUMBER, "Standstill after a failure (minutes).", low=0),
        ),
    ),
    Table(
        "manufacturing",
        "inspections",
        "A unit inspected.",
        (
            key("unit_id", "Identifies the unit."),
            required("inspected_at", Kind.TIMESTAMP, "When."),
            required("machine_id", Kind.ID, "The machine that made it.", **_MACHINE),
            required("product_id", Kind.ID, "What it is.", **_PRODUCT),
            optional("defect", Kind.TEXT, "The defect found; empty for a good unit."),
        ),
        time_column="inspected_at",
    ),
    Table(
        "manufacturing",
        "measurements",
        "A measured feature of a unit.",
        (
            key("unit_id", "The unit."),
            key("feature", "What was measured.", Kind.TEXT),
            required("value", Kind.NUMBER, "The measurement, in the feature's unit."),
            optional("measured_at", Kind.TIMESTAMP, "When; empty for units that are known from their inspection."),
            optional("machine_id", Kind.ID, "The machine that made the unit.", **_MACHINE),
            optional("product_id", Kind.ID, "What it is.", **_PRODUCT),
        ),
    ),
    Table(
        "manufacturing",
        "tolerances",
        "Between which values a measured feature of a product must lie.",
        (
            key("feature", "What is measured.", Kind.TEXT),
            optional("product_id", Kind.ID, "The product; empty for all.", key=True, **_PRODUCT),
            optional("lower", Kind.NUMBER, "Smallest value that is good."),
            optional("upper", Kind.NUMBER, "Largest value that is good."),
        ),
        any_of=(("lower", "upper"),),
    ),
    Table(
        "manufacturing",
        "quality_costs",
        "What it costs to inspect a unit, and to let a defective one pass.",
        (
            optional("product_id", Kind.ID, "The product; empty for all.", key=True, **_PRODUCT),
            required("inspection_cost", Kind.NUMBER, "Cost of inspecting a unit (money).", low=0),
            required("miss_cost", Kind.NUMBER, "Cost of a defective unit that passes (money).", low=0),
        ),
    ),
    Table(
        "manufacturing",
        "process_settings",
        "A setting of a machine with the limits it must stay within.",
        (
            key("machine_id", "The machine.", **_MACHINE),
            key("setting", "Name of the setting.", Kind.TEXT),
            required("low", Kind.NUMBER, "Smallest value allowed."),
            required("high", Kind.NUMBER, "Largest value allowed."),
            required("current", Kind.NUMBER, "Value in force."),
            optional("cost_per_unit_change", Kind.NUMBER, "Cost of a change by one unit (money).", low=0),
            optional("ramp_limit", Kind.NUMBER, "Largest change in one step.", low=0),
            optional(
                "scrap_sign", Kind.INTEGER, "1: more of it never lowers scrap; -1: never raises it.", low=-1, high=1
            ),
            optional("energy_sign", Kind.INTEGER, "The same of energy.", low=-1, high=1),
            optional("minutes_sign", Kind.INTEGER, "The same of the time for a unit.", low=-1, high=1),
        ),
    ),
    Table(
        "manufacturing",
        "setting_changes",
        "A setting of a machine took a value, which holds until the next row.",
        (
            key("machine_id", "The machine.", **_MACHINE),
            key("setting", "Name of the setting.", Kind.TEXT),
            key("changed_at", "When the value took effect.", Kind.TIMESTAMP),
            required("value", Kind.NUMBER, "The value in force from then on."),
            optional("decision_id", Kind.ID, "The published set-point that the machine acknowledges by it."),
        ),
        time_column="changed_at",
    ),
)
