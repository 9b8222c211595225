"""What customer decisions may look at: the marts, cut to what was known before the as-of day opened.

Customers are judged once a week, as of the Monday on or before the as-of day (the *anchor*), so that models and segments do
not flicker from day to day; stock, consent, messages and requests are looked at as of the day itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

from npq_assets.errors import Unavailable
from npq_assets.retail.consent import STOPPED, in_doubt
from npq_assets.retail.privacy import pseudonym, secret
from npq_assets.settings import Home, Settings
from npq_assets.storage import fingerprint

KEY = "customer_key"
HORIZON_DAYS = 28
FIRST_DAY = date(2000, 1, 3)


@dataclass(frozen=True)
class CustomerInputs:
    """Everything that a customer decision may use.

    Attributes:
        as_of: The decision is taken before this day opens.
        anchor: Monday on or before it: what customers are judged by.
        settings: The home's settings.
        purchases: Lines before the anchor: customer_key, basket_id, product_id, family, site_id, bought_on, bought_hour,
            quantity, amount, discount, margin.
        customers: customer_key, marketing_consent (false after an unsubscription or a bounce, and while it is in doubt), reachable
            (an address landed; true for all while the home knows no address and hands nothing on, since others do).
        products: product_id, name, family, unit_cost, unit_price.
        offers: offer_id, product_id, family, discount, cost_per_use, starts_on, ends_on, budget, targeted.
        outcomes: Of offers whose days are over: customer_key, offer_id, family, discount, cost_per_use, sent_on, redeemed,
            held_out, profit.
        shelf: Latest count of each site and product up to the as-of day: site_id, product_id, on_hand, on_hand_before, counts,
            counted_on.
        cases: Requests that came in before the day; closed_at empty where that came later.
        returned: Keys of customers who bought between the anchor and the as-of day.
    """

    as_of: date
    anchor: date
    settings: Settings
    purchases: pl.DataFrame
    customers: pl.DataFrame
    products: pl.DataFrame
    offers: pl.DataFrame
    outcomes: pl.DataFrame
    shelf: pl.DataFrame
    cases: pl.DataFrame
    returned: frozenset[str] = frozenset()

    @cached_property
    def to_be_written_to(self) -> pl.DataFrame:
        """customer_key of those who agreed and whom a message can reach."""
        return self.customers.filter(pl.col("marketing_consent") & pl.col("reachable")).select(KEY)

    @cached_property
    def unreachable(self) -> int:
        """How many agreed and have no address."""
        return self.customers.filter(pl.col("marketing_consent") & ~pl.col("reachable")).height

    @cached_property
    def weekly_snapshot(self) -> str:
        """Hash of what customers are judged by."""
        return fingerprint(self.purchases, self.customers.select(KEY), self.products, {"anchor": str(self.anchor)})

    @cached_property
    def snapshot(self) -> str:
        """Hash of all that the day's customer decisions look at."""
        return fingerprint(
            self.purchases,
            self.customers,
            self.products,
            self.offers,
            self.outcomes,
            self.shelf,
            self.cases,
            {"as_of": str(self.as_of), "settings": repr(self.settings), "returned": sorted(self.returned)},
        )


def anchor_of(as_of: date) -> date:
    """The Monday on or before a day."""
    return as_of - timedelta(days=as_of.weekday())


def read_customer_inputs(home: Home, as_of: date) -> CustomerInputs:
    """Reads the customer marts as they were known before `as_of` opened.

    Raises:
        Unavailable: No purchases of known customers were known by then.
    """
    anchor = anchor_of(as_of)
    known = _mart(home, "retail", "purchases").filter(pl.col("bought_on") < as_of)
    returned = known.filter(pl.col("bought_on") >= anchor)[KEY].unique().to_list()
    purchases = known.filter(pl.col("bought_on") < anchor)
    if purchases.is_empty():
        raise Unavailable("retail.baskets: no purchases of known customers before the week; land baskets and customers")
    purchases = purchases.sort("bought_on", KEY, "basket_id", "product_id", "site_id")
    profile = _mart(home, "retail", "customer_profile").select(KEY, "marketing_consent", "reachable").sort(KEY)
    profile = without_consent(profile, _mart(home, "retail", "message_replies"), as_of)
    profile = _now_allowed(home, profile)
    products = _mart(home, "common", "products")
    for name in ("name", "family", "unit_cost", "unit_price"):
        if name not in products.columns:
            products = products.with_columns(
                pl.lit(None, pl.String if name in ("name", "family") else pl.Float64).alias(name)
            )
    products = products.select("product_id", "name", "family", "unit_cost", "unit_price").sort("product_id")
    outcomes = _mart(home, "retail", "offer_outcomes").filter(
        (pl.col("sent_on") < as_of) & (pl.coalesce("ends_on", "sent_on") < as_of)
    )
    cases = _mart(home, "retail", "service_cases").filter(pl.col("opened_on") < as_of)
    closed = pl.col("closed_at").dt.date() < as_of
    answered = (pl.col("opened_at") + pl.duration(minutes=pl.col("hours_to_first_response") * 60)).dt.date()
    cases = cases.with_columns(
        pl.when(closed).then("closed_at").alias("closed_at"),
        pl.when(closed).then("hours_to_close").alias("hours_to_close"),
        pl.when(answered < as_of).then("hours_to_first_response").alias("hours_to_first_response"),
    )
    return CustomerInputs(
        as_of,
        anchor,
        home.settings,
        purchases,
        profile,
        products,
        _mart(home, "retail", "offers").sort("offer_id"),
        outcomes.sort("sent_on", "offer_id", KEY),
        _shelf(home, as_of),
        cases.sort("request_id"),
        frozenset(returned),
    )


def without_consent(customers: pl.DataFrame, replies: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """`customers` without the consent of those who unsubscribed, or whose address failed, before `as_of` opened."""
    gone = replies.filter(pl.col("kind").is_in(STOPPED) & (pl.col("replied_at").dt.date() < as_of))
    still = ~pl.col(KEY).is_in(gone[KEY].unique().to_list())
    return customers.with_columns((pl.col("marketing_consent") & still).alias("marketing_consent"))


def _now_allowed(home: Home, customers: pl.DataFrame) -> pl.DataFrame:
    doubted = in_doubt(home)["customer_id"].unique().sort().to_list()
    key = secret(home) if doubted else b""
    keys = [pseudonym(key, customer) for customer in doubted]
    elsewhere = not home.settings.publish and not customers["reachable"].any()
    return customers.with_columns(
        pl.col("marketing_consent") & ~pl.col(KEY).is_in(keys), pl.col("reachable") | elsewhere
    )


def _shelf(home: Home, as_of: date) -> pl.DataFrame:
    counts = _mart(home, "retail", "stock_position").filter(pl.col("counted_on") <= as_of)
    latest = counts.sort("counted_on").group_by("site_id", "product_id", maintain_order=True)
    return latest.agg(
        pl.col("on_hand").last(),
        pl.col("on_hand").slice(-2, 1).first().alias("on_hand_before"),
        pl.len().alias("counts"),
        pl.col("counted_on").last(),
    ).sort("site_id", "product_id")


def _mart(home: Home, domain: str, model: str) -> pl.DataFrame:
    place: Path = home.mart(domain, model)
    if not place.exists():
        raise Unavailable(f"marts/{domain}/{model}: not built yet; run npq run")
    return pl.read_parquet(place)


def day_number(column: str) -> pl.Expr:
    """Days since `FIRST_DAY`, a Monday."""
    return (pl.col(column) - pl.lit(FIRST_DAY)).dt.total_days().cast(pl.Int64)


def number_of(day: date) -> int:
    """The number of a day, as `day_number`."""
    return (day - FIRST_DAY).days
