"""What was known when: stock carried forward, orders under way, promotions and events, and nothing later."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.errors import Unavailable
from npq_assets.retail.covariates import EVENT_REACH, with_covariates
from npq_assets.retail.demand import training_day
from npq_assets.retail.inputs import RetailInputs, known_orders, read_inputs
from npq_assets.settings import Home
from npq_assets.storage import write_parquet

D = date
PAIR = {"site_id": "s", "product_id": "p"}
TERMS = {**PAIR, "lead_time_periods": 2, "holding_cost": 0.1, "shortage_cost": 1.0, "pack_size": 1.0, "min_order": 0.0,
         "supplier_id": "v", "family": "f", "unit_cost": 1.0}  # fmt: skip
SCHEMAS: dict[str, dict[str, pl.DataType | type[pl.DataType]]] = {
    "retail/demand": {"site_id": pl.String, "product_id": pl.String, "family": pl.String, "period_start": pl.Date,
                      "quantity": pl.Float64, "in_stock": pl.Boolean, "landed": pl.Boolean, "price": pl.Float64,
                      "promotion": pl.Boolean},
    "retail/stock_position": {"counted_on": pl.Date, "site_id": pl.String, "product_id": pl.String, "on_hand": pl.Float64},
    "retail/open_orders": {"site_id": pl.String, "product_id": pl.String, "arrives_on": pl.Date, "quantity": pl.Float64,
                           "ordered_on": pl.Date},
    "retail/supply_terms": {k: pl.Int64 if k == "lead_time_periods" else pl.Float64 if isinstance(v, float) else pl.String
                            for k, v in TERMS.items()},
    "retail/supplier_limits": {"supplier_id": pl.String, "arrives_on": pl.Date, "max_quantity": pl.Float64,
                               "max_spend": pl.Float64},
    "retail/promotions": {"offer_id": pl.String, "product_id": pl.String, "starts_on": pl.Date, "ends_on": pl.Date,
                          "discount": pl.Float64},
    "common/events": dict(LANDING["common.events"].schema),
    "common/products": dict(LANDING["common.products"].schema),
    "common/sites": dict(LANDING["common.sites"].schema),
}  # fmt: skip


def home_with(root: Path, **marts: list[dict[str, object]]) -> Home:
    """A daily home whose marts hold these rows."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "npq.toml").write_text('period = "day"')
    home = Home.at(root)
    for name, schema in SCHEMAS.items():
        rows = marts.get(name.split("/")[1], [])
        write_parquet(
            pl.DataFrame(rows, schema=schema) if rows else pl.DataFrame(schema=schema), home.mart(*name.split("/"))
        )
    return home


def demand(first: date, quantities: list[float]) -> list[dict[str, object]]:
    return [
        {
            **PAIR,
            "family": "f",
            "period_start": first + timedelta(days=k),
            "quantity": q,
            "in_stock": True,
            "landed": True,
        }
        for k, q in enumerate(quantities)
    ]


def inputs(root: Path, as_of: date, **marts: list[dict[str, object]]) -> RetailInputs:
    return read_inputs(home_with(root, **{"supply_terms": [TERMS], **marts}), as_of)


def test_history_ends_the_day_before(tmp_path: Path) -> None:
    found = inputs(tmp_path, D(2024, 4, 3), demand=demand(D(2024, 4, 1), [1, 2, 3, 4]))
    assert found.history["quantity"].to_list() == [1, 2]


def test_an_old_count_is_carried_forward(tmp_path: Path) -> None:
    found = inputs(
        tmp_path,
        D(2024, 4, 4),
        demand=demand(D(2024, 4, 1), [5, 2, 3, 9]),
        stock_position=[
            {**PAIR, "counted_on": D(2024, 4, 2), "on_hand": 10.0},
            {**PAIR, "counted_on": D(2024, 4, 5), "on_hand": 99.0},
        ],
        open_orders=[
            {**PAIR, "arrives_on": D(2024, 4, 1), "quantity": 50.0},  # in the count already
            {**PAIR, "arrives_on": D(2024, 4, 2), "quantity": 4.0},  # arrived after it
            {**PAIR, "arrives_on": D(2024, 4, 4), "quantity": 6.0},  # arrives today
        ],
    )
    item = found.items.row(0, named=True)
    assert item["on_hand"] == 10 + 4 - (2 + 3)
    assert item["assumptions"] == "stock counted on 2024-04-02, carried forward"
    assert found.arrivals.select("step", "quantity").rows() == [(0, 6.0)]


def test_without_a_count_nothing_is_invented(tmp_path: Path) -> None:
    found = inputs(
        tmp_path, D(2024, 4, 4), demand=demand(D(2024, 4, 1), [5, 2, 3]),
        open_orders=[{**PAIR, "arrives_on": D(2024, 4, 2), "quantity": 50.0}],
    )  # fmt: skip
    assert found.items["on_hand"][0] == 0
    assert "1 of 1 pairs have no stock count" in found.skipped[0]


@pytest.mark.parametrize(
    ("arrives", "ordered", "live", "known"),
    [
        (D(2024, 4, 5), None, False, True),  # within the lead time: placed before
        (D(2024, 4, 6), None, False, False),  # could have been placed on the day itself
        (D(2024, 4, 6), None, True, True),  # on the latest day all that landed is known
        (D(2024, 4, 9), D(2024, 4, 3), False, True),
        (D(2024, 4, 5), D(2024, 4, 4), True, False),
    ],
)
def test_orders_placed_later_are_not_known(arrives: date, ordered: date | None, live: bool, known: bool) -> None:
    orders = pl.DataFrame(
        [{**PAIR, "arrives_on": arrives, "quantity": 1.0, "ordered_on": ordered}], schema=SCHEMAS["retail/open_orders"]
    )
    items = pl.DataFrame([{**PAIR, "lead_time_periods": 2}])
    assert known_orders(orders, items, D(2024, 4, 4), "day", live).height == int(known)


def test_sites_without_terms_borrow_those_of_the_product(tmp_path: Path) -> None:
    other = demand(D(2024, 4, 1), [1, 1])
    other = [{**row, "site_id": "t"} for row in other]
    found = inputs(tmp_path, D(2024, 4, 3), demand=demand(D(2024, 4, 1), [1, 1]) + other)
    row = found.items.filter(pl.col("site_id") == "t").row(0, named=True)
    assert (row["lead_time_periods"], row["shortage_cost"]) == (2, 1.0)
    assert "those of the product's other sites assumed" in row["assumptions"]


def test_what_is_essential_is_named_when_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="supply_terms: no rows accepted"):
        read_inputs(home_with(tmp_path / "a", demand=demand(D(2024, 4, 1), [1])), D(2024, 4, 2))
    with pytest.raises(Unavailable, match="no period had ended before 2024-04-01"):
        inputs(tmp_path / "b", D(2024, 4, 1), demand=demand(D(2024, 4, 1), [1]))


def test_the_snapshot_is_of_what_was_known(tmp_path: Path) -> None:
    rows = demand(D(2024, 4, 1), [1, 2, 3])
    one = inputs(tmp_path / "a", D(2024, 4, 3), demand=rows)
    two = inputs(tmp_path / "b", D(2024, 4, 3), demand=[*rows[:2], {**rows[2], "quantity": 77.0}])
    other = inputs(tmp_path / "c", D(2024, 4, 3), demand=[{**rows[0], "quantity": 77.0}, *rows[1:]])
    assert one.snapshot == two.snapshot != other.snapshot


def test_turned_back_it_shows_an_earlier_day(tmp_path: Path) -> None:
    import numpy as np

    found = inputs(tmp_path, D(2024, 4, 8), demand=demand(D(2024, 4, 1), [1, 2, 3, 4, 5, 6, 7]))
    back = found.turned_back(D(2024, 4, 4), np.array([5.0]), np.array([[0.0, 7.0]]))
    assert back.history["quantity"].to_list() == [1, 2, 3]
    assert back.items["on_hand"].to_list() == [5.0]
    assert back.arrivals.select("arrives_on", "step", "quantity").rows() == [(D(2024, 4, 5), 1, 7.0)]


def frame(days: int, **more: object) -> pl.DataFrame:
    rows = [
        {"site_id": "s", "product_id": "p", "period_start": D(2024, 4, 1) + timedelta(days=k), **more}
        for k in range(days)
    ]
    return pl.DataFrame(rows)


SITES = pl.DataFrame({"site_id": ["s"], "kind": ["store"], "region": ["north"]})
NO_OFFERS = pl.DataFrame(
    schema={"product_id": pl.String, "starts_on": pl.Date, "ends_on": pl.Date, "discount": pl.Float64}
)
NO_EVENTS = pl.DataFrame(schema={"event_on": pl.Date, "name": pl.String, "region": pl.String})


def test_promotions_mark_their_days_past_and_future_alike() -> None:
    offers = pl.DataFrame(
        {"product_id": ["p"], "starts_on": [D(2024, 4, 2)], "ends_on": [D(2024, 4, 3)], "discount": [0.2]}
    )
    found = with_covariates(frame(4), offers, NO_EVENTS, SITES, "day")
    assert found["discount"].to_list() == [0, 0.2, 0.2, 0]
    assert found["promoted"].to_list() == [0, 1, 1, 0]


def test_a_week_is_promoted_by_its_share_of_days() -> None:
    offers = pl.DataFrame(
        {"product_id": ["p"], "starts_on": [D(2024, 4, 5)], "ends_on": [D(2024, 4, 10)], "discount": [0.7]}
    )
    weeks = frame(8).filter(pl.col("period_start").is_in([D(2024, 4, 1), D(2024, 4, 8)]))
    found = with_covariates(weeks, offers, NO_EVENTS, SITES, "week")
    assert found["promoted"].to_list() == pytest.approx([3 / 7, 3 / 7])


def test_events_lead_and_lag_in_their_region() -> None:
    events = pl.DataFrame(
        {"event_on": [D(2024, 4, 4), D(2024, 4, 2)], "name": ["feast", "elsewhere"], "region": [None, "south"]}
    )
    found = with_covariates(frame(6), NO_OFFERS, events, SITES, "day")
    assert found["until_event"].to_list() == [3, 2, 1, 0, EVENT_REACH + 1, EVENT_REACH + 1]
    assert found["since_event"].to_list() == [EVENT_REACH + 1] * 3 + [0, 1, 2]


def test_models_are_trained_on_a_fixed_calendar() -> None:
    days = {training_day(D(2024, 4, 15) + timedelta(days=k), "day", 7) for k in range(7)}
    assert days == {D(2024, 4, 15)}
    assert training_day(D(2024, 4, 15), "week", None) == D(2024, 4, 15)
