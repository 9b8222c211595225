"""The company's past: the stores lived day by day under the company's own planner, and handed on a month at a time.

How the past is written to files does not belong here (see `landing`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.demand import Demand
from npq_assets.company.planner import Planner, PlannerSettings
from npq_assets.company.stores import StoreDay, Stores


@dataclass
class Present:
    """The state in which a day opens.

    Attributes:
        day: The day about to open.
        stores: Stock and orders under way.
        planner: The company's planner with what it has learnt.
    """

    day: date
    stores: Stores
    planner: Planner

    def copy(self) -> Present:
        """An independent copy: the fork at which two worlds part."""
        return Present(self.day, self.stores.copy(), self.planner.copy())


def beginning(demand: Demand, settings: PlannerSettings | None = None) -> Present:
    """The first day of the warm-up: a few days of stock, and a planner with a launch estimate of each item."""
    company = demand.company
    guess = np.exp(
        0.3 * streams.normal(company.config.seed, "launch", company.store_keys[:, None], company.product_keys[None, :])
    )
    on_hand = np.where(demand.listed(demand.first), np.ceil(company.base_demand * (company.lead_time + 2)), 0)
    return Present(
        demand.first, Stores(company, on_hand.astype(np.int64)), Planner(company, company.base_demand * guess, settings)
    )


def live(present: Present, demand: Demand, orders: NDArray[np.int64] | None = None) -> StoreDay:
    """Lives one day: orders (the planner's, unless given), arrivals, customers. `present` moves to the next day."""
    day = present.day
    wanted = present.planner.orders(day, present.stores) if orders is None else orders
    present.stores.order(day, wanted)
    happened = present.stores.trade(day, demand.on(day))
    present.planner.observe(happened)
    present.day = day + timedelta(days=1)
    return happened


def months(present: Present, demand: Demand) -> Iterator[list[StoreDay]]:
    """The written history, a calendar month at a time; when it is exhausted, `present` stands at the as-of day."""
    while present.day < demand.company.config.first_day:
        live(present, demand)
    month: list[StoreDay] = []
    while present.day < demand.company.config.as_of:
        month.append(live(present, demand))
        if present.day.day == 1:
            yield month
            month = []
    if month:
        yield month
