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
from npq_assets.retail.privacy import forget, pseudonym, secret, write_pseudonyms
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
