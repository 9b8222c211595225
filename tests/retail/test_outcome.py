"""What became of orders, from files of a home: when periods are over, and on which demand an empty shelf is priced."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.evaluation.ledger import LEDGER, ledger_rows
from npq_assets.publishing import conform
from npq_assets.retail import outcome
from npq_assets.retail.demand import DemandForecast
from npq_assets.retail.outcome import Facts, actuals, scenarios_of, settle_accounts, settle_overrides
from npq_assets.retail.output import plan_folder, save_forecast
from npq_assets.settings import Home
from npq_assets.storage import write_json, write_parquet

DAY = date(2024, 4, 15)
ON = DAY + timedelta(days=1)
SITES = ["s", "t"]


def facts(upto: date, in_stock: bool = False) -> Facts:
    """9 on the shelf of both sites at the opening of `ON`, all sold."""
    pair = {"site_id": SITES, "product_id": ["p"] * 2}
    return Facts(
        1,
        pl.DataFrame({**pair, "counted_on": [ON] * 2, "on_hand": [3.0] * 2}),
        pl.DataFrame({**pair, "period_start": [ON] * 2, "quantity": [9.0] * 2, "in_stock": [in_stock] * 2}),
        pl.DataFrame({**pair, "on": [ON] * 2, "landed": [6.0] * 2}),
        upto,
    )


def orders() -> pl.DataFrame:
    n = len(SITES)
    return pl.DataFrame(
        {"decision_id": ["ds", "dt"], "site_id": SITES, "product_id": ["p"] * n, "as_of": [DAY] * n, "arrives_on": [ON] * n,
         "quantity": [6.0] * n, "naive_quantity": [2.0] * n, "holding_cost": [0.5] * n, "shortage_cost": [2.0] * n,
         "pack_size": [1.0] * n, "min_order": [0.0] * n, "expected_cost": [1.0] * n, "naive_expected_cost": [2.0] * n,
         "lower_bound": [0.5] * n, "input_snapshot": ["x"] * n}
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A day's forecast and plan, its ledger as it was written before there was a basis, and the marts of the day after."""
    home = Home.at(tmp_path)
    (tmp_path / "npq.toml").write_text('period = "day"\n')
    home = Home.at(tmp_path)
    frame = pl.DataFrame(
        {"unique_id": ["s|p"] * 2 + ["t|p"] * 2, "site_id": ["s"] * 2 + ["t"] * 2, "product_id": ["p"] * 4, "ds": [DAY, ON] * 2,
         "mean": [1.0] * 4}
    )  # fmt: skip
    scenarios = np.zeros((2, 10, 2))
    scenarios[0, :, 1] = [1, 2, 3, 4, 5, 10, 10, 11, 11, 13]
    scenarios[1, :, 1] = 12
    save_forecast(home, DAY, DemandForecast(frame, scenarios, "v", DAY), "inputs")
    write_parquet(orders(), plan_folder(home, DAY) / "orders.parquet")
    write_json({"inputs": "inputs"}, plan_folder(home, DAY) / "plan.json")
    rows = ledger_rows("retail", "replenishment_orders", orders(), {"solver": "a", "status": "b", "model_version": "m"})
    write_parquet(conform(rows, LEDGER).drop("basis"), home.decisions(LEDGER.domain, LEDGER.name, DAY))
    seen = facts(ON)
    write_parquet(seen.counts, home.mart("retail", "stock_position"))
    write_parquet(seen.demand.with_columns(pl.lit(True).alias("landed")), home.mart("retail", "demand"))
    write_parquet(seen.landed.rename({"on": "arrives_on", "landed": "quantity"}), home.mart("retail", "open_orders"))
    return home


def test_an_empty_shelf_says_nothing_before_its_period_has_ended() -> None:
    assert actuals(facts(ON), orders()).is_empty()
    over = actuals(facts(ON + timedelta(days=1)), orders())
    assert over["known"].to_list() == [False, False] and over["demand"].to_list() == [9.0, 9.0]
    assert actuals(facts(ON, in_stock=True), orders()).height == 2


def test_scenarios_are_those_of_the_pair_and_the_period(home: Home) -> None:
    found = scenarios_of(home, DAY, orders().sort("site_id", descending=True))
    assert found is not None
    assert found["decision_id"].to_list() == ["ds", "dt"]
    assert (
        found["demand"][0].to_list() == [1, 2, 3, 4, 5, 10, 10, 11, 11, 13]
        and found["demand"][1].to_list() == [12] * 10
    )
    assert scenarios_of(home, DAY - timedelta(days=1), orders()) is None
    both = scenarios_of(home, DAY, orders(), engine=True)
    assert both is not None and both["demand"].dtype == pl.Array(pl.Float64, 20)


def test_orders_for_an_empty_shelf_settle_once_and_say_how(home: Home) -> None:
    place = home.decisions(LEDGER.domain, LEDGER.name, DAY)
    assert settle_accounts(home, ON) == {}
    assert settle_accounts(home, ON + timedelta(days=1)) == {DAY: 2}
    ledger = pl.read_parquet(place, hive_partitioning=False)
    assert ledger.columns == list(DECISIONS["all.ledger"].schema)
    assert ledger["basis"].to_list() == ["expected"] * 2
    # Of s, 10, 10, 11, 11, 13 are left: 2 lost on average; of t, 3.
    assert ledger["realized_cost"].to_list() == pytest.approx([2.0 * 2, 2.0 * 3])
    # The shelf had 3 without the order, 5 with the naive one.
    assert ledger["naive_realized_cost"].to_list() == pytest.approx([2.0 * 6, 2.0 * 7])
    assert ledger["hindsight_cost"].to_list() == pytest.approx([0.0, 0.0])
    assert settle_accounts(home, ON + timedelta(days=2)) == {}


def test_without_a_stored_forecast_the_row_stays_open(home: Home) -> None:
    (home.forecasts("retail", DAY) / "forecast.json").unlink()
    assert settle_accounts(home, ON + timedelta(days=1)) == {}


def test_what_overrides_earned_by_expectation_is_reckoned_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = orders().with_columns(pl.lit(3.0).alias("engine_quantity"))
    write_parquet(rows, plan_folder(home, DAY) / "overrides.parquet")
    place = home.root / f"evaluations/retail/overrides/as_of={DAY}/overrides.parquet"
    assert settle_overrides(home, ON + timedelta(days=1)) == 2
    first = pl.read_parquet(place)
    assert first["basis"].to_list() == ["expected"] * 2
    # No later day reads the forecast again, nor is changed by what has become of it.
    monkeypatch.setattr(outcome, "load_forecast", lambda *_: pytest.fail("read again"))
    assert settle_overrides(home, ON + timedelta(days=2)) == 2
    assert pl.read_parquet(place).equals(first)
    # A file of before there was a basis is reckoned anew.
    write_parquet(first.drop("basis"), place)
    monkeypatch.setattr(outcome, "load_forecast", lambda *_: None)
    assert settle_overrides(home, ON + timedelta(days=3)) == 0
