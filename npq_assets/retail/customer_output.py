"""What the customer decisions keep between their steps, below `plans/retail`, under pseudonyms.

The week's book is stored under the hash of its inputs and of the code: an unchanged week is read, not judged again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from npq_assets.contracts import DECISIONS, Table
from npq_assets.optimization.result import Result
from npq_assets.optimization.staffing import StaffingProblem, solve
from npq_assets.retail.customer_book import CustomerBook, make_book
from npq_assets.retail.customer_inputs import KEY, CustomerInputs
from npq_assets.retail.mail import on_the_way
from npq_assets.retail.messaging import message_id
from npq_assets.retail.privacy import pseudonym, secret
from npq_assets.settings import Home
from npq_assets.storage import fingerprint, write_json, write_parquet
from npq_assets.version import code_version

SEGMENTS = DECISIONS["retail.customer_segments"]
RECOMMENDATIONS = DECISIONS["retail.recommendations"]
OFFERS = DECISIONS["retail.offers_sent"]
MESSAGES = DECISIONS["retail.messages"]
QUEUE = DECISIONS["retail.service_queue"]
STAFFING = DECISIONS["retail.service_staffing"]


def customer_folder(home: Home, as_of: date) -> Path:
    """Where a day's customer plans lie."""
    return home.root / "plans" / "retail" / f"as_of={as_of.isoformat()}" / "customers"


def book_folder(home: Home, anchor: date) -> Path:
    """Where a week's book lies."""
    return home.root / "plans" / "retail" / "customers" / f"week={anchor.isoformat()}"


def book_of(home: Home, inputs: CustomerInputs) -> tuple[CustomerBook, bool]:
    """The week's book, read if it was made of these inputs, else made; and whether it was read."""
    folder = book_folder(home, inputs.anchor)
    wanted = fingerprint(inputs.weekly_snapshot, code_version(), inputs.settings.seed)
    facts = _read_json(folder / "book.json")
    if facts is not None and facts["inputs"] == wanted:
        book = CustomerBook(
            pl.read_parquet(folder / "people.parquet"), pl.read_parquet(folder / "lists.parquet"), facts["facts"]
        )
        return book, True
    book = make_book(inputs)
    write_parquet(book.people, folder / "people.parquet")
    write_parquet(book.lists, folder / "lists.parquet")
    write_json({"inputs": wanted, "facts": book.facts}, folder / "book.json")
    return book, False


def load_book(home: Home, anchor: date) -> CustomerBook | None:
    """The stored book of a week; None if there is none."""
    folder = book_folder(home, anchor)
    facts = _read_json(folder / "book.json")
    if facts is None:
        return None
    return CustomerBook(
        pl.read_parquet(folder / "people.parquet"), pl.read_parquet(folder / "lists.parquet"), facts["facts"]
    )


def staffed(home: Home, as_of: date) -> Callable[[StaffingProblem, float], Result]:
    """Solves a day's staffing, or reads what was found for the same problem by the same code."""

    def solved(problem: StaffingProblem, seconds: float) -> Result:
        numbers = {f.name: getattr(problem, f.name) for f in fields(problem)}
        arrays = {k: v.tolist() for k, v in numbers.items() if isinstance(v, np.ndarray)}
        wanted = fingerprint(code_version(), seconds, numbers | arrays)
        place = customer_folder(home, as_of) / "staffing_solved.json"
        known = _read_json(place)
        if known is None or known["problem"] != wanted:
            found = solve(problem, seconds)
            known = {
                "problem": wanted,
                "plan": found.plan.to_dicts(),
                "status": found.status,
                "objective": found.objective,
                "bound": found.bound,
                "solver": found.solver,
            }
            write_json(known, place)
        plan = pl.DataFrame(known["plan"]).select("shift", "agents", "expected_cost")
        return Result(plan, known["status"], known["objective"], known["bound"], solver=known["solver"])

    return solved


def save(home: Home, as_of: date, name: str, frame: pl.DataFrame, facts: dict[str, Any] | None = None) -> None:
    """Keeps a frame of a day's customer plans, and its facts."""
    folder = customer_folder(home, as_of)
    write_parquet(frame, folder / f"{name}.parquet")
    if facts is not None:
        write_json(facts, folder / f"{name}.json")


def load(home: Home, as_of: date, name: str) -> pl.DataFrame | None:
    """A frame that `save` kept; None if there is none."""
    place = customer_folder(home, as_of) / f"{name}.parquet"
    return pl.read_parquet(place, hive_partitioning=False) if place.exists() else None


def plans_before(home: Home, as_of: date, days: int, name: str) -> list[pl.DataFrame]:
    """Frames that `save` kept on up to `days` days before `as_of`."""
    past = (as_of - timedelta(days=k) for k in range(days, 0, -1))
    return [frame for day in past if (frame := load(home, day, name)) is not None]


def load_facts(home: Home, as_of: date, name: str) -> dict[str, Any] | None:
    """The facts that `save` kept."""
    return _read_json(customer_folder(home, as_of) / f"{name}.json")


def withdraw(home: Home, as_of: date, reason: str) -> None:
    """Notes why nothing was decided about customers on a day, and withdraws what was before."""
    folder = customer_folder(home, as_of)
    for stale in sorted(folder.glob("*")) if folder.exists() else []:
        stale.unlink()
    write_json({"reason": reason}, folder / "skipped.json")


def skipped(home: Home, as_of: date) -> str | None:
    """Why nothing was decided about customers; None if something was."""
    facts = _read_json(customer_folder(home, as_of) / "skipped.json")
    return str(facts["reason"]) if facts else None


def unskip(home: Home, as_of: date) -> None:
    """Something can be decided again."""
    (customer_folder(home, as_of) / "skipped.json").unlink(missing_ok=True)


def customer_accounts(home: Home, as_of: date) -> list[pl.DataFrame]:
    """Ledger rows of a day's customer decisions that have a price: offers (one account an offer) and staffing."""
    from npq_assets.evaluation.ledger import ledger_rows

    if skipped(home, as_of) is not None:
        return []
    found = []
    for kind, name, facts_name in (
        ("offers_sent", "offer_accounts", "offers"),
        ("service_staffing", "service_staffing", "service_staffing"),
    ):
        frame, facts = load(home, as_of, name), load_facts(home, as_of, facts_name)
        if frame is not None and facts is not None and not frame.is_empty():
            found.append(ledger_rows("retail", kind, frame, facts))
    return found


def other_decisions(home: Home, table: Table, as_of: date, days: int, columns: list[str]) -> pl.DataFrame:
    """Rows of a customer decision table of up to `days` days before and after `as_of`, under pseudonyms, with as_of.

    Later days count as well: a day that is decided again must not send what was sent, or exceed a limit, with them. Of messages
    and offers, those that were `carried_out`.
    """
    asked, columns = columns, [*columns, *(["control"] if table is OFFERS else [])]
    frames = []
    for day in (as_of + timedelta(days=k) for k in range(-days, days + 1) if k):
        place = home.decisions(table.domain, table.name, day)
        if place.exists():
            frames.append(pl.read_parquet(place, hive_partitioning=False, columns=["customer_id", "as_of", *columns]))
    schema: dict[str, Any] = {KEY: pl.String, "as_of": pl.Date, **{name: table.schema[name] for name in columns}}
    if not frames:
        return pl.DataFrame(schema=schema)
    key = secret(home)
    rows = pl.concat(frames)
    ids = rows["customer_id"].unique().to_list()
    links = {customer: pseudonym(key, customer) for customer in ids}
    named = (
        rows.with_columns(pl.col("customer_id").replace_strict(links, return_dtype=pl.String).alias(KEY))
        if ids
        else None
    )
    if named is None:
        return pl.DataFrame(schema=schema).drop(set(columns) - set(asked))
    if table in (MESSAGES, OFFERS):
        named = carried_out(home, named)
    return named.select(KEY, "as_of", *asked)


def carried_out(home: Home, rows: pl.DataFrame) -> pl.DataFrame:
    """Decided messages or offers that count as sent.

    In a dry run all of them: others may act on the decision files, and the plan that is shown keeps its limits. Where npq hands
    messages on itself, those that left or wait to, offers by their message, so that nothing planned in a dry run before stands in
    the way; controls count with the offers of their day.

    Args:
        home: The home.
        rows: customer_key, as_of, and message_id (of messages) or offer_id, control (of offers).
    """
    if not home.settings.publish or rows.is_empty():
        return rows
    known = "message_id" in rows.columns
    ids = None if known else [message_id("offer", *pair) for pair in rows.select(KEY, "offer_id").iter_rows()]
    numbered = rows.with_row_index("__row")
    if ids is not None:
        numbered = numbered.with_columns(pl.Series("message_id", ids, dtype=pl.String))
    found = numbered.join(on_the_way(home), on="message_id", how="inner")
    # Of what left before days were noted, any day may be the one.
    inside = pl.col("as_of").is_between("since", "until").fill_null(True)
    # It left once: a dry run may have decided the same the day before.
    numbers = found.filter(inside).sort("as_of").unique("message_id", keep="last")["__row"]
    numbered = numbered.with_columns(pl.col("__row").is_in(numbers.implode()).alias("__left"))
    if not known:
        any_left = pl.col("__left").any().over("offer_id", "as_of")
        numbered = numbered.with_columns(pl.col("__left") | (pl.col("control").fill_null(False) & any_left))
    return numbered.filter("__left").select(rows.columns)


def earlier_recommendations(home: Home, anchor: date, weeks: int) -> pl.DataFrame:
    """What the first decided day of each of the last `weeks` weeks recommended, and to whom it was not shown.

    Returns:
        customer_key, product_id, control, as_of.
    """
    frames = []
    for back in range(1, weeks + 1):
        monday = anchor - timedelta(days=7 * back)
        for day in (monday + timedelta(days=k) for k in range(7)):
            rows = load(home, day, "recommendations")
            if rows is not None and "control" in rows.columns:
                frames.append(rows.select(KEY, "product_id", "control", "as_of"))
                break
    schema = {KEY: pl.String, "product_id": pl.String, "control": pl.Boolean, "as_of": pl.Date}
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def _read_json(place: Path) -> dict[str, Any] | None:
    if not place.exists():
        return None
    content: dict[str, Any] = json.loads(place.read_text())
    return content
