"""Customers without names: a keyed pseudonym for everything that is computed, and the way to forget a customer for good.

Pseudonyms are HMAC-SHA256 of the customer id under a secret of the home; only `<home>/personal` links the two. Marts, plans,
reports and logs hold pseudonyms; decision files name the customer, since somebody must act on them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from npq_assets.contracts import LANDING, Kind, Table
from npq_assets.errors import NpqError
from npq_assets.ingestion.store import AGAIN, stands
from npq_assets.retail.traces import Wanted, holds, without
from npq_assets.settings import Home
from npq_assets.storage import replacing, write_parquet

KEY = "customer_key"
PERSONAL_TABLES = tuple(
    table
    for table in LANDING.values()
    if any(column.personal and column.name == "customer_id" for column in table.columns)
)
# Derived folders that are deleted whole; plans lose rows only, since accounts of earlier orders are settled from them.
_DERIVED = ("marts", "warehouse", "docs")
# Between the dates of files that land again (nanoseconds).
_APART = 1_000_000
_BY_ROW = ("decisions", "outbox", "personal", "plans", "forecasts", "reports")


def personal_folder(home: Home) -> Path:
    """The one folder that links pseudonyms to customers; readable by its owner only."""
    folder = home.root / "personal"
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    return folder


def secret(home: Home) -> bytes:
    """The home's secret, made when first needed. Without it no pseudonym can be traced or repeated.

    Raises:
        NpqError: It is gone or damaged while things stand that only it can read: with a new one, who was forgotten would be known
            again, and who was written to would be written to once more.
    """
    place = personal_folder(home) / "secret.key"
    if not place.exists():
        needed = [p for p in (forgotten_place(home), place.parent / "messages_left.parquet") if p.exists()]
        if needed:
            names = " and ".join(p.name for p in needed)
            raise NpqError(f"{place}: gone, but {names} can be read with it only; put it back from a copy")
        with replacing(place) as temporary:
            temporary.write_text(secrets.token_hex(32))
        os.chmod(place, 0o600)
    try:
        key = bytes.fromhex(place.read_text().strip())
    except ValueError:
        key = b""
    if len(key) < 16:
        raise NpqError(f"{place}: holds no key of at least 32 hex digits; put it back from a copy")
    return key


def pseudonym(key: bytes, customer_id: str) -> str:
    """HMAC-SHA256 of the id, 20 hex digits (RFC 2104)."""
    return hmac.new(key, customer_id.encode(), hashlib.sha256).hexdigest()[:20]


def pseudonyms_place(home: Home) -> Path:
    """The file that links them: customer_id, customer_key."""
    return personal_folder(home) / "pseudonyms.parquet"


def write_pseudonyms(home: Home) -> int:
    """Writes the pseudonym of every customer that any accepted row names; returns how many there are.

    Who was forgotten and has landed again gets none, so that no mart, model or decision knows of them (see `returned`).
    """
    key = secret(home)
    ordered = sorted(set(_named(home)) - set(returned(home)))
    frame = pl.DataFrame(
        {"customer_id": ordered, KEY: [pseudonym(key, customer_id) for customer_id in ordered]},
        schema={"customer_id": pl.String, KEY: pl.String},
    )
    if frame[KEY].n_unique() != frame.height:
        raise NpqError(f"{personal_folder(home)}: two customers share a pseudonym; delete secret.key and run again")
    write_parquet(frame, pseudonyms_place(home))
    os.chmod(pseudonyms_place(home), 0o600)
    return frame.height


def _named(home: Home) -> dict[str, str]:
    """Customers that any accepted row names, each with one file that does."""
    found: dict[str, str] = {}
    for table in PERSONAL_TABLES:
        place = home.raw_table(table.domain, table.name)
        if place.exists():
            rows = pl.scan_parquet(place).drop_nulls("customer_id")
            where = pl.col("source_file").min() if "source_file" in rows.collect_schema() else pl.lit(place.name)
            for customer_id, file in rows.group_by("customer_id").agg(where.alias("file")).collect().iter_rows():
                found.setdefault(customer_id, file)
    return found


def forgotten_place(home: Home) -> Path:
    """The file that knows who was forgotten, by a mark that leads nobody back to them: mark."""
    return home.root / "personal" / "forgotten.parquet"


def _mark(key: bytes, customer_id: str) -> str:
    # Not the pseudonym, so that the mark links to nothing that was computed.
    return pseudonym(key, f"forgotten\0{customer_id}")


def _marks(home: Home) -> set[str]:
    place = forgotten_place(home)
    return set(pl.read_parquet(place)["mark"].to_list()) if place.exists() else set()


def _keep_marks(home: Home, marks: set[str]) -> None:
    personal_folder(home)
    write_parquet(pl.DataFrame({"mark": sorted(marks)}, schema={"mark": pl.String}), forgotten_place(home))
    os.chmod(forgotten_place(home), 0o600)


def returned(home: Home) -> dict[str, str]:
    """Customers who were forgotten and have landed again, as after a later export, each with a file that names them."""
    marks = _marks(home)
    if not marks:
        return {}
    key = secret(home)
    return {name: file for name, file in sorted(_named(home).items()) if _mark(key, name) in marks}


def readmit(home: Home, customer_id: str) -> None:
    """Lets a customer who was forgotten, and has come back by their own will, be known again by the rows that land from now on.

    Raises:
        NpqError: Nobody of that id was forgotten.
    """
    marks = _marks(home)
    mark = _mark(secret(home), customer_id.strip()) if marks else ""
    if mark not in marks:
        raise NpqError(f"{home.root}: nobody of this id was forgotten; check the id")
    _keep_marks(home, marks - {mark})


def identified(home: Home, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with customer_id in place of customer_key, for decision files."""
    links = pl.read_parquet(pseudonyms_place(home))
    return frame.join(links, on=KEY, how="inner", maintain_order="left").drop(KEY)


def contacts(home: Home) -> pl.DataFrame:
    """customer_id, email of those who gave one: read where a message leaves, kept nowhere."""
    place = home.raw_table("retail", "customers")
    if not place.exists():
        return pl.DataFrame(schema={"customer_id": pl.String, "email": pl.String})
    frame = pl.read_parquet(place)
    if "email" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("email"))
    return frame.select("customer_id", "email").drop_nulls()


# --- forgetting ----------------------------------------------------------------------------------------------------------


@dataclass
class Forgotten:
    """What was removed, and the proof that nothing is left.

    Attributes:
        rows: Rows removed, by place below the home.
        deleted: Files and folders removed whole; the next run makes them anew.
        searched: Files searched afterwards.
        found: Files in which the id or the pseudonym still stands; empty if it worked.
        everywhere: Whether the id was searched for in all text; a plain number only where it can mean a customer.
    """

    rows: dict[str, int] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    searched: int = 0
    found: list[str] = field(default_factory=list)
    everywhere: bool = True

    def as_text(self) -> str:
        """For people; names nobody."""
        lines = [f"{count:>8} rows removed from {place}" for place, count in sorted(self.rows.items())]
        lines += [f"{'':>8} removed {place}, which the next run makes anew" for place in sorted(self.deleted)]
        verdict = "nothing is left" if not self.found else f"STILL FOUND in {', '.join(self.found)}"
        where = (
            ""
            if self.everywhere
            else " (the id, a number or short, in columns of customers and beside the word customer)"
        )
        return "\n".join([*lines, f"searched {self.searched} files for the id and the pseudonym{where}: {verdict}"])


def forget(home: Home, customer_id: str) -> Forgotten:
    """Removes every trace of a customer from landing files to decisions, and proves it by searching all that is left.

    Rows go from landing files, decisions, plans and the outbox, messages as a whole; what is derived from landing files (raw
    tables, quarantine, marts, warehouse) is deleted and made anew by the next run, without the customer.

    Raises:
        NpqError: The id is empty, or nobody of that id is known here.
    """
    from npq_assets.orchestration import home_lock

    customer_id = customer_id.strip()
    if not customer_id:
        raise NpqError("npq forget: the customer id is empty; give one")
    with home_lock(home):
        # Before anything is removed: a key that is gone must not leave what only it can find.
        key = pseudonym(secret(home), customer_id)
        words = {*([key] if key else []), *_emails(home, customer_id), *_message_ids(home, customer_id)}
        wanted = Wanted(customer_id, frozenset(words))
        if not _traces(home, wanted)[1]:
            raise NpqError(f"{home.root}: no trace of this customer; check the id")
        done = Forgotten(everywhere=wanted.distinct)
        # The store's memory holds parsed rows; it is built again from the landing files that are left.
        _land_what_has_no_file(home)
        _from_folders(home, ("landing",), Wanted(customer_id, frozenset()), done)
        _from_folders(home, _BY_ROW, wanted, done)
        if pseudonyms_place(home).exists():
            os.chmod(pseudonyms_place(home), 0o600)
        for name in _DERIVED:
            if (home.root / name).exists():
                shutil.rmtree(home.root / name)
                done.deleted.append(name)
        for name in ("raw", "quarantine"):
            if (home.root / name).exists():
                shutil.rmtree(home.root / name)
                done.deleted.append(name)
        done.searched, done.found = _traces(home, wanted)
        _keep_marks(home, _marks(home) | {_mark(secret(home), customer_id)})
    return done


def forget_returned(home: Home) -> list[Forgotten]:
    """Forgets those again who were forgotten and have landed since."""
    return [forget(home, customer_id) for customer_id in returned(home)]


def _land_what_has_no_file(home: Home) -> None:
    """Rows whose landing file is gone or was written over live on in the store only: they land again, in their old order.

    What is newer goes on to count: a consent that was taken back must not come back with the file that once gave it, and a broken
    row that may have taken one back stays in doubt.
    """
    for state in sorted((home.raw / ".state").glob("*.json")):
        table = LANDING.get(state.stem)
        if table is None or table.by_day:
            continue
        known = json.loads(state.read_text())
        later: tuple[int, str] | None = None
        for content in reversed(known["contents"]):
            names = dict.fromkeys([content["name"], *content.get("copies", [])])
            standing = [name for name in names if stands(home.landing, name, content["hash"], known["seen"])]
            if standing:
                landed = sorted(((home.landing / name).stat().st_mtime_ns, name) for name in standing)
                if later is not None and landed[0] >= later:
                    _land_at(home.landing / landed[0][1], later[0] - _APART)
                    later = (later[0] - _APART, landed[0][1])
                else:
                    later = landed[0]
                continue
            part = home.raw / ".parts" / table.domain / table.name / f"{content['hash']}.good.parquet"
            frames = {"doubt": _broken_again(home, table, pl.col("file") == content["name"])} if table.doubt else {}
            if part.exists():
                rows = pl.read_parquet(part, hive_partitioning=False)
                frames["rows"] = rows.select(name for name in rows.columns if not name.startswith("__"))
            for kind, rows in frames.items():
                if rows.is_empty():
                    continue
                place = home.landing / table.domain / table.name / f"recovered-{content['hash']}-{kind}.parquet"
                write_parquet(rows, place)
                moment = (later[0] if later is not None else place.stat().st_mtime_ns) - _APART
                _land_at(place, moment)
                later = (moment, place.relative_to(home.landing).as_posix())
        # After all others: no good row has landed since, else these were lifted.
        if table.doubt and not (rows := _broken_again(home, table, pl.col("reason") == AGAIN)).is_empty():
            write_parquet(rows, home.landing / table.domain / table.name / "recovered-again.parquet")


def _broken_again(home: Home, table: Table, which: pl.Expr) -> pl.DataFrame:
    """What is known of rows that are in doubt, with a date that cannot be read: they break the contract as before."""
    place, people = home.raw / ".doubts" / f"{table.full_name}.parquet", home.raw_table("retail", "customers")
    told = list(table.told)
    if not place.exists() or not people.exists():
        return pl.DataFrame(schema=dict.fromkeys(told, pl.String))
    rows = pl.read_parquet(place).filter(which & ~pl.col("lifted"))
    # Of a torn row any word may be an id: only those of customers are kept.
    known = pl.read_parquet(people)["customer_id"]
    rows = rows.filter(pl.col("customer_id").is_null() | pl.col("customer_id").is_in(known.implode()))
    date_of = next(c.name for c in table.columns if c.kind in (Kind.DATE, Kind.TIMESTAMP))
    return rows.select(*told, pl.lit("not known").alias(date_of)).unique(maintain_order=True)


def _land_at(place: Path, moment: int) -> None:
    """Files count in the order of their dates."""
    os.utime(place, ns=(moment, moment))


def _emails(home: Home, customer_id: str) -> list[str]:
    """Addresses that are the customer's alone: what a household shares stays with the others."""
    people = contacts(home)
    mine = pl.col("customer_id") == customer_id
    others = people.filter(~mine)["email"].unique().to_list()
    return people.filter(mine & ~pl.col("email").is_in(others))["email"].unique().to_list()


def _message_ids(home: Home, customer_id: str) -> list[str]:
    """Ids of the messages to the customer: a message that left is known by its id alone."""
    found: set[str] = set()
    for place in sorted(home.decision_folder("retail", "messages").glob("as_of=*/*.parquet")):
        rows = pl.read_parquet(place, hive_partitioning=False)
        found.update(rows.filter(pl.col("customer_id") == customer_id)["message_id"].to_list())
    return sorted(found)


def _from_folders(home: Home, names: tuple[str, ...], wanted: Wanted, done: Forgotten) -> None:
    for name in names:
        folder = home.root / name
        for place in sorted(p for p in folder.rglob("*") if p.is_file()) if folder.exists() else []:
            landed = place.stat().st_mtime_ns
            removed = 0 if place.name == "secret.key" else without(place, wanted)
            if removed:
                if name == "landing" and place.exists():
                    _land_at(place, landed)
                done.rows[place.relative_to(home.root).as_posix()] = removed


def _traces(home: Home, wanted: Wanted) -> tuple[int, list[str]]:
    """Searches every file of the home for the customer; returns files searched and those with a hit."""
    searched, found = 0, []
    for place in sorted(p for p in home.root.rglob("*") if p.is_file() and not p.is_symlink()):
        if place.name in ("secret.key", ".lock"):
            continue
        searched += 1
        if holds(place, wanted):
            found.append(place.relative_to(home.root).as_posix())
    return searched, found


__all__ = [
    "KEY",
    "PERSONAL_TABLES",
    "Forgotten",
    "contacts",
    "forget",
    "forget_returned",
    "identified",
    "pseudonym",
    "readmit",
    "returned",
    "secret",
    "write_pseudonyms",
]
