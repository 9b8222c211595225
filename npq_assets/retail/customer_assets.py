"""Customer decisions as assets: pseudonyms, segments, recommendations, offers, messages, service. Each reads, calls one
function, writes, attaches metadata; none shows a customer in metadata or log."""

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from npq_assets.errors import Unavailable
from npq_assets.orchestration import (
    AS_OF,
    DAILY_FRESHNESS,
    RETRY,
    HomeResource,
    as_of_of,
    check_results,
    preview,
    skipped,
)
from npq_assets.settings import Home

if TYPE_CHECKING:
    from npq_assets.retail.customer_inputs import CustomerInputs
    from npq_assets.retail.serving import Facts

OWNERS = ["team:retail"]
PSEUDONYMS_KEY = dg.AssetKey(["raw", "retail", "pseudonyms"])
BOOK_KEY = dg.AssetKey(["plan", "retail", "customer_book"])
OFFER_PLAN_KEY = dg.AssetKey(["plan", "retail", "offer_plan"])
SERVICE_PLAN_KEY = dg.AssetKey(["plan", "retail", "service_plan"])
SEGMENTS_KEY = dg.AssetKey(["decisions", "retail", "customer_segments"])
RECOMMENDATIONS_KEY = dg.AssetKey(["decisions", "retail", "recommendations"])
OFFERS_KEY = dg.AssetKey(["decisions", "retail", "offers_sent"])
MESSAGES_KEY = dg.AssetKey(["decisions", "retail", "messages"])
QUEUE_KEY = dg.AssetKey(["decisions", "retail", "service_queue"])
STAFFING_KEY = dg.AssetKey(["decisions", "retail", "service_staffing"])
OUTBOX_KEY = dg.AssetKey(["outbox", "retail", "messages"])
INPUTS = [
    dg.AssetKey(["marts", domain, model])
    for domain, model in (
        ("retail", "purchases"),
        ("retail", "customer_profile"),
        ("retail", "offers"),
        ("retail", "offer_outcomes"),
        ("retail", "message_replies"),
        ("retail", "service_cases"),
        ("retail", "customer_deliveries"),
        ("retail", "stock_position"),
        ("retail", "open_orders"),
        ("common", "products"),
    )
]
DECIDED = [SEGMENTS_KEY, RECOMMENDATIONS_KEY, OFFERS_KEY, MESSAGES_KEY, QUEUE_KEY, STAFFING_KEY]
MEMORY_DAYS = 120


@dg.asset(
    key=PSEUDONYMS_KEY,
    deps=[
        dg.AssetKey(["raw", domain, name])
        for domain, name in (
            ("retail", "customers"),
            ("retail", "baskets"),
            ("retail", "offer_responses"),
            ("retail", "message_replies"),
            ("retail", "service_requests"),
            ("logistics", "deliveries"),
        )
    ],
    group_name="retail_raw",
    kinds={"python", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="The keyed pseudonym of every customer, in the closed folder `personal`; everything behind it knows no names.",
    check_specs=[
        dg.AssetCheckSpec(
            "forgotten_stay_forgotten",
            asset=PSEUDONYMS_KEY,
            description="Nobody who was forgotten has landed again; if so they are left out, and their rows wait to be removed.",
        ),
        dg.AssetCheckSpec(
            "consent_in_doubt",
            asset=PSEUDONYMS_KEY,
            description="No quarantined row may have taken back a consent; whom one is about is not written to.",
        ),
    ],
)
def pseudonyms(context: dg.AssetExecutionContext, home: HomeResource) -> Iterable[dg.MaterializeResult[None]]:
    """Writes the pseudonyms of all customers landed."""
    from npq_assets.retail.consent import write_in_doubt
    from npq_assets.retail.privacy import returned, write_pseudonyms

    count = write_pseudonyms(home.home)
    files = sorted(set(returned(home.home).values()))
    if files:
        context.log.warning(
            f"Customers who were forgotten have landed again ({', '.join(files[:5])}): left out of all that is computed; "
            "npq forget --again removes their rows"
        )
    doubts = write_in_doubt(home.home)
    people = doubts["customer_id"].n_unique()
    rows = [
        f"{file} line {line}" for file, line in doubts.select("file", "line").unique(maintain_order=True).iter_rows()
    ]
    if people:
        context.log.warning(
            f"The consent of {people} customers is in doubt: rows that were quarantined, or landed again, may have taken it back "
            f"({', '.join(rows[:5])}). They are not written to until a good row of theirs lands in a new file; "
            "personal/consent_in_doubt.csv has their pseudonyms"
        )
    yield dg.MaterializeResult(
        metadata={"dagster/row_count": count},
        check_results=[
            dg.AssetCheckResult(
                check_name="forgotten_stay_forgotten",
                passed=not files,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"files": files, "remedy": "npq forget --again" if files else ""},
            ),
            dg.AssetCheckResult(
                check_name="consent_in_doubt",
                passed=not people,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={
                    "customers": people,
                    "rows": rows[:100],
                    "remedy": "land a good row of theirs in a new file" if people else "",
                },
            ),
        ],
    )


@dg.asset(
    key=BOOK_KEY,
    deps=INPUTS,
    partitions_def=AS_OF,
    group_name="retail_plan",
    kinds={"python", "lightgbm", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    freshness_policy=DAILY_FRESHNESS,
    description="Prospects, segment and ranked products of every customer, judged once a week as of its Monday.",
)
def customer_book(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Judges the customers of the day's week, or reads the judgement of the same inputs."""
    from npq_assets.retail.customer_inputs import read_customer_inputs
    from npq_assets.retail.customer_output import book_of, unskip, withdraw

    day = as_of_of(context)
    try:
        inputs = read_customer_inputs(home.home, day)
    except Unavailable as reason:
        withdraw(home.home, day, str(reason))
        context.log.warning(f"No customer decisions as of {day}: {reason}")
        return skipped(str(reason))
    unskip(home.home, day)
    book, stored = book_of(home.home, inputs)
    sizes = book.people.group_by("segment").agg(
        pl.len().alias("customers"),
        pl.col("p_active").mean().alias("mean probability of coming back"),
        pl.col("expected_spend").mean().alias("mean expected spend"),
    )
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": book.people.height,
            "judged as of": inputs.anchor.isoformat(),
            "read from store": stored,
            "facts": dg.MetadataValue.json(book.facts),
            "segments": preview(sizes.sort("mean expected spend", descending=True)),
        }
    )


@dg.asset(
    key=OFFER_PLAN_KEY,
    deps=[BOOK_KEY, *INPUTS],
    partitions_def=AS_OF,
    group_name="retail_plan",
    kinds={"python", "cvxpy", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Who gets which offer this week: most incremental profit under budgets, contacts and consent, beside the naive "
    "everyone in the segment; and what offers and customers mean for the orders of the stores.",
)
def offer_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Allocates the week's offers on the first decided day of a week."""
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.customer_inputs import read_customer_inputs
    from npq_assets.retail.messaging import late_deliveries, room_taken
    from npq_assets.retail.offering import HELD_DAYS, defection_cost, demand_effect, plan_offers
    from npq_assets.retail.recommending import ROUND_WEEKS, measure_effect, recommended_units

    day = as_of_of(context)
    if (reason := kept.skipped(home.home, day)) is not None:
        return skipped(reason)
    inputs = read_customer_inputs(home.home, day)
    book, _ = kept.book_of(home.home, inputs)
    earlier = kept.other_decisions(home.home, kept.OFFERS, day, _offer_days(inputs), ["offer_id", "expected_cost"])
    messages = kept.other_decisions(home.home, kept.MESSAGES, day, MEMORY_DAYS, ["message_id"])
    late = late_deliveries(pl.read_parquet(home.home.mart("retail", "customer_deliveries")), day)
    plan = plan_offers(inputs, book, earlier, room_taken(inputs, late, messages))
    lists = kept.earlier_recommendations(home.home, inputs.anchor, ROUND_WEEKS)
    effect = measure_effect(inputs, lists)
    facts = {**plan.facts, "recommendations": effect.facts()}
    kept.save(home.home, day, "offers", plan.sent, facts)
    kept.save(home.home, day, "offer_accounts", plan.accounts)
    kept.save(home.home, day, "offer_duals", plan.result.duals)
    before = [kept.carried_out(home.home, rows) for rows in kept.plans_before(home.home, day, HELD_DAYS, "offers")]
    sent = pl.concat([*before, plan.sent])
    extra = pl.concat([demand_effect(inputs, book, sent), recommended_units(inputs, book, effect, lists)])
    kept.save(home.home, day, "demand_effect", extra)
    kept.save(home.home, day, "defection_cost", defection_cost(inputs, book))
    return dg.MaterializeResult(metadata={"dagster/row_count": plan.sent.height, "facts": dg.MetadataValue.json(facts)})


def _offer_days(inputs: "CustomerInputs") -> int:
    """Days to look back for what offers have cost: to the beginning of the oldest that still runs."""
    running = inputs.offers.filter(pl.col("targeted") & (pl.col("ends_on") >= inputs.anchor))["starts_on"].min()
    # Sent from the Monday of its first week on.
    return max(MEMORY_DAYS, (inputs.as_of - running).days + 7) if isinstance(running, date) else MEMORY_DAYS


@dg.asset(
    key=SERVICE_PLAN_KEY,
    deps=[BOOK_KEY, *INPUTS],
    partitions_def=AS_OF,
    group_name="retail_plan",
    kinds={"python", "cvxpy", "parquet"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Open requests by the cost of letting them wait, with drafts of answers; people by shift for a week.",
)
def service_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Ranks open requests, drafts answers and plans staff."""
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.customer_inputs import read_customer_inputs
    from npq_assets.retail.serving import plan_service

    day = as_of_of(context)
    if (reason := kept.skipped(home.home, day)) is not None:
        return skipped(reason)
    inputs = read_customer_inputs(home.home, day)
    book, _ = kept.book_of(home.home, inputs)
    plan = plan_service(inputs, book, service_facts(home.home, day), kept.staffed(home.home, day))
    kept.save(home.home, day, "service_queue", plan.queue)
    kept.save(home.home, day, "service_staffing", plan.staffing, plan.facts)
    return dg.MaterializeResult(
        metadata={"dagster/row_count": plan.queue.height, "facts": dg.MetadataValue.json(plan.facts)}
    )


def service_facts(home: Home, day: date) -> "Facts":
    """What drafts may use as of a day."""
    from npq_assets.retail.serving import Facts

    def mart(name: str) -> pl.DataFrame:
        return pl.read_parquet(home.mart("retail", name))

    # What happened later than the day's opening is not known yet.
    opening = pl.lit(day).cast(pl.Datetime("us", "UTC"))
    deliveries = mart("customer_deliveries").with_columns(
        pl.when(pl.col(name) < opening).then(name).alias(name) for name in ("departed_at", "arrived_at")
    )
    stock = mart("stock_position").filter(pl.col("counted_on") <= day).sort("counted_on")
    stock = stock.unique(["site_id", "product_id"], keep="last", maintain_order=True)
    orders = mart("open_orders").filter(pl.col("ordered_on").is_null() | (pl.col("ordered_on") < day))
    return Facts(deliveries, stock, orders)


@dg.asset(
    key=SEGMENTS_KEY,
    deps=[BOOK_KEY],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="A customer's segment and prospects. The contract file.",
)
def customer_segments(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes segments and prospects of the customers who have bought."""
    from npq_assets.evaluation.ledger import decision_id
    from npq_assets.publishing import write_decisions
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.customer_inputs import HORIZON_DAYS, KEY, read_customer_inputs
    from npq_assets.retail.privacy import identified

    day = as_of_of(context)
    if (reason := kept.skipped(home.home, day)) is not None:
        return skipped(reason)
    inputs = read_customer_inputs(home.home, day)
    people = kept.book_of(home.home, inputs)[0].people.filter(pl.col("frequency") > 0)
    ids = [
        decision_id(day, "retail", "customer_segments", (key,), inputs.weekly_snapshot) for key in people[KEY].to_list()
    ]
    rows = people.select(
        KEY,
        "segment",
        "recency_days",
        "frequency",
        "monetary",
        (1.0 - pl.col("p_active")).clip(0.0, 1.0).alias("churn_probability"),
        "expected_spend",
        pl.col("spend_q10").alias("expected_spend_low"),
        pl.col("spend_q90").alias("expected_spend_high"),
        pl.lit(HORIZON_DAYS).alias("horizon_days"),
        (pl.col("expected_spend") * pl.col("margin_share")).alias("expected_value"),
        (pl.col("spend_q10") * pl.col("margin_share")).alias("expected_value_low"),
        (pl.col("spend_q90") * pl.col("margin_share")).alias("expected_value_high"),
        pl.Series("decision_id", ids, dtype=pl.String),
        pl.lit(day).alias("as_of"),
        pl.lit(inputs.weekly_snapshot).alias("input_snapshot"),
    )
    write_decisions(home.home, kept.SEGMENTS, day, identified(home.home, rows))
    return dg.MaterializeResult(metadata={"dagster/row_count": rows.height})


@dg.asset(
    key=RECOMMENDATIONS_KEY,
    deps=[BOOK_KEY, *INPUTS],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Products to recommend: to buy again and new, varied, only what the customer's store can sell, each with why.",
)
def recommendations(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the day's recommendations."""
    from npq_assets.publishing import write_decisions
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.customer_inputs import read_customer_inputs
    from npq_assets.retail.privacy import identified
    from npq_assets.retail.recommending import recommend, uncounted

    day = as_of_of(context)
    if (reason := kept.skipped(home.home, day)) is not None:
        return skipped(reason)
    inputs = read_customer_inputs(home.home, day)
    book = kept.book_of(home.home, inputs)[0]
    rows, unknown = recommend(inputs, book), uncounted(inputs, book)
    if unknown:
        context.log.warning(
            f"retail.stock: no count of the last week for {len(unknown)} stores ({', '.join(unknown[:5])}); whether they can sell "
            f"what is recommended as of {day} is not known"
        )
    kept.save(home.home, day, "recommendations", rows)
    shown = rows.filter(~pl.col("control")).drop("control")
    write_decisions(home.home, kept.RECOMMENDATIONS, day, identified(home.home, shown))
    per_kind = shown.group_by("kind").len().sort("kind")
    without = rows.filter("control")["customer_key"].n_unique()
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": shown.height,
            "by kind": preview(per_kind),
            "customers kept without": without,
            "stores without a stock count of the last week": unknown,
        }
    )


@dg.asset(
    key=OFFERS_KEY,
    deps=[OFFER_PLAN_KEY],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Offers to send to customers, and the controls kept without. The contract file.",
)
def offers_sent(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the plan's offers in the columns of the contract."""
    from npq_assets.publishing import write_decisions
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.privacy import identified

    day = as_of_of(context)
    plan = kept.load(home.home, day, "offers")
    if (reason := kept.skipped(home.home, day)) is not None or plan is None:
        return skipped(reason or "no offer plan")
    write_decisions(home.home, kept.OFFERS, day, identified(home.home, plan))
    return dg.MaterializeResult(
        metadata={"dagster/row_count": plan.height, "expected profit": float(plan["expected_profit"].sum())}
    )


@dg.asset(
    key=MESSAGES_KEY,
    deps=[OFFERS_KEY, RECOMMENDATIONS_KEY, BOOK_KEY, *INPUTS],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Messages that leave today: late delivery, back in stock, offer, win-back; never without consent, at most so "
    "many a week to a customer, each once.",
)
def messages(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the day's messages."""
    from npq_assets.publishing import write_decisions
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.customer_inputs import read_customer_inputs
    from npq_assets.retail.messaging import late_deliveries, todays_messages
    from npq_assets.retail.privacy import identified

    day = as_of_of(context)
    offers, lists = kept.load(home.home, day, "offers"), kept.load(home.home, day, "recommendations")
    if (reason := kept.skipped(home.home, day)) is not None or offers is None or lists is None:
        return skipped(reason or "no offers planned")
    inputs = read_customer_inputs(home.home, day)
    book = kept.book_of(home.home, inputs)[0]
    earlier = kept.other_decisions(home.home, kept.MESSAGES, day, MEMORY_DAYS, ["message_id", "kind"])
    late = late_deliveries(pl.read_parquet(home.home.mart("retail", "customer_deliveries")), day)
    rows = todays_messages(inputs, book, offers, late, earlier, lists)
    kept.save(home.home, day, "messages", rows)
    write_decisions(home.home, kept.MESSAGES, day, identified(home.home, rows))
    kinds = rows.group_by("kind").len().sort("kind")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows.height,
            "by kind": preview(kinds),
            "customers who agree and have no address": inputs.unreachable,
        }
    )


@dg.asset(
    key=QUEUE_KEY,
    deps=[SERVICE_PLAN_KEY],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="Open service requests in the order in which to answer them, with drafts. The contract file.",
)
def service_queue(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the plan's queue in the columns of the contract."""
    from npq_assets.publishing import write_decisions
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.privacy import identified

    day = as_of_of(context)
    plan = kept.load(home.home, day, "service_queue")
    if (reason := kept.skipped(home.home, day)) is not None or plan is None:
        return skipped(reason or "no service plan")
    write_decisions(home.home, kept.QUEUE, day, identified(home.home, plan))
    return dg.MaterializeResult(
        metadata={"dagster/row_count": plan.height, "promises broken": int(plan["promise_broken"].sum())}
    )


@dg.asset(
    key=STAFFING_KEY,
    deps=[SERVICE_PLAN_KEY],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python", "parquet", "csv"},
    owners=OWNERS,
    retry_policy=RETRY,
    description="People who answer requests, by shift. The contract file.",
)
def service_staffing(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Writes the plan's staffing in the columns of the contract."""
    from npq_assets.publishing import write_decisions
    from npq_assets.retail import customer_output as kept

    day = as_of_of(context)
    plan = kept.load(home.home, day, "service_staffing")
    if (reason := kept.skipped(home.home, day)) is not None or plan is None or plan.is_empty():
        return skipped(reason or "no service requests landed")
    write_decisions(home.home, kept.STAFFING, day, plan)
    return dg.MaterializeResult(metadata={"dagster/row_count": plan.height, "preview": preview(plan)})


@dg.asset(
    key=OUTBOX_KEY,
    deps=[MESSAGES_KEY],
    partitions_def=AS_OF,
    group_name="retail_decisions",
    kinds={"python"},
    owners=OWNERS,
    description="Messages handed on as files or to a mail server: once each, to those who agree, only if `publish = true`.",
)
def message_outbox(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
    """Hands on what was not handed on before."""
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.mail import addressees, carrier_of, send, to_send, without_address

    day = as_of_of(context)
    carrier = carrier_of(home.home)
    if carrier is None:
        return dg.MaterializeResult(metadata={"handed on": 0, "dry run": True})
    # What was decided of the day before its inputs went away is not sent.
    if (reason := kept.skipped(home.home, day)) is not None:
        return skipped(reason)
    people = addressees(home.home)
    handed = send(home.home, to_send(home.home, day), carrier, people, day)
    if handed.refused or handed.note:
        context.log.warning(f"Messages as of {day}: {handed.refused} with an address that is not taken. {handed.note}")
    return dg.MaterializeResult(
        metadata={
            "handed on": len(handed.sent),
            "address not taken": handed.refused,
            "customers who agree and have no address": without_address(people),
            "messages without an address": handed.no_address,
            "to be tried again": handed.later,
            "kept back by the weekly limit": handed.over_limit,
            "dry run": False,
            **({"note": handed.note} if handed.note else {}),
        }
    )


@dg.multi_asset_check(
    name="customer_checks",
    specs=[
        dg.AssetCheckSpec(
            "consent", asset=MESSAGES_KEY, blocking=True, description="Nobody is written to without consent."
        ),
        dg.AssetCheckSpec(
            "weekly_limit",
            asset=MESSAGES_KEY,
            blocking=True,
            description="Nobody gets more messages in seven days than set.",
        ),
        dg.AssetCheckSpec(
            "budget", asset=MESSAGES_KEY, blocking=True, description="No offer is expected to exceed its budget."
        ),
        dg.AssetCheckSpec(
            "sellable", asset=MESSAGES_KEY, blocking=True, description="Nothing is recommended that is sold out."
        ),
    ],
)
def customer_checks(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterable[dg.AssetCheckResult]:
    """What must hold of customer decisions."""
    from npq_assets.retail import customer_output as kept
    from npq_assets.retail.customer_checks import judge_customers, nothing_to_judge
    from npq_assets.retail.customer_inputs import KEY, read_customer_inputs

    day = as_of_of(context)
    frames = [kept.load(home.home, day, name) for name in ("offers", "messages", "recommendations")]
    reason = kept.skipped(home.home, day)
    if reason is not None or any(frame is None for frame in frames):
        verdicts = nothing_to_judge(reason or "nothing was decided")
    else:
        inputs = read_customer_inputs(home.home, day)
        offers, sent, lists = frames
        assert offers is not None and sent is not None and lists is not None
        earlier = kept.other_decisions(home.home, kept.MESSAGES, day, 6, ["message_id"])
        spent = kept.other_decisions(home.home, kept.OFFERS, day, _offer_days(inputs), ["offer_id", "expected_cost"])
        sites = kept.book_of(home.home, inputs)[0].people.select(KEY, "main_site")
        verdicts = judge_customers(inputs, offers, sent, lists, earlier, sites, spent)
    yield from check_results(MESSAGES_KEY, verdicts)
