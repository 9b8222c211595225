"""Customers with cards: who they are, what they put in their baskets, how they answer offers, what they complain about.

Baskets are a share of what the stores sold, so that they never exceed the sales. What all customers together want
does not belong here (see `demand`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from npq_assets.company import streams
from npq_assets.company.config import FAMILIES, PLANNED_DAYS
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
# Weekly offers to customers alone, and for how long before the as-of day they were tried at random.
TARGETED_PER_WEEK = 3
EXPERIMENT_WEEKS = 16
EXPERIMENT_SHARE = 0.30
TARGETED_DEPTHS = (0.08, 0.12, 0.16)
COST_PER_USE = 0.05
BUDGET_PER_CUSTOMER = 0.012
# Shares of those who get a message that open it, click in it, never want another.
OPENED, CLICKED, UNSUBSCRIBED = 0.35, 0.10, 0.003


@dataclass(frozen=True)
class TargetedOffer:
    """An offer that only customers to whom it is sent can use.

    Attributes:
        offer_id: Its id.
        family: Index of the family that it is for.
        discount: Share of the price taken off.
        starts_on: First day.
        ends_on: Last day.
        budget: Money that its uses may cost in all; once it is spent, the offer ends.
        cost_per_use: Cost of a use beside the discount.
    """

    offer_id: str
    family: int
    discount: float
    starts_on: date
    ends_on: date
    budget: float
    cost_per_use: float = COST_PER_USE


def targeted_frame(offers: Sequence[TargetedOffer]) -> pl.DataFrame:
    """`retail.offers` rows of targeted offers."""
    return pl.DataFrame(
        {
            "offer_id": [o.offer_id for o in offers],
            "family": [FAMILIES[o.family].name for o in offers],
            "discount": [o.discount for o in offers],
            "cost_per_use": [o.cost_per_use for o in offers],
            "starts_on": [o.starts_on for o in offers],
            "ends_on": [o.ends_on for o in offers],
            "budget": [o.budget for o in offers],
            "targeted": [1] * len(offers),
        },
        schema_overrides={"starts_on": pl.Date, "ends_on": pl.Date},
    )


def response_frame(
    customers: Customers,
    offer: TargetedOffer,
    who: np.ndarray,
    sent_on: date,
    control: np.ndarray,
    used: np.ndarray,
    profit: np.ndarray,
) -> pl.DataFrame:
    """`retail.offer_responses` rows of an offer whose days are over."""
    return pl.DataFrame(
        {
            "customer_id": pl.Series(customers.ids, dtype=pl.String).gather(who),
            "offer_id": pl.Series([offer.offer_id] * len(who), dtype=pl.String),
            "sent_on": pl.Series([sent_on] * len(who), dtype=pl.Date),
            "redeemed": (used & ~control).astype(np.int8),
            "held_out": control.astype(np.int8),
            "profit": np.round(profit, 2),
        }
    )


def replies_frame(
    customers: Customers, message_ids: Sequence[str], who: np.ndarray, sent_on: date, stops: np.ndarray | None = None
) -> pl.DataFrame:
    """`retail.message_replies` rows of the messages of a day: opened or clicked on that day, unsubscribed where `stops`."""
    seed = customers.company.config.seed
    luck = streams.uniform(seed, "reads the message", streams.name_keys(message_ids), who)
    minute = np.floor(9 * 60 + 14 * 60 * streams.uniform(seed, "reads it at", streams.name_keys(message_ids), who))
    gone = np.zeros(len(who), bool) if stops is None else stops
    kind = np.select([gone, luck < CLICKED, luck < OPENED], ["unsubscribed", "clicked", "opened"], "")
    moment = np.datetime64(sent_on, "us") + minute.astype(np.int64).astype("timedelta64[m]")
    frame = pl.DataFrame(
        {
            "message_id": pl.Series(list(message_ids), dtype=pl.String),
            "kind": kind,
            "customer_id": pl.Series(customers.ids, dtype=pl.String).gather(who),
            "replied_at": pl.Series(moment).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        }
    )
    return frame.filter(pl.col("kind") != "")


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
        # How far a price reduction moves them: some buy whatever is reduced, many hardly look.
        self.deal_taste = 1.0 / (1.0 + np.exp(0.4 - 1.6 * streams.normal(seed, "deals", number)))
        self.put_off = streams.uniform(seed, "put off by offers", number) < 0.06
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
                    "email": [f"{customer_id.lower()}@example.org" for customer_id in self.ids],
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
        # Reduced goods go rather to those who look for reductions.
        reduced = self._demand.discount(day.day)[product]
        liking_first = self.taste[who[first], family] * (1.0 + 20.0 * reduced * self.deal_taste[who[first]])
        liking_second = self.taste[who[second], family] * (1.0 + 20.0 * reduced * self.deal_taste[who[second]])
        basket = np.where(liking_first >= liking_second, first, second)
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
        """`retail.offer_responses` and `retail.service_requests` of the logged period, and the offers tried and planned."""
        as_of = self.company.config.as_of
        first = as_of - timedelta(days=as_of.weekday(), weeks=EXPERIMENT_WEEKS)
        weeks = EXPERIMENT_WEEKS + PLANNED_DAYS // 7
        offers = [offer for week in range(weeks) for offer in self.targeted(first + timedelta(weeks=week))]
        yield "retail.offers", f"targeted-offers-{as_of}", targeted_frame(offers)
        tried = [self._experiment(offer) for offer in offers if offer.ends_on < as_of]
        rows = [self._shelf_responses(), *tried]
        yield (
            "retail.offer_responses",
            f"offer-responses-{as_of}",
            pl.concat([r for r in rows if r.height], how="diagonal"),
        )
        yield "retail.message_replies", f"message-replies-{as_of}", self._letters_read(tried)
        if self._basket_stubs:
            yield "retail.service_requests", f"service-requests-{as_of}", self._requests(as_of)

    def _letters_read(self, tried: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """What came back on the letters about the offers tried; controls got none."""
        position = {name: i for i, name in enumerate(self.ids)}
        found = []
        for rows in tried:
            for (sent_on,), day in rows.filter(pl.col("held_out") == 0).partition_by("sent_on", as_dict=True).items():
                who = np.array([position[name] for name in day["customer_id"].to_list()], np.int64)
                ids = [f"L-{offer}-{name}" for offer, name in day.select("offer_id", "customer_id").iter_rows()]
                found.append(replies_frame(self, ids, who, sent_on))
        return pl.concat(found)

    def unsubscribes(self, who: np.ndarray, day: date) -> np.ndarray:
        """Who never wants another message after one on `day`; the same luck whatever the message says."""
        return streams.uniform(self.company.config.seed, "unsubscribes", day.toordinal(), who) < UNSUBSCRIBED

    def _shelf_responses(self) -> pl.DataFrame:
        """Letters about reductions that everybody gets in the stores; there were no controls."""
        company, seed, as_of = self.company, self.company.config.seed, self.company.config.as_of
        willing = np.flatnonzero(self.consent)
        rows: list[pl.DataFrame] = []
        for offer in company.offers(as_of - timedelta(days=120), as_of - timedelta(days=8)):
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
        return pl.concat(rows) if rows else pl.DataFrame()

    def targeted(self, monday: date) -> list[TargetedOffer]:
        """The offers of a week that only customers to whom they are sent can use."""
        seed, ordinal = self.company.config.seed, monday.toordinal()
        order = np.argsort(streams.uniform(seed, "targeted family", ordinal, np.arange(len(FAMILIES))))
        budget = round(max(10.0, BUDGET_PER_CUSTOMER * len(self.ids)), 2)
        return [
            TargetedOffer(
                f"T{monday:%Y%m%d}-{k + 1}",
                int(order[k]),
                TARGETED_DEPTHS[int(streams.uniform(seed, "targeted depth", ordinal, k)[0] * len(TARGETED_DEPTHS))],
                monday,
                monday + timedelta(days=6),
                budget,
            )
            for k in range(TARGETED_PER_WEEK)
        ]

    def active(self, day: date) -> np.ndarray:
        """Who is a customer on a day."""
        ordinal = day.toordinal()
        return np.asarray((self.joined <= ordinal) & (ordinal < self.left))

    def outcomes(self, offer: TargetedOffer, who: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What customers do in an offer's week, without it and with it, by the same luck.

        Some would buy anyway and only cost the discount; some are moved by it; a few are put off.

        Returns:
            profit without, profit with, whether used with it, cost of the use (discount and cost per use).
        """
        seed, key = self.company.config.seed, streams.name_key(offer.offer_id)
        family = FAMILIES[offer.family]
        liking = self.taste[who, offer.family] / self.taste[who].mean(axis=1)
        present = self.active(offer.starts_on)[who]
        rate = 0.11 * self.activity[who] * liking
        without = np.where(present, 1.0 - np.exp(-rate), 0.0)
        moved = self.deal_taste[who] ** 1.2 * (1.0 - np.exp(-16.0 * offer.discount)) * (0.4 + liking) / (1.0 + liking)
        chance = without + (1.0 - without) * np.where(present, moved, 0.0)
        chance = np.where(self.put_off[who], 0.7 * without, chance)
        luck = streams.uniform(seed, "answers the offer", key, who)
        units = 1.0 + np.floor(4.0 * streams.uniform(seed, "units under the offer", key, who) ** 2)
        cost = units * family.price * offer.discount + offer.cost_per_use
        margin = units * family.price * family.margin
        buys_without, buys_with = luck < without, luck < chance
        return (
            np.where(buys_without, margin, 0.0),
            np.where(buys_with, margin - cost, 0.0),
            buys_with,
            np.where(buys_with, cost, 0.0),
        )

    def _experiment(self, offer: TargetedOffer) -> pl.DataFrame:
        """A past offer sent to a random part of the willing customers, a third of whom were kept as controls."""
        seed, key = self.company.config.seed, streams.name_key(offer.offer_id)
        willing = np.flatnonzero(self.consent & (self.joined <= offer.starts_on.toordinal()))
        chosen = willing[streams.uniform(seed, "tried", key, willing) < EXPERIMENT_SHARE]
        control = streams.uniform(seed, "control", key, chosen) < 1 / 3
        without, with_it, used, _ = self.outcomes(offer, chosen)
        return response_frame(self, offer, chosen, offer.starts_on, control, used, np.where(control, without, with_it))

    def requests_of(self, day: date) -> pl.DataFrame:
        """Requests that were opened or settled on a day, as known when the next one opens."""
        if not self._basket_stubs:
            return pl.DataFrame()
        known = self._requests(day + timedelta(days=1))
        on = pl.lit(day)
        return known.filter(
            (pl.col("opened_at").dt.date() == on)
            | (pl.col("closed_at").dt.date() == on).fill_null(False)
            | (pl.col("first_response_at").dt.date() == on).fill_null(False)
        )

    def _requests(self, until: date) -> pl.DataFrame:
        baskets = pl.concat(self._basket_stubs)
        seed = self.company.config.seed
        number = np.arange(baskets.height)
        chosen = np.flatnonzero(streams.uniform(seed, "complains", number) < 0.01)
        hours = 2 + np.floor(90 * streams.uniform(seed, "complaint delay", chosen)).astype(np.int64)
        duration = 1 + np.floor(70 * streams.uniform(seed, "complaint duration", chosen)).astype(np.int64)
        answered = np.maximum(1.0, 0.5 * duration * streams.uniform(seed, "first response", chosen) ** 1.5)
        topic = np.floor(len(_TOPICS) * streams.uniform(seed, "topic", chosen) ** 1.4).astype(np.int64)
        as_of = datetime.combine(until, datetime.min.time(), UTC)
        frame = baskets[chosen].with_columns(
            request_id=pl.Series([f"SR{n + 1:06d}" for n in range(chosen.size)], dtype=pl.String),
            opened_at=pl.col("bought_at") + pl.lit(pl.Series(hours * 3_600_000_000)).cast(pl.Duration("us")),
            topic=pl.Series(np.array(_TOPICS)[topic]),
        )
        frame = frame.with_columns(
            closed_at=pl.col("opened_at") + pl.lit(pl.Series(duration * 3_600_000_000)).cast(pl.Duration("us"))
        )
        minutes = np.floor(60 * answered).astype(np.int64)
        frame = frame.with_columns(
            first_response_at=pl.col("opened_at") + pl.lit(pl.Series(minutes * 60_000_000)).cast(pl.Duration("us"))
        )
        frame = frame.filter(pl.col("opened_at") < as_of).with_columns(
            closed_at=pl.when(pl.col("closed_at") < as_of).then(pl.col("closed_at")),
            first_response_at=pl.when(pl.col("first_response_at") < as_of).then(pl.col("first_response_at")),
        )
        columns = ("request_id", "customer_id", "opened_at", "topic", "basket_id", "closed_at", "first_response_at")
        return frame.select(columns)
