"""Customers with cards: who they are, what they put in their baskets, how they answer offers, what they complain about.

Baskets are a share of what the stores sold, so that they never exceed the sales. What all customers together want
does not belong here (see `demand`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from npq_assets.company import streams
from npq_assets.company.config import FAMILIES
from npq_assets.company.demand import Demand
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company

TableFile = tuple[str, str, pl.DataFrame]

CUSTOMERS_PER_STORE = 80
# Share of units that are sold to customers with a card.
CARD_SHARE = 0.03
UNITS_PER_BASKET = 4.0
_TOPICS = ("delivery late", "product damaged", "wrong price", "item missing", "refund", "question")
_HOURS = 8, 20


class Customers:
    """The customers with cards of a company.

    Attributes:
        company: Whose customers they are.
        ids: Customer ids.
        home: Index of the store where each usually buys.
        taste: Weight of each family for each customer, shape (customers, families).
    """

    def __init__(self, company: Company, demand: Demand) -> None:
        self.company = company
        self._demand = demand
        seed = company.config.seed
        count = CUSTOMERS_PER_STORE * len(company.store_ids)
        number = np.arange(count)
        self._number = number
        self.ids = [f"C{i + 1:06d}" for i in number]
        self.home = number % len(company.store_ids)
        family = np.arange(len(FAMILIES))
        self.taste = np.exp(1.1 * streams.normal(seed, "taste of customer", number[:, None], family[None, :]))
        self.activity = np.exp(0.8 * streams.normal(seed, "activity", number))
        self.consent = streams.uniform(seed, "consent", number) < 0.7
        since = np.floor(streams.uniform(seed, "joined", number) ** 0.7 * (company.config.days + 400)).astype(np.int64)
        self.joined = company.config.as_of.toordinal() - 1 - since
        # One customer in five stops coming some day: churn that a model can find.
        left = streams.uniform(seed, "leaves", number)
        self.left = np.where(
            left < 0.2, self.joined + 30 + np.floor(left * 5 * (since + 1)).astype(np.int64), np.iinfo(np.int64).max
        )
        self._basket_stubs: list[pl.DataFrame] = []

    def master_tables(self) -> Iterator[TableFile]:
        """`retail.customers`."""
        seed = self.company.config.seed
        band = np.floor(streams.uniform(seed, "age band", self._number) * 5).astype(np.int64)
        household = 1 + np.floor(4 * streams.uniform(seed, "household", self._number) ** 1.5).astype(np.int64)
        yield (
            "retail.customers",
            "customers",
            pl.DataFrame(
                {
                    "customer_id": self.ids,
                    "joined_on": pl.Series([date.fromordinal(int(o)) for o in self.joined], dtype=pl.Date),
                    "marketing_consent": self.consent.astype(np.int8),
                    "home_store": [self.company.store_ids[h] for h in self.home],
                    "age_band": np.array(["18-29", "30-44", "45-59", "60-74", "75+"])[band],
                    "household_size": household,
                }
            ),
        )

    def month_tables(self, month: Sequence[StoreDay]) -> Iterator[TableFile]:
        """`retail.baskets` of the days given."""
        frames = [frame for day in month if (frame := self._baskets_of(day)) is not None]
        if not frames:
            return
        baskets = pl.concat(frames)
        self._basket_stubs.append(
            baskets.select("basket_id", "customer_id", "bought_at").unique(
                "basket_id", keep="first", maintain_order=True
            )
        )
        yield "retail.baskets", f"baskets-{month[0].day:%Y-%m}", baskets

    def _baskets_of(self, day: StoreDay) -> pl.DataFrame | None:
        company, seed, ordinal = self.company, self.company.config.seed, day.day.toordinal()
        u = streams.uniform(seed, "card", ordinal, company.store_keys[:, None], company.product_keys[None, :])
        # Stochastic rounding of the share: cheap, and never more than was sold.
        units = np.minimum(np.floor(CARD_SHARE * day.sold + u).astype(np.int64), day.sold)
        store, product = np.nonzero(units)
        if not store.size:
            return None
        repeat = units[store, product]
        store, product = np.repeat(store, repeat), np.repeat(product, repeat)
        baskets = np.maximum(1, np.round(np.bincount(store, minlength=company.shape[0]) / UNITS_PER_BASKET)).astype(
            np.int64
        )
        start = np.concatenate([[0], np.cumsum(baskets)])
        who = self._shoppers(ordinal, np.repeat(np.arange(company.shape[0]), baskets))
        unit = np.arange(store.size)
        family = company.product_family[product]
        # Of two baskets in the store, the unit goes to the one whose owner likes the family better.
        first = start[store] + np.floor(streams.uniform(seed, "basket a", ordinal, unit) * baskets[store]).astype(
            np.int64
        )
        second = start[store] + np.floor(streams.uniform(seed, "basket b", ordinal, unit) * baskets[store]).astype(
            np.int64
        )
        basket = np.where(self.taste[who[first], family] >= self.taste[who[second], family], first, second)
        line, quantity = np.unique(basket * company.shape[1] + product, return_counts=True)
        basket, product = line // company.shape[1], line % company.shape[1]
        store = np.searchsorted(start, basket, side="right") - 1
        minute = np.floor(
            60
            * (
                _HOURS[0]
                + (_HOURS[1] - _HOURS[0]) * streams.uniform(seed, "basket time", ordinal, np.arange(start[-1]))
            )
        ).astype(np.int64)
        opened = np.datetime64(day.day, "us")
        price = company.list_prices(day.day, 1)[0]
        discount = self._demand.discount(day.day)
        amount = np.round(quantity * price[product] * (1.0 - discount[product]), 2)
        return pl.DataFrame(
            {
                "basket_id": [f"B{day.day:%Y%m%d}-{b:05d}" for b in basket],
                "product_id": pl.Series(company.product_ids).gather(product),
                "customer_id": pl.Series(self.ids).gather(who[basket]),
                "site_id": pl.Series(company.store_ids).gather(store),
                "bought_at": pl.Series(opened + minute[basket].astype("timedelta64[m]"))
                .cast(pl.Datetime("us"))
                .dt.replace_time_zone("UTC"),
                "quantity": quantity,
                "amount": amount,
                "discount": np.round(quantity * price[product] - amount, 2).clip(0.0),
            }
        )

    def _shoppers(self, ordinal: int, store: np.ndarray) -> np.ndarray:
        """Draws who owns each basket: a customer of the store, the active ones more often, members only."""
        seed = self.company.config.seed
        stores = len(self.company.store_ids)
        number = np.arange(store.size)
        best = np.zeros(store.size, dtype=np.int64)
        best_score = np.full(store.size, -1.0)
        for attempt in range(4):
            pick = np.floor(CUSTOMERS_PER_STORE * streams.uniform(seed, "shopper", ordinal, number, attempt)).astype(
                np.int64
            )
            candidate = pick * stores + store
            member = (self.joined[candidate] <= ordinal) & (ordinal < self.left[candidate])
            score = np.where(member, self.activity[candidate], 0.0) * streams.uniform(
                seed, "mood", ordinal, number, attempt
            )
            better = score > best_score
            best[better], best_score[better] = candidate[better], score[better]
        return best

    def closing_tables(self) -> Iterator[TableFile]:
        """`retail.offer_responses` and `retail.service_requests` of the logged period."""
        company, seed, as_of = self.company, self.company.config.seed, self.company.config.as_of
        offers = company.offers(as_of - timedelta(days=120), as_of - timedelta(days=8))
        willing = np.flatnonzero(self.consent)
        rows: list[pl.DataFrame] = []
        for offer in offers:
            key = streams.name_key(offer.offer_id)
            sent = willing[streams.uniform(seed, "sent", key, willing) < 0.04]
            sent = sent[self.joined[sent] <= offer.starts_on.toordinal()]
            family = offer.family if offer.family is not None else int(company.product_family[offer.product])
            liking = self.taste[sent, family] / self.taste[sent].mean(axis=1)
            chance = np.clip(0.5 * offer.discount * liking, 0.0, 0.9)
            rows.append(
                pl.DataFrame(
                    {
                        "customer_id": pl.Series(self.ids).gather(sent),
                        "offer_id": pl.Series([offer.offer_id] * len(sent), dtype=pl.String),
                        "sent_on": pl.Series([offer.starts_on] * len(sent), dtype=pl.Date),
                        "redeemed": (streams.uniform(seed, "redeemed", key, sent) < chance).astype(np.int8),
                    }
                )
            )
        if rows:
            yield "retail.offer_responses", f"offer-responses-{as_of}", pl.concat(rows)
        if self._basket_stubs:
            yield "retail.service_requests", f"service-requests-{as_of}", self._requests()

    def _requests(self) -> pl.DataFrame:
        baskets = pl.concat(self._basket_stubs)
        seed = self.company.config.seed
        number = np.arange(baskets.height)
        chosen = np.flatnonzero(streams.uniform(seed, "complains", number) < 0.01)
        hours = 2 + np.floor(90 * streams.uniform(seed, "complaint delay", chosen)).astype(np.int64)
        duration = 1 + np.floor(70 * streams.uniform(seed, "complaint duration", chosen)).astype(np.int64)
        topic = np.floor(len(_TOPICS) * streams.uniform(seed, "topic", chosen) ** 1.4).astype(np.int64)
        as_of = datetime.combine(self.company.config.as_of, datetime.min.time(), UTC)
        frame = baskets[chosen].with_columns(
            request_id=pl.Series([f"SR{n + 1:06d}" for n in range(chosen.size)], dtype=pl.String),
            opened_at=pl.col("bought_at") + pl.lit(pl.Series(hours * 3_600_000_000)).cast(pl.Duration("us")),
            topic=pl.Series(np.array(_TOPICS)[topic]),
        )
        frame = frame.with_columns(
            closed_at=pl.col("opened_at") + pl.lit(pl.Series(duration * 3_600_000_000)).cast(pl.Duration("us"))
        )
        frame = frame.filter(pl.col("opened_at") < as_of).with_columns(
            closed_at=pl.when(pl.col("closed_at") < as_of).then(pl.col("closed_at"))
        )
        return frame.select("request_id", "customer_id", "opened_at", "topic", "basket_id", "closed_at")
