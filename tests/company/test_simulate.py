"""The closed loop: only landing files in, only decision files out, the same luck for both worlds."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.company.config import LAST_DAY
from npq_assets.company.history import live
from npq_assets.company.landing import LandingFolder, write_company
from npq_assets.company.retail_world import RetailWorld
from npq_assets.company.simulate import simulate
from npq_assets.errors import NpqError, RunError
from npq_assets.settings import Home

SIZE = {"scale": 0.1, "days": 90, "seed": 5}
RETAIL = {**SIZE, "domain": "retail"}


def write_orders(home: Home, as_of: date, orders: pl.DataFrame) -> None:
    path = home.decisions("retail", "replenishment_orders", as_of)
    path.parent.mkdir(parents=True, exist_ok=True)
    orders.write_parquet(path)


def planned_orders(weeks: int) -> dict[date, pl.DataFrame]:
    """What the company's own planner orders on each day, as decision tables."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _, beginning = write_company(Path(folder), **SIZE)  # type: ignore[arg-type]
    present, demand = beginning.present, beginning.demand
    company, found = demand.company, {}
    for _ in range(7 * weeks):
        wanted = present.planner.orders(present.day, present.stores)
        rows, columns = np.nonzero(wanted)
        found[present.day] = pl.DataFrame(
            {
                "site_id": [company.store_ids[r] for r in rows],
                "product_id": [company.product_ids[c] for c in columns],
                "quantity": wanted[rows, columns].astype(float),
            }
        )
        live(present, demand)
    return found


def nothing(home: Home, as_of: date) -> None:
    write_orders(
        home, as_of, pl.DataFrame(schema={"site_id": pl.String, "product_id": pl.String, "quantity": pl.Float64})
    )


def test_the_naive_orders_given_as_decisions_cost_what_the_naive_world_costs(tmp_path: Path) -> None:
    orders = planned_orders(weeks=2)
    result = simulate(Home(tmp_path), weeks=2, decide=lambda home, day: write_orders(home, day, orders[day]), **RETAIL)  # type: ignore[arg-type]
    assert result.costs["npq"].to_list() == result.costs["naive"].to_list()
    assert result.difference().total == 0.0


def test_ordering_nothing_loses_sales_and_the_result_says_so(tmp_path: Path) -> None:
    lines: list[str] = []
    result = simulate(Home(tmp_path), weeks=2, decide=nothing, log=lines.append, **RETAIL)  # type: ignore[arg-type]
    costs = {row["kind"]: row for row in result.table().to_dicts()}
    assert costs["lost_sales"]["npq"] > costs["lost_sales"]["naive"]
    assert costs["stock"]["npq"] < costs["stock"]["naive"]
    assert len(lines) == 1 + 14
    content = json.loads(json.dumps(result.as_json()))
    assert set(content["costs"]) == set(RetailWorld.kinds)
    assert content["difference"]["low"] <= -content["saving"] <= content["difference"]["high"]
    weekly = sum(week["costs"][kind]["npq"] for week in content["weekly"] for kind in RetailWorld.kinds)
    assert weekly == pytest.approx(content["total"]["npq"])
    assert "not simulated: setups" in result.as_text()


def test_each_day_sees_its_own_opening_and_nothing_later(tmp_path: Path) -> None:
    seen: list[date] = []

    def watch(home: Home, as_of: date) -> None:
        stock = pl.concat([pl.read_csv(f, infer_schema=False) for f in (home.landing / "retail/stock").glob("*.csv")])
        sales = pl.concat([pl.read_csv(f, infer_schema=False) for f in (home.landing / "retail/sales").glob("*.csv")])
        orders = pl.concat(
            [pl.read_csv(f, infer_schema=False) for f in (home.landing / "retail/open_orders").glob("*.csv")]
        )
        assert stock["counted_on"].max() == as_of.isoformat()
        assert sales["sold_on"].str.to_date(strict=False).max() == as_of - timedelta(days=1)
        assert orders["ordered_on"].str.to_date(strict=False).max() <= as_of - timedelta(days=1)  # type: ignore[operator]
        seen.append(as_of)
        write_orders(
            home,
            as_of,
            stock.filter(pl.col("counted_on") == as_of.isoformat()).select(
                "site_id", "product_id", quantity=pl.lit(3.0)
            ),
        )

    simulate(Home(tmp_path), weeks=1, decide=watch, **RETAIL)  # type: ignore[arg-type]
    assert seen == [LAST_DAY + timedelta(days=1 + k) for k in range(7)]


def test_orders_decided_today_are_open_orders_tomorrow(tmp_path: Path) -> None:
    def one_unit(home: Home, as_of: date) -> None:
        write_orders(home, as_of, pl.DataFrame({"site_id": ["S001"], "product_id": ["P001"], "quantity": [1.0]}))

    simulate(Home(tmp_path), weeks=1, decide=one_unit, **RETAIL)  # type: ignore[arg-type]
    landed = pl.read_csv(tmp_path / "landing/retail/open_orders/open-orders-2025-07-01.csv")
    assert landed.height == 1
    assert landed["ordered_on"].to_list() == ["2025-07-01"]
    assert landed["quantity"][0] >= 1


def test_a_day_that_is_lived_never_replaces_a_file_of_the_past(tmp_path: Path) -> None:
    write_company(tmp_path, **SIZE)  # type: ignore[arg-type]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    place = tmp_path / "logistics/weather/weather-2025-07-01.csv"
    assert place in before, "the past and the first day lived land weather under the same date"
    row = pl.DataFrame({"region": ["north"], "valid_at": ["2025-07-01T00:00:00Z"], "rain": [1.0]})
    LandingFolder(tmp_path, keep=True).write("logistics.weather", "weather-2025-07-01", row)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    assert after.items() > before.items()
    (new,) = after.keys() - before.keys()
    assert sorted([new.name, place.name]) == [place.name, new.name], "read after the one it stands beside"


def test_no_decisions_is_an_error_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no decisions as of 2025-07-01"):
        simulate(Home(tmp_path), weeks=1, decide=lambda home, day: None, **RETAIL)  # type: ignore[arg-type]


def test_an_order_for_an_unknown_product_is_an_error_of_the_run(tmp_path: Path) -> None:
    def wrong(home: Home, as_of: date) -> None:
        write_orders(home, as_of, pl.DataFrame({"site_id": ["S001"], "product_id": ["P999"], "quantity": [1.0]}))

    with pytest.raises(RunError, match="P999"):
        simulate(Home(tmp_path), weeks=1, decide=wrong, **RETAIL)  # type: ignore[arg-type]


def test_a_home_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "landing/retail/sales").mkdir(parents=True)
    (tmp_path / "landing/retail/sales/mine.csv").write_text("sold_on\n")
    with pytest.raises(NpqError, match="already holds files"):
        simulate(Home(tmp_path), weeks=1, decide=nothing, domain="retail")
