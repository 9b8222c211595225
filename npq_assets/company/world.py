"""The company itself: its sites, products, terms of supply, and calendar, drawn once from the seed.

What happens day by day does not belong here (see `demand`, `stores`, `plant`, `fleet`, `customers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.config import (
    BACK_TO_SCHOOL,
    CITY_FAIR,
    DISCOUNT_DAY,
    FAMILIES,
    FIXED_HOLIDAYS,
    MATCH_DAY,
    OFFER_DEPTHS,
    PAYDAY,
    PUBLIC_HOLIDAY,
    REGIONS,
    SUPPLIER_LEAD,
    SUPPLIER_QUANTITY,
    SUPPLIER_SPEND,
    WARM_UP_DAYS,
    CompanyConfig,
    EventKind,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Event:
    """An event on a day, everywhere or in one region."""

    on: date
    kind: EventKind
    region: str | None = None


@dataclass(frozen=True)
class Offer:
    """A price reduction planned ahead for a product or a family."""

    offer_id: str
    starts_on: date
    ends_on: date
    discount: float
    product: int | None = None
    family: int | None = None


class Company:
    """Master data of the sample company.

    Arrays over stores have length S, over products length P, over both shape (S, P), in the order of `store_ids` and
    `product_ids`. Everything about a store or a product depends on its name and the seed alone, so that a larger
    company contains the smaller one.

    Attributes:
        config: Size, dates and seed.
    """

    def __init__(self, config: CompanyConfig) -> None:
        self.config = config
        seed = config.seed
        width = max(3, len(str(config.n_products)))
        self.store_ids = [f"S{i + 1:03d}" for i in range(config.n_stores)]
        self.product_ids = [f"P{i + 1:0{width}d}" for i in range(config.n_products)]
        self.plant_ids = [f"PL{i + 1:02d}" for i in range(max(1, config.n_products // 200))]
        self.warehouse_ids = [f"W{i + 1:02d}" for i in range(max(2, round(config.n_stores / 12)))]
        self.store_keys = streams.name_keys(self.store_ids)
        # Keys of products do not depend on the width of the number.
        self.product_keys = streams.name_keys(f"product {i}" for i in range(config.n_products))
        self._draw_stores(seed)
        self._draw_products(seed)
        self._draw_terms(seed)

    def _draw_stores(self, seed: int) -> None:
        keys = self.store_keys
        count = len(keys)
        self.store_size: Floats = np.exp(0.45 * streams.normal(seed, "store size", keys))
        self.store_region: Ints = np.arange(count) % len(REGIONS)
        self.store_suburban: NDArray[np.bool_] = streams.uniform(seed, "store type", keys) < 0.55
        self.store_trend: Floats = 0.04 * streams.normal(seed, "store trend", keys)
        self.store_warehouse: Ints = np.arange(count) % len(self.warehouse_ids)
        self.store_remote: NDArray[np.bool_] = streams.uniform(seed, "store remote", keys) < 0.3
        base = np.array([[region[1], region[2]] for region in REGIONS])[self.store_region]
        spread = np.stack(
            [streams.normal(seed, "store latitude", keys), streams.normal(seed, "store longitude", keys)], axis=1
        )
        self.store_location: Floats = np.round(base + spread * np.array([0.07, 0.11]), 5)

    def _draw_products(self, seed: int) -> None:
        keys = self.product_keys
        count = len(keys)
        self.product_family: Ints = np.arange(count) % len(FAMILIES)
        family = self.product_family
        typical: Floats = np.array([f.price for f in FAMILIES])[family]
        usual_margin = np.array([f.margin for f in FAMILIES])[family]
        tagged = np.round(typical * np.exp(0.25 * streams.normal(seed, "price", keys)), 1) - 0.01
        self.unit_price: Floats = np.round(np.maximum(tagged, 0.29), 2).astype(np.float64)
        margin: Floats = np.clip(usual_margin + 0.04 * streams.normal(seed, "margin", keys), 0.25, 0.65)
        self.unit_cost: Floats = np.round(self.unit_price * (1.0 - margin), 2)
        holding = np.array([f.holding_rate for f in FAMILIES])[family]
        self.holding_cost: Floats = np.round(holding * self.unit_cost, 4)
        self.weight_kg: Floats = np.round(
            np.array([f.weight_kg for f in FAMILIES])[family] * np.exp(0.2 * streams.normal(seed, "weight", keys)), 2
        )
        # A fifth of the range sells now and then, half steadily, the rest fast.
        speed = streams.uniform(seed, "speed", keys)
        typical = np.select([speed < 0.2, speed < 0.65], [0.25, 3.5], 13.0)
        self.popularity: Floats = typical * np.exp(0.4 * streams.normal(seed, "popularity", keys))
        self.dispersion: Floats = 0.02 + 0.10 * streams.uniform(seed, "dispersion", keys)
        self.product_trend: Floats = 0.07 * streams.normal(seed, "trend", keys)
        # New items: listed some time in the last year and a half of the history.
        new = streams.uniform(seed, "new item", keys) < 0.10
        age = 75 + np.floor(streams.uniform(seed, "age", keys) * 420).astype(np.int64)
        old = self.config.days + WARM_UP_DAYS
        self.listed_ordinal: Ints = np.where(
            new & (age < self.config.days), self.config.as_of.toordinal() - age, self.config.as_of.toordinal() - old
        )
        self.is_new: NDArray[np.bool_] = self.listed_ordinal > self.config.first_day.toordinal()
        self.promotion_rate: Floats = np.where(speed < 0.2, 0.03, 0.18)

    def _draw_terms(self, seed: int) -> None:
        family = self.product_family
        self.base_demand: Floats = (
            self.store_size[:, None]
            * self.popularity[None, :]
            * np.exp(0.3 * streams.normal(seed, "taste", self.store_keys[:, None], self.product_keys[None, :]))
        )
        suppliers = sorted(SUPPLIER_LEAD)
        self.supplier_ids = suppliers
        self.product_supplier: Ints = np.array([suppliers.index(FAMILIES[f].supplier) for f in family])
        lead = np.array([SUPPLIER_LEAD[s] for s in suppliers])[self.product_supplier]
        self.lead_time: Ints = np.broadcast_to(lead[None, :], self.shape) + self.store_remote[:, None].astype(np.int64)
        # Packs follow the product's usual sale: a pack is rarely more than a day of demand in a mid-sized store.
        self.pack_size: Ints = np.select(
            [self.popularity < 1.0, self.popularity < 5.0, self.popularity < 14.0], [1, 2, 4], 6
        ).astype(np.int64)
        two_packs = streams.uniform(seed, "minimum order", self.product_keys) < 0.15
        self.min_order: Ints = np.where(two_packs, 2 * self.pack_size, 0)
        goodwill = 0.10 * self.unit_price
        self.shortage_cost: Floats = np.round(self.unit_price - self.unit_cost + goodwill, 4)
        flow = np.zeros(len(suppliers))
        spend = np.zeros(len(suppliers))
        # Limits leave room for the season's top, not for every promotion.
        top = np.array([1.0 + f.annual for f in FAMILIES])[family]
        mean = self.base_demand.sum(axis=0) * top
        np.add.at(flow, self.product_supplier, mean)
        np.add.at(spend, self.product_supplier, mean * self.unit_cost)
        self.max_quantity: Floats = _limits(SUPPLIER_QUANTITY, suppliers, flow)
        self.max_spend: Floats = _limits(SUPPLIER_SPEND, suppliers, spend)

    @property
    def shape(self) -> tuple[int, int]:
        """(stores, products)."""
        return len(self.store_ids), len(self.product_ids)

    @property
    def families(self) -> list[str]:
        """Family name of each product."""
        return [FAMILIES[f].name for f in self.product_family]

    # The calendar -----------------------------------------------------------------------------------------------------

    def events(self, first: date, last: date) -> list[Event]:
        """Events from `first` to `last`, both included, sorted by day."""
        found: list[Event] = []
        for year in range(first.year, last.year + 1):
            found += self._events_of(year)
        return sorted((e for e in found if first <= e.on <= last), key=lambda e: (e.on, e.kind.name, e.region or ""))

    def _events_of(self, year: int) -> list[Event]:
        seed = self.config.seed
        found = [Event(date(year, month, day), PUBLIC_HOLIDAY) for month, day in FIXED_HOLIDAYS]
        easter = _easter(year)
        found += [Event(easter + timedelta(days=days), PUBLIC_HOLIDAY) for days in (-2, 1, 39, 50)]
        for month in range(1, 13):
            # The Friday and Saturday after the 26th, when wages have come in.
            friday = date(year, month, 26) + timedelta(days=(4 - date(year, month, 26).weekday()) % 7)
            found += [Event(friday, PAYDAY), Event(friday + timedelta(days=1), PAYDAY)]
        thanksgiving = date(year, 11, 1) + timedelta(days=(3 - date(year, 11, 1).weekday()) % 7 + 21)
        found.append(Event(thanksgiving + timedelta(days=1), DISCOUNT_DAY))
        school = date(year, 8, 20) + timedelta(days=(0 - date(year, 8, 20).weekday()) % 7)
        found += [Event(school + timedelta(days=days), BACK_TO_SCHOOL) for days in range(6)]
        monday = date(year, 1, 1) + timedelta(days=(0 - date(year, 1, 1).weekday()) % 7)
        while monday.year == year:
            # Every other week or so has a match, on a Wednesday or a Saturday.
            drawn = float(streams.uniform(seed, "match", monday.toordinal())[0])
            if drawn < 0.40:
                found.append(Event(monday + timedelta(days=2 if drawn < 0.16 else 5), MATCH_DAY))
            for index, (region, _, _) in enumerate(REGIONS):
                if float(streams.uniform(seed, "fair", monday.toordinal(), index)[0]) < 0.06:
                    found += [Event(monday + timedelta(days=days), CITY_FAIR, region) for days in (4, 5, 6)]
            monday += timedelta(days=7)
        return found

    def offers(self, first: date, last: date) -> list[Offer]:
        """Offers that start from `first` to `last`, both included, sorted by start and id.

        A product has at most one offer of its own in three weeks; families have theirs beside.
        """
        seed = self.config.seed
        found: list[Offer] = []
        monday = first - timedelta(days=first.weekday())
        while monday <= last:
            week = monday.toordinal() // 7
            raw = [self._promoted(week - back) for back in (0, 1, 2)]
            for p in np.flatnonzero(raw[0] & ~raw[1] & ~raw[2]):
                key = self.product_keys[p]
                kind = float(streams.uniform(seed, "offer length", week, key)[0])
                start, length = (0, 7) if kind < 0.55 else (3, 4) if kind < 0.85 else (0, 14)
                depth = float(streams.uniform(seed, "offer depth", week, key)[0])
                discount = OFFER_DEPTHS[int(depth * (3 if length > 7 else len(OFFER_DEPTHS)))]
                starts = monday + timedelta(days=start)
                offer_id = f"OF-{starts:%Y%m%d}-{self.product_ids[p]}"
                found.append(Offer(offer_id, starts, starts + timedelta(days=length - 1), discount, product=int(p)))
            for f, family in enumerate(FAMILIES):
                if float(streams.uniform(seed, "family offer", week, f)[0]) < 0.03 and f in self.product_family:
                    starts = monday + timedelta(days=4)
                    name = family.name.replace(" ", "-").upper()
                    found.append(
                        Offer(f"OF-{starts:%Y%m%d}-{name}", starts, starts + timedelta(days=2), 0.20, family=f)
                    )
            monday += timedelta(days=7)
        kept = [o for o in found if first <= o.starts_on <= last and self._listed_before(o)]
        return sorted(kept, key=lambda o: (o.starts_on, o.offer_id))

    def _promoted(self, week: int) -> NDArray[np.bool_]:
        return streams.uniform(self.config.seed, "offer", week, self.product_keys) < self.promotion_rate

    def _listed_before(self, offer: Offer) -> bool:
        return offer.product is None or bool(self.listed_ordinal[offer.product] + 28 <= offer.starts_on.toordinal())

    def discounts(self, first: date, days: int) -> Floats:
        """Discount in force, shape (days, P), from `first` on; 0 where nothing is promoted."""
        table = np.zeros((days, self.shape[1]))
        for offer in self.offers(first - timedelta(days=21), first + timedelta(days=days - 1)):
            begin = max((offer.starts_on - first).days, 0)
            end = min((offer.ends_on - first).days + 1, days)
            if begin < end:
                which: Any = offer.product if offer.product is not None else self.product_family == offer.family
                table[begin:end, which] = np.maximum(table[begin:end, which], offer.discount)
        return table

    def list_prices(self, first: date, days: int) -> Floats:
        """List price of each day and product, shape (days, P): a step of 1 to 4 % each February."""
        prices = np.empty((days, self.shape[1]))
        for offset in range(days):
            day = first + timedelta(days=offset)
            steps = day.year - (0 if (day.month, day.day) >= (2, 1) else 1)
            if offset and (day.month, day.day) != (2, 1):
                prices[offset] = prices[offset - 1]
                continue
            factor = np.ones(self.shape[1])
            for year in range(steps, self.config.as_of.year):
                factor /= 1.01 + 0.03 * streams.uniform(self.config.seed, "price step", year + 1, self.product_keys)
            prices[offset] = np.round(self.unit_price * factor, 2)
        return prices

    # Frames of master data --------------------------------------------------------------------------------------------

    @cached_property
    def store_names(self) -> list[str]:
        """Names for people."""
        return [f"{REGIONS[r][0].title()} store {i + 1}" for i, r in enumerate(self.store_region)]

    def sites_frame(self) -> pl.DataFrame:
        """`common.sites`."""
        rows: list[dict[str, Any]] = []
        for i, plant in enumerate(self.plant_ids):
            name, latitude, longitude = REGIONS[i % len(REGIONS)]
            rows.append(_site(plant, "plant", f"{name.title()} plant", latitude + 0.05, longitude + 0.05, name))
        for i, warehouse in enumerate(self.warehouse_ids):
            name, latitude, longitude = REGIONS[(i + 2) % len(REGIONS)]
            rows.append(_site(warehouse, "warehouse", f"{name.title()} warehouse", latitude, longitude, name))
        for i, store in enumerate(self.store_ids):
            latitude, longitude = self.store_location[i]
            region = REGIONS[self.store_region[i]][0]
            rows.append(_site(store, "store", self.store_names[i], float(latitude), float(longitude), region))
        return pl.DataFrame(rows)

    def events_frame(self, first: date, last: date) -> pl.DataFrame:
        """`common.events`."""
        events = self.events(first, last)
        return pl.DataFrame(
            {
                "event_on": pl.Series([e.on for e in events], dtype=pl.Date),
                "name": pl.Series([e.kind.name for e in events], dtype=pl.String),
                "region": pl.Series([e.region for e in events], dtype=pl.String),
            }
        ).unique(subset=["event_on", "name", "region"], keep="first", maintain_order=True)

    def products_frame(self) -> pl.DataFrame:
        """`common.products` that stores sell (components are the plant's)."""
        return pl.DataFrame(
            {
                "product_id": self.product_ids,
                "name": [f"{family.title()} no. {i // len(FAMILIES) + 1}" for i, family in enumerate(self.families)],
                "family": self.families,
                "unit_cost": self.unit_cost,
                "unit_price": self.unit_price,
                "holding_cost": self.holding_cost,
                "weight_kg": self.weight_kg,
            }
        )

    def supply_terms_frame(self) -> pl.DataFrame:
        """`retail.supply_terms`."""
        stores, products = self.shape
        return pl.DataFrame(
            {
                "site_id": np.repeat(np.array(self.store_ids), products),
                "product_id": np.tile(np.array(self.product_ids), stores),
                "lead_time_periods": self.lead_time.ravel(),
                "holding_cost": np.tile(self.holding_cost, stores),
                "shortage_cost": np.tile(self.shortage_cost, stores),
                "pack_size": np.tile(self.pack_size, stores),
                "min_order": np.tile(self.min_order, stores),
                "supplier_id": np.tile(np.array(self.supplier_ids)[self.product_supplier], stores),
            }
        )

    def supplier_limits_frame(self, first: date, last: date) -> pl.DataFrame:
        """`retail.supplier_limits`: what each limited supplier can bring on each day."""
        limited = [
            k for k in range(len(self.supplier_ids)) if np.isfinite([self.max_quantity[k], self.max_spend[k]]).any()
        ]
        days = pl.date_range(first, last, "1d", eager=True)
        frames = [
            pl.DataFrame(
                {
                    "supplier_id": pl.Series([self.supplier_ids[k]] * len(days), dtype=pl.String),
                    "arrives_on": days,
                    "max_quantity": _finite(float(self.max_quantity[k]), len(days)),
                    "max_spend": _finite(float(self.max_spend[k]), len(days)),
                }
            )
            for k in limited
        ]
        return pl.concat(frames).sort("arrives_on", "supplier_id")

    def offers_frame(self, first: date, last: date) -> pl.DataFrame:
        """`retail.offers` that start from `first` to `last`."""
        offers = self.offers(first, last)
        return pl.DataFrame(
            {
                "offer_id": pl.Series([o.offer_id for o in offers], dtype=pl.String),
                "product_id": pl.Series(
                    [None if o.product is None else self.product_ids[o.product] for o in offers], dtype=pl.String
                ),
                "family": pl.Series(
                    [None if o.family is None else FAMILIES[o.family].name for o in offers], dtype=pl.String
                ),
                "discount": pl.Series([o.discount for o in offers], dtype=pl.Float64),
                "cost_per_use": pl.Series([0.02 if o.product is not None else 0.05 for o in offers], dtype=pl.Float64),
                "starts_on": pl.Series([o.starts_on for o in offers], dtype=pl.Date),
                "ends_on": pl.Series([o.ends_on for o in offers], dtype=pl.Date),
                "budget": pl.Series([None if o.product is not None else 2000.0 for o in offers], dtype=pl.Float64),
            }
        )


def _limits(multiples: dict[str, float | None], suppliers: list[str], mean: Floats) -> Floats:
    """Daily limit of each supplier; infinite where there is none."""
    return np.array(
        [
            np.inf if (m := multiples[s]) is None else float(round(m * value))
            for s, value in zip(suppliers, mean, strict=True)
        ]
    )


def _finite(value: float, count: int) -> pl.Series:
    return pl.Series([value if np.isfinite(value) else None] * count, dtype=pl.Float64)


def _site(site_id: str, kind: str, name: str, latitude: float, longitude: float, region: str) -> dict[str, Any]:
    return {
        "site_id": site_id,
        "kind": kind,
        "name": name,
        "latitude": round(latitude, 5),
        "longitude": round(longitude, 5),
        "region": region,
    }


def _easter(year: int) -> date:
    """Easter Sunday (Meeus, Jones and Butcher's algorithm)."""
    a, b, c = year % 19, year // 100, year % 100
    d, e = b // 4, b % 4
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = c // 4, c % 4
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)
