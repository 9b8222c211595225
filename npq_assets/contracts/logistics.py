"""Landing tables of the logistics system."""

from typing import Any

from npq_assets.contracts.base import Kind, Table, key, optional, required

_SITE: dict[str, Any] = {"references": "common.sites"}
_VEHICLE: dict[str, Any] = {"references": "logistics.vehicles"}

TABLES = (
    Table(
        "logistics",
        "vehicles",
        "A vehicle and the shift in which it can drive.",
        (
            key("vehicle_id", "Identifies the vehicle."),
            required("depot_id", Kind.ID, "Site it starts from and returns to.", **_SITE),
            required("capacity", Kind.NUMBER, "Load at most, in the deliveries' unit.", low=0),
            optional("fixed_cost", Kind.NUMBER, "Cost of using it on a day (money).", low=0),
            required("cost_per_km", Kind.NUMBER, "Cost of driving (money per km).", low=0),
            optional("cost_per_hour", Kind.NUMBER, "Cost of time on the road (money per hour).", low=0),
            required("shift_start", Kind.TEXT, "Earliest departure: HH:MM every day, or an ISO timestamp."),
            required("shift_end", Kind.TEXT, "Latest return: HH:MM every day, or an ISO timestamp."),
            optional("max_km", Kind.NUMBER, "Distance at most (km per day).", low=0),
        ),
    ),
    Table(
        "logistics",
        "deliveries",
        "A drop that has to be made.",
        (
            key("delivery_id", "Identifies the delivery."),
            required("depot_id", Kind.ID, "Site the goods start from.", **_SITE),
            optional("latitude", Kind.NUMBER, "Latitude of the drop (degrees, WGS 84).", low=-90, high=90),
            optional("longitude", Kind.NUMBER, "Longitude of the drop (degrees, WGS 84).", low=-180, high=180),
            optional("node_id", Kind.ID, "Road node of the drop.", references="logistics.road_nodes"),
            required("quantity", Kind.NUMBER, "Load, in the vehicles' unit.", low=0),
            required("ready_at", Kind.TIMESTAMP, "Start of the time window."),
            required("due_at", Kind.TIMESTAMP, "End of the time window."),
            required("service_minutes", Kind.NUMBER, "Time at the drop (minutes).", low=0),
            optional("late_cost_per_minute", Kind.NUMBER, "Cost of lateness (money per minute).", low=0),
            optional("drop_cost", Kind.NUMBER, "Cost of not delivering (money); must be delivered if empty.", low=0),
            optional("customer_id", Kind.ID, "Who gets it.", personal=True),
            optional("site_id", Kind.ID, "Site of the company that gets it, if one does.", **_SITE),
            optional("ordered_at", Kind.TIMESTAMP, "When it became known; empty: before the day of its window opened."),
            optional(
                "rebook_cost",
                Kind.NUMBER,
                "Cost of agreeing on a later time ahead (money); empty: not possible.",
                low=0,
            ),
        ),
        time_column="ready_at",
        any_of=(("latitude", "node_id"),),
        ordered=(("ready_at", "due_at"),),
    ),
    Table(
        "logistics",
        "road_nodes",
        "A junction or address of the road graph.",
        (
            key("node_id", "Identifies the node."),
            required("latitude", Kind.NUMBER, "Latitude (degrees, WGS 84).", low=-90, high=90),
            required("longitude", Kind.NUMBER, "Longitude (degrees, WGS 84).", low=-180, high=180),
        ),
    ),
    Table(
        "logistics",
        "road_segments",
        "A road from one node to another, one way.",
        (
            key("from_node", "Where it starts.", references="logistics.road_nodes"),
            key("to_node", "Where it ends.", references="logistics.road_nodes"),
            required("km", Kind.NUMBER, "Length (km).", low=0),
            required("minutes", Kind.NUMBER, "Usual driving time (minutes).", low=0),
        ),
    ),
    Table(
        "logistics",
        "road_closures",
        "A road that is closed or slow for a time.",
        (
            key("from_node", "Where the segment starts.", references="logistics.road_nodes"),
            key("to_node", "Where it ends.", references="logistics.road_nodes"),
            key("closed_from", "From when.", Kind.TIMESTAMP),
            optional("closed_until", Kind.TIMESTAMP, "Until when; empty: until further notice."),
            optional("factor", Kind.NUMBER, "Driving time is this many times the usual; empty: closed.", low=0.01),
            optional("known_at", Kind.TIMESTAMP, "When it became known; empty: before it began."),
        ),
        time_column="closed_from",
        ordered=(("closed_from", "closed_until"),),
    ),
    Table(
        "logistics",
        "depot_terms",
        "What a plant or warehouse can hand out and what that costs.",
        (
            key("site_id", "The plant or warehouse.", **_SITE),
            optional(
                "capacity", Kind.NUMBER, "Load it can hand out a day, in the deliveries' unit; empty: no limit.", low=0
            ),
            optional("handling_cost", Kind.NUMBER, "Cost of handing out a unit (money).", low=0),
            optional(
                "overflow_cost", Kind.NUMBER, "Cost of a unit above the capacity (money); empty: not possible.", low=0
            ),
            optional("stock", Kind.NUMBER, "Units that it has or makes a day; empty: as many as wanted.", low=0),
        ),
    ),
    Table(
        "logistics",
        "lanes",
        "A way by which goods go from a plant or warehouse to a warehouse or store, with its price.",
        (
            key("from_id", "Site that sends.", **_SITE),
            key("to_id", "Site that gets.", **_SITE),
            required("cost_per_unit", Kind.NUMBER, "Cost of carrying a unit (money).", low=0),
            optional("capacity", Kind.NUMBER, "Units a day at most.", low=0),
        ),
    ),
    Table(
        "logistics",
        "travel_times",
        "A known way between two places, which overrides the road graph.",
        (
            key("from_id", "Site, node or delivery at the start."),
            key("to_id", "Site, node or delivery at the end."),
            required("km", Kind.NUMBER, "Length (km).", low=0),
            required("minutes", Kind.NUMBER, "Driving time (minutes).", low=0),
        ),
    ),
    Table(
        "logistics",
        "trips",
        "A delivery as it was driven. Further columns known at departure are kept.",
        (
            key("delivery_id", "The delivery.", references="logistics.deliveries"),
            required("vehicle_id", Kind.ID, "The vehicle.", **_VEHICLE),
            required("departed_at", Kind.TIMESTAMP, "When it left the depot."),
            required("promised_at", Kind.TIMESTAMP, "When it was promised."),
            required("arrived_at", Kind.TIMESTAMP, "When it arrived."),
            optional("km", Kind.NUMBER, "Distance driven from the stop before, or the depot (km).", low=0),
            optional(
                "agreed_until",
                Kind.TIMESTAMP,
                "End of the window that was agreed on ahead, in place of the delivery's; empty: nothing was agreed on.",
            ),
            optional("delivered_quantity", Kind.NUMBER, "Load that was handed over; empty: all of it.", low=0),
        ),
        time_column="departed_at",
        ordered=(("departed_at", "arrived_at"),),
        extra_columns=True,
    ),
    Table(
        "logistics",
        "weather",
        "Weather of a region at a time.",
        (
            key("region", "The region.", Kind.TEXT),
            key("valid_at", "When.", Kind.TIMESTAMP),
            optional("temperature", Kind.NUMBER, "Air temperature (degrees Celsius).", low=-90, high=70),
            optional("wind", Kind.NUMBER, "Wind speed (km per hour).", low=0),
            optional("rain", Kind.NUMBER, "Rain (mm per hour).", low=0),
            optional("visibility", Kind.NUMBER, "Visibility (km).", low=0),
        ),
        time_column="valid_at",
    ),
    Table(
        "logistics",
        "weather_forecasts",
        "Weather of a region as it was foreseen.",
        (
            key("region", "The region.", Kind.TEXT),
            key("valid_at", "For when.", Kind.TIMESTAMP),
            key("issued_at", "When it was foreseen.", Kind.TIMESTAMP),
            optional("temperature", Kind.NUMBER, "Air temperature (degrees Celsius).", low=-90, high=70),
            optional("wind", Kind.NUMBER, "Wind speed (km per hour).", low=0),
            optional("rain", Kind.NUMBER, "Rain (mm per hour).", low=0),
            optional("visibility", Kind.NUMBER, "Visibility (km).", low=0),
        ),
        time_column="issued_at",
    ),
)
