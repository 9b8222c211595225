"""Files that come again, rows that are put right, products that land late, processes that are killed."""

import hashlib
import os
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.ingestion import balances, ingest, store, validate
from npq_assets.settings import Home
from tests.ingestion.test_rules import HEADER, land, quarantine, raw

SALES = [LANDING["retail.sales"]]
BOTH = [LANDING["common.products"], LANDING["common.sites"], *SALES]


def tree(folder: Path) -> dict[str, str]:
    """Content of every file below a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def quantities(home: Home) -> dict[str, float]:
    return dict(raw(home, "retail.sales").select("product_id", "quantity").sort("product_id").iter_rows())


def test_a_later_file_puts_a_row_right(home: Home) -> None:
    land(home, "retail.sales", "b.csv", HEADER + "2024-04-01,s,p,1,,\n2024-04-01,s,q,5,,\n", mtime=100)
    land(home, "retail.sales", "a.csv", HEADER + "2024-04-01,s,p,2,,\n", mtime=200)
    balance = ingest(home, SALES)["retail.sales"]
    assert quantities(home) == {"p": 2.0, "q": 5.0}
    assert (balance.landed, balance.accepted, balance.superseded, balance.quarantined) == (3, 2, 1, 0)


def test_the_same_file_again_changes_nothing_and_undoes_no_correction(home: Home) -> None:
    first = HEADER + "2024-04-01,s,p,1,,\n2024-04-01,s,q,oops,,\n"
    land(home, "retail.sales", "1.csv", first, mtime=100)
    ingest(home, SALES)
    land(home, "retail.sales", "2.csv", HEADER + "2024-04-01,s,p,2,,\n", mtime=200)
    ingest(home, SALES)
    before = (home.root / "raw/retail/sales.parquet").read_bytes()
    land(home, "retail.sales", "3.csv", first, mtime=300)
    os.utime(home.landing / "retail/sales/1.csv", (400, 400))
    balance = ingest(home, SALES)["retail.sales"]
    assert (home.root / "raw/retail/sales.parquet").read_bytes() == before
    assert quantities(home) == {"p": 2.0}
    assert balance.holds and (balance.accepted, balance.quarantined) == (1, 1)


def test_a_file_overwritten_in_place_loses_nothing(home: Home) -> None:
    land(home, "retail.sales", "now.csv", HEADER + "2024-04-01,s,p,1,,\n", mtime=100)
    ingest(home, SALES)
    land(home, "retail.sales", "now.csv", HEADER + "2024-04-02,s,q,2,,\n", mtime=200)
    assert ingest(home, SALES)["retail.sales"].accepted == 2
    (home.landing / "retail/sales/now.csv").unlink()
    assert ingest(home, SALES)["retail.sales"].accepted == 2


def test_two_rows_of_a_key_in_one_file(home: Home) -> None:
    land(home, "retail.sales", "a.csv", HEADER + "2024-04-01,s,p,1,,\n2024-04-01,s,p,1,,\n2024-04-01,s,p,7,,\n")
    balance = ingest(home, SALES)["retail.sales"]
    assert quantities(home) == {"p": 1.0}
    assert (balance.accepted, balance.superseded, balance.quarantined) == (1, 1, 1)
    assert "the same key as line 2, with other values" in quarantine(home, "retail.sales")["reason"][0]


def test_a_row_comes_back_when_its_product_lands(home: Home) -> None:
    land(home, "common.sites", "s.csv", "site_id,kind\ns,store\n")
    land(home, "common.products", "p.csv", "product_id,name,family,unit_cost\np,P,f,1\n")
    land(home, "retail.sales", "a.csv", HEADER + "2024-04-01,s,p,1,,\n2024-04-01,s,q,5,,\n2024-04-01,t,p,1,,\n")
    balance = ingest(home, BOTH)["retail.sales"]
    assert (balance.accepted, balance.quarantined) == (1, 2)
    assert balance.reasons == {"product_id: not in common.products": 1, "site_id: not in common.sites": 1}
    land(home, "common.products", "q.csv", "product_id,name,family,unit_cost\nq,Q,f,1\n")
    balance = ingest(home, BOTH)["retail.sales"]
    assert quantities(home) == {"p": 1.0, "q": 5.0}
    assert balance.holds and balance.quarantined == 1
    assert quarantine(home, "retail.sales")["line"].to_list() == ["4"]


def test_a_correction_that_leads_nowhere_does_not_supersede(home: Home) -> None:
    land(
        home,
        "manufacturing.customer_orders",
        "1.csv",
        "order_id,product_id,quantity,ordered_on,due_on\no,p,1,2024-04-01,2024-04-09\n",
        mtime=1,
    )
    land(
        home,
        "manufacturing.customer_orders",
        "2.csv",
        "order_id,product_id,quantity,ordered_on,due_on\no,x,2,2024-04-01,2024-04-09\n",
        mtime=2,
    )
    land(home, "common.products", "p.csv", "product_id,name,family,unit_cost\np,P,f,1\n")
    tables = [LANDING["common.products"], LANDING["manufacturing.customer_orders"]]
    balance = ingest(home, tables)["manufacturing.customer_orders"]
    assert (balance.accepted, balance.superseded, balance.quarantined) == (1, 0, 1)
    assert raw(home, "manufacturing.customer_orders")["product_id"].to_list() == ["p"]


def test_without_master_data_nothing_is_checked_against_it(home: Home) -> None:
    land(home, "retail.sales", "a.csv", HEADER + "2024-04-01,s,p,1,,\n")
    assert ingest(home)["retail.sales"].accepted == 1


def test_a_file_still_being_written_is_left_for_the_next_time(home: Home) -> None:
    place = land(home, "retail.sales", "a.csv", HEADER)
    with place.open("a") as handle:
        handle.write("2024-04-01,s,p,1")
        handle.flush()
        balance = ingest(home, SALES)["retail.sales"]
        assert (balance.files, balance.waiting_files) == (0, 1)
        handle.write(",,\n")
    assert ingest(home, SALES)["retail.sales"].accepted == 1


def test_temporary_and_foreign_files_are_passed_over_aloud(home: Home) -> None:
    for name in (".a.csv", "~$a.csv", "a.csv.tmp", "a.csv.part"):
        land(home, "retail.sales", name, HEADER)
    land(home, "retail.sales", "a.xlsx", "x")
    land(home, "retail.pricing", "a.csv", "x")
    said: list[str] = []
    balance = ingest(home, SALES, said.append)["retail.sales"]
    assert balance.files == 0
    assert len(said) == 2 and "a.xlsx" in " ".join(said) and "pricing" in " ".join(said)


def test_validate_counts_the_same_and_changes_nothing(home: Home) -> None:
    land(home, "retail.sales", "1.csv", HEADER + "2024-04-01,s,p,1,,\n2024-04-01,s,q,-1,,\n", mtime=1)
    ingest(home)
    land(home, "retail.sales", "2.csv", HEADER + "2024-04-01,s,p,3,,\n", mtime=2)
    before = tree(home.root)
    expected = validate(home)["retail.sales"]
    assert tree(home.root) == before
    found = ingest(home)["retail.sales"]
    for name in ("files", "landed", "accepted", "superseded", "quarantined", "unreadable_files", "reasons"):
        assert getattr(expected, name) == getattr(found, name)
    assert balances(home)["retail.sales"].accepted == found.accepted


def company(home: Home) -> None:
    land(home, "common.sites", "s.csv", "site_id,kind\ns,store\n", mtime=1)
    land(home, "common.products", "p.csv", "product_id,name,family,unit_cost\np,P,f,1\nq,Q,f,x\n", mtime=2)
    land(home, "retail.sales", "1.csv", HEADER + "2024-04-01,s,p,1,,\n2024-04-01,s,q,5,,\n", mtime=3)
    land(home, "retail.sales", "2.csv", HEADER + "2024-04-01,s,p,2,,\nbroken\n", mtime=4)
    land(home, "retail.sales", "3.csv", "nothing", mtime=5)


def test_killed_at_any_write_the_next_run_arrives_at_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = Home.at(tmp_path / "calm")
    company(calm)
    ingest(calm, BOTH)
    wanted = tree(calm.raw) | tree(calm.quarantine)
    real = os.replace
    for survives in range(60):
        home = Home.at(tmp_path / f"killed{survives}")
        company(home)
        left = [survives]

        def replace(source: object, target: object, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(source, target)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "replace", replace)
        try:
            ingest(home, BOTH)
            finished = True
        except KeyboardInterrupt:
            finished = False
        monkeypatch.setattr(os, "replace", real)
        ingest(home, BOTH)
        assert tree(home.raw) | tree(home.quarantine) == wanted, f"killed at write {survives}"
        if finished:
            return
    raise AssertionError("never got through")


def test_a_new_format_of_parts_is_parsed_anew(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    company(home)
    ingest(home, BOTH)
    before = raw(home, "retail.sales")
    monkeypatch.setattr(store, "_FORMAT", "other")
    assert ingest(home, BOTH)["retail.sales"].holds
    assert raw(home, "retail.sales").equals(before)


def test_many_files_of_one_table_are_one_table(home: Home) -> None:
    for day in range(1, 29):
        land(home, "retail.sales", f"{day}.csv", HEADER + f"2024-04-{day:02d},s,p,{day},,\n")
    assert ingest(home, SALES)["retail.sales"].accepted == 28
    assert raw(home, "retail.sales")["quantity"].sum() == sum(range(1, 29))
    assert raw(home, "retail.sales").filter(pl.col("source_line") != 2).is_empty()
