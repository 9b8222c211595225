"""What is known of a customer and a product as of a day: the columns that the ranking learns from.

Everything is computed from purchases before the day. Which pairs are looked at is decided in `candidates`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from npq_assets.recommendation.factors import (
    Factors,
    ItemNeighbours,
    implicit_factors,
    item_neighbours,
)
from npq_assets.recommendation.purchases import Floats, Ints, Purchases

HALF_LIVES = (7.0, 28.0, 91.0)
RECENT_DAYS = 56
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How wide the models look; smaller values for many customers.

    Attributes:
        factors: Length of the implicit factors; 0 for none.
        sweeps: Sweeps of their solution.
        neighbours: Neighbours kept per product.
        half_life: Days after which a purchase counts half, for neighbours and factors.
        per_source: Candidates of each source for products new to a customer.
        min_buyers: Products with fewer buyers take no part in neighbours and factors.
        again: Products bought before that are considered at most.
        seed: Of everything random.
    """

    factors: int = 48
    sweeps: int = 6
    neighbours: int = 100
    half_life: float = 120.0
    per_source: int = 40
    min_buyers: int = 5
    again: int = 150
    seed: int = 0


@dataclass(frozen=True)
class _Sums:
    """Decayed sums by key, found by binary search."""

    keys: Ints
    values: Matrix

    def at(self, keys: Ints) -> Matrix:
        place = np.minimum(np.searchsorted(self.keys, keys), max(0, len(self.keys) - 1))
        if not len(self.keys):
            return np.zeros((len(keys), self.values.shape[1]), np.float32)
        found = self.keys[place] == keys
        return np.where(found[:, None], self.values[place], np.float32(0.0))


@dataclass(frozen=True)
class Known:
    """Everything known when a day opened, ready to be asked about any customer and product.

    Attributes:
        day: The day.
        purchases: Lines before it.
        settings: How wide the models look.
        bought: Customers x products, decayed strength.
        neighbours: Item neighbours.
        factors: Implicit factors; None if switched off.
        pair_keys: Distinct pairs user * items + item, sorted.
        pair_values: Columns of `PAIR` for each.
        popularity: Decayed number of baskets of each product (half-life 28 days).
        main_site: The site where each customer buys most.
    """

    day: int
    purchases: Purchases
    settings: Settings
    bought: sparse.csr_matrix
    neighbours: ItemNeighbours
    factors: Factors | None
    pair_keys: Ints
    pair_values: Matrix
    item_values: Matrix
    user_values: Matrix
    popularity: Floats
    main_site: Ints
    attribute_sums: dict[str, _Sums]
    item_attribute: dict[str, Matrix]
    site_sums: _Sums
    extra: dict[str, Floats] = field(default_factory=dict)

    @property
    def recent(self) -> NDArray[np.bool_]:
        """Products sold lately to more than one customer: what can be offered to somebody new to them."""
        return np.asarray(self.item_values[:, _ITEM.index("buyers_recent")] >= 2)


PAIR = (
    "baskets",
    *(f"baskets_h{h:.0f}" for h in HALF_LIVES),
    "days_since_last",
    "days_since_first",
    "mean_gap",
    "due",
    "units",
    "spend",
    "discount_share",
    "baskets_28",
)
_ITEM = (
    *(f"item_baskets_h{h:.0f}" for h in HALF_LIVES),
    "item_buyers",
    "buyers_recent",
    "item_repeat",
    "item_trend",
    "item_price",
    "item_discount",
    "item_age",
    "item_new_buyers",
)
_USER = (
    "user_baskets",
    "user_baskets_28",
    "user_days_since_last",
    "user_items",
    "user_lines_per_basket",
    "user_spend_28",
    "user_new_rate",
    "user_discount",
    "user_gap",
)


def know(
    purchases: Purchases, day: int, settings: Settings | None = None, extra: dict[str, Floats] | None = None
) -> Known:
    """Learns everything that candidates and features need as of a day.

    Args:
        purchases: Lines; those of `day` and later are not looked at.
        day: The day that is about to open.
        settings: How wide the models look.
        extra: Further columns by product (n products), known as of the day: promotion planned, stock cover …
    """
    settings = settings or Settings()
    p = purchases.before(day)
    n_users, n_items = p.shape
    age = (day - p.day).astype(np.float64)
    # One line a customer, product and day: what counts is having bought, not how many lines the till printed.
    key = p.user * n_items + p.item
    order = np.lexsort((p.day, key))
    key_s, day_s, age_s = key[order], p.day[order], age[order]
    first_of_day = np.ones(len(order), bool)
    first_of_day[1:] = (key_s[1:] != key_s[:-1]) | (day_s[1:] != day_s[:-1])
    start = np.flatnonzero(np.r_[True, key_s[1:] != key_s[:-1]]) if len(order) else np.zeros(0, np.int64)
    pair_keys = key_s[start]

    def total(values: Floats) -> Floats:
        return np.add.reduceat(values, start) if len(start) else np.zeros(0)

    decay = [np.where(first_of_day, 0.5 ** (age_s / h), 0.0) for h in HALF_LIVES]
    baskets = total(first_of_day.astype(np.float64))
    last = np.minimum.reduceat(age_s, start) if len(start) else np.zeros(0)
    first = np.maximum.reduceat(age_s, start) if len(start) else np.zeros(0)
    gap = np.where(baskets > 1, (first - last) / np.maximum(baskets - 1, 1), np.nan)
    spend, units = total(p.amount[order]), total(p.quantity[order])
    discount = total(p.discount[order])
    in_28 = total((first_of_day & (age_s <= 28)).astype(np.float64))
    pair_values = np.stack(
        [
            baskets,
            *[total(d) for d in decay],
            last,
            first,
            gap,
            last / np.maximum(gap, 1.0),
            units,
            spend,
            discount / np.maximum(spend + discount, 1e-9),
            in_28,
        ],
        axis=1,
    ).astype(np.float32)
    pair_user, pair_item = pair_keys // n_items, pair_keys % n_items

    strength = total(np.where(first_of_day, 0.5 ** (age_s / settings.half_life), 0.0))
    bought = sparse.csr_matrix((np.sqrt(strength).astype(np.float32), (pair_user, pair_item)), shape=(n_users, n_items))
    # Products with hardly a buyer have neighbours by accident only, and cost most of the time.
    common = bought.copy()
    common.data[np.bincount(pair_item, minlength=n_items)[common.indices] < settings.min_buyers] = 0.0
    common.eliminate_zeros()
    neighbours = item_neighbours(common, settings.neighbours)
    factors = (
        implicit_factors(common, settings.factors, sweeps=settings.sweeps, seed=settings.seed)
        if settings.factors
        else None
    )

    def by_item(values: Floats) -> Floats:
        return np.asarray(np.bincount(pair_item, values, minlength=n_items), np.float64)

    item_decay = [by_item(total(d)) for d in decay]
    buyers = by_item(np.ones(len(start)))
    item_spend, item_units = by_item(spend), by_item(units)
    item_first = np.full(n_items, 0.0)
    np.maximum.at(item_first, pair_item, first)
    item_values = np.stack(
        [
            *item_decay,
            buyers,
            by_item((last <= RECENT_DAYS).astype(np.float64)),
            by_item((baskets > 1).astype(np.float64)) / np.maximum(buyers, 1),
            item_decay[0] * 13.0 / np.maximum(item_decay[2], 1e-9),
            item_spend / np.maximum(item_units, 1e-9),
            by_item(discount) / np.maximum(item_spend + by_item(discount), 1e-9),
            item_first,
            by_item((first <= 28).astype(np.float64)),
        ],
        axis=1,
    ).astype(np.float32)

    user_values = _user_values(p, day, pair_user, first, discount, spend)
    site_sums, main_site = _sites(p, age)
    attribute_sums, item_attribute = {}, {}
    for name, codes in p.attributes.items():
        attribute_sums[name] = _attribute_sums(p, codes, age, n_users)
        sales = np.bincount(codes, item_decay[1], minlength=int(codes.max(initial=0)) + 1)
        item_attribute[name] = np.stack([sales[codes], item_decay[1] / np.maximum(sales[codes], 1e-9)], axis=1).astype(
            np.float32
        )
    return Known(
        day,
        p,
        settings,
        bought,
        neighbours,
        factors,
        pair_keys,
        pair_values,
        item_values,
        user_values,
        item_decay[1],
        main_site,
        attribute_sums,
        item_attribute,
        site_sums,
        extra or {},
    )


def _user_values(p: Purchases, day: int, pair_user: Ints, first: Floats, discount: Floats, spend: Floats) -> Matrix:
    n = p.shape[0]
    visit = np.unique(p.user * 100_000 + p.day)
    visitor, visited = visit // 100_000, visit % 100_000
    visits = np.bincount(visitor, minlength=n).astype(np.float64)
    last = np.full(n, -1.0)
    np.maximum.at(last, visitor, visited.astype(np.float64))
    begun = np.full(n, float(day))
    np.minimum.at(begun, visitor, visited.astype(np.float64))
    known_items = np.bincount(pair_user, minlength=n).astype(np.float64)
    lines = np.bincount(p.user, minlength=n)
    user_spend = np.bincount(pair_user, spend, minlength=n)
    user_discount = np.bincount(pair_user, discount, minlength=n)
    return np.stack(
        [
            visits,
            np.bincount(visitor, visited >= day - 28, minlength=n),
            np.where(visits > 0, day - last, np.nan),
            known_items,
            lines / np.maximum(visits, 1),
            np.bincount(p.user, p.amount * (p.day >= day - 28), minlength=n),
            np.bincount(pair_user, first <= 28, minlength=n) / np.maximum(known_items, 1),
            user_discount / np.maximum(user_discount + user_spend, 1e-9),
            np.where(visits > 1, (last - begun) / np.maximum(visits - 1, 1), np.nan),
        ],
        axis=1,
    ).astype(np.float32)


def _sites(p: Purchases, age: Floats) -> tuple[_Sums, Ints]:
    """Decayed baskets of each product at each site, and each customer's main site."""
    n_users, n_items = p.shape
    weight = 0.5 ** (age / 28.0)
    keys, inverse = np.unique(p.site * n_items + p.item, return_inverse=True)
    sums = _Sums(keys, np.bincount(inverse, weight, minlength=len(keys))[:, None].astype(np.float32))
    sites = int(p.site.max(initial=0)) + 1
    visits = np.bincount(p.user * sites + p.site, 0.5 ** (age / 91.0), minlength=n_users * sites)
    return sums, visits.reshape(n_users, sites).argmax(axis=1).astype(np.int64)


def _attribute_sums(p: Purchases, codes: Ints, age: Floats, n_users: int) -> _Sums:
    """By customer and value of an attribute: decayed lines, their share of the customer's, days since last."""
    size = int(codes.max(initial=0)) + 1
    key = p.user * size + codes[p.item]
    keys, inverse = np.unique(key, return_inverse=True)
    month = np.bincount(inverse, 0.5 ** (age / 28.0), minlength=len(keys))
    year = np.bincount(inverse, 0.5 ** (age / 182.0), minlength=len(keys))
    last = np.full(len(keys), np.inf)
    np.minimum.at(last, inverse, age)
    user = keys // size
    whole = np.bincount(user, year, minlength=n_users)
    values = np.stack([month, year, year / np.maximum(whole[user], 1e-9), 1.0 / (1.0 + last)], axis=1)
    return _Sums(keys, values.astype(np.float32))


def feature_names(known: Known) -> list[str]:
    """Names of the columns of `features`, in order."""
    names = ["knn", "als", "is_new", *PAIR, *_ITEM, *_USER, "site_baskets", "share_of_baskets"]
    for name in known.attribute_sums:
        names += [f"{name}_{what}" for what in ("month", "year", "share", "recency", "sales", "item_share")]
    return names + sorted(known.extra)


def features(known: Known, user: Ints, item: Ints, knn: Matrix, als: Matrix) -> Matrix:
    """The columns of `feature_names` for pairs of customers and products.

    Args:
        known: What is known as of the day.
        user: Positions of the customers (n).
        item: Positions of the products (n).
        knn: Neighbour score of each pair (n).
        als: Factor score of each pair (n).
    """
    n_items = known.purchases.shape[1]
    key = user * n_items + item
    place = np.minimum(np.searchsorted(known.pair_keys, key), max(0, len(known.pair_keys) - 1))
    found = known.pair_keys[place] == key
    pair = np.where(found[:, None], known.pair_values[place], np.float32(0.0))
    for name in ("days_since_last", "days_since_first", "mean_gap", "due"):
        pair[~found, PAIR.index(name)] = np.nan
    columns = [
        knn[:, None],
        als[:, None],
        (~found).astype(np.float32)[:, None],
        pair,
        known.item_values[item],
        known.user_values[user],
        known.site_sums.at(known.main_site[user] * n_items + item),
        (pair[:, 0] / np.maximum(known.user_values[user, 0], 1.0))[:, None],
    ]
    for name, sums in known.attribute_sums.items():
        codes = known.purchases.attributes[name]
        size = int(codes.max(initial=0)) + 1
        columns += [sums.at(user * size + codes[item]), known.item_attribute[name][item]]
    columns += [known.extra[name][item].astype(np.float32)[:, None] for name in sorted(known.extra)]
    return np.concatenate(columns, axis=1)
