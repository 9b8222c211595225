"""The company's days: demand that no decision moves, shelves whose books balance, and flags that tell the truth."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.company import streams
from npq_assets.company.config import CompanyConfig
from npq_assets.company.demand import Demand
from npq_assets.company.history import Present, beginning, live, months
from npq_assets.company.stores import Stores, to_terms
from npq_assets.company.world import Company

CONFIG = CompanyConfig(scale=0.1, days=60, seed=3)


@pytest.fixture(scope="module")
def demand() -> Demand:
    return Demand(Company(CONFIG))


def at_as_of(demand: Demand) -> Present:
    present = beginning(demand)
    for _ in months(present, demand):
        pass
    return present


def test_demand_does_not_depend_on_decisions(demand: Demand) -> None:
    usual, hoarder = at_as_of(demand), at_as_of(demand)
    for _ in range(14):
        one = live(usual, demand)
        other = live(hoarder, demand, np.full(demand.company.shape, 50))
        np.testing.assert_array_equal(one.demand, other.demand)


def test_demand_can_be_asked_in_any_order(demand: Demand) -> None:
    day = demand.company.config.as_of
    later = demand.on(day + timedelta(days=3))
    demand.on(day)
    np.testing.assert_array_equal(later, demand.on(day + timedelta(days=3)))


def test_a_larger_company_contains_the_smaller_one(demand: Demand) -> None:
    larger = Demand(Company(CompanyConfig(scale=0.4, days=60, seed=3)))
    s, p = demand.company.shape
    np.testing.assert_array_equal(demand.on(CONFIG.as_of), larger.on(CONFIG.as_of)[:s, :p])


def test_stock_balances_every_day(demand: Demand) -> None:
    present = at_as_of(demand)
    for _ in range(30):
        before = present.stores.on_hand.copy()
        under_way = present.stores.on_order.copy()
        day = live(present, demand)
        np.testing.assert_array_equal(day.opening, before)
        np.testing.assert_array_equal(day.opening + day.arrived - day.sold, day.closing)
        np.testing.assert_array_equal(under_way + day.ordered - day.arrived, present.stores.on_order)
        assert (day.sold <= day.demand).all()
        assert (day.closing >= 0).all()


def test_flags_mark_exactly_the_sales_that_are_not_demand(demand: Demand) -> None:
    present = at_as_of(demand)
    for _ in range(30):
        day = live(present, demand)
        assert (day.sold[day.in_stock] == day.demand[day.in_stock]).all()
        empty = day.opening + day.arrived == 0
        np.testing.assert_array_equal(~day.in_stock, (day.lost > 0) | empty)


def test_orders_arrive_after_the_lead_time(demand: Demand) -> None:
    company = demand.company
    stores = Stores(company, np.zeros(company.shape, dtype=np.int64))
    company_limits = company.max_quantity.copy(), company.max_spend.copy()
    company.max_quantity[:], company.max_spend[:] = np.inf, np.inf
    try:
        accepted = stores.order(CONFIG.as_of, np.ones(company.shape, dtype=np.int64))
        for ahead in range(int(company.lead_time.max()) + 1):
            day = stores.trade(CONFIG.as_of + timedelta(days=ahead), np.zeros(company.shape, dtype=np.int64))
            np.testing.assert_array_equal(day.arrived, np.where(company.lead_time == ahead, accepted, 0))
    finally:
        company.max_quantity[:], company.max_spend[:] = company_limits


def test_suppliers_never_bring_more_than_their_limit(demand: Demand) -> None:
    company = demand.company
    stores = Stores(company, np.zeros(company.shape, dtype=np.int64))
    for ahead in range(8):
        day = CONFIG.as_of + timedelta(days=ahead)
        stores.order(day, np.full(company.shape, 500))
        arrived = stores.trade(day, demand.on(day)).arrived
        for k in range(len(company.supplier_ids)):
            mine = arrived[:, company.product_supplier == k]
            assert mine.sum() <= company.max_quantity[k] + 1e-9
            assert (mine * company.unit_cost[company.product_supplier == k]).sum() <= company.max_spend[k] + 1e-6


@settings(max_examples=50, deadline=None)
@given(quantity=st.floats(0, 1e5))
def test_orders_keep_packs_and_minimum(demand: Demand, quantity: float) -> None:
    company = demand.company
    ordered = to_terms(company, np.full(company.shape, quantity))
    assert (ordered % company.pack_size == 0).all()
    assert ((ordered == 0) | (ordered >= company.min_order)).all()
    assert (ordered >= quantity - 1e-6).all()


def test_new_items_sell_only_once_listed() -> None:
    demand = Demand(Company(CompanyConfig(scale=1.0, days=365, seed=0)))
    company = demand.company
    new = np.flatnonzero(company.is_new)
    assert new.size
    for p in new:
        listed = int(company.listed_ordinal[p]) - company.config.first_day.toordinal()
        before = company.config.first_day + timedelta(days=listed - 1)
        assert demand.on(before)[:, p].sum() == 0
        assert demand.mean(before + timedelta(days=1))[:, p].sum() > 0


def test_promotions_lift_demand() -> None:
    demand = Demand(Company(CompanyConfig(scale=1.0, days=120, seed=0)))
    factor = demand.promotion_factor()
    assert factor.max() > 2.0
    assert factor.min() < 1.0


@settings(max_examples=30, deadline=None)
@given(mean=st.floats(0.05, 60.0), seed=st.integers(0, 10))
def test_poisson_quantile_has_the_moments_of_poisson(mean: float, seed: int) -> None:
    u = streams.uniform(seed, "test", np.arange(20_000))
    drawn = streams.poisson_quantile(u, np.full(u.shape, mean))
    assert abs(drawn.mean() - mean) < 5 * np.sqrt(mean / u.size) + 0.02
    assert abs(drawn.var() / mean - 1.0) < 0.12


def test_streams_are_uniform_and_independent_of_order() -> None:
    keys = np.arange(100_000)
    u = streams.uniform(1, "a", keys)
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    np.testing.assert_array_equal(streams.uniform(1, "a", keys[::-1]), u[::-1])
    assert abs(np.corrcoef(u, streams.uniform(1, "b", keys))[0, 1]) < 0.01
