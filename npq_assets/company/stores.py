"""The shelves of the stores: what arrives, what is sold, what is turned away, and what suppliers accept.

Which quantity to order does not belong here (see `planner`), nor what customers want (see `demand`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from npq_assets.company.world import Company
from npq_assets.optimization.inventory import step

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class StoreDay:
    """What happened in all stores on one day; arrays of shape (S, P), units.

    Attributes:
        day: The day.
        opening: On hand when the day opened, before arrivals.
        arrived: Arrivals, available from the opening.
        demand: What customers wanted.
        sold: What they got.
        closing: On hand when the day ended.
        ordered: Accepted orders decided as of the day.
        in_stock: False where a customer was turned away or nothing could be bought all day: sales are not demand.
    """

    day: date
    opening: Ints
    arrived: Ints
    demand: Ints
    sold: Ints
    closing: Ints
    ordered: Ints
    in_stock: NDArray[np.bool_]

    @property
    def lost(self) -> Ints:
        """Units turned away."""
        return self.demand - self.sold


class Stores:
    """Stock and orders under way of all stores.

    A day goes: `order` (before opening) - `trade` (arrivals, then customers). An order decided as of D is available at
    the opening of D + lead time.

    Attributes:
        company: Whose stores they are.
        on_hand: Units on the shelves, shape (S, P).
    """

    def __init__(self, company: Company, on_hand: Ints) -> None:
        self.company = company
        self.on_hand: Ints = on_hand.astype(np.int64)
        self._slots = int(company.lead_time.max()) + 1
        self._under_way = np.zeros((self._slots, *company.shape), dtype=np.int64)
        self._ordered_on = np.zeros((self._slots, *company.shape), dtype=np.int64)
        self._last_order = np.zeros(company.shape, dtype=np.int64)
        self._rows, self._columns = np.indices(company.shape)

    def copy(self) -> Stores:
        """An independent copy in the same state, of the same company."""
        twin = copy.copy(self)
        twin.on_hand = self.on_hand.copy()
        twin._under_way = self._under_way.copy()
        twin._ordered_on = self._ordered_on.copy()
        twin._last_order = self._last_order.copy()
        return twin

    @property
    def on_order(self) -> Ints:
        """Units under way, shape (S, P)."""
        return np.asarray(self._under_way.sum(axis=0))

    def arrivals_by_day(self, day: date) -> Ints:
        """Units under way as of `day`, shape (slots, S, P): entry k arrives at the opening of `day` + k."""
        order = (day.toordinal() + np.arange(self._slots)) % self._slots
        return self._under_way[order]

    def order(self, day: date, quantity: Ints) -> Ints:
        """Places orders as of `day` and returns what suppliers accept, shape (S, P).

        Orders are rounded to the terms (whole packs, up; at least the minimum), then cut in proportion, to whole packs,
        where a supplier's limit for the arrival day would be exceeded.
        """
        company = self.company
        wanted = to_terms(company, quantity)
        accepted = self._within_limits(day, wanted)
        slot = (day.toordinal() + company.lead_time) % self._slots
        self._under_way[slot, self._rows, self._columns] += accepted
        self._ordered_on[slot, self._rows, self._columns] = day.toordinal()
        self._last_order = accepted
        return accepted

    def _within_limits(self, day: date, wanted: Ints) -> Ints:
        company = self.company
        limited = [
            k
            for k in range(len(company.supplier_ids))
            if np.isfinite(min(company.max_quantity[k], company.max_spend[k]))
        ]
        accepted = wanted
        for k in limited:
            mine = company.product_supplier == k
            for lead in np.unique(company.lead_time[:, mine]):
                slot = (day.toordinal() + int(lead)) % self._slots
                group = mine[None, :] & (company.lead_time == lead)
                booked = self._under_way[slot] * mine[None, :]
                asked = np.where(group, wanted, 0)
                room = [
                    (company.max_quantity[k] - booked.sum(), asked.sum()),
                    (company.max_spend[k] - (booked * company.unit_cost).sum(), (asked * company.unit_cost).sum()),
                ]
                share = min((max(free, 0.0) / need for free, need in room if need > max(free, 0.0)), default=1.0)
                if share < 1.0:
                    packs = np.floor(asked * share / company.pack_size + 1e-9).astype(np.int64)
                    cut = packs * company.pack_size
                    accepted = np.where(group, np.where(cut >= company.min_order, cut, 0), accepted)
        return accepted

    def trade(self, day: date, demand: Ints) -> StoreDay:
        """Receives the day's arrivals, serves the customers, and returns what happened."""
        slot = day.toordinal() % self._slots
        opening = self.on_hand
        arrived = self._under_way[slot].copy()
        self._under_way[slot] = 0
        # Whole units are exact in the floats of the shared dynamics.
        sold, lost, left = (units.astype(np.int64) for units in step(opening, arrived, demand))
        self.on_hand = left
        return StoreDay(
            day=day,
            opening=opening,
            arrived=arrived,
            demand=demand,
            sold=sold,
            closing=self.on_hand,
            ordered=self._last_order,
            in_stock=(lost == 0) & (opening + arrived > 0),
        )


def to_terms(company: Company, quantity: Ints | Floats) -> Ints:
    """Rounds orders up to whole packs and to the minimum order; nothing stays nothing."""
    packs = np.ceil(np.maximum(quantity, 0) / company.pack_size - 1e-9).astype(np.int64)
    rounded = packs * company.pack_size
    return np.where(rounded > 0, np.maximum(rounded, company.min_order), 0)
