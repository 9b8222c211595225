"""Planners' overrides, explanations, alarms and judgements in a whole run: used, kept apart, scored when reality lands."""

from datetime import date, timedelta

import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.deciding import Decider
from npq_assets.evaluation.trace import explain
from npq_assets.publishing import read_decisions
from npq_assets.settings import Home

ORDERS = DECISIONS["retail.replenishment_orders"]
FIRST = date(2023, 1, 2)
WEEKS = 90


def landed(home: Home, table: str, name: str, text: str) -> None:
    place = home.landing / "retail" / table / f"{name}.csv"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, date, date]:
    """A weekly company of 24 pairs: an override landed, a day decided, the weeks after it landed, and decided again."""
    import numpy as np

    home = Home.at(tmp_path_factory.mktemp("foresight") / "home")
    rng = np.random.default_rng(4)
    pairs = [(f"s{k % 4}", f"p{k // 4}") for k in range(24)]
    level = rng.uniform(3, 15, 24)
    sold = rng.poisson(level[:, None] * (1 + 0.3 * np.sin(np.arange(WEEKS + 3) / 8)))
    days = [FIRST + timedelta(days=7 * t) for t in range(WEEKS + 3)]

    def rows(first: int, last: int) -> str:
        return "sold_on,site_id,product_id,quantity\n" + "".join(
            f"{days[t]},{s},{p},{sold[k, t]}\n" for k, (s, p) in enumerate(pairs) for t in range(first, last)
        )

    def counts(t: int) -> str:
        return "counted_on,site_id,product_id,on_hand\n" + "".join(f"{days[t]},{s},{p},4\n" for s, p in pairs)

    landed(home, "sales", "past", rows(0, WEEKS))
    landed(home, "stock", "past", counts(WEEKS))
    landed(home, "supply_terms", "a", "site_id,product_id,lead_time_periods,holding_cost,shortage_cost\n"
           + "".join(f"{s},{p},1,0.2,1\n" for s, p in pairs))  # fmt: skip
    day = days[WEEKS]
    landed(
        home,
        "forecast_overrides",
        "a",
        "site_id,product_id,period_start,made_on,quantity,planner,reason\n"
        f"s0,p0,{days[WEEKS + 1]},{day - timedelta(days=3)},60,north desk,street festival\n"
        f"s0,p0,{days[WEEKS + 1]},{day - timedelta(days=2)},80,north desk,street festival\n"
        f"s1,p0,{days[WEEKS + 1]},{day},500,north desk,made too late\n",
    )
    decider = Decider(home, "retail")
    decider.latest()
    decider.decide(day)
    landed(home, "sales", "later", rows(WEEKS, WEEKS + 3))
    for t in (WEEKS + 1, WEEKS + 2):
        landed(home, "stock", f"later{t}", counts(t))
    decider.latest()
    decider.decide(days[WEEKS + 3] if len(days) > WEEKS + 3 else days[-1] + timedelta(days=7))
    return home, day, days[-1] + timedelta(days=7)


def forecast(home: Home, day: date) -> pl.DataFrame:
    return pl.read_parquet(home.forecasts("retail", day) / "forecast.parquet", hive_partitioning=False)


def test_the_latest_override_known_replaces_the_mean_and_the_engines_stays(lived: tuple[Home, date, date]) -> None:
    home, day, _ = lived
    frame = forecast(home, day)
    moved = frame.filter(pl.col("override").is_not_null())
    assert moved.select("site_id", "product_id", "ds", "mean").rows() == [("s0", "p0", day + timedelta(days=7), 80.0)]
    assert moved["engine_mean"][0] < 30
    assert moved["q0.1"][0] < 80 < moved["q0.95"][0]
    rest = frame.filter(pl.col("override").is_null())
    assert (rest["mean"] == rest["engine_mean"]).all()
    order = read_decisions(home, ORDERS, day).filter((pl.col("site_id") == "s0") & (pl.col("product_id") == "p0"))
    assert order["quantity"][0] > 50
    assert "north desk" in order["reason"][0] and "street festival" in order["reason"][0]


def test_an_override_is_debited_in_money_when_reality_lands(lived: tuple[Home, date, date]) -> None:
    home, day, _ = lived
    credit = pl.read_parquet(home.mart("retail", "override_credit")).filter(pl.col("as_of") == day)
    assert credit.select("planner", "overrides", "settled").rows() == [("north desk", 1, 1)]
    assert credit["expected_credit"][0] > 0  # they believed in it
    assert credit["credit"][0] < 0  # and the festival did not come
    plan = pl.read_parquet(home.root / f"plans/retail/as_of={day}/overrides.parquet", hive_partitioning=False)
    over = plan.row(0, named=True)
    sales = pl.read_parquet(home.mart("retail", "demand")).filter(
        (pl.col("site_id") == "s0") & (pl.col("product_id") == "p0") & (pl.col("period_start") == over["arrives_on"])
    )

    def cost(quantity: float) -> float:
        left = 4 + quantity - sales["quantity"][0]
        return float(over["holding_cost"] * left if left > 0 else -over["shortage_cost"] * left)

    assert credit["credit"][0] == pytest.approx(cost(over["engine_quantity"]) - cost(over["quantity"]))


def test_value_added_stands_beside_seasonal_naive(lived: tuple[Home, date, date]) -> None:
    home, day, later = lived
    added = pl.read_parquet(home.mart("retail", "forecast_value_added")).filter(pl.col("as_of") == day)
    by_kind = {row["overridden"]: row for row in added.to_dicts()}
    assert by_kind[False]["engine_wape"] < by_kind[False]["naive_wape"]
    assert by_kind[False]["planner_wape"] is None
    assert by_kind[True]["planner_value_added"] < 0 and by_kind[True]["settled"] == 1
    page = home.report(later).read_text(encoding="utf-8")
    assert "What the forecast is worth" in page and "overridden" in page


def test_a_decision_tells_what_moved_its_forecast(lived: tuple[Home, date, date]) -> None:
    home, _, later = lived
    orders = read_decisions(home, ORDERS, later)
    text = explain(home, orders["decision_id"][0])
    assert "moved by" in text and "a period are usual" in text
    (home.forecasts("retail", later) / "explanation.parquet").unlink()
    assert explain(home, orders["decision_id"][0]) == text


def test_models_are_judged_on_what_they_have_not_seen(lived: tuple[Home, date, date]) -> None:
    from npq_assets.retail.judging import read_judgements

    home, _, later = lived
    found = read_judgements(home, later)
    assert found.height and set(found["champion_role"]) <= {"simple method", "predecessor"}
    assert found.filter(pl.col("champion_loss").is_nan())["promoted"].any() is False


def test_alarms_have_something_to_say(lived: tuple[Home, date, date]) -> None:
    from npq_assets.retail.watching import MONITORS, watch

    home, _, later = lived
    verdicts = watch(home, later).verdicts()
    assert [verdict.name for verdict in verdicts] == list(MONITORS)
    assert not any(verdict.blocking for verdict in verdicts)
    assert all(verdict.passed for verdict in verdicts), [verdict.detail for verdict in verdicts]
