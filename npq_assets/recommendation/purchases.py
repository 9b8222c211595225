"""Purchases as arrays: who bought what on which day, and what is known of the products.

Every model of this package sees purchases through this object, and `before(day)` is the only way to go back in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from npq_assets.errors import NpqError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Purchases:
    """Purchase lines of customers, coded by position in `users` and `items`; n lines.

    Attributes:
        users: Customer ids, sorted.
        items: Product ids, sorted.
        user: Position of the customer of each line (n).
        item: Position of the product of each line (n).
        day: Day number of each line (n).
        basket: Number of the basket of each line (n).
        quantity: Units (n).
        amount: Money paid (n).
        discount: Money taken off (n).
        site: Number of the site of each line (n); 0 where there is only one.
        attributes: For each attribute of the products (family, brand …) a code by item (len(items)).
    """

    users: NDArray[np.generic]
    items: NDArray[np.generic]
    user: Ints
    item: Ints
    day: Ints
    basket: Ints
    quantity: Floats
    amount: Floats
    discount: Floats
    site: Ints
    attributes: Mapping[str, Ints] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of customers and of products."""
        return len(self.users), len(self.items)

    @property
    def last_day(self) -> int:
        """Last day with a purchase."""
        return int(self.day.max(initial=0))

    def where(self, mask: NDArray[np.bool_]) -> Purchases:
        """The lines chosen; customers and products keep their positions."""
        lines = ("user", "item", "day", "basket", "quantity", "amount", "discount", "site")
        return replace(self, **{name: getattr(self, name)[mask] for name in lines})

    def before(self, day: int) -> Purchases:
        """What was known when `day` opened."""
        return self.where(self.day < day)

    def between(self, first: int, last: int) -> Purchases:
        """Lines of the days first <= day < last: what came true, for labels."""
        return self.where((self.day >= first) & (self.day < last))

    def pairs(self) -> Ints:
        """Distinct customer-product pairs as keys user * len(items) + item, sorted."""
        return np.unique(self.user * len(self.items) + self.item)

    def matrix(self, weight: Floats | None = None) -> sparse.csr_matrix:
        """Customers x products, each pair once with the sum of `weight` (else 1 for bought)."""
        ones = np.ones(len(self.user), np.float32) if weight is None else weight.astype(np.float32)
        matrix = sparse.csr_matrix((ones, (self.user, self.item)), shape=self.shape)
        if weight is None:
            matrix.data[:] = 1.0
        return matrix


def purchases_of(
    lines: pl.DataFrame, products: pl.DataFrame | None = None, *, users: pl.Series | None = None
) -> Purchases:
    """Purchases from a frame of lines.

    Args:
        lines: user, item, day (integer), and if known basket, quantity, amount, discount, site.
        products: item and any attributes of it (text or numbers that name a group); None if nothing is known.
        users: All customers to know; else those of the lines.

    Raises:
        NpqError: A needed column is missing, or there are no lines.
    """
    for name in ("user", "item", "day"):
        if name not in lines.columns:
            raise NpqError(f"purchases: column {name} is missing; give user, item and day")
    if lines.is_empty():
        raise NpqError("purchases: no lines; land baskets first")
    lines = lines.sort("day", "user", "item", maintain_order=True)
    known_users = (lines["user"] if users is None else pl.concat([lines["user"], users])).unique().sort().to_numpy()
    known_items = lines["item"].unique().sort().to_numpy()
    user = np.searchsorted(known_users, lines["user"].to_numpy()).astype(np.int64)
    item = np.searchsorted(known_items, lines["item"].to_numpy()).astype(np.int64)

    def numbers(name: str, default: float) -> Floats:
        if name not in lines.columns:
            return np.full(lines.height, default)
        return lines[name].cast(pl.Float64).fill_null(default).to_numpy()

    def codes(name: str, default: Ints) -> Ints:
        return lines[name].rank("dense").fill_null(0).to_numpy().astype(np.int64) if name in lines.columns else default

    day = lines["day"].to_numpy().astype(np.int64)
    own_basket = np.unique(np.stack([user, day]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    attributes = {}
    if products is not None:
        order = pl.DataFrame({"item": lines["item"].unique().sort()}).join(
            products.unique("item", keep="first", maintain_order=True), on="item", how="left", maintain_order="left"
        )
        attributes = {
            name: order[name].cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
            for name in order.columns
            if name != "item"
        }
    return Purchases(
        known_users,
        known_items,
        user,
        item,
        day,
        codes("basket", own_basket),
        numbers("quantity", 1.0),
        numbers("amount", 0.0),
        numbers("discount", 0.0),
        codes("site", np.zeros(lines.height, np.int64)),
        attributes,
    )
