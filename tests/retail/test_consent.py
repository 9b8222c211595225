"""A withdrawal that stands in a quarantined row is not lost: who may have taken back their consent is not written to."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.ingestion import ingest
from npq_assets.retail.consent import in_doubt, write_in_doubt
from npq_assets.retail.mail import addressees, without_address
from npq_assets.retail.privacy import forget, pseudonym, secret, write_pseudonyms
from npq_assets.settings import Home
from npq_assets.storage import write_parquet
from tests.ingestion.test_rules import land

TABLES = [LANDING["retail.customers"], LANDING["retail.message_replies"]]
HEAD = "customer_id,marketing_consent,email,joined_on\n"
FIRST = HEAD + "".join(f"C{k},yes,c{k}@example.org,\n" for k in range(1, 7))
REPLIES = "message_id,customer_id,kind,replied_at\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path)
    land(home, "retail.customers", "a.csv", FIRST, mtime=1_700_000_000)
    ingest(home, TABLES)
    return home


def written_to(home: Home) -> list[str]:
    ingest(home, TABLES)
    people = addressees(home).filter(pl.col("marketing_consent").fill_null(False))
    return people["customer_id"].sort().to_list()


@pytest.mark.parametrize(
    ("newer", "left"),
    [
        (HEAD + "C1,no,c1@example.org,soon\nC2,yes,,\n", "C2 C3 C4 C5 C6"),  # another column is broken
        (HEAD + "C1,no,c1@example.org\n", "C2 C3 C4 C5 C6"),  # the row is torn
        (HEAD + 'C1,no,"c1@example.org,\nC2,yes,,\n', "C2 C3 C4 C5 C6"),  # a quote that is never closed
        ("customer_id;joined_on;marketing_consent\nC1;soon;no\n", "C2 C3 C4 C5 C6"),
        (HEAD + "X9,no,,soon\n", "C1 C2 C3 C4 C5 C6"),  # of nobody known
    ],
)
def test_a_quarantined_row_ends_an_older_yes_until_a_good_row_lands(home: Home, newer: str, left: str) -> None:
    land(home, "retail.customers", "b.csv", newer, mtime=1_700_000_100)
    assert written_to(home) == left.split()
    assert in_doubt(home)["customer_id"].unique().to_list() == (["C1"] if "C1" not in left else [])
    land(home, "retail.customers", "c.csv", HEAD + "C1,yes,,\n", mtime=1_700_000_200)
    assert written_to(home) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert in_doubt(home).is_empty()


def test_who_is_in_doubt_is_named_by_pseudonym_where_forgetting_reaches(home: Home) -> None:
    land(home, "retail.customers", "b.csv", HEAD + "C1,no,,soon\n", mtime=1_700_000_100)
    ingest(home, TABLES)
    write_pseudonyms(home)
    write_in_doubt(home)
    place = home.root / "personal/consent_in_doubt.csv"
    assert pseudonym(secret(home), "C1") in place.read_text() and "C1," not in place.read_text()
    assert place.stat().st_mode & 0o077 == 0
    assert forget(home, "C1").found == []
    ingest(home, TABLES)
    assert write_in_doubt(home).is_empty() and not place.exists()


def test_a_broken_row_beside_a_good_one_in_the_same_file_counts_and_an_older_one_does_not(home: Home) -> None:
    land(home, "retail.customers", "b.csv", HEAD + "C1,yes,,\nC1,no,,soon\nC2,no,,soon\n", mtime=1_700_000_100)
    land(home, "retail.customers", "c.csv", HEAD + "C2,yes,,\n", mtime=1_700_000_200)
    assert written_to(home) == ["C2", "C3", "C4", "C5", "C6"]
    # The same broken bytes again are no news.
    land(home, "retail.customers", "d.csv", HEAD + "C1,yes,,\nC1,no,,soon\nC2,no,,soon\n", mtime=1_700_000_300)
    assert "C2" in written_to(home)


def test_a_quarantined_row_of_another_file_type_counts_as_well(home: Home) -> None:
    place = home.landing / "retail/customers/b.parquet"
    pl.DataFrame({"joined_on": ["soon"], "customer_id": ["C3"], "marketing_consent": [False]}).write_parquet(place)
    assert written_to(home) == ["C1", "C2", "C4", "C5", "C6"]


def test_a_quarantined_reply_that_says_stop_or_nothing_readable_counts(home: Home) -> None:
    at = "2025-01-01T10:00:00Z"
    rows = f"m1,C1,unsubscribed,yesterday\n,C2,bounced,{at}\nm3,C3,unsubscribd,{at}\nm4,C4,opened,yesterday\nm5,C5,opened\n"
    land(home, "retail.message_replies", "r.csv", REPLIES + rows, mtime=1_700_000_100)
    assert written_to(home) == ["C4", "C5", "C6"]
    # One id for two people: the second row is quarantined for it.
    more = f"m6,C5,unsubscribed,{at}\nm6,C6,unsubscribed,{at}\nm3,C3,clicked,{at}\nm1,C1,opened,{at}\n"
    land(home, "retail.message_replies", "s.csv", REPLIES + more, mtime=1_700_000_200)
    assert written_to(home) == ["C3", "C4"]


def test_a_reply_that_names_nobody_is_of_whom_its_message_was_for(home: Home) -> None:
    place = home.decision_folder("retail", "messages") / "as_of=2025-01-01" / "messages.parquet"
    write_parquet(pl.DataFrame({"message_id": ["m9", "m8"], "customer_id": ["C2", "C3"]}), place)
    at = "2025-01-01T10:00:00Z"
    rows = f"m9,,unsubscribed,{at}\nm8,,opened,{at}\nm7,,bounced,{at}\n"
    land(home, "retail.message_replies", "r.csv", REPLIES + rows, mtime=1_700_000_100)
    assert written_to(home) == ["C1", "C3", "C4", "C5", "C6"]
    (home.landing / "retail/message_replies/r.csv").unlink()
    assert forget(home, "C6").found == []
    assert written_to(home) == ["C1", "C3", "C4", "C5"]


def test_who_agrees_and_has_no_address_is_counted(home: Home) -> None:
    land(home, "retail.customers", "b.csv", HEAD + "C1,yes,,\nC2,no,,\n", mtime=1_700_000_100)
    assert len(written_to(home)) == 5 and without_address(addressees(home)) == 1


NO = HEAD + "C1,no,c1@example.org,\n"
BROKEN = HEAD + "C1,no,c1@example.org,soon\n"


@pytest.mark.parametrize("newer", [NO, BROKEN])
@pytest.mark.parametrize("gone", [(), ("a.csv",), ("b.csv",), ("a.csv", "b.csv")])
def test_forgetting_somebody_else_brings_no_consent_back(home: Home, newer: str, gone: tuple[str, ...]) -> None:
    land(home, "retail.customers", "b.csv", newer, mtime=1_700_000_100)
    assert written_to(home) == ["C2", "C3", "C4", "C5", "C6"]
    for name in gone:
        (home.landing / "retail/customers" / name).unlink()
    assert written_to(home) == ["C2", "C3", "C4", "C5", "C6"]
    assert forget(home, "C2").found == []
    assert written_to(home) == ["C3", "C4", "C5", "C6"]
    # And again: what landed anew is in the old order as well.
    assert forget(home, "C3").found == []
    assert written_to(home) == ["C4", "C5", "C6"]
    land(home, "retail.customers", "c.csv", HEAD + "C1,yes,c1@example.org,\n")
    assert written_to(home) == ["C1", "C4", "C5", "C6"]


def test_forgetting_keeps_the_order_of_copies_and_of_files_written_over(home: Home) -> None:
    at = "2025-01-01T10:00:00Z"
    land(home, "retail.message_replies", "r.csv", REPLIES + f"m1,C1,unsubscribed,{at}\n", mtime=1_700_000_100)
    assert written_to(home) == ["C2", "C3", "C4", "C5", "C6"]
    land(home, "retail.message_replies", "r.csv", REPLIES + f"m2,C2,opened,{at}\n", mtime=1_700_000_200)
    land(home, "retail.customers", "b.csv", HEAD + "C4,no,,\n", mtime=1_700_000_200)
    assert written_to(home) == ["C2", "C3", "C5", "C6"]
    # The old file once more under another name is no news, now or later.
    land(home, "retail.customers", "c.csv", FIRST, mtime=1_700_000_300)
    (home.landing / "retail/customers/a.csv").unlink()
    assert written_to(home) == ["C2", "C3", "C5", "C6"]
    forget(home, "C6")
    assert written_to(home) == ["C2", "C3", "C5"]


@pytest.mark.parametrize("name", ["r.csv", "s.csv"])
def test_a_home_of_an_older_format_keeps_what_was_taken_back(home: Home, name: str) -> None:
    at = "2025-01-01T10:00:00Z"
    land(home, "retail.message_replies", "r.csv", REPLIES + f"m1,C1,unsubscribed,{at}\n", mtime=1_700_000_100)
    gone = land(home, "retail.customers", "b.csv", HEAD + "C2,no,,\n", mtime=1_700_000_100)
    assert written_to(home) == ["C3", "C4", "C5", "C6"]
    gone.unlink()
    land(home, "retail.message_replies", name, REPLIES + f"m3,C3,opened,{at}\n", mtime=1_700_000_200)
    assert written_to(home) == ["C3", "C4", "C5", "C6"]
    for table in TABLES:
        place = home.raw / ".state" / f"{table.full_name}.json"
        state = json.loads(place.read_text())
        place.write_text(json.dumps(state | {"format": state["format"].partition(":")[0]}))
    assert written_to(home) == ["C3", "C4", "C5", "C6"]


def test_doubts_that_are_gone_are_found_again(home: Home) -> None:
    rows = REPLIES + "m1,C1,unsubscribed,yesterday\n"
    land(home, "retail.message_replies", "r.csv", rows, mtime=1_700_000_100)
    assert written_to(home) == ["C2", "C3", "C4", "C5", "C6"]
    (home.raw / ".doubts/retail.message_replies.parquet").unlink()
    assert written_to(home) == ["C2", "C3", "C4", "C5", "C6"]


def test_who_was_forgotten_and_lands_again_is_in_no_list_of_doubts(home: Home) -> None:
    ingest(home, TABLES)
    write_pseudonyms(home)
    forget(home, "C1")
    land(home, "retail.customers", "b.csv", FIRST, mtime=1_700_000_100)
    land(home, "retail.customers", "c.csv", BROKEN, mtime=1_700_000_200)
    ingest(home, TABLES)
    assert in_doubt(home).height == 1 and write_in_doubt(home).is_empty()
    assert not (home.root / "personal/consent_in_doubt.csv").exists()


@pytest.mark.parametrize("name", ["b.csv", "d.csv"])
def test_a_no_counts_also_if_the_very_same_file_said_it_before(home: Home, name: str) -> None:
    everybody = ["C1", "C2", "C3", "C4", "C5", "C6"]
    land(home, "retail.customers", "b.csv", NO, mtime=1_700_000_100)
    assert written_to(home) == everybody[1:]
    yes = land(
        home, "retail.customers", "b.csv" if name == "b.csv" else "c.csv", HEAD + "C1,yes,,\n", mtime=1_700_000_200
    )
    assert written_to(home) == everybody and in_doubt(home).is_empty()
    land(home, "retail.customers", name, NO, mtime=1_700_000_300)
    assert written_to(home) == everybody[1:]
    forget(home, "C6")
    everybody.remove("C6")
    assert written_to(home) == everybody[1:]
    # A yes of before is no news, whichever way it comes again.
    if name != yes.name:
        land(home, "retail.customers", "e.csv", HEAD + "C1,yes,,\n", mtime=1_700_000_400)
        assert written_to(home) == everybody[1:]
    land(home, "retail.customers", "f.csv", HEAD + "C1,yes,c1@example.org,\n", mtime=1_700_000_500)
    assert written_to(home) == everybody and in_doubt(home).is_empty()


def test_the_same_export_again_puts_nobody_in_doubt(home: Home) -> None:
    land(home, "retail.customers", "b.csv", FIRST.replace("C1,yes", "C1,no"), mtime=1_700_000_100)
    land(home, "retail.customers", "c.csv", FIRST.replace("C1,yes", "C1,no"), mtime=1_700_000_200)
    assert written_to(home) == ["C2", "C3", "C4", "C5", "C6"] and in_doubt(home).is_empty()
