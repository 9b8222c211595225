"""What must hold of customer decisions before anybody acts on them."""

from __future__ import annotations

from datetime import date

import polars as pl

from npq_assets.retail.customer_inputs import KEY, CustomerInputs
from npq_assets.retail.messaging import messages_of_the_week
from npq_assets.verdicts import Verdict

NAMES = ("consent", "weekly_limit", "budget", "sellable")


def nothing_to_judge(reason: str) -> list[Verdict]:
    """All checks pass where there is nothing."""
    return [Verdict(name, True, True, reason) for name in NAMES]


def judge_customers(
    inputs: CustomerInputs,
    offers: pl.DataFrame,
    messages: pl.DataFrame,
    recommendations: pl.DataFrame,
    earlier: pl.DataFrame,
    main_sites: pl.DataFrame,
    spent: pl.DataFrame,
) -> list[Verdict]:
    """Consent, the weekly limit, budgets, and that nothing unsellable is recommended.

    Args:
        inputs: What was known.
        offers: Today's offers: customer_key, offer_id, expected_cost.
        messages: Today's messages: customer_key, message_id.
        recommendations: Today's: customer_key, product_id.
        earlier: Messages of other days: customer_key, as_of.
        main_sites: customer_key, main_site.
        spent: Offers sent on other days: offer_id, expected_cost.
    """
    agreed = inputs.to_be_written_to
    without = [frame.join(agreed, on=KEY, how="anti").height for frame in (offers, messages)]
    consent = Verdict(
        "consent",
        not any(without),
        True,
        f"{without[0]} offers and {without[1]} messages go to customers without consent or address",
    )
    return [
        consent,
        _weekly(inputs.as_of, messages, earlier, inputs.settings.messages_per_week),
        _budget(inputs, offers, spent),
        _sellable(inputs, recommendations, main_sites),
    ]


def _weekly(as_of: date, messages: pl.DataFrame, earlier: pl.DataFrame, most: int) -> Verdict:
    today = messages.group_by(KEY).agg(pl.len().cast(pl.Int64).alias("today"))
    counts = today.join(messages_of_the_week(earlier, as_of), on=KEY, how="left")
    over = counts.filter(pl.col("today") + pl.col("messages").fill_null(0) > most).height
    return Verdict(
        "weekly_limit", over == 0, True, f"{over} customers would get more than {most} messages in seven days"
    )


def _budget(inputs: CustomerInputs, offers: pl.DataFrame, before: pl.DataFrame) -> Verdict:
    today = offers.select("offer_id", "expected_cost")
    all_days = pl.concat([today, before.select("offer_id", "expected_cost").join(today, on="offer_id", how="semi")])
    spent = all_days.group_by("offer_id").agg(pl.col("expected_cost").sum().alias("spent"))
    over = spent.join(inputs.offers.select("offer_id", "budget"), on="offer_id").filter(
        pl.col("budget").is_not_null() & (pl.col("spent") > pl.col("budget") * (1 + 1e-9) + 1e-6)
    )
    total = float(offers["expected_cost"].sum())
    limit = inputs.settings.offer_budget
    good = over.is_empty() and (limit is None or total <= limit * (1 + 1e-9) + 1e-6)
    return Verdict("budget", good, True, f"{over.height} offers exceed their budget; {total:.2f} in all")


def _sellable(inputs: CustomerInputs, recommendations: pl.DataFrame, main_sites: pl.DataFrame) -> Verdict:
    empty = inputs.shelf.filter(pl.col("on_hand") <= 0).select("site_id", "product_id")
    wrong = recommendations.join(main_sites.rename({"main_site": "site_id"}), on=KEY, how="inner").join(
        empty, on=["site_id", "product_id"], how="semi"
    )
    return Verdict("sellable", wrong.is_empty(), True, f"{wrong.height} recommendations of products that are sold out")
