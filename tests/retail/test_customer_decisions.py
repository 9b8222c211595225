"""Customer decisions of a day from small frames: consent, the weekly limit, shelves, reasons and facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from npq_assets.contracts import Table
from npq_assets.optimization.staffing import StaffingProblem
from npq_assets.publishing import write_decisions
from npq_assets.retail import customer_output
from npq_assets.retail.customer_book import CustomerBook
from npq_assets.retail.customer_checks import judge_customers
from npq_assets.retail.customer_inputs import KEY, CustomerInputs, _now_allowed, without_consent
from npq_assets.retail.customer_link import DEMAND, CustomerLink
from npq_assets.retail.demand import DemandForecast
from npq_assets.retail.messaging import (
    _late,
    late_deliveries,
    message_id,
    messages_of_the_week,
    room_taken,
    todays_messages,
)
from npq_assets.retail.offering import _without_margin, defection_cost, demand_effect, plan_offers
from npq_assets.retail.privacy import pseudonym, secret
from npq_assets.retail.recommending import (
    LEAST_ON_HAND,
    PER_FAMILY,
    Effect,
    kept_without,
    measure_effect,
    recommend,
    recommended_units,
    uncounted,
)
from npq_assets.retail.serving import Facts, plan_service, plan_staff, rank_requests, shift_hours
from npq_assets.settings import Home, Settings

DAY = date(2025, 3, 5)  # a Wednesday
MONDAY = date(2025, 3, 3)
PEOPLE = ["ann", "bob", "cem"]
UNSENT = pl.DataFrame(schema={KEY: pl.String, "offer_id": pl.String, "as_of": pl.Date, "expected_cost": pl.Float64})
NOTHING = pl.DataFrame(schema={KEY: pl.String, "message_id": pl.String, "kind": pl.String, "as_of": pl.Date})


def inputs(**changes: Any) -> CustomerInputs:
    """Three customers who bought TEA and RICE at S1; cem did not agree to be written to."""
    lines = [
        {KEY: who, "basket_id": f"{who}{k}", "product_id": product, "family": family, "site_id": "S1",
         "bought_on": MONDAY - timedelta(days=7 * k + 1), "bought_hour": 10, "quantity": 1.0, "amount": 2.0,
         "discount": 0.0, "margin": 0.6}
        for who in PEOPLE for k in range(3) for product, family in (("TEA", "drinks"), ("RICE", "food"))
    ]  # fmt: skip
    frames: dict[str, Any] = {
        "purchases": pl.DataFrame(lines),
        "customers": pl.DataFrame({KEY: PEOPLE, "marketing_consent": [True, True, False], "reachable": [True] * 3}),
        "products": pl.DataFrame(
            {"product_id": ["RICE", "TEA"], "name": ["Rice", "Tea"], "family": ["food", "drinks"],
             "unit_cost": [1.0, 1.0], "unit_price": [2.0, 2.0]}
        ),
        "offers": pl.DataFrame(
            [("X", None, "drinks", 0.2, 0.0, MONDAY, MONDAY + timedelta(days=6), 50.0, True)],
            schema={"offer_id": pl.String, "product_id": pl.String, "family": pl.String, "discount": pl.Float64,
                    "cost_per_use": pl.Float64, "starts_on": pl.Date, "ends_on": pl.Date, "budget": pl.Float64,
                    "targeted": pl.Boolean}, orient="row",
        ),
        "outcomes": pl.DataFrame(
            schema={KEY: pl.String, "offer_id": pl.String, "product_id": pl.String, "family": pl.String,
                    "discount": pl.Float64, "cost_per_use": pl.Float64, "ends_on": pl.Date, "sent_on": pl.Date,
                    "redeemed": pl.Boolean, "held_out": pl.Boolean, "profit": pl.Float64}
        ),
        "shelf": pl.DataFrame(
            {"site_id": ["S1", "S1"], "product_id": ["RICE", "TEA"], "on_hand": [20.0, 20.0],
             "on_hand_before": [20.0, 20.0], "counts": [2, 2], "counted_on": [DAY, DAY]}
        ),
        "cases": pl.DataFrame(),
    }  # fmt: skip
    settings = changes.pop("settings", Settings())
    return CustomerInputs(DAY, MONDAY, settings, **{**frames, **changes})


def book(**columns: list[Any]) -> CustomerBook:
    people: dict[str, list[Any]] = {
        KEY: PEOPLE, "main_site": ["S1"] * 3, "expected_spend": [10.0, 100.0, 10.0], "p_active": [0.9] * 3,
        "monetary": [12.0] * 3, "recency_days": [2.0] * 3,
    }  # fmt: skip
    lists = pl.DataFrame(
        {KEY: PEOPLE * 2, "product_id": ["TEA"] * 3 + ["RICE"] * 3, "score": [1.0] * 6, "place": [1] * 3 + [2] * 3,
         "kind": ["again"] * 6}
    )  # fmt: skip
    return CustomerBook(pl.DataFrame({**people, **columns}), lists)


def offered(*who: str) -> pl.DataFrame:
    return pl.DataFrame(
        {KEY: list(who), "offer_id": ["X"] * len(who), "expected_profit": [1.0] * len(who),
         "control": [False] * len(who), "family": ["drinks"] * len(who), "product_id": [None] * len(who)},
        schema_overrides={"product_id": pl.String},
    )  # fmt: skip


def messages(given: CustomerInputs, offers: pl.DataFrame, earlier: pl.DataFrame = NOTHING) -> pl.DataFrame:
    promised = datetime(2025, 3, 4, 12, tzinfo=UTC)
    late = pl.DataFrame(
        {KEY: PEOPLE, "delivery_id": ["D1", "D2", "D3"], "promised": [promised] * 3, "arrived": [True, False, True],
         "late_minutes": [30.0] * 3}
    )  # fmt: skip
    recommended = pl.DataFrame(schema={KEY: pl.String, "rank": pl.Int64, "product_id": pl.String})
    return todays_messages(given, book(), offers, late, earlier, recommended)


def test_nobody_is_written_to_without_consent() -> None:
    found = messages(inputs(), offered("ann", "cem"))
    assert set(found[KEY]) == {"ann", "bob"}
    assert sorted(found.filter(pl.col(KEY) == "ann")["kind"]) == ["late_delivery", "offer"]


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_the_weekly_limit_counts_the_six_days_before(limit: int) -> None:
    days = [DAY - timedelta(days=6), DAY - timedelta(days=7)]
    earlier = pl.DataFrame({KEY: ["ann", "bob"], "message_id": ["a", "b"], "kind": ["offer"] * 2, "as_of": days})
    found = messages(inputs(settings=Settings(messages_per_week=limit)), offered("ann", "bob"), earlier)
    counts = dict(found.group_by(KEY).len().iter_rows())
    assert counts.get("ann", 0) == max(0, min(2, limit - 1))
    assert counts.get("bob", 0) == min(2, limit)
    if limit == 1:  # what matters most has the right of way
        assert found["kind"].to_list() == ["late_delivery"]


def test_a_day_that_is_decided_again_keeps_the_limit_with_later_days() -> None:
    days = [DAY - timedelta(days=6), DAY + timedelta(days=1), DAY + timedelta(days=6), DAY + timedelta(days=7)]
    others = pl.DataFrame({KEY: ["ann", "ann", "ann", "bob"], "as_of": days})
    assert messages_of_the_week(others, DAY).rows() == [("ann", 2)]
    later = pl.DataFrame({KEY: ["ann"] * 2, "message_id": ["a", "b"], "kind": ["offer"] * 2, "as_of": [days[1]] * 2})
    assert set(messages(inputs(), offered("ann"), later)[KEY]) == {"bob"}
    # The same days one after the other: the later ones already made room for this one, which is found as it was.
    first = messages(inputs(), offered("ann"))
    assert messages(inputs(), offered("ann"), later.with_columns(pl.lit(days[3]).alias("as_of"))).equals(first)


def test_who_came_back_is_not_won_back() -> None:
    lost = book(p_active=[0.1, 0.1, 0.1], monetary=[50.0, 12.0, 1.0], recency_days=[60.0, 5.0, 60.0])
    late = pl.DataFrame()
    recommended = pl.DataFrame(schema={KEY: pl.String, "rank": pl.Int64, "product_id": pl.String})

    def found(given: CustomerInputs) -> pl.DataFrame:
        return todays_messages(given, lost, offered("ann").clear(), late, NOTHING, recommended)

    assert found(inputs())["body"].to_list() == ["We have not seen you for 62 days."]
    assert found(inputs(returned=frozenset({"ann"}))).is_empty()


def test_an_old_count_is_no_news() -> None:
    def found(counted_on: date) -> int:
        shelf = inputs().shelf.with_columns(pl.lit(0.0).alias("on_hand_before"), pl.lit(counted_on).alias("counted_on"))
        return messages(inputs(shelf=shelf), offered("ann").clear()).filter(pl.col("kind") == "back_in_stock").height

    assert found(DAY) == 2 and found(DAY - timedelta(days=7)) == 0


def test_a_message_leaves_once() -> None:
    first = messages(inputs(), offered("ann"))
    again = messages(inputs(), offered("ann"), first.with_columns(pl.lit(DAY - timedelta(days=60)).alias("as_of")))
    assert first.height and again.is_empty()
    assert message_id("offer", "ann", "X") == message_id("offer", "ann", "X") != message_id("offer", "bob", "X")


def test_checks_stop_what_breaks_consent_or_limit() -> None:
    given = inputs()
    wrong = pl.DataFrame({KEY: ["cem", "ann", "ann", "ann"], "message_id": ["1", "2", "3", "4"]})
    sites = pl.DataFrame({KEY: PEOPLE, "main_site": ["S1"] * 3})
    offers = pl.DataFrame({KEY: ["ann"], "offer_id": ["X"], "expected_cost": [50.5]})
    products = pl.DataFrame({KEY: ["ann"], "product_id": ["TEA"]})
    empty = given.shelf.with_columns(pl.lit(0.0).alias("on_hand"))
    verdicts = judge_customers(
        inputs(shelf=empty), offers, wrong, products, NOTHING.select(KEY, "as_of"), sites, UNSENT
    )
    assert {v.name for v in verdicts if not v.passed} == {"consent", "weekly_limit", "budget", "sellable"}


def test_only_what_the_store_has_is_recommended_each_with_its_reason() -> None:
    shelf = inputs().shelf.with_columns(pl.Series("on_hand", [float(LEAST_ON_HAND), LEAST_ON_HAND - 1.0]))
    found = recommend(inputs(shelf=shelf), book())
    assert set(found["product_id"]) == {"RICE"}
    assert found["reason"].str.starts_with("you bought it 3 times, last on 2025-03-02").all()
    everything = recommend(inputs(), book())
    assert everything.group_by(KEY).len()["len"].to_list() == [2, 2, 2]
    assert PER_FAMILY >= 1 and everything.select(KEY, "rank").is_unique().all()


def test_without_controls_the_effect_is_unknown_and_half_are_kept() -> None:
    people = [f"p{k:03d}" for k in range(40)]
    base = inputs()
    lines = pl.concat([base.purchases.filter(pl.col(KEY) == "ann").with_columns(pl.lit(p).alias(KEY)) for p in people])
    given = inputs(
        purchases=lines,
        customers=pl.DataFrame({KEY: people, "marketing_consent": [True] * 40, "reachable": [True] * 40}),
    )
    view = CustomerBook(pl.DataFrame({KEY: people}), pl.DataFrame())
    plan = plan_offers(given, view, UNSENT)
    assert plan.sent.height and not plan.sent["effect_known"].any() and plan.sent["expected_profit"].sum() == 0
    assert abs(2 * plan.sent["control"].sum() - plan.sent.height) <= 1
    again = plan_offers(given, view, plan.sent.select(UNSENT.columns))
    assert again.sent.is_empty() and "sent" in again.facts["note"]


def case(**values: Any) -> dict[str, Any]:
    return {
        "request_id": "R1", KEY: "ann", "opened_at": datetime(2025, 3, 4, 20, tzinfo=UTC), "opened_on": date(2025, 3, 4),
        "opened_hour": 20, "topic": "question", "delivery_id": None, "basket_id": None, "product_id": None,
        "closed_at": None, "source_file": "r.csv", "source_line": 2, "basket_rows": None, **values,
    }  # fmt: skip


def test_requests_are_answered_from_facts_with_the_rows_behind_them() -> None:
    stock = {"site_id": ["S1", "S1"], "product_id": ["TEA", "RICE"], "on_hand": [0.0, 5.0],
             "counted_on": [DAY, DAY - timedelta(days=30)], "source_file": ["s.csv"] * 2, "source_line": [9, 2]}  # fmt: skip
    coming = {"site_id": ["S1"], "product_id": ["TEA"], "arrives_on": [DAY + timedelta(days=2)], "quantity": [8.0],
              "source_file": ["o.csv"], "source_line": [4]}  # fmt: skip
    noon, left = datetime(2025, 3, 4, 12, tzinfo=UTC), datetime(2025, 3, 4, 9, tzinfo=UTC)
    later = noon + timedelta(days=2)
    deliveries = {"delivery_id": ["D1", "D2", "D3", "D4"], KEY: ["bob"] * 4, "due_at": [noon, noon, later, later],
                  "departed_at": [left, None, None, left], "promised_at": [None] * 4,
                  "arrived_at": [datetime(2025, 3, 4, 13, tzinfo=UTC), None, None, None],
                  "source_file": ["d.csv"] * 4, "source_line": [7, 8, 9, 10],
                  "trip_file": ["t.csv", None, "t.csv", "t.csv"], "trip_line": [3, None, 5, 6]}  # fmt: skip
    facts = Facts(pl.DataFrame(deliveries), pl.DataFrame(stock), pl.DataFrame(coming))
    asked = [
        case(product_id="TEA"),
        case(request_id="R2", topic="delivery late", delivery_id="D1", **{KEY: "bob"}),
        case(request_id="R3", topic="refund", basket_id="ann0", basket_rows="b.csv:3; b.csv:4"),
        case(request_id="R4", topic="something else", opened_at=datetime(2025, 3, 1, 8, tzinfo=UTC)),
        case(request_id="R5", topic="refund", basket_id="bob0"),
        case(request_id="R6", topic="delivery late", delivery_id="D1"),
        case(request_id="R7", topic="delivery late", delivery_id="D2", **{KEY: "bob"}),
        case(request_id="R8", topic="where is my delivery", delivery_id="D3", **{KEY: "bob"}),
        case(request_id="R9", topic="where is my delivery", delivery_id="D4", **{KEY: "bob"}),
        case(request_id="RA", product_id="RICE"),
        case(request_id="RB", product_id="NEVER-COUNTED"),
    ]
    cases = pl.DataFrame(asked, schema_overrides={"closed_at": pl.Datetime("us", "UTC"), "basket_rows": pl.String})
    found = {row["request_id"]: row for row in rank_requests(inputs(cases=cases), book(), facts).iter_rows(named=True)}
    assert "the next delivery to store S1 is due on 2025-03-07" in found["R1"]["draft"]
    assert found["R1"]["facts"] == "r.csv:2; s.csv:9; o.csv:4"
    assert "arrived on 2025-03-04 at 13:00" in found["R2"]["draft"] and found["R2"]["facts"].endswith(
        "d.csv:7; t.csv:3"
    )
    assert found["R2"]["rank"] == 1  # the best customer, about the gravest topic
    assert "1 x Tea for 2.00" in found["R3"]["draft"] and found["R3"]["facts"] == "r.csv:2; b.csv:3; b.csv:4"
    assert found["R4"]["promise_broken"] and "A colleague will look into it" in found["R4"]["draft"]
    # Another customer's purchase or delivery is told to nobody.
    assert "Tea" not in found["R5"]["draft"]
    assert "D1" not in found["R6"]["draft"] and found["R6"]["facts"] == "r.csv:2"
    # Under way is what is known to have left.
    assert "Delivery D3 is promised for" in found["R8"]["draft"] and found["R8"]["facts"] == "r.csv:2; d.csv:9"
    assert "D4 is under way" in found["R9"]["draft"] and found["R9"]["facts"] == "r.csv:2; d.csv:10; t.csv:6"
    # A count of a month ago, or none, says neither that it is there nor that it is sold out.
    assert all("A colleague will look into it" in found[request]["draft"] for request in ("RA", "RB"))
    # Nobody says that what should have come yesterday is under way.
    assert "its arrival is not recorded" in found["R7"]["draft"] and "under way" not in found["R7"]["draft"]


def test_late_is_what_was_promised_yesterday_and_had_not_come() -> None:
    opening = datetime(2025, 3, 5, tzinfo=UTC)
    rows = [
        ("ontime", opening - timedelta(hours=5), opening - timedelta(hours=5)),
        ("late", opening - timedelta(hours=5), opening - timedelta(hours=4)),
        ("open", opening - timedelta(hours=1), None),
        ("later", opening - timedelta(hours=1), opening + timedelta(hours=9)),
        ("old", opening - timedelta(hours=30), None),
        ("future", opening + timedelta(hours=1), None),
    ]
    frame = pl.DataFrame(
        [("ann", name, promised, None, arrived, None) for name, promised, arrived in rows],
        schema={KEY: pl.String, "delivery_id": pl.String, "promised_at": pl.Datetime("us", "UTC"),
                "due_at": pl.Datetime("us", "UTC"), "arrived_at": pl.Datetime("us", "UTC"),
                "departed_at": pl.Datetime("us", "UTC")}, orient="row",
    )  # fmt: skip
    late = late_deliveries(frame, DAY)
    assert dict(late.select("delivery_id", "late_minutes").iter_rows()) == {"late": 60.0, "open": 60.0, "later": 60.0}
    bodies = {row["subject"]: row["body"] for row in _late(late)}
    assert "arrived 60 minutes late" in bodies["Your delivery was late"]
    assert "was promised for 2025-03-04 at 23:00 and has not arrived yet" in bodies["Your delivery is late"]
    # Trips that have not landed make no delivery late; one that is known to be on the road is.
    unknown = frame.with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("arrived_at"))
    assert late_deliveries(unknown, DAY).is_empty()
    departed = pl.when(pl.col("delivery_id") == "open").then(pl.lit(opening - timedelta(hours=3)))
    on_the_road = unknown.with_columns(departed.alias("departed_at"))
    assert late_deliveries(on_the_road, DAY)["delivery_id"].to_list() == ["open"]


def test_who_unsubscribed_is_not_written_to_from_the_next_day() -> None:
    replies = pl.DataFrame(
        {"message_id": ["m", "n", "o"], KEY: ["ann", "bob", "bob"], "kind": ["unsubscribed", "clicked", "bounced"],
         "replied_at": [datetime(2025, 3, 4, 23, tzinfo=UTC), datetime(2025, 3, 4, tzinfo=UTC), datetime(2025, 3, 5, tzinfo=UTC)]}
    )  # fmt: skip
    today = without_consent(inputs().customers, replies, DAY)
    assert dict(today.select(KEY, "marketing_consent").iter_rows()) == {"ann": False, "bob": True, "cem": False}
    assert not without_consent(inputs().customers, replies, DAY + timedelta(days=1))["marketing_consent"].any()


def shown_and_kept(more: float) -> tuple[CustomerInputs, pl.DataFrame]:
    """200 customers to whom TEA was, or would have been, recommended two weeks ago; those shown buy `more` of it."""
    rng = np.random.default_rng(1)
    people = [f"p{k:03d}" for k in range(200)]
    monday = MONDAY - timedelta(days=14)
    control = [k % 4 == 0 for k in range(200)]
    units = [float(rng.poisson(1.0 + (0.0 if kept else more))) for kept in control]
    lines = pl.DataFrame({KEY: people, "product_id": "TEA", "bought_on": monday + timedelta(days=3), "quantity": units})
    outside = lines.with_columns(pl.lit(monday + timedelta(days=8)).alias("bought_on"), pl.lit(99.0).alias("quantity"))
    earlier = pl.DataFrame({KEY: people, "product_id": "TEA", "control": control, "as_of": monday})
    return inputs(purchases=pl.concat([lines, outside])), earlier


def test_recommendations_enter_demand_only_as_far_as_controls_show() -> None:
    found = measure_effect(*shown_and_kept(1.0))
    assert found.known and found.counted == pytest.approx(1.0, abs=0.4)
    nothing = measure_effect(*shown_and_kept(0.0))
    assert nothing.known and nothing.counted == 0.0
    given, earlier = shown_and_kept(1.0)
    assert not measure_effect(given, earlier.filter(~pl.col("control"))).known
    assert not measure_effect(given, earlier.clear()).known


def test_controls_of_recommendations_are_drawn_once_a_round_and_see_none() -> None:
    keys = [f"k{n}" for n in range(2000)]
    kept = kept_without(inputs(), keys)
    assert 0.03 < len(kept) / len(keys) < 0.07
    assert kept == kept_without(inputs(), keys)
    assert kept_without(inputs(settings=Settings(control_share=0.0)), keys) == []
    assert recommend(inputs(settings=Settings(control_share=1.0)), book())["control"].all()


def sent_on(day: date, units: float, offer: str = "X") -> pl.DataFrame:
    wanted = {"extra_units": pl.lit(units), "as_of": pl.lit(day), "offer_id": pl.lit(offer)}
    return offered("ann").with_columns(**wanted)


def units_of(found: pl.DataFrame) -> dict[date, float]:
    assert set(found.select("site_id", "product_id").iter_rows()) <= {("S1", "TEA")}
    return dict(found.select("day", "units").iter_rows())


def test_an_offer_moves_demand_on_its_own_days() -> None:
    friday, saturday = MONDAY + timedelta(days=4), MONDAY + timedelta(days=5)
    given = inputs(offers=an_offer(starts_on=friday, ends_on=saturday))
    assert units_of(demand_effect(given, book(), sent_on(DAY, 14.0))) == {friday: 7.0, saturday: 7.0}
    # What it brought on the days before today is over.
    begun = replace(given, as_of=saturday)
    assert units_of(demand_effect(begun, book(), sent_on(MONDAY, 14.0)))[saturday] == pytest.approx(7.0, rel=0.1)
    # An offer of two weeks counts in the next week as well, not squeezed into this one.
    long = inputs(offers=an_offer(starts_on=DAY, ends_on=DAY + timedelta(days=13)))
    assert units_of(demand_effect(long, book(), sent_on(DAY, 14.0))) == {
        DAY + timedelta(days=k): 1.0 for k in range(14)
    }
    assert demand_effect(given, book(), sent_on(DAY, 0.0)).is_empty()


@pytest.mark.parametrize(("days", "expected"), [(1, [1.0, 8.0, 0.0]), (7, [6.0, 1.0, 1.0])])
def test_units_of_a_day_count_in_the_period_that_holds_it(days: int, expected: list[float]) -> None:
    moved = [(DAY + timedelta(days=1), 7.0), (DAY + timedelta(days=2), -2.0), (DAY - timedelta(days=1), 50.0)]
    demand = pl.DataFrame([("S1", "TEA", *row) for row in moved], schema=DEMAND, orient="row")
    items = pl.DataFrame({"site_id": ["S1", "S1"], "product_id": ["RICE", "TEA"]})
    given: Any = SimpleNamespace(items=items, days=days, as_of=DAY)
    forecast = DemandForecast(pl.DataFrame(), np.ones((2, 1, 3)), "v", DAY)
    found = CustomerLink(demand).applied(given, forecast)[0].scenarios
    assert found[0, 0].tolist() == [1.0, 1.0, 1.0] and found[1, 0].tolist() == expected


def test_what_history_holds_of_past_offers_is_not_added_again() -> None:
    """Offers of 14 units a week for a quarter: the same again changes nothing, twice as much adds once, none takes off."""
    weeks = [MONDAY - timedelta(days=7 * k) for k in range(1, 14)]
    offers = pl.concat(
        [an_offer(offer_id=f"W{k}", starts_on=w, ends_on=w + timedelta(days=6)) for k, w in enumerate(weeks)]
        + [an_offer()]
    )
    old = pl.concat([inputs().purchases, inputs().purchases.with_columns(pl.col("bought_on") - timedelta(days=100))])
    given = replace(inputs(offers=offers, purchases=old), as_of=MONDAY)
    past = pl.concat([sent_on(w, 14.0, f"W{k}") for k, w in enumerate(weeks)])

    def per_day(units: float) -> float:
        found = units_of(demand_effect(given, book(), pl.concat([past, sent_on(MONDAY, units)])))
        return sum(found.values()) / 7

    assert per_day(14.0) == pytest.approx(0.0, abs=1e-9)
    assert per_day(28.0) == pytest.approx(2.0)
    assert per_day(0.0) == pytest.approx(-2.0)


def test_standing_recommendations_are_in_history_already() -> None:
    effect = Effect(0.7, 0.01, 100, 100)
    old = pl.concat([inputs().purchases, inputs().purchases.with_columns(pl.col("bought_on") - timedelta(days=100))])
    given = inputs(purchases=old, settings=Settings(control_share=0.0))
    lists = recommend(given, book()).select(KEY, "product_id", "control")

    def added(shown: pl.DataFrame, weeks: int) -> dict[str, float]:
        earlier = [
            shown.with_columns(pl.lit(MONDAY - timedelta(days=7 * k)).alias("as_of")) for k in range(1, weeks + 1)
        ]
        none = shown.head(0).with_columns(pl.lit(MONDAY).alias("as_of"))
        found = recommended_units(given, book(), effect, pl.concat(earlier) if earlier else none)
        return dict(found.group_by("product_id").agg(pl.col("units").sum()).iter_rows())

    assert added(lists, 0) == pytest.approx({"TEA": 2.1, "RICE": 2.1})  # three lists, 0.7 units each
    assert added(lists, 13) == {}
    assert added(lists.filter(pl.col("product_id") == "TEA"), 13) == pytest.approx({"RICE": 2.1})
    gone = lists.with_columns(pl.lit("MILK").alias("product_id")).filter(pl.col(KEY) == "ann")
    assert added(gone, 13)["MILK"] < 0


def test_the_same_staffing_is_not_solved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, day = Home.at(tmp_path), date(2025, 7, 1)
    covers = np.array([[True, True, False, False], [False, False, True, True]])
    problem = StaffingProblem(np.array([[4.0, 1.0, 2.0, 0.0]]), covers, np.array([9.0, 9.0]), 2.0, 3.0, left_cost=8.0)
    first = customer_output.staffed(home, day)(problem, 10.0)
    monkeypatch.setattr(customer_output, "solve", lambda *_: pytest.fail("solved again"))
    again = customer_output.staffed(home, day)(problem, 10.0)
    assert again.plan.equals(first.plan) and (again.objective, again.bound) == (first.objective, first.bound)
    with pytest.raises(pytest.fail.Exception):
        customer_output.staffed(home, day)(replace(problem, waiting=1.0), 10.0)


def test_a_desk_without_people_says_what_that_costs() -> None:
    """A request a week is not worth a shift; many are, and then there is nothing to explain."""
    rare = pl.DataFrame([case(opened_on=DAY - timedelta(days=7 * k + 1)) for k in range(8)])
    staff, _, facts = plan_staff(inputs(cases=rare), book(), 0)
    assert staff["agents"].sum() == 0 and staff["expected_cost"].sum() > 0
    assert "nobody is planned" in facts["note"] and "with one person" in facts["note"]
    often = pl.concat([rare] + [pl.DataFrame([case(opened_on=DAY - timedelta(days=k)) for k in range(1, 50)])] * 20)
    # One shift a day: whether there is something to explain does not hang on how many shifts there are to choose from, and
    # with four the solver searches for as long as it may.
    staff, _, facts = plan_staff(inputs(cases=often, settings=Settings(service_shifts=("08-20",))), book(), 0)
    assert staff["agents"].sum() > 0 and "note" not in facts


def test_shifts_are_those_of_the_settings_and_may_overlap() -> None:
    names, covers = shift_hours(["22-06", "08-16", "12-24"])
    assert names == ["08-16", "12-24", "22-06"] and covers.shape == (21, 168)
    hours = [np.flatnonzero(row).tolist() for row in covers]
    assert hours[0] == list(range(8, 16)) and hours[1] == list(range(12, 24)) and hours[2] == list(range(22, 30))
    assert hours[20] == [166, 167]  # the last night ends with the days planned
    often = pl.DataFrame([case(opened_on=DAY - timedelta(days=k % 49 + 1)) for k in range(1000)])
    wide = Settings(service_shifts=("08-16", "12-20", "22-06"), service_most=2)
    staff, _, facts = plan_staff(inputs(cases=often, settings=wide), book(), 0)
    assert staff["shift"].unique().sort().to_list() == ["08-16", "12-20", "22-06"]
    assert 0 < staff["agents"].max() <= 2  # type: ignore[operator]
    assert facts["bound"] <= facts["expected_cost"] + 1e-6 <= facts["naive_cost"] + 2e-6
    assert staff["expected_cost"].sum() == pytest.approx(facts["expected_cost"])


def an_offer(**values: Any) -> pl.DataFrame:
    kinds = {name: pl.lit(value, inputs().offers.schema[name]).alias(name) for name, value in values.items()}
    return inputs().offers.with_columns(**kinds)


def many(**changes: Any) -> tuple[CustomerInputs, CustomerBook]:
    people = [f"p{k:03d}" for k in range(40)]
    ann = inputs().purchases.filter(pl.col(KEY) == "ann")
    lines = pl.concat([ann.with_columns(pl.lit(p).alias(KEY)) for p in people])
    agreed = pl.DataFrame({KEY: people, "marketing_consent": [True] * 40, "reachable": [True] * 40})
    return inputs(purchases=lines, customers=agreed, **changes), CustomerBook(
        pl.DataFrame({KEY: people}), pl.DataFrame()
    )


@pytest.mark.parametrize("what", [{"family": "no such family"}, {"family": None, "product_id": "NOPE"}])
def test_an_offer_on_what_nobody_buys_is_left_out_with_its_reason(what: dict[str, Any]) -> None:
    plan = plan_offers(*many(offers=an_offer(**what)), UNSENT)
    assert plan.sent.is_empty() and "X" in plan.facts["note"] and "check product_id, family" in plan.facts["note"]
    both = pl.concat([an_offer(), an_offer(offer_id="Y", **what)])
    plan = plan_offers(*many(offers=both), UNSENT)
    assert set(plan.sent["offer_id"]) == {"X"} and "Y" in plan.facts["note"]


def test_a_product_without_family_can_be_offered() -> None:
    given, view = many(offers=an_offer(family=None, product_id="TEA"))
    none = replace(
        given,
        purchases=given.purchases.with_columns(pl.lit(None, pl.String).alias("family")),
        products=given.products.with_columns(pl.lit(None, pl.String).alias("family")),
    )
    assert plan_offers(none, view, UNSENT).sent.height


def test_a_budget_is_for_all_weeks_and_all_offers() -> None:
    given, view = many()
    cost = plan_offers(given, view, UNSENT).sent["expected_cost"].sum()
    assert 0 < cost < 50
    before = pl.DataFrame(
        {KEY: ["zoe"], "offer_id": ["X"], "as_of": [MONDAY - timedelta(days=7)], "expected_cost": [50.0 - cost / 2]}
    )
    assert plan_offers(given, view, before).sent["expected_cost"].sum() <= cost / 2 + 1e-9
    total = replace(given, settings=Settings(offer_budget=cost / 2))
    assert plan_offers(total, view, UNSENT).sent["expected_cost"].sum() <= cost / 2 + 1e-9
    sites = pl.DataFrame({KEY: ["ann"], "main_site": ["S1"]})
    sent = pl.DataFrame({KEY: ["ann"], "offer_id": ["X"], "expected_cost": [30.0]})
    none = pl.DataFrame(schema={KEY: pl.String, "product_id": pl.String})
    verdicts = judge_customers(given, sent.clear(), NOTHING, none, NOTHING, sites, sent)
    assert all(v.passed for v in verdicts)
    spent = pl.DataFrame({KEY: ["bob"], "offer_id": ["X"], "expected_cost": [30.0]})
    verdicts = judge_customers(inputs(), sent, NOTHING, none, NOTHING, sites, spent)
    assert {v.name for v in verdicts if not v.passed} == {"budget"}


def test_every_offer_that_counts_as_sent_has_its_message() -> None:
    """One message of the week went to half of them, and a late delivery goes first to others: two a week are allowed."""
    given, view = many(settings=Settings(control_share=0.0))
    people = given.customers[KEY].to_list()
    promised = datetime(2025, 3, 4, 12, tzinfo=UTC)
    late = pl.DataFrame(
        {KEY: people[10:30], "delivery_id": people[10:30], "promised": [promised] * 20, "arrived": [True] * 20,
         "late_minutes": [30.0] * 20}
    )  # fmt: skip
    earlier = pl.DataFrame(
        {KEY: people[:20], "message_id": people[:20], "kind": "offer", "as_of": [DAY - timedelta(days=2)] * 20}
    )
    plan = plan_offers(given, view, UNSENT, room_taken(given, late, earlier))
    assert 20 <= plan.sent.height <= 30 and not set(plan.sent[KEY]) & set(people[10:20])
    recommended = pl.DataFrame(schema={KEY: pl.String, "rank": pl.Int64, "product_id": pl.String})
    full = book(**{KEY: people, **{n: [1.0] * 40 for n in ("expected_spend", "p_active", "monetary", "recency_days")},
                   "main_site": ["S1"] * 40})  # fmt: skip
    told = todays_messages(given, full, plan.sent, late, earlier, recommended)
    assert set(told.filter(pl.col("kind") == "offer")[KEY]) == set(plan.sent.filter(~pl.col("control"))[KEY])
    # A late delivery that was told on another day takes no room today.
    again = pl.DataFrame(
        {
            KEY: ["x"],
            "message_id": [message_id("late_delivery", people[20], people[20])],
            "as_of": [DAY - timedelta(days=9)],
        }
    )
    assert people[20] not in room_taken(given, late, again)[KEY] and people[21] in room_taken(given, late, again)[KEY]


def test_what_was_planned_in_a_dry_run_does_not_count_once_messages_leave(tmp_path: Path) -> None:
    """Two dry-run days and one that was published, on which one of two messages left: a server refused the other."""
    home = Home(tmp_path)
    days = [DAY - timedelta(days=2), DAY - timedelta(days=1)]
    told = {
        (who, day): message_id("offer", pseudonym(secret(home), who), "X") for who in ("Ann", "Bob") for day in days
    }
    for day in days:
        rows = pl.DataFrame({"customer_id": ["Ann", "Bob", "Cem"], "offer_id": "X", "expected_profit": 1.0,
                             "expected_cost": [2.0, 2.0, 0.0], "control": [False, False, True], "decision_id": "d",
                             "as_of": day, "input_snapshot": "s"})  # fmt: skip
        write_decisions(home, customer_output.OFFERS, day, rows)
        rows = pl.DataFrame({"message_id": [told[who, day] for who in ("Ann", "Bob")], "customer_id": ["Ann", "Bob"],
                             "channel": "email", "subject": "x", "body": "x", "kind": "offer", "decision_id": "d",
                             "due_at": datetime(2025, 3, 5, tzinfo=UTC), "as_of": day, "input_snapshot": "s"})  # fmt: skip
        write_decisions(home, customer_output.MESSAGES, day, rows)

    def counted(settings: Settings, table: Table, *columns: str) -> pl.DataFrame:
        return customer_output.other_decisions(Home(tmp_path, settings), table, DAY, 120, list(columns))

    dry, live = Settings(), Settings(publish=True)
    assert counted(dry, customer_output.MESSAGES, "message_id").height == 4
    assert counted(dry, customer_output.OFFERS, "offer_id", "expected_cost")["expected_cost"].sum() == 8.0
    assert counted(live, customer_output.MESSAGES, "message_id").is_empty()
    assert counted(live, customer_output.OFFERS, "offer_id", "expected_cost").is_empty()
    outbox = tmp_path / "outbox" / "retail" / "messages"
    outbox.mkdir(parents=True)
    ann = pseudonym(secret(home), "Ann")
    pl.DataFrame({"message_id": [told["Ann", days[0]]], KEY: [ann], "left_on": [days[1]]}).write_parquet(
        outbox / "sent.parquet"
    )
    # It was decided on both days and left once.
    assert counted(live, customer_output.MESSAGES, "message_id").rows() == [(ann, days[1], told["Ann", days[1]])]
    offers = counted(live, customer_output.OFFERS, "offer_id", "expected_cost")
    assert offers.columns == [KEY, "as_of", "offer_id", "expected_cost"]
    assert set(offers[KEY]) == {ann, pseudonym(secret(home), "Cem")}  # controls of an offer that was sent count
    assert set(offers["as_of"]) == {days[1]} and offers["expected_cost"].sum() == 2.0


def test_a_week_that_was_sent_on_a_later_day_is_not_sent_again() -> None:
    later = pl.DataFrame({KEY: ["zoe"], "offer_id": ["X"], "as_of": [DAY + timedelta(days=1)], "expected_cost": [1.0]})
    plan = plan_offers(*many(), later)
    assert plan.sent.is_empty() and "2025-03-06" in plan.facts["note"]


def test_lines_without_a_unit_cost_do_not_make_margins_nothing() -> None:
    half = inputs().purchases.with_columns(pl.when(pl.col("product_id") == "TEA").then("margin").alias("margin"))
    priced = defection_cost(inputs(), book())["defection_cost"].to_list()
    assert defection_cost(inputs(purchases=half), book())["defection_cost"].to_list() == pytest.approx(priced)


def test_who_has_no_address_takes_no_budget_and_no_contact() -> None:
    people = pl.DataFrame({KEY: PEOPLE, "marketing_consent": [True, True, False], "reachable": [False, True, True]})
    given = inputs(customers=people)
    assert set(plan_offers(given, book(), UNSENT).sent[KEY]) == {"bob"}
    assert set(messages(given, offered("ann", "bob"))[KEY]) == {"bob"}
    assert given.unreachable == 1
    nobody = plan_offers(inputs(customers=people.with_columns(pl.lit(False).alias("reachable"))), book(), UNSENT)
    assert nobody.sent.is_empty() and "2 who agreed have no address" in nobody.facts["note"]


def test_addresses_may_be_kept_elsewhere_only_where_others_send(tmp_path: Path) -> None:
    people = pl.DataFrame({KEY: PEOPLE, "marketing_consent": [True, True, False], "reachable": [False] * 3})
    assert _now_allowed(Home(tmp_path), people)["reachable"].all()
    assert not _now_allowed(Home(tmp_path, Settings(publish=True)), people)["reachable"].any()
    some = people.with_columns(pl.col(KEY).eq("bob").alias("reachable"))
    assert _now_allowed(Home(tmp_path), some)["reachable"].to_list() == [False, True, False]


def test_the_budget_of_a_long_offer_remembers_its_first_weeks() -> None:
    from npq_assets.retail.customer_assets import MEMORY_DAYS, _offer_days

    assert _offer_days(inputs()) == MEMORY_DAYS
    long = inputs().offers.with_columns(pl.lit(DAY - timedelta(days=200)).alias("starts_on"))
    assert _offer_days(inputs(offers=long)) >= 200 + 6
    over = long.with_columns(pl.lit(MONDAY - timedelta(days=1)).alias("ends_on"))
    assert _offer_days(inputs(offers=over)) == MEMORY_DAYS


def test_an_assumed_margin_is_named() -> None:
    priced, offers = inputs(), inputs().offers
    assert _without_margin(priced, offers) == ""
    without = inputs(purchases=priced.purchases.with_columns(pl.lit(None, pl.Float64).alias("margin")))
    assert "30% is assumed of X" in _without_margin(without, offers)


def test_stores_whose_shelves_nobody_counted_lately_are_named() -> None:
    assert uncounted(inputs(), book()) == []
    old = inputs().shelf.with_columns(pl.lit(DAY - timedelta(days=8)).alias("counted_on"))
    assert uncounted(inputs(shelf=old), book()) == uncounted(inputs(shelf=old.clear()), book()) == ["S1"]


def test_requests_of_which_none_was_ever_closed_are_called_that() -> None:
    facts = Facts(pl.DataFrame(), pl.DataFrame(), pl.DataFrame())

    def note(closed_at: datetime | None) -> str:
        old = case(request_id="R2", topic="x", opened_on=DAY - timedelta(days=40), closed_at=closed_at)
        cases = pl.DataFrame([case(topic="x"), old], schema_overrides={"closed_at": pl.Datetime("us", "UTC")})
        return str(plan_service(inputs(cases=cases), book(), facts).facts.get("note", ""))

    assert "1 of over four weeks ago count as open" in note(None)
    assert "ever closed" not in note(datetime(2025, 2, 1, tzinfo=UTC))
