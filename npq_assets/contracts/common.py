"""Landing tables that all systems share: products, sites, events."""

from npq_assets.contracts.base import Kind, Table, key, optional, required

TABLES = (
    Table(
        "common",
        "products",
        "A product that is made, sold or carried, or a component bought for making one.",
        (
            key("product_id", "Identifies the product in every table."),
            required("name", Kind.TEXT, "What people call the product."),
            required("family", Kind.TEXT, "Group of products that sell, set up or ship alike."),
            required("unit_cost", Kind.NUMBER, "Cost of one unit to the company (money per unit).", low=0),
            optional("unit_price", Kind.NUMBER, "List price of one unit (money per unit).", low=0),
            optional("holding_cost", Kind.NUMBER, "Cost of keeping one unit for one period (money).", low=0),
            optional("weight_kg", Kind.NUMBER, "Weight of one unit (kg).", low=0),
        ),
    ),
    Table(
        "common",
        "sites",
        "A place of the company: plant, warehouse or store.",
        (
            key("site_id", "Identifies the site in every table."),
            required("kind", Kind.TEXT, "What the site is.", choices=("plant", "warehouse", "store")),
            optional("name", Kind.TEXT, "What people call the site."),
            optional("latitude", Kind.NUMBER, "Latitude (degrees, WGS 84).", low=-90, high=90),
            optional("longitude", Kind.NUMBER, "Longitude (degrees, WGS 84).", low=-180, high=180),
            optional("region", Kind.TEXT, "Region of the site; events and weather are given by region."),
        ),
    ),
    Table(
        "common",
        "events",
        "A holiday, festival or other day that moves demand, production or traffic; future days are known ahead.",
        (
            key("event_on", "Day of the event.", Kind.DATE),
            key("name", "Name of the event; the same name on other days is the same event again.", Kind.TEXT),
            optional("region", Kind.TEXT, "Region concerned; empty for everywhere.", key=True),
        ),
        time_column="event_on",
    ),
)
