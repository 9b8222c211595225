"""Whose consent is in doubt: a row that was quarantined may have taken it back, so that an older yes is no longer enough."""

from __future__ import annotations

import os

import polars as pl

from npq_assets.contracts import LANDING
from npq_assets.retail.privacy import KEY, personal_folder, pseudonym, returned, secret
from npq_assets.settings import Home
from npq_assets.storage import replacing

# Replies after which nobody is written to again, whatever the customer's record says.
STOPPED = ("unsubscribed", "bounced")
_FOUND = {"customer_id": pl.String, "file": pl.String, "line": pl.Int64}


def in_doubt(home: Home) -> pl.DataFrame:
    """Customers who may have withdrawn their consent by a row that cannot be read: customer_id, file, line.

    A broken row of `retail.customers` counts until a good one of the same customer lands in a later file. A broken row of
    `retail.message_replies` that says plainly that the customer unsubscribed or could not be reached counts for good, one
    whose kind cannot be read until a good row on the same message lands; one that says `opened` and the like does not count.
    A reply that names no customer is of whom its message was decided for.
    """
    known = home.raw_table("retail", "customers")
    if not known.exists():
        return pl.DataFrame(schema=_FOUND)
    people = _doubts(home, "retail.customers").filter(~pl.col("lifted"))
    replies = _doubts(home, "retail.message_replies")
    kinds = LANDING["retail.message_replies"].column("kind").choices
    unread = ~pl.col("kind").is_in(kinds).fill_null(False) & ~pl.col("lifted")
    replies = replies.filter(pl.col("kind").is_in(STOPPED).fill_null(False) | unread)
    replies = _addressed(home, replies)
    rows = pl.concat([frame.select(list(_FOUND)) for frame in (people, replies)])
    customers = pl.read_parquet(known, columns=["customer_id"])
    return rows.join(customers, on="customer_id", how="semi").unique().sort("file", "line", "customer_id")


def write_in_doubt(home: Home) -> pl.DataFrame:
    """`in_doubt`, and the same under pseudonyms in `<home>/personal`, where a customer who is forgotten is taken out of it.

    The run's log keeps what it says for good and therefore names files and lines only.
    """
    # Who was forgotten and has landed again has no pseudonym, here neither.
    doubts = in_doubt(home).filter(~pl.col("customer_id").is_in(sorted(returned(home))))
    place = personal_folder(home) / "consent_in_doubt.csv"
    if doubts.is_empty():
        place.unlink(missing_ok=True)
        return doubts
    key = secret(home)
    keys = [pseudonym(key, customer) for customer in doubts["customer_id"].to_list()]
    with replacing(place) as temporary:
        doubts.select(pl.Series(KEY, keys), "file", "line").write_csv(temporary)
    os.chmod(place, 0o600)
    return doubts


def _addressed(home: Home, replies: pl.DataFrame) -> pl.DataFrame:
    """Replies with the customer of their message where they name none."""
    places = sorted(home.decision_folder("retail", "messages").glob("as_of=*/*.parquet"))
    if not places or not replies["customer_id"].null_count():
        return replies
    messages = pl.concat([pl.read_parquet(place, columns=["message_id", "customer_id"]) for place in places])
    told = messages.unique("message_id").rename({"customer_id": "of_message"})
    return replies.join(told, on="message_id", how="left").with_columns(
        pl.coalesce("customer_id", "of_message").alias("customer_id")
    )


def _doubts(home: Home, table: str) -> pl.DataFrame:
    place = home.raw / ".doubts" / f"{table}.parquet"
    if place.exists():
        return pl.read_parquet(place)
    told = dict.fromkeys(LANDING[table].told, pl.String)
    return pl.DataFrame(schema={**told, "file": pl.String, "line": pl.Int64, "lifted": pl.Boolean})
