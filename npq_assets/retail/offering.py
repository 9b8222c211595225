"""Who gets which offer this week: measured response, allocation under budget and consent, controls, effect on demand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, cast

import numpy as np
import polars as pl

from npq_assets.customers.response import Response, fit_response
from npq_assets.evaluation.ledger import decision_id
from npq_assets.optimization.offers import TOTAL, OfferProblem, Params, everyone_in_the_segment, solve
from npq_assets.optimization.result import DUALS, Result
from npq_assets.retail.customer_book import CustomerBook
from npq_assets.retail.customer_inputs import KEY, CustomerInputs
from npq_assets.retail.customer_link import DEMAND

FEATURES = (
    "log_family_spend",
    "family_share",
    "log_family_lines",
    "family_recency",
    "log_baskets",
    "log_spend",
    "recency",
    "price_sensitivity",
    "promotion_share",
    "family_promotion_share",
    "discount",
    "log_amount",
    "sensitivity_x_discount",
    "past_use",
    "past_use_x_family",
)
TEST_SIZE = 100
# Of families without unit costs; the plan says so.
ASSUMED_MARGIN = 0.3
HISTORY_DAYS = 182
# Days of the past whose offers the level of forecast demand is taken to hold.
HELD_DAYS = 91
_SENT = {
    KEY: pl.String,
    "offer_id": pl.String,
    "expected_profit": pl.Float64,
    "expected_cost": pl.Float64,
    "effect_known": pl.Boolean,
    "control": pl.Boolean,
    "reason": pl.String,
}


@dataclass(frozen=True)
class OfferPlan:
    """The week's offers.

    Attributes:
        sent: One row a customer and offer: the columns of the decision table with customer_key; family, product_id, extra_units.
        result: What the solver said.
        accounts: One row an offer: offer_id, decision_id, expected_cost, naive_expected_cost, lower_bound (money; minus profit).
        facts: Everything that is one number or word.
    """

    sent: pl.DataFrame
    result: Result
    accounts: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def plan_offers(
    inputs: CustomerInputs, book: CustomerBook, earlier: pl.DataFrame, contacted: pl.DataFrame | None = None
) -> OfferPlan:
    """Allocates the offers that run in the week of `as_of`.

    Args:
        inputs: What was known.
        book: The week's view of customers.
        earlier: Offers sent on other days: customer_key, offer_id, as_of, expected_cost.
        contacted: Messages of the week and of today that come before offers: customer_key, messages.
    """
    sunday = inputs.anchor + timedelta(days=6)
    offers = inputs.offers.filter(
        pl.col("targeted") & (pl.col("starts_on") <= sunday) & (pl.col("ends_on") >= inputs.as_of)
    )
    this_week = earlier.filter((pl.col("as_of") >= inputs.anchor) & (pl.col("as_of") <= sunday))
    if this_week.height:
        return _nothing(inputs, f"this week's offers were sent as of {cast('date', this_week['as_of'].max())}")
    if offers.is_empty():
        return _nothing(inputs, "no offer to single customers (targeted in retail.offers) runs this week")
    offers, left_out = _sold(inputs, offers)
    if offers.is_empty():
        return _nothing(inputs, left_out)
    consenting = inputs.to_be_written_to
    if consenting.is_empty():
        unreachable = f"; {inputs.unreachable} who agreed have no address" if inputs.unreachable else ""
        return _nothing(inputs, f"no customer who can be reached has agreed to be written to{unreachable}")
    response, use_size = _response(inputs)
    pairs = _pairs(inputs, book, offers, consenting, earlier)
    if pairs.is_empty():
        return _nothing(inputs, "every customer who may be written to has had these offers")
    x = pairs.select(FEATURES).to_numpy()
    redemption = response.redemption(x)
    cost = redemption * (pairs["discount"] * pairs["amount"] * use_size + pairs["cost_per_use"]).to_numpy()
    pairs = pairs.with_columns(pl.Series("redemption", redemption), pl.Series("cost", cost))
    room = _room(inputs, contacted)
    budgets = _budgets(offers, earlier)
    if not response.known:
        return _trial(inputs, pairs, budgets, room, response, left_out)
    pairs = pairs.with_columns(pl.Series("profit", response.incremental_profit(x, pairs["amount"].to_numpy())))
    problem = OfferProblem(
        pairs.select(pl.col(KEY).alias("customer"), "offer_id", "profit", "cost"),
        budgets,
        inputs.settings.offer_budget,
        room,
        _weekly_room(inputs),
    )
    result = solve(problem, Params(seconds=inputs.settings.solver_seconds))
    naive = everyone_in_the_segment(problem, _segment_order(pairs))
    chosen = result.plan.rename({"customer": KEY}).join(pairs.drop("profit", "cost"), on=[KEY, "offer_id"], how="left")
    share = inputs.settings.control_share
    control = [_draw(inputs, key, offer) < share for key, offer in chosen.select(KEY, "offer_id").iter_rows()]
    margin = (pairs["unit_margin_share"].fill_null(ASSUMED_MARGIN) - pairs["discount"]).clip(0.05, 1.0)
    pairs = pairs.with_columns(margin.alias("kept"))
    chosen = chosen.with_columns(pl.Series("control", control, dtype=pl.Boolean)).join(
        pairs.select(KEY, "offer_id", "kept"), on=[KEY, "offer_id"], how="left"
    )
    # The profit that an extra unit brings turns the expected extra profit into expected extra units.
    per_unit = pl.col("kept") * pl.col("price").clip(lower_bound=0.01)
    units = (pl.col("profit").clip(lower_bound=0.0) / per_unit).clip(upper_bound=3.0)
    sent = chosen.select(
        KEY,
        "offer_id",
        pl.when("control").then(0.0).otherwise("profit").alias("expected_profit"),
        pl.when("control").then(0.0).otherwise("cost").alias("expected_cost"),
        pl.lit(True).alias("effect_known"),
        "control",
        pl.Series("reason", [_reason(row) for row in chosen.iter_rows(named=True)], dtype=pl.String),
        "family",
        "product_id",
        pl.when("control").then(0.0).otherwise(units).alias("extra_units"),
    )
    sent = _traced(inputs, sent)
    accounts = _accounts(inputs, offers, problem, result, naive)
    note = "; ".join(words for words in (left_out, _without_margin(inputs, offers)) if words)
    facts = _facts(response, result, sent, naive, budgets) | ({"note": note} if note else {})
    return OfferPlan(sent, result, accounts, facts)


def _sold(inputs: CustomerInputs, offers: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Offers on something that known customers bought in the last half year, and a sentence on the others.

    What nobody buys has no usual price, so that whatever a model says of an offer on it is made up.
    """
    bought = _lines(inputs).filter(pl.col("bought_on") >= inputs.anchor - timedelta(days=HISTORY_DAYS))
    known = _with_family(inputs, offers)["family"].is_in(bought["family"].unique().to_list()).fill_null(False)
    if known.all():
        return offers, ""
    names = offers.filter(~known)["offer_id"].to_list()
    return offers.filter(known), (
        f"left out, since no known customer bought anything they are on in the last half year: {', '.join(names[:5])}"
        f"{f' and {len(names) - 5} more' if len(names) > 5 else ''}; check product_id, family and common.products"
    )


def _without_margin(inputs: CustomerInputs, offers: pl.DataFrame) -> str:
    """A sentence on the offers whose families have no unit cost, so that a margin is assumed; empty if none."""
    priced = _lines(inputs).filter(pl.col("margin").is_not_null())["family"].unique().to_list()
    names = _with_family(inputs, offers).filter(~pl.col("family").is_in(priced))["offer_id"].to_list()
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"a margin of {ASSUMED_MARGIN:.0%} is assumed of {', '.join(names[:5])}{more}, since no product of theirs that was bought "
        "has a unit_cost in common.products"
    )


def _budgets(offers: pl.DataFrame, earlier: pl.DataFrame) -> dict[str, float]:
    """What is left of each offer's budget, which is for all its weeks, after what was sent on other days."""
    spent = dict(earlier.group_by("offer_id").agg(pl.col("expected_cost").sum()).iter_rows())
    limited = offers.filter(pl.col("budget").is_not_null())
    return {
        offer: max(0.0, float(budget) - float(spent.get(offer, 0.0)))
        for offer, budget in limited.select("offer_id", "budget").iter_rows()
    }


def _lines(inputs: CustomerInputs) -> pl.DataFrame:
    """Purchases; a product of no family is a family of its own."""
    return inputs.purchases.with_columns(pl.coalesce("family", "product_id").alias("family"))


def _response(inputs: CustomerInputs) -> tuple[Response, float]:
    """The response model, from offers that are over, and how many times the usual purchase a use of an offer is."""
    tried = inputs.outcomes.filter(pl.col("family").is_not_null() | pl.col("product_id").is_not_null())
    tried = _with_family(inputs, tried)
    # Offers on the shelf of everybody teach nothing about what a message changes.
    targeted = inputs.offers.filter("targeted").select("offer_id")
    tried = tried.join(targeted, on="offer_id", how="semi").sort("sent_on", "offer_id", KEY)
    if tried.is_empty():
        none = np.zeros((0, len(FEATURES)))
        return fit_response(none, np.zeros(0, bool), np.zeros(0), np.zeros(0), np.zeros(0), np.ones(0)), 1.0
    parts = []
    for (sent_on,), rows in tried.partition_by("sent_on", as_dict=True, maintain_order=True).items():
        parts.append(_features(inputs, rows, sent_on))
    tried = pl.concat(parts)
    response = fit_response(
        tried.select(FEATURES).to_numpy(),
        ~tried["held_out"].to_numpy(),
        tried["profit"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        tried["redeemed"].cast(pl.Float64).to_numpy(),
        tried["sent_on"].to_physical().cast(pl.Float64).to_numpy(),
        tried["amount"].to_numpy(),
    )
    return response, _use_size(tried)


def _use_size(tried: pl.DataFrame) -> float:
    """List value of a use over the usual purchase: profit = value x (margin - discount) - cost of use, solved for value."""
    used = tried.filter(
        pl.col("redeemed")
        & ~pl.col("held_out")
        & pl.col("profit").is_not_null()
        & (pl.col("list_margin") > pl.col("discount") + 0.05)
    )
    if used.height < 20:
        return 1.0
    value = (used["profit"] + used["cost_per_use"]) / (used["list_margin"] - used["discount"])
    return float(np.clip(float(value.sum()) / max(float(used["amount"].sum()), 1e-9), 0.3, 5.0))


def _with_family(inputs: CustomerInputs, rows: pl.DataFrame) -> pl.DataFrame:
    families = inputs.products.select("product_id", pl.col("family").alias("of_product"))
    rows = rows.join(families, on="product_id", how="left", maintain_order="left")
    return rows.with_columns(pl.coalesce("family", "of_product", "product_id").alias("family")).drop("of_product")


def _features(inputs: CustomerInputs, rows: pl.DataFrame, day: date) -> pl.DataFrame:
    """`rows` (customer_key, family, discount) with the columns of FEATURES as of `day`, amount and price of a use."""
    lines = _lines(inputs).filter(
        (pl.col("bought_on") < day) & (pl.col("bought_on") >= day - timedelta(days=HISTORY_DAYS))
    )
    priced = pl.col("margin").is_not_null()
    person = lines.group_by(KEY).agg(
        pl.col("basket_id").n_unique().log1p().alias("log_baskets"),
        pl.col("amount").sum().alias("spend"),
        (pl.lit(day) - pl.col("bought_on").max()).dt.total_days().log1p().alias("recency"),
        (pl.col("discount").sum() / (pl.col("amount").sum() + pl.col("discount").sum()).clip(0.01)).alias(
            "price_sensitivity"
        ),
        (pl.col("discount") > 0).mean().alias("promotion_share"),
        pl.len().alias("lines"),
    )
    in_family = lines.group_by(KEY, "family").agg(
        pl.col("amount").sum().alias("family_spend"),
        pl.len().log1p().alias("log_family_lines"),
        pl.len().alias("family_lines"),
        (pl.lit(day) - pl.col("bought_on").max()).dt.total_days().log1p().alias("family_recency"),
        (pl.col("discount") > 0).mean().alias("family_promotion_share"),
    )
    typical = lines.group_by("family").agg(
        ((pl.col("amount") + pl.col("discount")).sum() / pl.col("basket_id").n_unique()).alias("amount"),
        ((pl.col("amount") + pl.col("discount")).sum() / pl.col("quantity").sum().clip(0.01)).alias("price"),
        # Lines without a unit cost say nothing about margins.
        pl.when(priced.any())
        .then(pl.col("margin").sum() / pl.col("amount").filter(priced).sum().clip(0.01))
        .alias("unit_margin_share"),
        pl.when(priced.any())
        .then(
            (pl.col("margin") + pl.col("discount")).sum()
            / (pl.col("amount") + pl.col("discount")).filter(priced).sum().clip(0.01)
        )
        .alias("list_margin"),
    )
    out = (
        rows.join(person, on=KEY, how="left", maintain_order="left")
        .join(in_family, on=[KEY, "family"], how="left", maintain_order="left")
        .join(typical, on="family", how="left", maintain_order="left")
    )
    out = out.join(_past_use(inputs, day), on=KEY, how="left", maintain_order="left").with_columns(
        pl.col("past_use").fill_null(strategy="zero")
    )
    # Promotion shares of few lines are shrunk to everybody's.
    usual = float(lines.select((pl.col("discount") > 0).mean()).item() or 0.0)
    out = out.with_columns(
        ((pl.col("promotion_share") * pl.col("lines") + 5 * usual) / (pl.col("lines") + 5)).alias("promotion_share"),
        ((pl.col("family_promotion_share") * pl.col("family_lines") + 5 * usual) / (pl.col("family_lines") + 5)).alias(
            "family_promotion_share"
        ),
    )
    return out.with_columns(
        pl.col("family_spend").fill_null(0.0).clip(lower_bound=0.0).log1p().alias("log_family_spend"),
        (pl.col("family_spend").fill_null(0.0) / pl.col("spend").fill_null(1.0).clip(0.01)).alias("family_share"),
        pl.col("log_family_lines", "log_baskets").fill_null(0.0),
        pl.col("family_recency", "recency").fill_null(float(np.log1p(365.0))),
        pl.col("spend").fill_null(0.0).clip(lower_bound=0.0).log1p().alias("log_spend"),
        pl.col("price_sensitivity").fill_null(0.0),
        pl.col("promotion_share", "family_promotion_share").fill_null(usual),
        pl.col("amount", "price").fill_null(1.0),
        pl.col("unit_margin_share", "list_margin").fill_null(ASSUMED_MARGIN),
        pl.col("cost_per_use").fill_null(0.0) if "cost_per_use" in out.columns else pl.lit(0.0).alias("cost_per_use"),
        pl.col("discount").fill_null(0.0),
    ).with_columns(
        pl.col("amount").log1p().alias("log_amount"),
        (pl.col("promotion_share") * pl.col("discount")).alias("sensitivity_x_discount"),
        (pl.col("past_use") * pl.col("log_family_lines")).alias("past_use_x_family"),
    )


def _past_use(inputs: CustomerInputs, day: date) -> pl.DataFrame:
    """How far each customer used earlier offers above the usual share, shrunk to it: customer_key, past_use."""
    past = inputs.outcomes.filter(~pl.col("held_out") & (pl.coalesce("ends_on", "sent_on") < day))
    targeted = inputs.offers.filter("targeted").select("offer_id")
    past = past.join(targeted, on="offer_id", how="semi")
    usual = float(past["redeemed"].cast(pl.Float64).mean() or 0.0)  # type: ignore[arg-type]
    return past.group_by(KEY).agg(
        ((pl.col("redeemed").cast(pl.Float64).sum() + 3 * usual) / (pl.len() + 3) - usual).alias("past_use")
    )


def _pairs(
    inputs: CustomerInputs,
    book: CustomerBook,
    offers: pl.DataFrame,
    consenting: pl.DataFrame,
    earlier: pl.DataFrame,
) -> pl.DataFrame:
    wanted = _with_family(inputs, offers).select("offer_id", "product_id", "family", "discount", "cost_per_use")
    people = consenting.join(book.people.select(KEY), on=KEY, how="inner")
    pairs = people.join(wanted, how="cross").sort(KEY, "offer_id")
    had = pl.concat([earlier.select(KEY, "offer_id"), inputs.outcomes.select(KEY, "offer_id")]).unique()
    pairs = pairs.join(had, on=[KEY, "offer_id"], how="anti").sort(KEY, "offer_id")
    return _features(inputs, pairs, inputs.anchor).sort(KEY, "offer_id")


def _segment_order(pairs: pl.DataFrame) -> pl.DataFrame:
    """The naive segment: who bought the family in the last half year, biggest spenders on it first."""
    mine = pairs.filter(pl.col("family_spend").fill_null(0.0) > 0).sort(
        ["family_spend", KEY, "offer_id"], descending=[True, False, False]
    )
    return mine.select(pl.col(KEY).alias("customer"), "offer_id").with_row_index("rank")


def _weekly_room(inputs: CustomerInputs) -> int:
    return inputs.settings.messages_per_week


def _room(inputs: CustomerInputs, contacted: pl.DataFrame | None) -> dict[str, int]:
    if contacted is None or contacted.is_empty():
        return {}
    return {
        key: max(0, _weekly_room(inputs) - int(count)) for key, count in contacted.select(KEY, "messages").iter_rows()
    }


def _draw(inputs: CustomerInputs, key: str, offer: str) -> float:
    """A number in [0, 1) that depends on customer and offer alone: the same controls in any run."""
    digest = hashlib.sha256(f"control\x1f{inputs.settings.seed}\x1f{key}\x1f{offer}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big")) / 2.0**64


def _reason(row: dict[str, Any]) -> str:
    if row["control"]:
        return "kept without the offer, so that its effect stays measured"
    return (
        f"expected to bring {row['profit']:.2f} more than without the offer; uses it with {row['redemption']:.0%}, "
        f"which costs {row['cost']:.2f}"
    )


def _trial(
    inputs: CustomerInputs,
    pairs: pl.DataFrame,
    budgets: dict[str, float],
    room: dict[str, int],
    response: Response,
    left_out: str,
) -> OfferPlan:
    """Without controls the effect is unknown: a random few get the offers, as many are kept as controls."""
    keep, taken = [], dict[str, int]()
    counts: dict[str, int] = {}
    left = dict(budgets)
    total = float("inf") if inputs.settings.offer_budget is None else inputs.settings.offer_budget
    rows = pairs.with_columns(
        pl.Series("draw", [_draw(inputs, k, o) for k, o in pairs.select(KEY, "offer_id").iter_rows()])
    ).sort("draw", KEY)
    for row in rows.iter_rows(named=True):
        offer, key = row["offer_id"], row[KEY]
        control = counts.get(offer, 0) % 2 == 1
        contacts = room.get(key, _weekly_room(inputs)) - taken.get(key, 0)
        cost = 0.0 if control else row["cost"]
        over = cost > left.get(offer, float("inf")) or cost > total
        if counts.get(offer, 0) >= TEST_SIZE or contacts <= 0 or over:
            continue
        counts[offer] = counts.get(offer, 0) + 1
        taken[key] = taken.get(key, 0) + 1
        if offer in left:
            left[offer] -= cost
        total -= cost
        keep.append({**row, "control": control})
    why = "the effect is unknown, since no earlier offer was compared with controls"
    frame = pl.DataFrame(
        [
            {
                KEY: row[KEY],
                "offer_id": row["offer_id"],
                "expected_profit": 0.0,
                "expected_cost": 0.0 if row["control"] else row["cost"],
                "effect_known": False,
                "control": row["control"],
                "reason": f"{why}: {'kept as a control' if row['control'] else 'sent to a random few'} to measure it",
                "family": row["family"],
                "product_id": row["product_id"],
                "extra_units": 0.0,
            }
            for row in keep
        ],
        schema={**_SENT, "family": pl.String, "product_id": pl.String, "extra_units": pl.Float64},
    )
    result = Result(pl.DataFrame(), "unknown effect", 0.0, 0.0, solver="random trial")
    sent = _traced(inputs, frame)
    facts = {
        "note": f"{why}; {left_out}" if left_out else why,
        "offers sent": sent.filter(~pl.col("control")).height,
        "effect": "unknown",
        "judgement": response.judgement,
        "solver": "random trial",
        "status": "unknown effect",
        "model_version": "none",
    }
    return OfferPlan(sent, result, _accounts_schema(), facts)


def _traced(inputs: CustomerInputs, sent: pl.DataFrame) -> pl.DataFrame:
    """One decision an offer: whom to send it."""
    ids = {
        offer: decision_id(inputs.as_of, "retail", "offers_sent", (offer,), inputs.snapshot)
        for offer in sent["offer_id"].unique().to_list()
    }
    return sent.with_columns(
        pl.col("offer_id").replace_strict(ids, return_dtype=pl.String).alias("decision_id")
        if ids
        else pl.lit(None, pl.String).alias("decision_id"),
        pl.lit(inputs.as_of).alias("as_of"),
        pl.lit(inputs.snapshot).alias("input_snapshot"),
    ).sort(KEY, "offer_id")


def _accounts_schema() -> pl.DataFrame:
    numbers = ("expected_cost", "naive_expected_cost", "lower_bound")
    return pl.DataFrame(
        schema={
            "offer_id": pl.String,
            "decision_id": pl.String,
            "as_of": pl.Date,
            "input_snapshot": pl.String,
            **dict.fromkeys(numbers, pl.Float64),
        }
    )


def _accounts(
    inputs: CustomerInputs, offers: pl.DataFrame, problem: OfferProblem, result: Result, naive: pl.DataFrame
) -> pl.DataFrame:
    """One account an offer, in costs (minus profit); the relaxation's slack is shared out evenly, so that bounds add up."""
    ours = result.plan.group_by("offer_id").agg(pl.col("profit").sum()) if result.plan.height else None
    theirs = naive.group_by("offer_id").agg(pl.col("profit").sum()) if naive.height else None
    slack = max(0.0, result.objective - result.bound)
    rows = []
    for offer in offers["offer_id"].to_list():
        mine = float(ours.filter(pl.col("offer_id") == offer)["profit"].sum()) if ours is not None else 0.0
        other = float(theirs.filter(pl.col("offer_id") == offer)["profit"].sum()) if theirs is not None else 0.0
        rows.append(
            {
                "offer_id": offer,
                "decision_id": decision_id(inputs.as_of, "retail", "offers_sent", (offer,), inputs.snapshot),
                "as_of": inputs.as_of,
                "input_snapshot": inputs.snapshot,
                "expected_cost": -mine,
                "naive_expected_cost": -other,
                "lower_bound": -mine - slack / offers.height,
            }
        )
    return pl.DataFrame(rows, schema=_accounts_schema().schema)


def _facts(
    response: Response, result: Result, sent: pl.DataFrame, naive: pl.DataFrame, budgets: dict[str, float]
) -> dict[str, Any]:
    return {
        "offers sent": sent.filter(~pl.col("control")).height,
        "controls": sent.filter("control").height,
        "expected_profit": -float(result.objective),
        "naive_expected_profit": float(naive["profit"].sum()) if naive.height else 0.0,
        "naive sent": naive.height,
        "bound": -float(result.bound),
        "budgets": budgets,
        "effect": response.model,
        "mean effect of an offer": response.effect_mean,
        "95 % interval of it": list(response.effect_interval),
        "judgement": response.judgement,
        "solver": result.solver,
        "status": result.status,
        "model_version": f"response-{response.model}",
        "worth of one more unit of budget": {
            row["supplier_id"]: round(row["worth_per_unit"], 6) for row in result.duals.iter_rows(named=True)
        },
    }


def _nothing(inputs: CustomerInputs, why: str) -> OfferPlan:
    sent = _traced(
        inputs, pl.DataFrame(schema={**_SENT, "family": pl.String, "product_id": pl.String, "extra_units": pl.Float64})
    )
    result = Result(pl.DataFrame(), "optimal", 0.0, 0.0, pl.DataFrame(schema=DUALS), solver="none needed")
    return OfferPlan(
        sent,
        result,
        _accounts_schema(),
        {"note": why, "offers sent": 0, "solver": "none needed", "status": "nothing to send", "model_version": "none"},
    )


def demand_effect(inputs: CustomerInputs, book: CustomerBook, sent: pl.DataFrame) -> pl.DataFrame:
    """Units by which offers move demand away from what its history shows: site_id, product_id, day, units.

    A customer's units of a family go to the products of it, in proportion to what the customer's store sells of them, evenly
    over the offer's own days, from sending on. History holds what earlier offers brought, so that the forecast repeats it:
    their mean units a day over the last `HELD_DAYS` (or as many as there is history for) are taken off again. In this week,
    whose offers are settled, that makes the difference, below zero where less is offered than usual; for later days, whose
    offers are not all decided, only what is known to exceed the mean is added.

    Args:
        inputs: What was known.
        book: The week's view of customers.
        sent: Offers of today, and those of earlier days as far back as `HELD_DAYS`: as_of, extra_units and what they are on.
    """
    wanted = sent.filter(pl.col("extra_units") > 0)
    if wanted.is_empty():
        return pl.DataFrame(schema=DEMAND)
    today = inputs.as_of
    wanted = wanted.join(book.people.select(KEY, pl.col("main_site").alias("site_id")), on=KEY, how="inner")
    wanted = wanted.join(inputs.offers.select("offer_id", "starts_on", "ends_on"), on="offer_id", how="inner")
    wanted = wanted.with_columns(pl.max_horizontal("as_of", "starts_on").alias("first")).with_columns(
        pl.max_horizontal("ends_on", "first").alias("last")
    )
    sold = _lines(inputs).filter(pl.col("bought_on") >= inputs.anchor - timedelta(days=91))
    sold = sold.group_by("site_id", "family", "product_id").agg(pl.col("quantity").sum())
    share = sold.with_columns((pl.col("quantity") / pl.col("quantity").sum().over("site_id", "family")).alias("share"))
    spread = wanted.rename({"product_id": "only"}).join(share, on=["site_id", "family"], how="inner")
    spread = spread.filter(pl.col("only").is_null() | (pl.col("only") == pl.col("product_id")))
    rate = pl.col("extra_units") * pl.col("share") / ((pl.col("last") - pl.col("first")).dt.total_days() + 1)
    pieces = spread.group_by("site_id", "product_id", "first", "last").agg(rate.sum().alias("rate"))
    held = _held(inputs, pieces.sort("site_id", "product_id", "first", "last"))
    ahead = pieces.filter((pl.col("last") >= today) & (pl.col("first") < today + timedelta(days=HELD_DAYS)))
    until = pl.min_horizontal("last", pl.lit(today + timedelta(days=HELD_DAYS - 1)))
    ahead = ahead.select(
        "site_id",
        "product_id",
        pl.date_ranges(pl.max_horizontal("first", pl.lit(today)), until).alias("day"),
        pl.col("rate").alias("units"),
    ).explode("day")
    sunday = inputs.anchor + timedelta(days=6)
    week = pl.DataFrame({"day": pl.date_range(today, sunday, eager=True)})
    less = held.join(week, how="cross").select("site_id", "product_id", "day", pl.lit(0.0).alias("units"))
    by_day = (
        pl.concat([ahead, less])
        .sort(list(DEMAND))
        .group_by("site_id", "product_id", "day", maintain_order=True)
        .agg(pl.col("units").sum())
        .join(held, on=["site_id", "product_id"], how="left")
    )
    beyond = pl.col("units") - pl.col("held").fill_null(0.0)
    by_day = by_day.with_columns(
        pl.when(pl.col("day") <= sunday).then(beyond).otherwise(beyond.clip(lower_bound=0.0)).alias("units")
    )
    return by_day.filter(pl.col("units") != 0).select(list(DEMAND)).sort("site_id", "product_id", "day")


def _held(inputs: CustomerInputs, pieces: pl.DataFrame) -> pl.DataFrame:
    """Mean units a day that offers brought in the days before today: site_id, product_id, held."""
    first = inputs.purchases["bought_on"].min()
    assert isinstance(first, date)
    days = min(HELD_DAYS, max(7, (inputs.as_of - first).days))
    since = pl.max_horizontal("first", pl.lit(inputs.as_of - timedelta(days=days)))
    until = pl.min_horizontal("last", pl.lit(inputs.as_of - timedelta(days=1)))
    inside = ((until - since).dt.total_days() + 1).clip(lower_bound=0)
    held = pieces.group_by("site_id", "product_id", maintain_order=True).agg(
        (pl.col("rate") * inside).sum().alias("held") / days
    )
    return held.filter(pl.col("held") > 0)


def defection_cost(inputs: CustomerInputs, book: CustomerBook) -> pl.DataFrame:
    """What a lost sale costs beyond its margin: the value of customers who do not come back.

    For each site and product: settings.stockout_defection x share of the shoppers known x mean expected margin of a quarter
    of those who buy it there. Customers who are not known by card are valued at nothing, so this is a low estimate.

    Returns:
        site_id, product_id, defection_cost (money per unit).
    """
    rate = inputs.settings.stockout_defection
    lines = inputs.purchases.filter(pl.col("bought_on") >= inputs.anchor - timedelta(days=91))
    priced = lines.filter(pl.col("margin").is_not_null())
    margin_share = float(priced["margin"].sum() or 0.0) / max(float(priced["amount"].sum()), 1e-9)
    quarter = 91 / 28 * max(margin_share, 0.0)
    who = lines.select(KEY, "site_id", "product_id").unique()
    worth = who.join(book.people.select(KEY, "expected_spend"), on=KEY, how="inner")
    return (
        worth.group_by("site_id", "product_id")
        .agg((pl.col("expected_spend").mean() * quarter * rate).alias("defection_cost"))
        .sort("site_id", "product_id")
    )


__all__ = ["HELD_DAYS", "TOTAL", "OfferPlan", "defection_cost", "demand_effect", "plan_offers"]
