"""What customers want each day at each store: known patterns, planned promotions and events, and luck.

The demand of a day depends on seed, day, store and product alone, never on what was ordered. What is sold of it does
not belong here (see `stores`).
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.config import FAMILIES, PLANNED_DAYS, REGIONS, WARM_UP_DAYS
from npq_assets.company.world import Company

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Monday to Sunday.
_SUBURBAN = np.array([0.80, 0.78, 0.85, 0.92, 1.22, 1.50, 0.93])
_DOWNTOWN = np.array([1.05, 1.06, 1.06, 1.08, 1.22, 0.92, 0.61])


class Demand:
    """The demand of the sample company, one day at a time.

    Equation: quantity ~ Poisson(mean * G), G gamma-distributed with mean 1 and the product's squared coefficient of
    variation; mean = base * trend * weekday * year * event * promotion * weather * store's luck * product's drift.

    Attributes:
        company: Whose customers they are.
        first: First day that can be asked for.
        days: Number of days that can be asked for.
    """

    def __init__(self, company: Company, extra_days: int = PLANNED_DAYS) -> None:
        self.company = company
        self.first = company.config.first_day - timedelta(days=WARM_UP_DAYS)
        self.days = company.config.days + WARM_UP_DAYS + extra_days
        self._seed = company.config.seed
        weekend = np.array([f.weekend for f in FAMILIES])
        profile = np.where(company.store_suburban[:, None], _SUBURBAN, _DOWNTOWN)  # (S, 7)
        lift = np.ones((len(FAMILIES), 7))
        lift[:, 4:] = weekend[:, None]
        self._weekday = profile[:, None, :] * lift[None, :, :]  # (S, F, 7)
        self._discounts = company.discounts(self.first, self.days)
        self._product_day = self._products_by_day()
        self._event_day = self._events_by_day()

    # Known patterns ---------------------------------------------------------------------------------------------------

    def _products_by_day(self) -> Floats:
        """Everything that all stores share, shape (days, P)."""
        company = self.company
        family = company.product_family
        ordinal = self.first.toordinal() + np.arange(self.days)
        of_year = np.array([date.fromordinal(int(o)).timetuple().tm_yday for o in ordinal])
        amplitude = np.array([f.annual for f in FAMILIES])
        peak = np.array([f.peak for f in FAMILIES])
        wave = 1.0 + amplitude * np.cos(2.0 * np.pi * (of_year[:, None] - peak) / 365.25)  # (days, F)
        years = (ordinal - company.config.as_of.toordinal()) / 365.25
        trend = np.exp(years[:, None] * company.product_trend)
        # A slow drift of taste that no calendar explains.
        drift = np.zeros((self.days, len(family)))
        for term, period in enumerate((67.0, 113.0, 211.0)):
            phase = streams.uniform(self._seed, "drift phase", term, company.product_keys)
            drift += 0.05 * np.sin(2.0 * np.pi * (ordinal[:, None] / period + phase))
        age = ordinal[:, None] - company.listed_ordinal
        launched = np.where(company.is_new, 1.0 - 0.5 * np.exp(-np.maximum(age, 0) / 25.0), 1.0)
        listed = age >= 0
        return wave[:, family] * trend * np.exp(drift) * launched * listed * self.promotion_factor()

    def promotion_factor(self) -> Floats:
        """Uplift by promotions and the dip after them, shape (days, P)."""
        company = self.company
        elasticity = np.array([f.elasticity for f in FAMILIES])[company.product_family]
        on = self._discounts > 0
        # The leaflet alone sells some more; the price does the rest.
        factor = np.where(on, 1.12 * (1.0 - self._discounts) ** -elasticity, 1.0)
        recent = np.zeros_like(on)
        for back in range(1, 8):
            recent[back:] |= on[:-back]
        factor[recent & ~on] *= 0.87
        return factor

    def _events_by_day(self) -> Floats:
        """Factor of events, shape (days, regions, families)."""
        table = np.ones((self.days, len(REGIONS), len(FAMILIES)))
        regions = [name for name, _, _ in REGIONS]
        last = self.first + timedelta(days=self.days)
        seen: set[tuple[date, str, str | None]] = set()
        for event in self.company.events(self.first, last):
            if (event.on, event.kind.name, event.region) in seen:
                continue
            seen.add((event.on, event.kind.name, event.region))
            where = (
                slice(None)
                if event.region is None
                else slice(regions.index(event.region), regions.index(event.region) + 1)
            )
            effect = np.array([event.kind.effect.get(f.name, event.kind.effect["*"]) for f in FAMILIES])
            offset = (event.on - self.first).days
            if offset < self.days:
                table[offset, where] *= effect
            if offset > 0:
                table[offset - 1, where] *= event.kind.eve
        return table

    # Luck -------------------------------------------------------------------------------------------------------------

    def temperature(self, day: date) -> Floats:
        """Degrees above the season's normal, by region, shape (regions,): a moving average of daily luck."""
        ordinal = day.toordinal()
        region = np.arange(len(REGIONS))
        weights = 0.75 ** np.arange(8)
        luck = np.stack([streams.normal(self._seed, "weather", ordinal - back, region) for back in range(8)])
        return 4.0 * (weights[:, None] * luck).sum(axis=0) / np.sqrt((weights**2).sum())

    def normal_temperature(self, day: date) -> Floats:
        """The season's normal temperature by region (degrees Celsius), shape (regions,)."""
        swing = 9.0 * np.cos(2.0 * np.pi * (day.timetuple().tm_yday - 200) / 365.25)
        return 9.5 + swing - 0.5 * np.arange(len(REGIONS))

    def store_factor(self, day: date) -> Floats:
        """Footfall of each store, shape (S,): its trend, its luck of the day, and spells of road works or the like."""
        company = self.company
        ordinal = day.toordinal()
        years = (ordinal - company.config.as_of.toordinal()) / 365.25
        luck = np.exp(0.06 * streams.normal(self._seed, "footfall", ordinal, company.store_keys))
        block, position = divmod(ordinal, 90)
        drawn = streams.uniform(self._seed, "spell", block, company.store_keys)
        begin = np.floor(70 * streams.uniform(self._seed, "spell start", block, company.store_keys))
        length = 4 + np.floor(10 * streams.uniform(self._seed, "spell length", block, company.store_keys))
        strength = np.select([drawn < 0.12, drawn < 0.25, drawn < 0.40], [0.65, 1.45, 0.8], 1.0)
        in_spell = (position >= begin) & (position < begin + length)
        return np.exp(years * company.store_trend) * luck * np.where(in_spell, strength, 1.0)

    # The day ----------------------------------------------------------------------------------------------------------

    def offset(self, day: date) -> int:
        """Position of `day` in the tables by day; IndexError outside them."""
        offset = (day - self.first).days
        if not 0 <= offset < self.days:
            raise IndexError(f"{day} is outside the sample company's calendar, {self.first} and {self.days} days on")
        return offset

    def discount(self, day: date) -> Floats:
        """Discount of each product on `day`, shape (P,)."""
        return self._discounts[self.offset(day)]

    def mean(self, day: date) -> Floats:
        """Expected demand given the day's patterns, weather and footfall, shape (S, P)."""
        company = self.company
        offset = self.offset(day)
        family = company.product_family
        heat = np.array([f.heat for f in FAMILIES])
        weather = np.exp(self.temperature(day)[:, None] * heat)  # (regions, F)
        by_family = self._weekday[:, :, day.weekday()] * (self._event_day[offset] * weather)[company.store_region]
        by_family = by_family * self.store_factor(day)[:, None]
        mean: Floats = company.base_demand * by_family[:, family] * self._product_day[offset]
        return mean

    def on(self, day: date) -> Ints:
        """Demand of `day`, shape (S, P), whole units."""
        company = self.company
        first, second = streams.two_uniforms(
            self._seed, "demand", day.toordinal(), company.store_keys[:, None], company.product_keys[None, :]
        )
        mean = self.mean(day) * streams.gamma_factor(first, company.dispersion)
        return streams.poisson_quantile(second, mean)

    def listed(self, day: date) -> NDArray[np.bool_]:
        """Which products stores sell on `day`, shape (P,)."""
        return np.asarray(self.company.listed_ordinal <= day.toordinal())
