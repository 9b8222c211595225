"""Landing tables of the retail system."""

from typing import Any

from npq_assets.contracts.base import Kind, Table, key, optional, required

_SITE: dict[str, Any] = {"references": "common.sites"}
_PRODUCT: dict[str, Any] = {"references": "common.products"}
_CUSTOMER: dict[str, Any] = {"references": "retail.customers"}

TABLES = (
    Table(
        "retail",
        "sales",
        "Units of a product sold at a site in a period. No row between two rows of a series means nothing sold.",
        (
            key("sold_on", "The day, or the Monday of the week, of the sales.", Kind.DATE),
            key("site_id", "Where it was sold.", **_SITE),
            key("product_id", "What was sold.", **_PRODUCT),
            required("quantity", Kind.NUMBER, "Units sold (product's unit).", low=0, high=1e9),
            optional("price", Kind.NUMBER, "Average price paid (money per unit).", low=0),
            optional("promotion", Kind.FLAG, "Whether the product was promoted at the site."),
        ),
        time_column="sold_on",
    ),
    Table(
        "retail",
        "availability",
        "Whether a product could be bought at a site in a period; an absent row means that it could.",
        (
            key("sold_on", "The day, or the Monday of the week.", Kind.DATE),
            key("site_id", "The site.", **_SITE),
            key("product_id", "The product.", **_PRODUCT),
            required("in_stock", Kind.FLAG, "False if the shelf was empty in the period: sales then are not demand."),
        ),
        time_column="sold_on",
    ),
    Table(
        "retail",
        "stock",
        "Units on hand when a day opens, before that day's arrivals.",
        (
            key("counted_on", "Day at whose opening the stock was counted.", Kind.DATE),
            key("site_id", "Where it lies.", **_SITE),
            key("product_id", "What lies there.", **_PRODUCT),
            required("on_hand", Kind.NUMBER, "Units on hand (product's unit).", low=0, high=1e12),
        ),
        time_column="counted_on",
    ),
    Table(
        "retail",
        "open_orders",
        "Units ordered earlier and still under way.",
        (
            key("site_id", "Where they will arrive.", **_SITE),
            key("product_id", "What will arrive.", **_PRODUCT),
            key("arrives_on", "Day from whose opening they are available.", Kind.DATE),
            required("quantity", Kind.NUMBER, "Units under way (product's unit).", low=0, high=1e12),
            optional(
                "ordered_on",
                Kind.DATE,
                "Day before whose opening the order was placed. Without it, an order that arrives at or after the "
                "lead time of a past as-of day counts as placed later than that day.",
            ),
        ),
        time_column="arrives_on",
    ),
    Table(
        "retail",
        "supply_terms",
        "The terms on which a site replenishes a product.",
        (
            key("site_id", "The site that orders.", **_SITE),
            key("product_id", "The product ordered.", **_PRODUCT),
            required(
                "lead_time_periods",
                Kind.INTEGER,
                "Periods from the as-of day of the order to the opening at which it is on the shelf.",
                low=0,
                high=366,
            ),
            required("holding_cost", Kind.NUMBER, "Cost of a unit left at a period's end (money).", low=0),
            required("shortage_cost", Kind.NUMBER, "Cost of a unit of lost sales (money).", low=0),
            optional("pack_size", Kind.NUMBER, "Orders come in multiples of this (units); 1 if empty.", low=1e-9),
            optional("min_order", Kind.NUMBER, "Smallest order other than none (units); 0 if empty.", low=0),
            optional("supplier_id", Kind.ID, "Who delivers; limits are shared by a supplier's products."),
        ),
    ),
    Table(
        "retail",
        "supplier_limits",
        "What a supplier can deliver at most on a day, all sites and products together.",
        (
            key("supplier_id", "The supplier."),
            key("arrives_on", "Day of arrival.", Kind.DATE),
            optional("max_quantity", Kind.NUMBER, "Units at most.", low=0),
            optional("max_spend", Kind.NUMBER, "Value at most, at unit cost (money).", low=0),
        ),
        time_column="arrives_on",
        any_of=(("max_quantity", "max_spend"),),
    ),
    Table(
        "retail",
        "forecast_overrides",
        "A planner's own number for a period's demand, in place of the forecast's mean. It is used, kept beside the engine's, "
        "and credited or debited in money once reality has landed.",
        (
            key("site_id", "The site.", **_SITE),
            key("product_id", "The product.", **_PRODUCT),
            key("period_start", "The day, or the Monday of the week, that the number is for.", Kind.DATE),
            key("made_on", "Day on which it was made: known to decisions of later days. The latest counts.", Kind.DATE),
            required("quantity", Kind.NUMBER, "Units expected to be wanted (product's unit).", low=0, high=1e9),
            optional("planner", Kind.TEXT, "The desk or role that made it, not a person's name."),
            optional("reason", Kind.TEXT, "Why."),
        ),
        time_column="made_on",
    ),
    Table(
        "retail",
        "customers",
        "A customer known by name or card.",
        (
            key("customer_id", "Identifies the customer.", personal=True),
            optional("joined_on", Kind.DATE, "Day of the first contact.", personal=True),
            optional(
                "marketing_consent",
                Kind.FLAG,
                "Whether the customer agreed to be written to. A value that cannot be read counts as no, and of rows of a file "
                "that contradict one another, a no counts. While a newer row of the customer is quarantined, for whatever column, "
                "it is unknown, which counts as no.",
                personal=True,
                veto=True,
            ),
            optional("email", Kind.TEXT, "Address that messages go to.", personal=True),
        ),
        extra_columns=True,
        doubt=("customer_id",),
    ),
    Table(
        "retail",
        "baskets",
        "One product in one purchase.",
        (
            key("basket_id", "Identifies the purchase."),
            key("product_id", "What was bought.", **_PRODUCT),
            required("customer_id", Kind.ID, "Who bought.", personal=True, **_CUSTOMER),
            required("site_id", Kind.ID, "Where.", **_SITE),
            required("bought_at", Kind.TIMESTAMP, "When."),
            required("quantity", Kind.NUMBER, "Units bought (product's unit).", low=0, high=1e9),
            required("amount", Kind.NUMBER, "Money paid for the line.", low=0),
            optional("discount", Kind.NUMBER, "Money taken off the line.", low=0),
        ),
        time_column="bought_at",
    ),
    Table(
        "retail",
        "offers",
        "A price reduction of a product or a family between two days, planned ahead.",
        (
            key("offer_id", "Identifies the offer."),
            optional("product_id", Kind.ID, "The product, if the offer is for one.", **_PRODUCT),
            optional("family", Kind.TEXT, "The family, if the offer is for one."),
            required("discount", Kind.NUMBER, "Share of the list price taken off.", low=0, high=1),
            required("cost_per_use", Kind.NUMBER, "Cost of one use beside the discount (money).", low=0),
            required("starts_on", Kind.DATE, "First day."),
            required("ends_on", Kind.DATE, "Last day."),
            optional("budget", Kind.NUMBER, "Money the offer may cost in all.", low=0),
            optional(
                "targeted",
                Kind.FLAG,
                "True if only customers to whom it is sent can use it; otherwise it is on the shelf for everybody.",
            ),
        ),
        time_column="starts_on",
        any_of=(("product_id", "family"),),
        ordered=(("starts_on", "ends_on"),),
    ),
    Table(
        "retail",
        "offer_responses",
        "What a customer made of an offer sent.",
        (
            key("customer_id", "Who got it.", personal=True, **_CUSTOMER),
            key("offer_id", "What was offered.", references="retail.offers"),
            key("sent_on", "Day of sending.", Kind.DATE),
            required("redeemed", Kind.FLAG, "Whether the customer used it."),
            optional(
                "held_out",
                Kind.FLAG,
                "True for a control: chosen at random among those to be written to, and not written to.",
            ),
            optional(
                "profit",
                Kind.NUMBER,
                "Profit from the customer on what the offer is for, within its days, discount and cost of use deducted "
                "(money); of controls too. Without it the incremental effect of offers stays unknown.",
            ),
        ),
        time_column="sent_on",
    ),
    Table(
        "retail",
        "message_replies",
        "What came back on a message that left: by it messages are scored, and who unsubscribes is not written to again.",
        (
            key("message_id", "The message, by the id that it left under."),
            key(
                "kind",
                "What happened.",
                Kind.TEXT,
                choices=("opened", "clicked", "replied", "unsubscribed", "bounced"),
            ),
            required("customer_id", Kind.ID, "Who got the message.", personal=True, **_CUSTOMER),
            required("replied_at", Kind.TIMESTAMP, "When."),
        ),
        time_column="replied_at",
        doubt=("customer_id", "message_id"),
    ),
    Table(
        "retail",
        "service_requests",
        "A question or complaint of a customer.",
        (
            key("request_id", "Identifies the request."),
            required("customer_id", Kind.ID, "Who asked.", personal=True, **_CUSTOMER),
            required("opened_at", Kind.TIMESTAMP, "When it came in."),
            required("topic", Kind.TEXT, "What it is about."),
            optional("delivery_id", Kind.ID, "The delivery concerned.", references="logistics.deliveries"),
            optional("basket_id", Kind.ID, "The purchase concerned."),
            optional("closed_at", Kind.TIMESTAMP, "When it was settled; empty while open."),
            optional("product_id", Kind.ID, "The product concerned.", **_PRODUCT),
            optional("first_response_at", Kind.TIMESTAMP, "When it was first answered; empty if not yet."),
        ),
        time_column="opened_at",
        ordered=(("opened_at", "first_response_at"), ("opened_at", "closed_at")),
    ),
)
