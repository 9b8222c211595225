"""No name reaches a mart, a plan, a report or a log; a customer who is forgotten is gone from landing to decisions."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.errors import NpqError
from npq_assets.ingestion import ingest
from npq_assets.retail.privacy import forget, forget_returned, pseudonym, readmit, returned, secret, write_pseudonyms
from npq_assets.settings import Home
from npq_assets.warehouse import dbt
from tests.conftest import Company

PERSONAL = {column.name for table in LANDING.values() for column in table.columns if column.personal} - {
    "marketing_consent"  # a permission that decisions need, not a description of the person
}


def test_models_outside_the_personal_schema_have_no_personal_column() -> None:
    for node in dbt.manifest()["nodes"].values():
        if node["resource_type"] == "model" and node["schema"] != "personal":
            assert not PERSONAL & set(node["columns"]), node["name"]


def test_whatever_names_a_person_is_staged_in_the_personal_schema() -> None:
    staged = {
        node["name"]: node["schema"] for node in dbt.manifest()["nodes"].values() if node["resource_type"] == "model"
    }
    for table in LANDING.values():
        if any(column.personal for column in table.columns):
            assert staged[f"stg_{table.domain}__{table.name}"] == "personal"


def test_marts_plans_and_reports_hold_no_customer(company: Company) -> None:
    home = company.home
    ids = set(pl.read_parquet(home.raw_table("retail", "customers"))["customer_id"].to_list())
    assert ids
    for folder in ("marts", "plans", "forecasts"):
        for place in sorted((home.root / folder).rglob("*.parquet")):
            frame = pl.read_parquet(place, hive_partitioning=False)
            assert not PERSONAL & set(frame.columns), place
            for name, kind in frame.schema.items():
                if kind == pl.String:
                    assert not ids & set(frame[name].to_list()), (place, name)
    some = sorted(ids)[:50]
    for folder in ("reports", "warehouse/logs"):
        for place in sorted(p for p in (home.root / folder).rglob("*") if p.is_file()):
            text = place.read_bytes().decode("utf-8", errors="replace")
            assert not any(f"{name}" in text for name in some), place


def test_the_link_between_names_and_pseudonyms_is_closed(company: Company) -> None:
    folder = company.home.root / "personal"
    assert folder.stat().st_mode & 0o077 == 0
    for place in folder.iterdir():
        assert place.stat().st_mode & 0o077 == 0


def test_pseudonyms_depend_on_the_secret() -> None:
    """RFC 4231, test case 2: HMAC-SHA256 with key "Jefe"."""
    assert pseudonym(b"Jefe", "what do ya want for nothing?") == "5bdcc146bf60754e6a04"
    assert pseudonym(b"a", "C1") != pseudonym(b"b", "C1")


def test_a_forgotten_customer_is_gone_everywhere_and_stays_gone(copied: Callable[[], Company]) -> None:
    from npq_assets.deciding import Decider

    copy = copied()
    home = copy.home
    baskets = pl.read_parquet(home.raw_table("retail", "baskets"))
    victim = str(baskets["customer_id"].value_counts(sort=True)["customer_id"][0])
    key = pseudonym(secret(home), victim)
    others = baskets.filter(pl.col("customer_id") != victim).height
    assert (pl.read_parquet(home.mart("retail", "customer_profile"))["customer_key"] == key).any()
    done = forget(home, victim)
    assert done.found == [] and done.searched > 50 and done.rows
    assert victim not in done.as_text() and key not in done.as_text()
    Decider(home, "retail").decide(copy.as_of)
    again = pl.read_parquet(home.raw_table("retail", "baskets"))
    assert again.height == others
    assert not (pl.read_parquet(home.mart("retail", "customer_profile"))["customer_key"] == key).any()
    segments = pl.read_parquet(home.decisions("retail", "customer_segments", copy.as_of))
    assert victim not in set(segments["customer_id"].to_list())
    with pytest.raises(NpqError, match="no trace"):
        forget(home, victim)


def lands(root: Path, name: str, text: str, zipped: bool = False) -> None:
    place = root / "landing/retail/customers" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())


def test_only_the_customer_goes_not_one_whose_id_contains_it(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    lands(tmp_path, "a.csv", 'customer_id,note\nC1,"two\nlines"\nC12,x\nXC1,y\n')
    lands(tmp_path, "b.csv.gz", "customer_id\nC1\nC3\n", zipped=True)
    pl.DataFrame({"customer_id": ["C1", "C4"]}).write_parquet(tmp_path / "landing/retail/customers/c.parquet")
    ingest(home, [LANDING["retail.customers"]])
    write_pseudonyms(home)
    done = forget(home, "C1")
    assert done.found == []
    ingest(home, [LANDING["retail.customers"]])
    left = pl.read_parquet(home.raw_table("retail", "customers"))["customer_id"].sort().to_list()
    assert left == ["C12", "C3", "C4", "XC1"]


def test_rows_whose_file_is_gone_are_not_lost_with_the_customer(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    lands(tmp_path, "a.csv", "customer_id\nC1\nC2\n")
    ingest(home, [LANDING["retail.customers"]])
    (tmp_path / "landing/retail/customers/a.csv").unlink()
    write_pseudonyms(home)
    assert forget(home, "C1").found == []
    ingest(home, [LANDING["retail.customers"]])
    assert pl.read_parquet(home.raw_table("retail", "customers"))["customer_id"].to_list() == ["C2"]


def landed(root: Path, table: str, name: str, content: bytes) -> Path:
    place = root / "landing" / table.replace(".", "/") / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def test_a_number_as_id_takes_no_quantity_and_no_product_along(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    sales = b"sold_on,site_id,product_id,quantity\n2025-03-17,17,17,17\n"
    kept = landed(tmp_path, "retail.sales", "s.csv", sales)
    landed(tmp_path, "retail.customers", "c.csv", b"customer_id;household\r\n17;2\r\n18;17\r\n")
    baskets = landed(
        tmp_path,
        "retail.baskets",
        "b.csv",
        b"basket_id,product_id,customer_id,site_id,bought_at,quantity,amount\n"
        b"17,P,18,S,2025-03-17,17,17\nB,P, 17 ,S,2025-03-17,1,2\nB,P,17\n",
    )
    ingest(home, [LANDING["retail.customers"]])
    write_pseudonyms(home)
    plan = tmp_path / "plans/retail/as_of=2025-03-17/orders.parquet"
    plan.parent.mkdir(parents=True)
    pl.DataFrame({"product_id": ["17"], "quantity": [17]}).write_parquet(plan)
    report = tmp_path / "reports/as_of=2025-03-17/report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<p>17 units of product 17</p>")
    done = forget(home, "17")
    assert done.found == [] and sum(done.rows.values()) == 4
    assert kept.read_bytes() == sales and pl.read_parquet(plan).height == 1 and "17 units" in report.read_text()
    assert baskets.read_text().splitlines()[1:] == ["17,P,18,S,2025-03-17,17,17"]
    assert (tmp_path / "landing/retail/customers/c.csv").read_bytes() == b"customer_id;household\r\n18;17\r\n"
    assert "in columns of customers" in done.as_text()
    assert (tmp_path / "personal/pseudonyms.parquet").stat().st_mode & 0o077 == 0


def test_a_customer_is_found_in_any_encoding_that_lands(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    wide = landed(tmp_path, "retail.customers", "w.csv", "customer_id\n客户-1\n客户-2\n".encode("utf-16"))
    east = landed(tmp_path, "retail.customers", "e.csv", "customer_id\n客户-1\n客户-3\n".encode("gb18030"))
    ingest(home, [LANDING["retail.customers"]])
    write_pseudonyms(home)
    assert forget(home, "客户-1").found == []
    assert wide.read_text("utf-16").split() == ["customer_id", "客户-2"]
    assert east.read_text("gb18030").split() == ["customer_id", "客户-3"]


def test_what_is_left_is_found(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    lands(tmp_path, "a.csv", "customer_id,email\nC000001,us@example.org\nC000002,us@example.org\n17,s@example.org\n")
    ingest(home, [LANDING["retail.customers"]])
    write_pseudonyms(home)
    for name, text in (("a.log", b"wrote to C000001"), ("b.log", b"customer_id: 17"), ("c.db", b"\0\0sC000001t")):
        (tmp_path / name).write_bytes(text)
    # An address that a household shares stays with the others.
    assert forget(home, "C000001").found == ["a.log", "c.db"]
    assert forget(home, "17").found == ["b.log"]


def test_who_was_forgotten_and_lands_again_is_left_out_until_let_in(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    table = LANDING["retail.customers"]
    lands(tmp_path, "a.csv", "customer_id,email\nC1,one@example.org\nC2,\n")
    ingest(home, [table])
    write_pseudonyms(home)
    with pytest.raises(NpqError, match="nobody of this id was forgotten"):
        readmit(home, "C1")
    assert forget(home, "C1").found == []
    lands(tmp_path, "export.csv", "customer_id,email\nC1,one@example.org\nC3,\n")
    ingest(home, [table])
    assert returned(home) == {"C1": "retail/customers/export.csv"}
    assert write_pseudonyms(home) == 2
    links = pl.read_parquet(tmp_path / "personal/pseudonyms.parquet")
    assert links["customer_id"].to_list() == ["C2", "C3"]
    # Nothing but the secret leads from the mark to the customer.
    mark = pl.read_parquet(tmp_path / "personal/forgotten.parquet")["mark"].item()
    assert mark not in {"C1", pseudonym(secret(home), "C1"), pseudonym(b"", "C1")}
    assert all(place.stat().st_mode & 0o077 == 0 for place in (tmp_path / "personal").iterdir())
    done = forget_returned(home)
    assert len(done) == 1 and done[0].found == []
    ingest(home, [table])
    assert returned(home) == {} and forget_returned(home) == []
    readmit(home, "C1")
    lands(tmp_path, "later.csv", "customer_id\nC1\n")
    ingest(home, [table])
    assert returned(home) == {} and write_pseudonyms(home) == 3


def test_a_lost_or_damaged_key_is_not_replaced_in_silence(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    lands(tmp_path, "a.csv", "customer_id\nC1\nC2\n")
    ingest(home, [LANDING["retail.customers"]])
    write_pseudonyms(home)
    place = tmp_path / "personal/secret.key"
    kept = place.read_text()
    for damaged in ("", "abc", "no hex at all"):
        place.write_text(damaged)
        with pytest.raises(NpqError, match="secret.key: holds no key"):
            secret(home)
    place.write_text(kept)
    forget(home, "C1")
    place.unlink()
    with pytest.raises(NpqError, match=r"secret.key: gone, but forgotten.parquet"):
        secret(home)
    with pytest.raises(NpqError, match=r"secret.key: gone, but forgotten.parquet"):
        forget(home, "C2")
    assert "C2" in (tmp_path / "landing/retail/customers/a.csv").read_text()  # nothing was removed by halves
