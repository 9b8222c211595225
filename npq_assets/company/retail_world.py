"""The stores in the closed loop: npq's orders against the company's own planner, with the same customers.

How a day in the stores goes does not belong here (see `history`, `stores`).
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company.config import PLANNED_DAYS
from npq_assets.company.demand import Demand
from npq_assets.company.history import Present, live
from npq_assets.company.landing import (
    Beginning,
    LandingFolder,
    availability_frame,
    orders_frame,
    sales_frame,
    stock_frame,
)
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company
from npq_assets.company.worlds import CostRow, Service
from npq_assets.errors import RunError
from npq_assets.optimization.costs import InventoryCost
from npq_assets.settings import Home


class NaivePolicy(Protocol):
    """Orders of the other world: what to order as of the day about to open, shape (S, P)."""

    def __call__(self, present: Present) -> NDArray[np.int64]: ...


def planner_policy(present: Present) -> NDArray[np.int64]:
    """The company's own careful order-up-to rule, which also wrote its history."""
    return present.planner.orders(present.day, present.stores)


class RetailWorld:
    """The stores, lived under `decisions/retail/replenishment_orders` and under a naive policy.

    Each day the orders are placed on the real terms (lead times, packs, supplier limits); customers come; sales, stock and
    orders of npq's stores land.
    """

    domain = "retail"
    kinds: tuple[str, ...] = ("stock", "lost_sales")

    def __init__(self, beginning: Beginning, naive: NaivePolicy = planner_policy) -> None:
        self._ours = beginning.present.copy()
        self._theirs = beginning.present.copy()
        self._demand = beginning.demand
        self._naive = naive
        self._units = np.zeros((2, 2))  # (worlds, demand and sold)

    def open(self, folder: LandingFolder, first_day: date, last_day: date) -> None:
        """Nothing: the written history ends where the first day opens."""

    def step(self, home: Home, folder: LandingFolder, day: date) -> list[CostRow]:
        """Lives a day in both worlds; see `worlds.World`."""
        company = self._demand.company
        ours = live(self._ours, self._demand, read_orders(home, company, day))
        theirs = live(self._theirs, self._demand, self._naive(self._theirs))
        self._units += np.array([[lived.demand.sum(), lived.sold.sum()] for lived in (ours, theirs)], dtype=np.float64)
        land_day(folder, self._demand, ours, self._ours)
        npq, naive = day_costs(company, ours), day_costs(company, theirs)
        return [
            CostRow(day, site, kind, float(npq[kind][s]), float(naive[kind][s]))
            for kind in self.kinds
            for s, site in enumerate(company.store_ids)
        ]

    def service(self) -> Service:
        """Units that customers wanted and got."""
        (npq_demand, npq_sold), (naive_demand, naive_sold) = self._units.tolist()
        return Service((npq_demand, naive_demand), (npq_sold, naive_sold))


def land_day(folder: LandingFolder, demand: Demand, happened: StoreDay, present: Present) -> None:
    """Lands what is known when the day after `happened` opens; on Mondays also what has been planned further ahead."""
    company = demand.company
    day = happened.day
    folder.write("retail.sales", f"sales-{day}", sales_frame(company, demand, [happened]))
    folder.write("retail.availability", f"availability-{day}", availability_frame(company, [happened]))
    folder.write("retail.open_orders", f"open-orders-{day}", orders_frame(company, [happened]))
    folder.write("retail.stock", f"stock-{present.day}", stock_frame(company, present.day, present.stores.on_hand))
    if present.day.weekday() == 0:
        since = max(present.day - timedelta(days=7), company.config.as_of) + timedelta(days=PLANNED_DAYS)
        until = present.day + timedelta(days=PLANNED_DAYS - 1)
        folder.write("retail.offers", f"offers-{present.day}", company.offers_frame(since, until))
        folder.write(
            "retail.supplier_limits", f"supplier-limits-{present.day}", company.supplier_limits_frame(since, until)
        )
        if until.year > since.year:
            events = company.events_frame(date(until.year, 1, 1), date(until.year, 12, 31))
            folder.write("common.events", f"events-{until.year}", events)


def read_orders(home: Home, company: Company, day: date) -> NDArray[np.int64]:
    """The orders decided as of `day`, shape (S, P), before rounding to the terms.

    Raises:
        RunError: There is no decision file, or it lacks columns or names an unknown site or product.
    """
    path = home.decisions("retail", "replenishment_orders", day)
    files = sorted(path.parent.glob("*.parquet"))
    if not files:
        raise RunError(f"{path.parent}: no decisions as of {day}; see the run's log for why it did not decide")
    frame = pl.concat([pl.read_parquet(file, columns=["site_id", "product_id", "quantity"]) for file in files])
    stores = {name: i for i, name in enumerate(company.store_ids)}
    products = {name: i for i, name in enumerate(company.product_ids)}
    rows = _positions(frame["site_id"], stores, path.name)
    columns = _positions(frame["product_id"], products, path.name)
    quantity = np.zeros(company.shape)
    np.add.at(quantity, (rows, columns), frame["quantity"].fill_null(0.0).to_numpy())
    return np.ceil(np.maximum(quantity, 0.0) - 1e-9).astype(np.int64)


def _positions(names: pl.Series, known: dict[str, int], file: str) -> NDArray[np.int64]:
    found = [known.get(name, -1) for name in names.to_list()]
    if -1 in found:
        raise RunError(f"{file}: row {found.index(-1) + 1} orders for {names[found.index(-1)]!r}, which does not exist")
    return np.array(found, dtype=np.int64)


def day_costs(company: Company, happened: StoreDay) -> dict[str, NDArray[np.float64]]:
    """Cost of a day by kind and site, shape (S,), priced by the cost objects that the optimizer minimizes."""
    cost = InventoryCost.of(company.holding_cost, company.shortage_cost)
    # Cost objects have the item first: the products, of which the stores share the rates.
    return {
        "stock": cost.holding.value(happened.closing.T).sum(axis=0),
        "lost_sales": cost.lost_sales.value(happened.lost.T).sum(axis=0),
    }
