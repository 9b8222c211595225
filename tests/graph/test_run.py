"""The whole graph as a Dagster run on a small company: what people and systems get, again and point in time."""

import re
from collections.abc import Callable
from datetime import timedelta

import polars as pl
import pytest

from npq_assets.contracts import DECISIONS, LANDING
from npq_assets.deciding import Decider
from npq_assets.errors import NpqError
from npq_assets.evaluation.sources import SOURCES
from npq_assets.evaluation.trace import explain
from npq_assets.publishing import read_decisions
from npq_assets.retail.output import load_plan
from tests.conftest import Company

ORDERS = DECISIONS["retail.replenishment_orders"]
LEDGER = DECISIONS["all.ledger"]


def decision_bytes(company: Company) -> dict[str, bytes]:
    """Every decision file of the day."""
    files = (company.home.root / "decisions").rglob(f"as_of={company.as_of}/*")
    return {str(f.relative_to(company.home.root)): f.read_bytes() for f in sorted(files) if f.is_file()}


def test_every_pair_with_terms_gets_an_order(company: Company) -> None:
    orders = read_decisions(company.home, ORDERS, company.as_of)
    terms = pl.read_parquet(company.home.raw_table("retail", "supply_terms"))
    assert orders.schema == pl.Schema(ORDERS.schema)
    assert set(orders.select(ORDERS.key).rows()) >= set(terms.select(ORDERS.key).rows())
    assert (orders["as_of"] == company.as_of).all()
    assert orders["decision_id"].n_unique() == orders.height
    lead = orders.join(terms, on=list(ORDERS.key), how="inner")
    assert (
        lead["arrives_on"] == lead["as_of"] + pl.Series([timedelta(days=d) for d in lead["lead_time_periods"]])
    ).all()


def test_the_ledger_accounts_for_every_decision(company: Company) -> None:
    orders = read_decisions(company.home, ORDERS, company.as_of)
    ledger = read_decisions(company.home, LEDGER, company.as_of)
    assert set(ledger["domain"]) == {"retail", "manufacturing", "logistics"}
    assert (ledger["lower_bound"] <= ledger["expected_cost"] + 1e-6).all()
    ledger = ledger.filter(pl.col("kind") == "replenishment_orders")
    assert set(ledger["decision_id"]) == set(orders["decision_id"])
    assert (ledger["lower_bound"] <= ledger["expected_cost"] + 1e-6).all()
    assert ledger["expected_cost"].sum() <= ledger["naive_cost"].sum()
    assert ledger["input_snapshot"].n_unique() == 1


def test_there_is_a_report_a_csv_and_an_explanation(company: Company) -> None:
    page = company.home.report(company.as_of).read_text(encoding="utf-8")
    assert 'src="http' not in page and 'href="http' not in page
    orders = read_decisions(company.home, ORDERS, company.as_of)
    assert orders["decision_id"][0] in page
    csv = company.home.decisions("retail", "replenishment_orders", company.as_of).with_suffix(".csv")
    assert csv.read_text(encoding="utf-8-sig").count("\n") == orders.height + 1
    text = explain(company.home, orders["decision_id"][0])
    for word in ("forecast", "model", "snapshot", "bound", "retail/supply_terms/", "retail/sales/"):
        assert word in text


def test_every_kind_of_decision_leads_back_to_landed_rows(company: Company) -> None:
    home, told = company.home, 0
    for name, table in DECISIONS.items():
        place = home.decisions(table.domain, table.name, company.as_of)
        if name == "all.ledger" or not place.exists():
            continue
        rows = read_decisions(home, table, company.as_of)
        if rows.is_empty():
            continue
        text, told = explain(home, rows["decision_id"][0]), told + 1
        assert rows["decision_id"][0] in text and rows["input_snapshot"][0] in text, name
        assert re.search(r"\n    \w+/\w+/[^\n]+:\d+  ", text), f"{name} names no landed row:\n{text}"
        assert "@" not in text, f"{name} shows an address"
    assert told >= 12
    assert set(SOURCES) == set(DECISIONS) - {"all.ledger"}
    for sources in SOURCES.values():
        for source in sources:
            columns = {column.name for column in LANDING[source.table].columns}
            assert {*source.on.values(), *([source.time] if source.time else [])} <= columns, source


def test_an_unknown_decision_is_refused_with_a_hint(company: Company) -> None:
    with pytest.raises(NpqError, match="no decision 'nonsense'.*decision_id in"):
        explain(company.home, "nonsense")


def test_a_day_run_again_gives_the_same_bytes_also_from_nothing(copied: Callable[[], Company]) -> None:
    company = copied()
    before = decision_bytes(company)
    decider = Decider(company.home)
    decider.decide(company.as_of)
    assert decision_bytes(company) == before
    import shutil

    for derived in ("raw", "marts", "warehouse", "forecasts", "plans", "models", "decisions", "quarantine"):
        shutil.rmtree(company.home.root / derived)
    decider.decide(company.as_of)
    assert decision_bytes(company) == before


def test_what_happens_later_changes_no_earlier_decision(copied: Callable[[], Company]) -> None:
    company = copied()
    before = decision_bytes(company)
    orders = read_decisions(company.home, ORDERS, company.as_of)
    first = orders.row(0, named=True)
    pair = f"{first['site_id']},{first['product_id']}"
    day, later = company.as_of, company.as_of + timedelta(days=2)
    for table, rows in {
        "retail/sales": f"sold_on,site_id,product_id,quantity\n{day},{pair},999\n{later},{pair},999\n",
        "retail/stock": f"counted_on,site_id,product_id,on_hand\n{later},{pair},5000\n",
        "retail/availability": f"sold_on,site_id,product_id,in_stock\n{day},{pair},0\n",
        "retail/open_orders": f"site_id,product_id,arrives_on,quantity\n{pair},{first['arrives_on']},777\n",
    }.items():
        (company.home.landing / table / "later.csv").write_text(rows)
    Decider(company.home, "retail").decide(company.as_of)
    after = decision_bytes(company)
    assert {k: v for k, v in after.items() if "ledger" not in k} == {
        k: v for k, v in before.items() if "ledger" not in k
    }


def test_outcomes_are_settled_when_they_land(copied: Callable[[], Company]) -> None:
    company = copied()
    orders = read_decisions(company.home, ORDERS, company.as_of)
    soon = orders.filter(pl.col("arrives_on") == orders["arrives_on"].min())
    on = soon["arrives_on"][0]
    sales = "sold_on,site_id,product_id,quantity\n"
    stock = "counted_on,site_id,product_id,on_hand\n"
    arrivals = "site_id,product_id,arrives_on,quantity\n"
    for site, product, quantity in soon.select("site_id", "product_id", "quantity").iter_rows():
        day = company.as_of
        while day <= on:
            sales += f"{day},{site},{product},3\n"
            day += timedelta(days=1)
        stock += f"{on},{site},{product},5\n"
        arrivals += f"{site},{product},{on},{quantity}\n"
    for table, rows in {"sales": sales, "stock": stock, "open_orders": arrivals}.items():
        (company.home.landing / "retail" / table / "later.csv").write_text(rows)
    Decider(company.home, "retail").decide(on + timedelta(days=1))
    ledger = read_decisions(company.home, LEDGER, company.as_of)
    settled = soon.join(ledger, on="decision_id").drop_nulls("realized_cost")
    assert settled.height == soon.height
    plan = load_plan(company.home, company.as_of)
    assert plan is not None
    row = settled.join(plan[0].select("decision_id", "holding_cost", "shortage_cost"), on="decision_id").row(
        0, named=True
    )
    over = 5 + row["quantity"] - 3
    expected = row["holding_cost"] * over if over > 0 else -row["shortage_cost"] * over
    assert row["realized_cost"] == pytest.approx(expected)
    assert (settled["hindsight_cost"] <= settled["realized_cost"] + 1e-9).all()
    assert (settled["hindsight_cost"] <= settled["naive_realized_cost"] + 1e-9).all()
    later = ledger.filter(~pl.col("decision_id").is_in(soon["decision_id"].to_list()))
    assert later["realized_cost"].is_null().all()


def test_a_company_with_sales_and_terms_only_gets_orders(tmp_path_factory: pytest.TempPathFactory) -> None:
    from npq_assets.settings import Home

    home = Home.at(tmp_path_factory.mktemp("bare"))
    (home.landing / "retail/sales").mkdir(parents=True)
    (home.landing / "retail/supply_terms").mkdir(parents=True)
    weeks = [f"2024-{m:02d}-{d:02d}" for m, d in ((1, 1), (1, 8), (1, 15), (1, 22), (1, 29), (2, 5), (2, 12))]
    rows = "".join(f"{week},s,p,{4 + k % 3}\n{week},s,q,0\n" for k, week in enumerate(weeks))
    (home.landing / "retail/sales/a.csv").write_text("sold_on,site_id,product_id,quantity\n" + rows)
    (home.landing / "retail/supply_terms/a.csv").write_text(
        "site_id,product_id,lead_time_periods,holding_cost,shortage_cost\ns,p,2,0.2,1\ns,r,1,0.2,1\n"
    )
    decider = Decider(home, "retail")
    day = decider.latest()
    assert day.isoformat() == "2024-02-19"
    decider.decide(day)
    orders = read_decisions(home, ORDERS, day)
    assert orders["product_id"].to_list() == ["p", "q", "r"]
    assert orders["arrives_on"].cast(pl.String).to_list() == ["2024-03-04", "2024-03-04", "2024-02-26"]
    p, q, _ = orders.to_dicts()
    assert 3 <= p["quantity"] <= 12
    assert "no stock count: 0 on hand assumed" in p["reason"]
    assert q["quantity"] == 0 and "no supply terms" in q["reason"]


def test_days_off_the_calendar_are_refused(company: Company) -> None:
    from datetime import date

    with pytest.raises(NpqError, match="decisions are made for days"):
        Decider(company.home).decide(date(1999, 1, 1))


def test_every_landing_table_has_a_raw_table(company: Company) -> None:
    for table in LANDING.values():
        assert company.home.raw_table(table.domain, table.name).exists()
