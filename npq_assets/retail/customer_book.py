"""The week's view of every customer: prospects, segment, and a long list of products to recommend.

Made once a week, as of the anchor, and kept under the hash of its inputs; what a day does with it is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from npq_assets.customers import value
from npq_assets.customers.segments import segment_customers
from npq_assets.customers.visits import summarize, visits_of
from npq_assets.retail.customer_inputs import HORIZON_DAYS, KEY, CustomerInputs, day_number, number_of

LONG_LIST = 30
_LISTS = {KEY: pl.String, "product_id": pl.String, "score": pl.Float64, "place": pl.Int64, "kind": pl.String}


@dataclass(frozen=True)
class CustomerBook:
    """The week's view.

    Attributes:
        people: customer_key, segment, recency_days, frequency, monetary, spend_91, p_active, expected_spend, spend_q10,
            spend_q90, margin_share, main_site; one row a customer.
        lists: customer_key, product_id, score, place (1 is best), kind (`again`, `new`).
        facts: What was judged and chosen, for metadata and the report.
    """

    people: pl.DataFrame
    lists: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def make_book(inputs: CustomerInputs) -> CustomerBook:
    """Judges every customer and ranks products for each, as of the anchor."""
    people, facts = _people(inputs)
    lists, ranked = _lists(inputs)
    return CustomerBook(people, lists, {**facts, **ranked})


def _people(inputs: CustomerInputs) -> tuple[pl.DataFrame, dict[str, Any]]:
    lines = inputs.purchases.select(
        pl.col(KEY).alias("user"), day_number("bought_on").alias("day"), "amount", "discount"
    )
    visits = visits_of(lines, inputs.customers[KEY])
    today = number_of(inputs.anchor)
    settings = value.Settings(
        horizon=HORIZON_DAYS, step=HORIZON_DAYS, cutoffs=3, trees=60, models=1, threads=1, seed=inputs.settings.seed
    )
    prospects = value.predict(visits, today, settings)
    summary = summarize(visits, today)
    recent = visits.between(today - 91, today)
    spend = recent.total(recent.amount)
    segments = segment_customers(
        summary.since_last,
        np.bincount(recent.customer, minlength=len(visits.customers)).astype(float),
        spend,
        seed=inputs.settings.seed,
    )
    baskets = inputs.purchases.group_by(KEY).agg(
        pl.col("basket_id").n_unique().alias("frequency"), pl.col("amount").sum().alias("monetary")
    )
    sites = (
        inputs.purchases.group_by(KEY, "site_id")
        .agg(pl.col("basket_id").n_unique().alias("n"))
        .sort([KEY, "n", "site_id"], descending=[False, True, False])
        .unique(KEY, keep="first", maintain_order=True)
        .select(KEY, pl.col("site_id").alias("main_site"))
    )
    people = pl.DataFrame(
        {
            KEY: visits.customers.astype(str),
            "segment": segments.segment,
            "recency_days": summary.since_last,
            "spend_91": spend,
            "p_active": prospects.p_active,
            "expected_spend": prospects.spend,
            "spend_q10": prospects.spend_q10,
            "spend_q90": np.maximum(prospects.spend_q90, prospects.spend_q10),
        }
    )
    people = people.join(baskets, on=KEY, how="left").join(sites, on=KEY, how="left")
    people = people.join(_margin_shares(inputs), on=KEY, how="left").sort(KEY)
    facts = {
        "activity model": prospects.activity_model,
        "spend model": prospects.spend_model,
        "judgement": prospects.judgement,
        "segments": list(segments.names),
        "segment stability": {str(k): round(v, 3) for k, v in segments.stability.items()},
    }
    return people.with_columns(pl.col("frequency", "monetary").fill_null(0)), facts


def _margin_shares(inputs: CustomerInputs, weight: float = 50.0) -> pl.DataFrame:
    """Share of what a customer pays that is margin, shrunk to everybody's by `weight` of money; empty without unit costs."""
    priced = inputs.purchases.filter(pl.col("margin").is_not_null())
    everybody = float(priced["margin"].sum()) / max(float(priced["amount"].sum()), 1e-9)
    share = (pl.col("margin").sum() + weight * everybody) / (pl.col("amount").sum() + weight)
    return priced.group_by(KEY).agg(share.alias("margin_share"))


def _lists(inputs: CustomerInputs) -> tuple[pl.DataFrame, dict[str, Any]]:
    from npq_assets.recommendation.lists import rank_products
    from npq_assets.recommendation.purchases import purchases_of

    lines = inputs.purchases.select(
        pl.col(KEY).alias("user"),
        pl.col("product_id").alias("item"),
        day_number("bought_on").alias("day"),
        pl.col("basket_id").alias("basket"),
        "quantity",
        "amount",
        "discount",
        pl.col("site_id").alias("site"),
    )
    purchases = purchases_of(lines, inputs.products.select(pl.col("product_id").alias("item"), "family"))
    today, seed = number_of(inputs.anchor), inputs.settings.seed
    ranked = rank_products(purchases, today, HORIZON_DAYS, LONG_LIST, seed, inputs.settings.threads)
    lists, facts = ranked.lists, ranked.facts
    if lists.is_empty():
        return pl.DataFrame(schema=_LISTS), facts
    return (
        pl.DataFrame(
            {
                KEY: purchases.users[lists["user"].to_numpy()].astype(str),
                "product_id": purchases.items[lists["item"].to_numpy()].astype(str),
                "score": lists["score"].cast(pl.Float64),
                "place": lists["rank"].cast(pl.Int64),
                "kind": lists["kind"].cast(pl.String),
            }
        ).sort(KEY, "kind", "place"),
        facts,
    )
