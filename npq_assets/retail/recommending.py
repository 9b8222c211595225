"""From the week's long lists to the day's recommendations: what the customer's store can sell, varied, with a reason.

A few customers are kept without, so that what recommendations change is measured and can enter demand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from npq_assets.evaluation.ledger import decision_id
from npq_assets.retail.customer_book import CustomerBook
from npq_assets.retail.customer_inputs import KEY, CustomerInputs
from npq_assets.retail.customer_link import DEMAND

AGAIN, NEW = 5, 5
PER_FAMILY = 2
LEAST_ON_HAND = 3
# Weeks for which a customer stays with or without recommendations, and the least customers an arm must hold.
ROUND_WEEKS = 13
LEAST_PER_ARM = 30


@dataclass(frozen=True)
class Effect:
    """What recommendations changed, measured against customers kept without.

    Attributes:
        units: Units more of a recommended product per customer in the week (mean difference).
        error: Standard error of that, clustered by customer.
        shown: Customers with recommendations.
        controls: Customers without.
    """

    units: float
    error: float
    shown: int
    controls: int

    @property
    def known(self) -> bool:
        """Whether both arms are large enough to say anything."""
        return min(self.shown, self.controls) >= LEAST_PER_ARM

    @property
    def counted(self) -> float:
        """Units that demand is raised by: the difference if its 95 % interval excludes zero, else none."""
        return self.units if self.known and abs(self.units) > 1.96 * self.error else 0.0

    def facts(self) -> dict[str, float | str]:
        """For metadata and the report."""
        if not self.known:
            return {"effect": "unknown", "customers shown": self.shown, "controls": self.controls}
        return {
            "effect": "measured against controls",
            "units more of a product in a week": self.units,
            "standard error": self.error,
            "counted in demand": self.counted,
            "customers shown": self.shown,
            "controls": self.controls,
        }


def recommend(inputs: CustomerInputs, book: CustomerBook) -> pl.DataFrame:
    """The day's recommendations: first products to buy again, then new ones.

    A product is left out where the latest count of the customer's store shows fewer than `LEAST_ON_HAND` units; where a store
    counts no stock, nothing is left out. At most `PER_FAMILY` products of a family a list.

    Returns:
        customer_key, rank, product_id, score, kind, reason, control (kept without, to measure what recommendations change),
        decision_id, as_of, input_snapshot.
    """
    sites = book.people.select(KEY, "main_site")
    rows = book.lists.join(sites, on=KEY, how="left").join(
        inputs.products.select("product_id", "name", "family"), on="product_id", how="left"
    )
    if inputs.shelf.height:
        on_hand = inputs.shelf.select(pl.col("site_id").alias("main_site"), "product_id", "on_hand")
        rows = rows.join(on_hand, on=["main_site", "product_id"], how="left")
        counted = inputs.shelf["site_id"].unique().to_list()
        rows = rows.filter((pl.col("on_hand").fill_null(0.0) >= LEAST_ON_HAND) | ~pl.col("main_site").is_in(counted))
    rows = rows.sort(KEY, "kind", "place").with_columns(
        pl.int_range(pl.len()).over(KEY, "kind", "family").alias("in_family")
    )
    rows = rows.filter((pl.col("in_family") < PER_FAMILY) | pl.col("family").is_null())
    rows = rows.with_columns(pl.int_range(pl.len()).over(KEY, "kind").alias("nth"))
    rows = rows.filter(pl.col("nth") < pl.when(pl.col("kind") == "again").then(AGAIN).otherwise(NEW))
    rows = rows.sort(KEY, "kind", "nth").with_columns((pl.int_range(pl.len()).over(KEY) + 1).alias("rank"))
    rows = _with_reasons(inputs, rows)
    ids = [
        decision_id(inputs.as_of, "retail", "recommendations", (key, str(place)), inputs.snapshot)
        for key, place in rows.select(KEY, "rank").iter_rows()
    ]
    without = kept_without(inputs, rows[KEY].unique().to_list())
    rows = rows.with_columns(pl.col(KEY).is_in(without).alias("control"))
    return rows.select(KEY, "rank", "product_id", "score", "kind", "reason", "control").with_columns(
        pl.Series("decision_id", ids, dtype=pl.String),
        pl.lit(inputs.as_of).alias("as_of"),
        pl.lit(inputs.snapshot).alias("input_snapshot"),
    )


def uncounted(inputs: CustomerInputs, book: CustomerBook) -> list[str]:
    """Stores of customers without a stock count of the last week: whether they can sell what is recommended is not known."""
    fresh = inputs.shelf.filter(pl.col("counted_on") >= inputs.as_of - timedelta(days=7))["site_id"].unique().to_list()
    stores = book.people["main_site"].drop_nulls().unique().sort()
    return stores.filter(~stores.is_in(fresh)).to_list()


def kept_without(inputs: CustomerInputs, keys: list[str]) -> list[str]:
    """Customers who get no recommendations in this round of weeks: `control_share` of them, drawn by their key alone."""
    number = (inputs.anchor.toordinal() - 1) // 7 // ROUND_WEEKS
    seed = inputs.settings.seed

    def draw(key: str) -> float:
        digest = hashlib.sha256(f"recommendation\x1f{seed}\x1f{number}\x1f{key}".encode()).digest()
        return float(int.from_bytes(digest[:8], "big")) / 2.0**64

    return sorted(key for key in keys if draw(key) < inputs.settings.control_share)


def measure_effect(inputs: CustomerInputs, earlier: pl.DataFrame) -> Effect:
    """Units of recommended products bought in the seven days from the recommendation, with it and without.

    The controls' lists were made but not shown, so that both arms are compared on what would have been recommended to them.

    Args:
        inputs: What was known; purchases reach to the anchor.
        earlier: Recommendations of earlier weeks, one day of each: customer_key, product_id, control, as_of.
    """
    over = earlier.filter(pl.col("as_of") + timedelta(days=7) <= inputs.anchor)
    if over.is_empty():
        return Effect(0.0, float("inf"), 0, 0)
    bought = inputs.purchases.select(KEY, "product_id", "bought_on", "quantity")
    pairs = over.join(bought, on=[KEY, "product_id"], how="left")
    inside = (pl.col("bought_on") >= pl.col("as_of")) & (pl.col("bought_on") < pl.col("as_of") + timedelta(days=7))
    pairs = pairs.group_by("control", KEY, "as_of", "product_id").agg(
        pl.col("quantity").filter(inside).sum().alias("units")
    )
    people = pairs.group_by("control", KEY).agg(pl.col("units").sum(), pl.len().alias("pairs")).sort("control", KEY)
    means, variances, sizes = [], [], []
    for control in (False, True):
        arm = people.filter(pl.col("control") == control)
        count, units = arm["pairs"].to_numpy().astype(float), arm["units"].to_numpy().astype(float)
        mean = float(units.sum() / max(count.sum(), 1.0))
        means.append(mean)
        # A ratio of sums over customers: residuals of whole customers carry its variance.
        variances.append(float(np.sum((units - mean * count) ** 2)) / max(count.sum(), 1.0) ** 2)
        sizes.append(arm.height)
    return Effect(means[0] - means[1], float(np.sqrt(sum(variances))), sizes[0], sizes[1])


def recommended_units(
    inputs: CustomerInputs, book: CustomerBook, effect: Effect, earlier: pl.DataFrame
) -> pl.DataFrame:
    """Units by which this week's lists move demand away from what its history shows: site_id, product_id, day, units.

    History holds what the lists of earlier weeks brought: their mean over the last `ROUND_WEEKS` weeks (or as many as there is
    history for; a week without lists counts as none) is taken off, so that standing lists add nothing, first ones add all
    they bring, and a product that leaves the lists loses it. Nothing while no effect is shown.

    Args:
        inputs: What was known.
        book: The week's view of customers.
        effect: What a recommendation changes.
        earlier: Recommendations of those weeks, one day of each: customer_key, product_id, control, as_of.
    """
    if effect.counted == 0.0:
        return pl.DataFrame(schema=DEMAND)
    first = inputs.purchases["bought_on"].min()
    assert isinstance(first, date)
    weeks = max(1, earlier["as_of"].n_unique(), min(ROUND_WEEKS, (inputs.anchor - first).days // 7))
    sites = book.people.select(KEY, pl.col("main_site").alias("site_id")).drop_nulls("site_id")

    def lists(rows: pl.DataFrame, worth: float) -> pl.DataFrame:
        shown = rows.filter(~pl.col("control")).join(sites, on=KEY, how="inner")
        return shown.group_by("site_id", "product_id").agg((pl.len() * worth).alias("lists"))

    change = pl.concat([lists(recommend(inputs, book), 1.0), lists(earlier, -1.0 / weeks)])
    change = change.group_by("site_id", "product_id").agg(pl.col("lists").sum()).filter(pl.col("lists").abs() > 1e-9)
    week = pl.DataFrame({"day": [inputs.as_of + timedelta(days=k) for k in range(7)]})
    return (
        change.join(week, how="cross")
        .with_columns((pl.col("lists") * effect.counted / 7.0).alias("units"))
        .select(list(DEMAND))
        .sort("site_id", "product_id", "day")
    )


def _with_reasons(inputs: CustomerInputs, rows: pl.DataFrame) -> pl.DataFrame:
    habits = inputs.purchases.group_by(KEY, "product_id").agg(
        pl.col("basket_id").n_unique().alias("times"), pl.col("bought_on").max().alias("last")
    )
    rows = rows.join(habits, on=[KEY, "product_id"], how="left")
    again = pl.format(
        "you bought it {} time{}, last on {}",
        pl.col("times"),
        pl.when(pl.col("times") == 1).then(pl.lit("")).otherwise(pl.lit("s")),
        pl.col("last").dt.to_string("%Y-%m-%d"),
    )
    together = _together(inputs)
    names = inputs.products.select(pl.col("product_id").alias("from_product"), pl.col("name").alias("from_name"))
    because = (
        rows.filter(pl.col("kind") == "new")
        .select(KEY, "product_id")
        .join(together, on="product_id", how="inner")
        .join(
            habits.select(KEY, pl.col("product_id").alias("from_product"), "times"),
            on=[KEY, "from_product"],
            how="inner",
        )
        .sort([KEY, "product_id", "lift", "from_product"], descending=[False, False, True, False])
        .unique([KEY, "product_id"], keep="first", maintain_order=True)
        .join(names, on="from_product", how="left")
        .select(KEY, "product_id", "from_name", "from_product", "lift")
    )
    rows = rows.join(because, on=[KEY, "product_id"], how="left").sort(KEY, "rank")
    new = (
        pl.when(pl.col("from_product").is_not_null())
        .then(
            pl.format(
                "you bought {}; it sells together {} times as often as chance",
                pl.coalesce("from_name", "from_product"),
                pl.col("lift").round(1),
            )
        )
        .otherwise(pl.lit("popular at your store, and new to you"))
    )
    return rows.with_columns(pl.when(pl.col("kind") == "again").then(again).otherwise(new).alias("reason"))


def _together(inputs: CustomerInputs, least: int = 5) -> pl.DataFrame:
    """Pairs of products in at least five baskets that meet more often than chance: from_product, product_id, lift."""
    lines = inputs.purchases.select("basket_id", "product_id").unique()
    total = lines["basket_id"].n_unique()
    count = lines.group_by("product_id").agg(pl.len().alias("n"))
    pairs = (
        lines.join(lines.rename({"product_id": "from_product"}), on="basket_id")
        .filter(pl.col("product_id") != pl.col("from_product"))
        .group_by("from_product", "product_id")
        .agg(pl.len().alias("both"))
        .filter(pl.col("both") >= least)
    )
    pairs = pairs.join(count, on="product_id").join(
        count.rename({"product_id": "from_product", "n": "n_from"}), on="from_product"
    )
    lift = pl.col("both") * total / (pl.col("n") * pl.col("n_from"))
    return (
        pairs.with_columns(lift.alias("lift"))
        .filter(pl.col("lift") > 1.05)
        .select("from_product", "product_id", "lift")
    )
