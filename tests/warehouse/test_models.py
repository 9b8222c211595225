"""The models on data small enough to know the answer, and on none at all; and dbt's own unit tests."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.ingestion.days import DayPlaces
from npq_assets.retail.demand import forecast_demand
from npq_assets.retail.inputs import read_inputs
from npq_assets.settings import Home
from npq_assets.storage import write_parquet
from npq_assets.warehouse import dbt
from npq_assets.warehouse.assets import exported

D = date

# Marts without which `read_inputs` of retail gives up.
READ_BY_RETAIL = (
    *(f"common.{name}" for name in ("sites", "products", "events")),
    *(
        f"retail.{name}"
        for name in ("demand", "supply_terms", "promotions", "stock_position", "open_orders", "supplier_limits")
    ),
)


def raw(home: Home, **tables: list[dict[str, object]]) -> None:
    """Writes raw tables, the named ones with rows."""
    for name, table in LANDING.items():
        rows = tables.get(name.replace(".", "__"), [])
        schema = {**table.schema, "source_file": pl.String(), "source_line": pl.Int64()}
        frame = pl.DataFrame(rows, schema=schema) if rows else pl.DataFrame(schema=schema)
        if table.by_day:
            places = DayPlaces(table, home.raw, home.quarantine)
            places.hand_over(D(2024, 4, 1), frame)
            continue
        write_parquet(frame, home.raw_table(table.domain, table.name))


def build(home: Home, *selection: str) -> None:
    dbt.Invocation(home, ("build",), selection).run()


def build_marts(home: Home, *names: str) -> None:
    """Builds and exports some marts, each `domain.name`, and what they are made from; tests of anything else are left out."""
    chosen = tuple(f"+fqn:npq.marts.{name}" for name in names)
    dbt.Invocation(home, ("build", "--indirect-selection", "buildable"), chosen).run()
    made = {f"{domain}/{name}" for domain, name in (name.split(".") for name in names)}
    models = exported([node for node in dbt.manifest()["nodes"].values() if node["resource_type"] == "model"])
    assert made <= set(models)
    dbt.export_marts(home, {place: models[place] for place in made})


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[dict[str, Any]]]:
    """A home without rows, everything built once, and dbt's events. Tests must not change its tables."""
    home = Home.at(tmp_path_factory.mktemp("empty"))
    raw(home)
    events = list(dbt.Invocation(home, ("build",)).stream())
    dbt.export_marts(home, exported([n for n in dbt.manifest()["nodes"].values() if n["resource_type"] == "model"]))
    return home, events


def test_a_home_without_rows_builds_and_passes_its_tests(empty: tuple[Home, list[dict[str, Any]]]) -> None:
    results = [event for event in empty[1] if event["info"]["name"] == "LogTestResult"]
    assert results and {e["data"]["status"] for e in results} == {"pass"}


def test_demand_of_a_small_store(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    pair = {"site_id": "s", "product_id": "p"}
    raw(
        home,
        retail__sales=[
            {"sold_on": D(2024, 4, 1), **pair, "quantity": 2.0},
            {"sold_on": D(2024, 4, 5), **pair, "quantity": 3.0, "promotion": True},
            {"sold_on": D(2024, 4, 6), "site_id": "s", "product_id": "q", "quantity": 1.0},
        ],
        retail__availability=[{"sold_on": D(2024, 4, 3), **pair, "in_stock": False}],
        common__products=[{"product_id": "p", "name": "P", "family": "f", "unit_cost": 1.0}],
    )
    build_marts(home, "retail.demand")
    demand = pl.read_parquet(home.mart("retail", "demand")).sort("product_id", "period_start")
    p = demand.filter(pl.col("product_id") == "p")
    assert p["period_start"].to_list() == [D(2024, 4, day) for day in range(1, 7)]
    assert p["quantity"].to_list() == [2, 0, 0, 0, 3, 0]
    assert p["in_stock"].to_list() == [True, True, False, True, True, True]
    assert p["family"].unique().to_list() == ["f"]
    assert demand.filter(pl.col("product_id") == "q")["quantity"].to_list() == [1]


def test_one_parse_serves_any_home(tmp_path: Path) -> None:
    for name, quantity in (("one", 1.0), ("two", 2.0)):
        home = Home.at(tmp_path / name)
        raw(home, retail__sales=[{"sold_on": D(2024, 4, 1), "site_id": "s", "product_id": "p", "quantity": quantity}])
        build_marts(home, "retail.demand")
    found = [pl.read_parquet(Home.at(tmp_path / n).mart("retail", "demand"))["quantity"][0] for n in ("one", "two")]
    assert found == [1.0, 2.0]


def test_the_warehouse_is_free_after_a_build(tmp_path: Path) -> None:
    import duckdb

    home = Home.at(tmp_path)
    raw(home)
    build(home, "fqn:npq.staging.common")
    with duckdb.connect(str(home.warehouse)) as connection:
        assert connection.execute("select count(*) from staging.stg_common__products").fetchone() == (0,)


def test_a_model_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    from npq_assets.errors import RunError

    home = Home.at(tmp_path)
    raw(home)
    home.raw_table("retail", "sales").unlink()
    with pytest.raises(RunError, match="stg_retail__sales"):
        build(home, "fqn:npq.staging.retail")


def test_a_site_whose_sales_are_late_is_named_and_its_demand_unknown(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    days = [D(2024, 4, 1) + timedelta(days=k) for k in range(60)]
    sales = [
        {"sold_on": day, "site_id": site, "product_id": "p", "quantity": 3.0}
        for site, until in (("here", 60), ("late", 57)) for day in days[:until]
    ]  # fmt: skip
    terms = [
        {"site_id": site, "product_id": "p", "lead_time_periods": 1, "holding_cost": 0.1, "shortage_cost": 1.0}
        for site in ("here", "late")
    ]
    raw(
        home,
        retail__sales=sales,
        retail__supply_terms=terms,
        common__products=[{"product_id": "p", "name": "P", "family": "f", "unit_cost": 1.0}],
    )
    build_marts(home, *READ_BY_RETAIL)
    inputs = read_inputs(home, days[-1] + timedelta(days=1))
    unknown = inputs.history.filter(~pl.col("in_stock"))
    assert unknown.select("site_id", "period_start").rows() == [("late", day) for day in days[57:]]
    assert any("late since 2024-05-28" in note and "unknown, not zero" in note for note in inputs.skipped)
    # Before the silence nothing was late.
    assert not any("unknown, not zero" in note for note in read_inputs(home, days[57]).skipped)
    expected = forecast_demand(inputs).frame.filter(pl.col("site_id") == "late")["mean"]
    assert expected.to_numpy() == pytest.approx(3.0, rel=0.05)


def test_dbt_unit_tests_pass(empty: tuple[Home, list[dict[str, Any]]]) -> None:
    events = list(dbt.Invocation(empty[0], ("test",), ("test_type:unit",)).stream())
    wrong = [e["info"]["msg"] for e in events if e["info"]["level"] == "error"]
    done = [e for e in events if e["info"]["name"] == "StatsLine"]
    assert done and done[-1]["data"]["stats"]["pass"] == len(dbt.manifest()["unit_tests"]) >= 10, wrong
