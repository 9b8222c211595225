"""The company's own planner: a careful order-up-to rule, run for all stores at once, which wrote the company's history.

It averages what was sold while in stock over four weeks, knows the weekday pattern, adds safety stock from its own
forecast error at the right critical ratio, and counts what is under way. It does not know what a promotion or an event
will do.
The product's own rule (`evaluation.policies`) reads tables; this one keeps running sums, so that years pass in seconds.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from npq_assets.company.config import FAMILIES
from npq_assets.company.stores import StoreDay, Stores
from npq_assets.company.world import Company

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PlannerSettings:
    """Knobs of the planner, tuned on the company's own history as a competent rival would.

    Attributes:
        level_days: Days of the moving average.
        error_days: Days over which the forecast error is measured.
        weekday_memory: Share of the weekday profile kept from one week to the next.
        safety: Factor on the safety stock; 1 is the textbook.
        launch_days: Weight of the launch estimate of a new item, in days of sales.
    """

    level_days: int = 28
    error_days: int = 56
    weekday_memory: float = 0.92
    safety: float = 1.0
    launch_days: float = 3.0


class Planner:
    """Order-up-to with running sums.

    Target = forecast of the protection interval (lead time + 1 day) + z * sd, with z the normal quantile of the
    critical ratio shortage / (shortage + holding) and sd from the planner's own daily forecast errors
    (Silver, Pyke and Thomas 2017, section 7.9: periodic review, order-up-to).

    Attributes:
        company: Whose planner it is.
        settings: Knobs.
    """

    def __init__(self, company: Company, launch_estimate: Floats, settings: PlannerSettings | None = None) -> None:
        self.company = company
        self.settings = settings or PlannerSettings()
        s, p = company.shape
        self._launch = launch_estimate
        self._sold = np.zeros((self.settings.level_days, s, p))
        self._weight = np.zeros((self.settings.level_days, s, p))
        self._error = np.zeros((self.settings.error_days, s, p))
        self._seen = np.zeros((self.settings.error_days, s, p))
        self._sum_sold = np.zeros((s, p))
        self._sum_weight = np.zeros((s, p))
        self._sum_error = np.zeros((s, p))
        self._sum_seen = np.zeros((s, p))
        self._profile_sum = np.ones((s, len(FAMILIES), 7))
        self._profile_count = np.ones((s, len(FAMILIES), 7))
        self._one_hot = np.zeros((p, len(FAMILIES)))
        self._one_hot[np.arange(p), company.product_family] = 1.0
        ratio = company.shortage_cost / (company.shortage_cost + company.holding_cost)
        self._z: Floats = np.asarray(ndtri(ratio))

    def copy(self) -> Planner:
        """An independent copy with the same memory."""
        twin = copy.copy(self)
        for name in ("_sold", "_weight", "_error", "_seen", "_profile_sum", "_profile_count"):
            setattr(twin, name, getattr(self, name).copy())
        for name in ("_sum_sold", "_sum_weight", "_sum_error", "_sum_seen"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def _weekday(self) -> Floats:
        """Weekday factors of mean 1 by store and family, shape (S, F, 7)."""
        mean = self._profile_sum / self._profile_count
        return np.asarray(mean / mean.mean(axis=2, keepdims=True))

    def _level(self) -> Floats:
        trust = self.settings.launch_days
        return (trust * self._launch + self._sum_sold) / (trust + self._sum_weight)

    def observe(self, happened: StoreDay) -> None:
        """Learns from a day that is over: sales while in stock, nothing else."""
        day = happened.day
        weekday = day.weekday()
        family = self.company.product_family
        listed = self.company.listed_ordinal <= day.toordinal()
        factor = self._weekday()[:, :, weekday][:, family]
        forecast = self._level() * factor
        # An empty shelf shows a lower bound: what was sold counts if it beats the forecast, else the day is left out.
        told = happened.sold > forecast
        seen = (happened.in_stock | told) & listed[None, :]
        sold = np.where(seen, happened.sold, 0.0)
        error = np.where(seen, (sold - forecast) ** 2, 0.0)
        weight = np.where(seen, factor, 0.0)
        here, there = day.toordinal() % self.settings.level_days, day.toordinal() % self.settings.error_days
        for ring, place, total, new in (
            (self._sold, here, self._sum_sold, sold),
            (self._weight, here, self._sum_weight, weight),
            (self._error, there, self._sum_error, error),
            (self._seen, there, self._sum_seen, seen),
        ):
            total += new
            total -= ring[place]
            ring[place] = new
        keep = self.settings.weekday_memory
        self._profile_sum[:, :, weekday] = keep * self._profile_sum[:, :, weekday] + sold @ self._one_hot
        self._profile_count[:, :, weekday] = keep * self._profile_count[:, :, weekday] + seen @ self._one_hot

    def target(self, day: date) -> Floats:
        """Units to have on hand and under way as of `day`, shape (S, P)."""
        company = self.company
        family = company.product_family
        profile = self._weekday()
        reach = int(company.lead_time.max()) + 1
        ahead = np.cumsum(
            np.stack([profile[:, :, (day.weekday() + k) % 7] for k in range(reach)]), axis=0
        )  # (reach, S, F)
        rows = np.arange(company.shape[0])[:, None]
        factor = ahead[company.lead_time, rows, family[None, :]]
        level = self._level()
        launch_variance = np.maximum(self._launch, 0.02) * 1.5
        variance = (self._sum_error + 5.0 * launch_variance) / (self._sum_seen + 5.0)
        spread = np.sqrt((company.lead_time + 1) * variance)
        return level * factor + self.settings.safety * self._z * spread

    def orders(self, day: date, stores: Stores) -> Ints:
        """Units to order as of `day`, shape (S, P), before rounding to packs."""
        # Shelves of a new item are filled from the day its lead time allows.
        known = self.company.listed_ordinal[None, :] <= day.toordinal() + self.company.lead_time
        short = np.where(known, self.target(day) - stores.on_hand - stores.on_order, 0.0)
        return np.maximum(np.ceil(short - 1e-9), 0).astype(np.int64)
