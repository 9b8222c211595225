"""Which messages leave today: at most so many a week to a customer, never without consent, each once.

What a message says is decided here; how it leaves is decided in `mail`.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, cast

import polars as pl

from npq_assets.evaluation.ledger import decision_id
from npq_assets.retail.customer_book import CustomerBook
from npq_assets.retail.customer_inputs import KEY, CustomerInputs, anchor_of

PRIORITY = {"late_delivery": 0, "offer": 1, "back_in_stock": 2, "win_back": 3}
SEND_AT = time(9, 0)
WIN_BACK_EVERY = timedelta(days=56)
MESSAGES: dict[str, Any] = {
    KEY: pl.String,
    "message_id": pl.String,
    "kind": pl.String,
    "channel": pl.String,
    "subject": pl.String,
    "body": pl.String,
    "due_at": pl.Datetime("us", "UTC"),
    "value": pl.Float64,
}


def message_id(kind: str, key: str, about: str) -> str:
    """The same message to the same customer has the same id on any day: it leaves once."""
    return hashlib.sha256("\x1f".join(["message", kind, key, about]).encode()).hexdigest()[:24]


def todays_messages(
    inputs: CustomerInputs,
    book: CustomerBook,
    offers: pl.DataFrame,
    late: pl.DataFrame,
    earlier: pl.DataFrame,
    recommendations: pl.DataFrame,
) -> pl.DataFrame:
    """The messages that leave on the as-of day.

    Args:
        inputs: What was known.
        book: The week's view.
        offers: Offers sent today: customer_key, offer_id, expected_profit, control.
        late: Deliveries that are late, as `late_deliveries` gives them.
        earlier: Messages of other days: customer_key, message_id, kind, as_of.
        recommendations: Today's, for the win-back.

    Returns:
        The columns of MESSAGES and decision_id, as_of, input_snapshot; consent and the weekly limit kept.
    """
    rows = [
        *_late(late),
        *_back_in_stock(inputs, book),
        *_offers(inputs, offers),
        *_win_back(inputs, book, recommendations),
    ]
    due = datetime.combine(inputs.as_of, SEND_AT, UTC)
    wanted = pl.DataFrame([{**row, "channel": "email", "due_at": due} for row in rows], schema=MESSAGES)
    wanted = wanted.join(inputs.to_be_written_to, on=KEY, how="semi")
    wanted = wanted.join(earlier.select("message_id").unique(), on="message_id", how="anti")
    near = (pl.col("as_of") > inputs.as_of - WIN_BACK_EVERY) & (pl.col("as_of") < inputs.as_of + WIN_BACK_EVERY)
    silent = earlier.filter((pl.col("kind") == "win_back") & near)
    wanted = wanted.filter((pl.col("kind") != "win_back") | ~pl.col(KEY).is_in(silent[KEY].unique().to_list()))
    lately = messages_of_the_week(earlier, inputs.as_of)
    wanted = wanted.join(lately, on=KEY, how="left").with_columns(pl.col("messages").fill_null(0))
    wanted = wanted.with_columns(pl.col("kind").replace_strict(PRIORITY, return_dtype=pl.Int64).alias("priority"))
    wanted = wanted.sort([KEY, "priority", "value", "message_id"], descending=[False, False, True, False])
    nth = pl.int_range(pl.len()).over(KEY)
    kept = wanted.filter(nth + pl.col("messages") < inputs.settings.messages_per_week)
    ids = [decision_id(inputs.as_of, "retail", "messages", (m,), inputs.snapshot) for m in kept["message_id"].to_list()]
    return (
        kept.select(list(MESSAGES))
        .with_columns(
            pl.Series("decision_id", ids, dtype=pl.String),
            pl.lit(inputs.as_of).alias("as_of"),
            pl.lit(inputs.snapshot).alias("input_snapshot"),
        )
        .sort("message_id")
    )


def messages_of_the_week(earlier: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Messages of other days in the fullest seven days that hold the day: customer_key, messages."""
    others = earlier.filter(pl.col("as_of") != as_of)
    weeks = []
    for first in (as_of - timedelta(days=k) for k in range(7)):
        week = others.filter((pl.col("as_of") >= first) & (pl.col("as_of") < first + timedelta(days=7)))
        weeks.append(week.group_by(KEY).agg(pl.len().cast(pl.Int64).alias("messages")))
    return pl.concat(weeks).group_by(KEY).agg(pl.col("messages").max()).sort(KEY)


def room_taken(inputs: CustomerInputs, late: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """Messages that leave no room for an offer today: those of the week, and today's that go before: customer_key, messages.

    An offer allocated beyond that would be crowded out as a message, and yet count as sent and spent.

    Args:
        inputs: What was known.
        late: Deliveries that are late, as `late_deliveries` gives them.
        earlier: Messages of other days: customer_key, message_id, as_of.
    """
    first = pl.DataFrame(_late(late), schema={KEY: pl.String, "message_id": pl.String}).join(
        earlier.select("message_id").unique(), on="message_id", how="anti"
    )
    first = first.group_by(KEY).agg(pl.len().cast(pl.Int64).alias("messages"))
    both = pl.concat([messages_of_the_week(earlier, inputs.as_of), first])
    return both.group_by(KEY).agg(pl.col("messages").sum()).sort(KEY)


def late_deliveries(deliveries: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Deliveries promised for the day before that have not arrived when the day opens, or arrived late on that day.

    Where no arrival of that day and no departure is known, the trips have not landed: nothing is called late then.

    Returns:
        customer_key, delivery_id, promised, arrived (whether it did, in the end), late_minutes (until then or the opening).
    """
    opening = datetime.combine(as_of, time(0), UTC)
    promised = pl.coalesce("promised_at", "due_at")
    due = deliveries.filter((promised < opening) & (promised >= opening - timedelta(days=1))).with_columns(
        promised.alias("promised"), (pl.col("arrived_at") < opening).fill_null(False).alias("arrived")
    )
    on_the_way = (pl.col("departed_at") < opening).fill_null(False)
    due = due.filter(pl.col("arrived") | on_the_way | pl.col("arrived").any())
    until = pl.when("arrived").then(pl.col("arrived_at")).otherwise(pl.lit(opening))
    late = due.with_columns(((until - pl.col("promised")).dt.total_seconds() / 60).alias("late_minutes"))
    late = late.filter(pl.col("late_minutes") > 15)
    return late.select(KEY, "delivery_id", "promised", "arrived", "late_minutes").sort(KEY, "delivery_id")


def _late(late: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            KEY: row[KEY],
            "kind": "late_delivery",
            "message_id": message_id("late_delivery", row[KEY], row["delivery_id"]),
            "subject": "Your delivery was late" if row["arrived"] else "Your delivery is late",
            "body": f"Your delivery {row['delivery_id']} arrived {row['late_minutes']:.0f} minutes late. We are sorry."
            if row["arrived"]
            else f"Your delivery {row['delivery_id']} was promised for {row['promised']:%Y-%m-%d at %H:%M} and has not arrived "
            "yet. We are sorry and are looking for it.",
            "value": float(row["late_minutes"]),
        }
        for row in late.iter_rows(named=True)
    ]


def _back_in_stock(inputs: CustomerInputs, book: CustomerBook) -> list[dict[str, Any]]:
    """A product that the customer buys again and again is back on the shelf of their store."""
    back = inputs.shelf.filter(
        (pl.col("on_hand") > 0)
        & (pl.col("on_hand_before") <= 0)
        & (pl.col("counts") > 1)
        # What an old count says is no news.
        & (pl.col("counted_on") > inputs.as_of - timedelta(days=7))
    )
    if back.is_empty():
        return []
    favourites = book.lists.filter((pl.col("kind") == "again") & (pl.col("place") <= 2))
    rows = (
        favourites.join(book.people.select(KEY, pl.col("main_site").alias("site_id")), on=KEY, how="inner")
        .join(back.select("site_id", "product_id", "counted_on"), on=["site_id", "product_id"], how="inner")
        .join(inputs.products.select("product_id", "name"), on="product_id", how="left")
        .sort(KEY, "place")
    )
    return [
        {
            KEY: row[KEY],
            "kind": "back_in_stock",
            "message_id": message_id("back_in_stock", row[KEY], f"{row['product_id']}|{anchor_of(row['counted_on'])}"),
            "subject": f"{row['name'] or row['product_id']} is back",
            "body": f"{row['name'] or row['product_id']} is on the shelf of your store {row['site_id']} again.",
            "value": float(row["score"]),
        }
        for row in rows.iter_rows(named=True)
    ]


def _offers(inputs: CustomerInputs, offers: pl.DataFrame) -> list[dict[str, Any]]:
    rows = offers.filter(~pl.col("control")).join(
        inputs.offers.select("offer_id", "discount", "starts_on", "ends_on"), on="offer_id", how="left"
    )
    names = dict(inputs.products.select("product_id", "name").iter_rows())
    found = []
    for row in rows.iter_rows(named=True):
        what = names.get(row["product_id"]) or row["product_id"] or row["family"]
        found.append(
            {
                KEY: row[KEY],
                "kind": "offer",
                "message_id": message_id("offer", row[KEY], row["offer_id"]),
                "subject": f"{row['discount']:.0%} off {what} for you",
                "body": f"From {row['starts_on']} to {row['ends_on']} you get {row['discount']:.0%} off {what} with offer "
                f"{row['offer_id']}.",
                "value": float(row["expected_profit"]),
            }
        )
    return found


def _win_back(inputs: CustomerInputs, book: CustomerBook, recommendations: pl.DataFrame) -> list[dict[str, Any]]:
    """Good customers who are about to be lost: rather inactive than not, and they used to spend more than most."""
    usual = cast("float", book.people["monetary"].median() or 0.0)
    lost = book.people.filter(
        (pl.col("p_active") < 0.5)
        & (pl.col("monetary") > usual)
        & (pl.col("recency_days") > HALF_YEAR_FROM)
        & (pl.col("recency_days") < HALF_YEAR_TO)
        & ~pl.col(KEY).is_in(sorted(inputs.returned))
    ).sort(KEY)
    first = recommendations.filter(pl.col("rank") == 1).join(
        inputs.products.select("product_id", "name"), on="product_id", how="left"
    )
    names = {row[KEY]: row["name"] or row["product_id"] for row in first.iter_rows(named=True)}
    week = inputs.anchor.isoformat()
    found = []
    for row in lost.iter_rows(named=True):
        like = f" {names[row[KEY]]} is waiting for you." if row[KEY] in names else ""
        found.append(
            {
                KEY: row[KEY],
                "kind": "win_back",
                "message_id": message_id("win_back", row[KEY], week),
                "subject": "We have not seen you for a while",
                "body": f"We have not seen you for {row['recency_days'] + (inputs.as_of - inputs.anchor).days:.0f} days.{like}",
                "value": float(row["monetary"]),
            }
        )
    return found


HALF_YEAR_FROM, HALF_YEAR_TO = 42, 182
