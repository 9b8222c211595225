"""Offers to single customers in the closed loop: npq's choice against everyone in the segment, with the same luck.

What customers do with an offer is decided in `customers`; what a day in the stores is, in `retail_world`, whose landed sales
this world turns into baskets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.company import streams
from npq_assets.company.config import FAMILIES
from npq_assets.company.customers import TargetedOffer, replies_frame, response_frame
from npq_assets.company.landing import Beginning, LandingFolder
from npq_assets.company.stores import StoreDay
from npq_assets.company.worlds import CostRow, Service
from npq_assets.errors import RunError
from npq_assets.settings import Home

SEGMENT_DAYS = 182


@dataclass(frozen=True)
class _Sent:
    """An offer sent in npq's world: to whom, and which of them were kept as controls."""

    offer: TargetedOffer
    who: np.ndarray
    control: np.ndarray
    sent_on: date


class OfferWorld:
    """The offers, lived under `decisions/retail/offers_sent` and under the rule "everyone in the segment".

    Both spend the same budget: once the uses of an offer have cost it, the offer ends, and who comes later buys as without it.
    Some unsubscribe after a message; the replies land. A message without consent, after an unsubscription or beyond the weekly
    limit ends the simulation.
    """

    domain = "retail"
    kinds: tuple[str, ...] = ("offers",)

    def __init__(self, beginning: Beginning) -> None:
        self._customers = beginning.customers
        self._company = beginning.customers.company
        self._position = {name: i for i, name in enumerate(self._customers.ids)}
        self._open: list[_Sent] = []
        self._baskets: pl.DataFrame | None = None
        self._lived: set[str] = set()
        self._messages: dict[int, list[date]] = {}
        self._usual_redemption = 0.25
        # Who may be written to in npq's world and in the naive one.
        self._willing = [beginning.customers.consent.copy(), beginning.customers.consent.copy()]

    def open(self, folder: LandingFolder, first_day: date, last_day: date) -> None:
        """Reads what customers bought so far, as landed."""
        self._usual_redemption = _share_used(folder.out / "retail" / "offer_responses", self._usual_redemption)
        files = sorted((folder.out / "retail" / "baskets").glob("*.csv*"))
        columns = ["basket_id", "product_id", "customer_id", "bought_at", "quantity", "amount"]
        found = [pl.read_csv(file, columns=columns, infer_schema=False) for file in files]
        family = pl.DataFrame(
            {"product_id": self._company.product_ids, "family": [int(f) for f in self._company.product_family]}
        )
        if not found:
            return
        rows = pl.concat(found).unique(["basket_id", "product_id"], keep="last", maintain_order=True)
        self._baskets = (
            rows.with_columns(
                pl.col("amount").cast(pl.Float64, strict=False),
                pl.col("bought_at").str.slice(0, 10).str.to_date(strict=False).alias("day"),
            )
            .drop_nulls(["amount", "day"])
            .filter(pl.col("customer_id").is_in(self._customers.ids))
            .join(family, on="product_id", how="inner")
            .select("customer_id", "family", "amount", "day")
        )

    def step(self, home: Home, folder: LandingFolder, day: date) -> list[CostRow]:
        """Sends the day's offers in both worlds; lands baskets of the day and the answers to offers that end with it."""
        messages = self._messages_of(home, day)
        place = home.decisions("retail", "offers_sent", day)
        rows = self._live(home, pl.read_parquet(place), day) if place.exists() else []
        self._land(folder, day)
        self._land_replies(folder, messages, day)
        return rows

    def service(self) -> Service | None:
        """Offers serve no units."""
        return None

    def _live(self, home: Home, decided: pl.DataFrame, day: date) -> list[CostRow]:
        known = {
            offer.offer_id: offer
            for back in (0, 1)
            for offer in self._customers.targeted(day - timedelta(days=day.weekday()) + timedelta(weeks=back))
        }
        if decided.is_empty():
            return []
        ours = np.zeros(len(self._company.store_ids))
        theirs = np.zeros(len(self._company.store_ids))
        offers = [self._offer(known, name, day) for name in sorted(decided["offer_id"].unique().to_list())]
        naive = self._everyone(home, offers, day)
        for offer in offers:
            mine = decided.filter(pl.col("offer_id") == offer.offer_id).sort("customer_id")
            who = np.array([self._at(name, place="offers_sent") for name in mine["customer_id"].to_list()], np.int64)
            if not bool(self._willing[0][who].all()):
                raise RunError(f"offers_sent as of {day}: an offer goes to a customer without consent")
            control = mine["control"].fill_null(False).to_numpy()
            self._lived.add(offer.offer_id)
            self._open.append(_Sent(offer, who, control, day))
            for receivers, gains in ((who[~control], ours), (naive[offer.offer_id], theirs)):
                np.add.at(gains, self._customers.home[receivers], self._gain(offer, receivers))
        return [
            CostRow(day, self._company.store_ids[s], "offers", -float(ours[s]), -float(theirs[s]))
            for s in range(len(self._company.store_ids))
        ]

    def _offer(self, known: dict[str, TargetedOffer], name: str, day: date) -> TargetedOffer:
        if name not in known:
            raise RunError(f"offers_sent as of {day}: offer {name!r} does not run in this or the next week")
        if name in self._lived:
            raise RunError(f"offers_sent as of {day}: offer {name!r} was sent before")
        return known[name]

    def _at(self, name: str, place: str) -> int:
        if name not in self._position:
            raise RunError(f"{place}: names a customer who does not exist")
        return self._position[name]

    def _used_in_time(self, offer: TargetedOffer, who: np.ndarray, used: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Uses before the budget is spent; customers come in an order of luck that both worlds share."""
        luck = streams.uniform(self._company.config.seed, "comes with the offer", streams.name_key(offer.offer_id), who)
        order = np.argsort(luck, kind="stable")
        spent = np.cumsum(np.where(used, cost, 0.0)[order])
        in_time = np.zeros(len(who), bool)
        in_time[order] = spent <= offer.budget + 1e-9
        return used & in_time

    def _gain(self, offer: TargetedOffer, who: np.ndarray) -> np.ndarray:
        """Profit with the offer less profit without it, by receiver."""
        if not len(who):
            return np.zeros(0)
        without, with_it, used, cost = self._customers.outcomes(offer, who)
        in_time = self._used_in_time(offer, who, used, cost)
        return np.where(used & ~in_time, 0.0, with_it - without)

    def _everyone(self, home: Home, offers: list[TargetedOffer], day: date) -> dict[str, np.ndarray]:
        """The naive rule: who bought the family lately and agreed, biggest spenders first, as many letters as the budget
        bears at the redemption that past offers had; no more letters a week to a customer than ours."""
        letters = np.zeros(len(self._customers.ids), np.int64)
        most = home.settings.messages_per_week
        chosen = {}
        for offer in offers:
            assert self._baskets is not None
            lately = self._baskets.filter(
                (pl.col("family") == offer.family)
                & (pl.col("day") < day)
                & (pl.col("day") >= day - timedelta(days=SEGMENT_DAYS))
            )
            spenders = lately.group_by("customer_id").agg(pl.col("amount").sum())
            spenders = spenders.sort(["amount", "customer_id"], descending=[True, False])
            order = np.array([self._position[name] for name in spenders["customer_id"].to_list()], np.int64)
            order = order[self._willing[1][order] & (letters[order] < most)] if len(order) else order
            # Letters until uses, at the rate at which offers were used so far, would cost the budget.
            family = FAMILIES[offer.family]
            cost = 2.0 * family.price * offer.discount + offer.cost_per_use
            count = int(offer.budget / max(self._usual_redemption * cost, 1e-9))
            chosen[offer.offer_id] = order[:count]
            letters[order[:count]] += 1
        written = np.flatnonzero(letters)
        self._willing[1][written[self._customers.unsubscribes(written, day)]] = False
        return chosen

    def _messages_of(self, home: Home, day: date) -> pl.DataFrame:
        """The day's messages (message_id, who), after a look at consent and the weekly limit."""
        place = home.decisions("retail", "messages", day)
        if not place.exists():
            return pl.DataFrame(schema={"message_id": pl.String, "who": pl.Int64})
        decided = pl.read_parquet(place, columns=["message_id", "customer_id"]).sort("message_id")
        everybody = [self._at(name, place="messages") for name in decided["customer_id"].to_list()]
        for who in everybody:
            if not self._willing[0][who]:
                raise RunError(f"messages as of {day}: a message goes to a customer without consent")
            sent = [d for d in self._messages.get(who, []) if d > day - timedelta(days=7)] + [day]
            self._messages[who] = sent
            if len(sent) > home.settings.messages_per_week:
                raise RunError(f"messages as of {day}: a customer gets {len(sent)} messages in seven days")
        return pl.DataFrame({"message_id": decided["message_id"], "who": pl.Series(everybody, dtype=pl.Int64)})

    def _land_replies(self, folder: LandingFolder, messages: pl.DataFrame, day: date) -> None:
        """What came back on the day's messages, as known when the next day opens."""
        if messages.is_empty():
            return
        who = messages["who"].to_numpy()
        stops = self._customers.unsubscribes(who, day)
        self._willing[0][who[stops]] = False
        replies = replies_frame(self._customers, messages["message_id"].to_list(), who, day, stops)
        if replies.height:
            folder.write("retail.message_replies", f"message-replies-{day}", replies)

    def _land(self, folder: LandingFolder, day: date) -> None:
        answers = []
        for sent in [s for s in self._open if s.offer.ends_on <= day]:
            without, with_it, used, cost = self._customers.outcomes(sent.offer, sent.who)
            in_time = self._used_in_time(sent.offer, sent.who, used & ~sent.control, cost)
            profit = np.where(sent.control | (used & ~in_time), without, with_it)
            answers.append(
                response_frame(self._customers, sent.offer, sent.who, sent.sent_on, sent.control, in_time, profit)
            )
            self._open.remove(sent)
        if answers:
            folder.write("retail.offer_responses", f"offer-responses-{day}", pl.concat(answers))
        self._land_baskets(folder, day)

    def _land_baskets(self, folder: LandingFolder, day: date) -> None:
        place = folder.out / "retail" / "sales" / f"sales-{day}.csv"
        if not place.exists():
            return
        sales = pl.read_csv(place, columns=["site_id", "product_id", "quantity"])
        stores = {name: i for i, name in enumerate(self._company.store_ids)}
        products = {name: i for i, name in enumerate(self._company.product_ids)}
        sold = np.zeros(self._company.shape, np.int64)
        for site, product, quantity in sales.iter_rows():
            sold[stores[site], products[product]] = int(quantity)
        nothing = np.zeros_like(sold)
        happened = StoreDay(day, nothing, nothing, sold, sold, nothing, nothing, sold >= 0)
        for table, name, frame in self._customers.month_tables([happened]):
            folder.write(table, name.replace(f"{day:%Y-%m}", str(day)), frame)
            family = pl.Series([int(f) for f in self._company.product_family])
            at = frame["product_id"].replace_strict(products, return_dtype=pl.Int64)
            if self._baskets is not None:
                new = frame.select("customer_id", family.gather(at).alias("family"), "amount", pl.lit(day).alias("day"))
                self._baskets = pl.concat([self._baskets, new.cast(self._baskets.schema)])
        requests = self._customers.requests_of(day)
        if requests.height:
            folder.write("retail.service_requests", f"service-requests-{day}", requests)


def _share_used(folder: Path, otherwise: float) -> float:
    """Share of the letters about offers to single customers that were used so far, as any marketer counts it."""
    frames = [pl.read_csv(file, infer_schema=False) for file in sorted(folder.glob("*.csv*"))]
    rows = [frame for frame in frames if {"held_out", "redeemed"} <= set(frame.columns)]
    if not rows:
        return otherwise
    letters = pl.concat([frame.select("held_out", "redeemed") for frame in rows]).drop_nulls()
    letters = letters.filter(pl.col("held_out").is_in(["0", "false"]))
    return float(letters["redeemed"].is_in(["1", "true"]).cast(pl.Float64).mean() or otherwise)  # type: ignore[arg-type]


__all__ = ["OfferWorld"]
