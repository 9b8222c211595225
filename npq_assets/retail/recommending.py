"""From the week's long lists to the day's recommendations: what the customer's store can sell, varied, with a reason."""

from __future__ import annotations

import polars as pl

from npq_assets.evaluation.ledger import decision_id
from npq_assets.retail.customer_book import CustomerBook
from npq_assets.retail.customer_inputs import KEY, CustomerInputs

AGAIN, NEW = 5, 5
PER_FAMILY = 2
LEAST_ON_HAND = 3


def recommend(inputs: CustomerInputs, book: CustomerBook) -> pl.DataFrame:
    """The day's recommendations: first products to buy again, then new ones.

    A product is left out where the latest count of the customer's store shows fewer than `LEAST_ON_HAND` units; where a store
    counts no stock, nothing is left out. At most `PER_FAMILY` products of a family a list.

    Returns:
        customer_key, rank, product_id, score, kind, reason, decision_id, as_of, input_snapshot.
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
    return rows.select(KEY, "rank", "product_id", "score", "kind", "reason").with_columns(
        pl.Series("decision_id", ids, dtype=pl.String),
        pl.lit(inputs.as_of).alias("as_of"),
        pl.lit(inputs.snapshot).alias("input_snapshot"),
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
