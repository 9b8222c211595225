"""Service requests: which to answer first, a draft from facts with the rows behind them, and how many people to plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.evaluation.ledger import decision_id
from npq_assets.optimization import staffing
from npq_assets.optimization.result import Result
from npq_assets.retail.customer_book import CustomerBook
from npq_assets.retail.customer_inputs import KEY, CustomerInputs

# Share of a customer's value of a quarter that is at risk while a request of the topic waits a day.
AT_RISK = {
    "delivery late": 0.04,
    "product damaged": 0.04,
    "item missing": 0.03,
    "refund": 0.03,
    "wrong price": 0.02,
    "question": 0.005,
}
OTHER = 0.01
LATE_FACTOR = 3.0
FRESH = timedelta(days=7)
DAYS = 7
SCENARIOS = 40
Solver = Callable[[staffing.StaffingProblem, float], Result]


@dataclass(frozen=True)
class Facts:
    """What a draft may use, as of the day.

    Attributes:
        deliveries: delivery_id, customer_key, due_at, departed_at, promised_at, arrived_at, source_file, source_line, and the row
            of the trip: trip_file, trip_line.
        stock: site_id, product_id, on_hand, counted_on, source_file, source_line: the latest count.
        coming: site_id, product_id, arrives_on, quantity, source_file, source_line: open orders.
    """

    deliveries: pl.DataFrame
    stock: pl.DataFrame
    coming: pl.DataFrame


@dataclass(frozen=True)
class ServicePlan:
    """The day's service decisions.

    Attributes:
        queue: The columns of `retail.service_queue` with customer_key.
        staffing: The columns of `retail.service_staffing` and lower_bound.
        facts: Everything that is one number or word.
    """

    queue: pl.DataFrame
    staffing: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def rank_requests(inputs: CustomerInputs, book: CustomerBook, facts: Facts) -> pl.DataFrame:
    """Open requests, those whose waiting costs most first.

    urgency = value of a quarter x share at risk by topic / 24, three times as much once the promised first response is over.
    """
    opened = inputs.cases.filter(pl.col("closed_at").is_null())
    now = datetime.combine(inputs.as_of, datetime.min.time(), UTC)
    usual = cast("float", book.people["expected_spend"].median() or 0.0)
    rows = opened.join(book.people.select(KEY, "expected_spend", "main_site"), on=KEY, how="left")
    promise = timedelta(hours=inputs.settings.first_response_hours)
    risk = pl.col("topic").str.to_lowercase().replace_strict(AT_RISK, default=OTHER, return_dtype=pl.Float64)
    rows = rows.with_columns(
        (pl.col("opened_at") + promise).alias("due_at"), (pl.col("opened_at") + promise <= now).alias("promise_broken")
    )
    rows = rows.with_columns(
        (
            pl.col("expected_spend").fill_null(usual)
            * (91 / 28)
            * risk
            / 24
            * pl.when("promise_broken").then(LATE_FACTOR).otherwise(1.0)
        ).alias("urgency")
    ).sort(["urgency", "due_at", "request_id"], descending=[True, False, False])
    drafts = [draft(row, facts, inputs) for row in rows.iter_rows(named=True)]
    ids = [
        decision_id(inputs.as_of, "retail", "service_queue", (request,), inputs.snapshot)
        for request in rows["request_id"].to_list()
    ]
    return rows.select("request_id", KEY, "urgency", "due_at", "promise_broken", "topic").with_columns(
        pl.int_range(1, pl.len() + 1).alias("rank"),
        pl.Series("draft", [text for text, _ in drafts], dtype=pl.String),
        pl.Series("facts", ["; ".join(found) for _, found in drafts], dtype=pl.String),
        pl.Series("decision_id", ids, dtype=pl.String),
        pl.lit(inputs.as_of).alias("as_of"),
        pl.lit(inputs.snapshot).alias("input_snapshot"),
    )


def draft(row: dict[str, Any], facts: Facts, inputs: CustomerInputs) -> tuple[str, list[str]]:
    """A draft answer that states facts only, and the landed rows that support it.

    Where the warehouse knows nothing the draft says so and asks a person to look: it never guesses.
    """
    opening = f"Thank you for your message about “{row['topic']}”."
    found = [f"{row['source_file']}:{row['source_line']}"]
    maker = _TEMPLATES.get(str(row["topic"]).lower(), _unknown)
    text, rows = maker(row, facts, inputs)
    return f"{opening} {text}", found + rows


def _delivery(row: dict[str, Any], facts: Facts, inputs: CustomerInputs) -> tuple[str, list[str]]:
    asked = pl.col("delivery_id") == pl.lit(row["delivery_id"], pl.String)
    # Where somebody else's delivery is, is told to nobody.
    mine = facts.deliveries.filter(asked & (pl.col(KEY) == pl.lit(row[KEY], pl.String)))
    if mine.is_empty():
        return "We are looking for your delivery and will write as soon as we have found it.", []
    it = mine.row(0, named=True)
    trace = [f"{it['source_file']}:{it['source_line']}"]
    if it["trip_file"] is not None and (it["departed_at"] is not None or it["arrived_at"] is not None):
        trace.append(f"{it['trip_file']}:{it['trip_line']}")
    if it["arrived_at"] is not None:
        return f"Delivery {it['delivery_id']} arrived on {it['arrived_at']:%Y-%m-%d at %H:%M}.", trace
    when = it["promised_at"] or it["due_at"]
    if when < datetime.combine(inputs.as_of, datetime.min.time(), UTC):
        return (
            f"Delivery {it['delivery_id']} was promised for {when:%Y-%m-%d at %H:%M}, and its arrival is not recorded. We are "
            "looking for it and will write as soon as we have found it.",
            trace,
        )
    # Without a departure nobody knows whether it has left.
    state = "is under way; it was" if it["departed_at"] is not None else "is"
    return f"Delivery {it['delivery_id']} {state} promised for {when:%Y-%m-%d at %H:%M}.", trace


def _stock(row: dict[str, Any], facts: Facts, inputs: CustomerInputs) -> tuple[str, list[str]]:
    product, site = row["product_id"], row["main_site"]
    if product is None:
        return _unknown(row, facts, inputs)
    names = dict(inputs.products.filter(pl.col("product_id") == product).select("product_id", "name").iter_rows())
    name = names.get(product) or product
    at = (pl.col("product_id") == product) & ((pl.col("site_id") == site) if site else pl.lit(True))
    # What was never counted there, or long ago, says neither that it is on the shelf nor that it is sold out.
    counted = facts.stock.filter(at & (pl.col("counted_on") >= inputs.as_of - FRESH)).sort("site_id")
    if counted.is_empty():
        return _unknown(row, facts, inputs)
    stock = counted.filter(pl.col("on_hand") > 0)
    if stock.height:
        it = stock.row(0, named=True)
        return (
            f"{name} is on the shelf of store {it['site_id']}: {it['on_hand']:.0f} counted on {it['counted_on']}.",
            [f"{it['source_file']}:{it['source_line']}"],
        )
    empty = [f"{it['source_file']}:{it['source_line']}" for it in counted.head(3).iter_rows(named=True)]
    coming = facts.coming.filter(at & (pl.col("arrives_on") >= inputs.as_of)).sort("arrives_on", "site_id")
    if coming.height:
        it = coming.row(0, named=True)
        return (
            f"{name} is sold out; the next delivery to store {it['site_id']} is due on {it['arrives_on']}.",
            [*empty, f"{it['source_file']}:{it['source_line']}"],
        )
    return f"{name} is sold out, and no delivery is booked yet.", empty


def _basket(row: dict[str, Any], facts: Facts, inputs: CustomerInputs) -> tuple[str, list[str]]:
    mine = pl.col(KEY) == pl.lit(row[KEY], pl.String)
    lines = inputs.purchases.filter(mine & (pl.col("basket_id") == pl.lit(row["basket_id"], pl.String)))
    if lines.is_empty():
        return _unknown(row, facts, inputs)
    names = dict(inputs.products.select("product_id", "name").iter_rows())
    lines = lines.sort("product_id")
    listed = ", ".join(
        f"{it['quantity']:g} x {names.get(it['product_id']) or it['product_id']} for {it['amount']:.2f}"
        for it in lines.iter_rows(named=True)
    )
    day = cast("date", lines["bought_on"].min())
    return (
        f"Your purchase {row['basket_id']} of {day} at store {lines['site_id'][0]} holds {listed}. {_NEXT[_kind(row)]}",
        str(row["basket_rows"]).split("; ") if row.get("basket_rows") else [],
    )


def _kind(row: dict[str, Any]) -> str:
    topic = str(row["topic"]).lower()
    return topic if topic in _NEXT else "other"


def _unknown(row: dict[str, Any], facts: Facts, inputs: CustomerInputs) -> tuple[str, list[str]]:
    return "A colleague will look into it and answer you in person.", []


_NEXT = {
    "product damaged": "Please tell us which of these was damaged; it will be replaced or refunded.",
    "wrong price": "Please tell us which price you saw on the shelf; the difference is refunded.",
    "item missing": "Please tell us which item was missing.",
    "refund": "The refund goes to the account that you paid with.",
    "other": "A colleague will look into it.",
}
_TEMPLATES: dict[str, Callable[[dict[str, Any], Facts, CustomerInputs], tuple[str, list[str]]]] = {
    "delivery late": _delivery,
    "where is my delivery": _delivery,
    "back in stock": _stock,
    "question": _stock,
    "product damaged": _basket,
    "wrong price": _basket,
    "item missing": _basket,
    "refund": _basket,
}


def forecast_requests(inputs: CustomerInputs, seed: int = 0) -> np.ndarray:
    """Requests by scenario, day and hour of the next days (SCENARIOS, DAYS, 24): a Poisson level that varies between days.

    The level is the mean of the last eight weeks, by weekday (shrunk to all days) and hour; its spread between days is
    measured on the same weeks (negative binomial).
    """
    last = inputs.as_of - timedelta(days=56)
    recent = inputs.cases.filter(pl.col("opened_on") >= last)
    first = inputs.cases["opened_on"].min() if inputs.cases.height else None
    days = max(1, min(56, (inputs.as_of - first).days if isinstance(first, date) else 1))
    rng = np.random.default_rng(seed)
    if recent.is_empty():
        return np.zeros((SCENARIOS, DAYS, 24))
    hours = np.bincount(recent["opened_hour"].to_numpy(), minlength=24) + 0.5
    hours = hours / hours.sum()
    number = (recent["opened_on"] - pl.Series([last]).first()).dt.total_days().to_numpy()
    per_day = np.bincount(number, minlength=56)[-days:]
    weekday = np.array([(inputs.as_of - timedelta(days=days - k)).weekday() for k in range(days)])
    mean = per_day.mean()
    level = np.array([(per_day[weekday == w].sum() + 2 * mean) / ((weekday == w).sum() + 2) for w in range(7)])
    excess = max(0.0, per_day.var() / max(mean, 1e-9) - 1.0) / max(mean, 1e-9)
    out = np.empty((SCENARIOS, DAYS, 24))
    for day in range(DAYS):
        rate = level[(inputs.as_of + timedelta(days=day)).weekday()]
        luck = rng.gamma(1 / excess, excess, SCENARIOS) if excess > 1e-6 else np.ones(SCENARIOS)
        out[:, day] = rng.poisson(rate * luck[:, None] * hours[None, :])
    return out


def shift_hours(shifts: Sequence[str]) -> tuple[list[str], NDArray[np.bool_]]:
    """The shifts of a day in order, and which hours of the days planned each of each day covers (DAYS * shifts, DAYS * 24).

    Of a shift that ends after the last day only the hours before its end count and cost.

    Args:
        shifts: Hours as "08-16"; an end not after the beginning is on the next day.
    """
    names = sorted(shifts)
    covers = np.zeros((DAYS * len(names), DAYS * 24), bool)
    for day in range(DAYS):
        for k, name in enumerate(names):
            begin, end = (int(hour) for hour in name.split("-"))
            covers[day * len(names) + k, day * 24 + begin : day * 24 + end + (24 if end <= begin else 0)] = True
    return names, covers


def plan_staff(
    inputs: CustomerInputs, book: CustomerBook, waiting: int, solve: Solver = staffing.solve
) -> tuple[pl.DataFrame, list[float], dict[str, Any]]:
    """People by shift for the next days, beside the careful rule's, and when requests are first answered with them.

    Returns:
        The staffing; hours until each of the requests waiting now is answered, the most urgent first (infinite if not within
        the days planned); facts.

    A request that waits an hour costs the mean value at risk in that hour, and at least so much that one not answered within
    the promised time costs twice its answer.
    """
    arrivals = forecast_requests(inputs, inputs.settings.seed)
    count = len(arrivals)
    flat = arrivals.reshape(count, DAYS * 24)
    names, covers = shift_hours(inputs.settings.service_shifts)
    usual = cast("float", book.people["expected_spend"].mean() or 0.0)
    risk = float(np.mean([AT_RISK.get(t.lower(), OTHER) for t in inputs.cases["topic"].to_list()] or [OTHER]))
    answer = inputs.settings.agent_cost_per_hour / inputs.settings.answers_per_hour
    least = 2.0 * answer / inputs.settings.first_response_hours
    problem = staffing.StaffingProblem(
        flat,
        covers,
        covers.sum(axis=1) * inputs.settings.agent_cost_per_hour,
        inputs.settings.answers_per_hour,
        max(usual * (91 / 28) * risk / 24, least),
        most=inputs.settings.service_most,
        waiting=float(waiting),
        left_cost=3.0 * answer,
    )
    result = solve(problem, inputs.settings.solver_seconds)
    naive = staffing.careful_rule(problem, np.arange(len(covers)) // len(names))
    naive_cost = staffing.price(problem, naive)
    agents_of = result.plan["agents"].to_numpy()
    response = staffing.first_response(problem, agents_of)
    owner = staffing.owners(problem)
    promise = inputs.settings.first_response_hours
    rows = []
    slack = max(0.0, result.objective - result.bound) / len(covers)
    for k, (agents, cost) in enumerate(result.plan.select("agents", "expected_cost").iter_rows()):
        on = inputs.as_of + timedelta(days=k // len(names))
        inside = flat[:, covers[k]].sum(axis=1)
        shift = names[k % len(names)]
        rows.append(
            {
                "day": on,
                "shift": shift,
                "agents": int(agents),
                "expected_requests": float(inside.mean()),
                "high_requests": float(np.quantile(inside, 0.9)),
                "expected_cost": float(cost),
                "naive_agents": int(naive[k]),
                "naive_expected_cost": float(naive_cost[k]),
                **_first_responses(response.hours[:, owner == k], arrivals.reshape(count, -1)[:, owner == k], promise),
                "lower_bound": float(cost) - slack,
                "decision_id": decision_id(
                    inputs.as_of, "retail", "service_staffing", (str(on), shift), inputs.snapshot
                ),
                "as_of": inputs.as_of,
                "input_snapshot": inputs.snapshot,
            }
        )
    facts = {
        "solver": result.solver,
        "status": result.status,
        "model_version": "service-load",
        "expected_cost": result.objective,
        "naive_cost": float(naive_cost.sum()),
        "bound": result.bound,
        "answered within the promise": _share_in_time(response.hours, flat, promise),
        # What the outcome is priced with.
        "terms": {
            "shifts": names,
            "agent_cost_per_hour": inputs.settings.agent_cost_per_hour,
            "answers_per_hour": problem.answers_per_hour,
            "waiting_cost": problem.waiting_cost,
            "left_cost": problem.left_cost,
            "waiting": problem.waiting,
            "most": problem.most,
        },
    }
    load = waiting + float(flat.sum(axis=1).mean())
    if load > 0 and not agents_of.any():
        one = np.zeros(len(covers), np.int64)
        one[int(np.argmin(problem.shift_cost))] = 1
        facts["note"] = (
            f"nobody is planned for {load:.1f} requests expected or waiting: letting them wait, and answering what is left after "
            f"{DAYS} days at {problem.left_cost:.2f} each, is expected to cost {result.objective:.2f}; with one person in the "
            f"cheapest shift it would be {float(staffing.price(problem, one).sum()):.2f}. A shorter promise (first_response_hours) "
            "or a cheaper hour (agent_cost_per_hour) would change that"
        )
    return pl.DataFrame(rows), response.waiting.tolist(), facts


def _first_responses(hours: np.ndarray, arrivals: np.ndarray, promise: float) -> dict[str, float | None]:
    """Mean, 90 % quantile and share in time of the hours to a first answer, weighted by requests; empty if none are expected."""
    weight = arrivals.ravel()
    if weight.sum() <= 0:
        return {"first_response_hours": None, "first_response_high": None, "in_time_share": None}
    # What is not answered within the days planned waits at least until they end.
    value = np.minimum(hours.ravel(), 24.0 * DAYS)
    order = np.argsort(value)
    reached = np.cumsum(weight[order]) / weight.sum()
    return {
        "first_response_hours": float(np.average(value, weights=weight)),
        "first_response_high": float(value[order][np.searchsorted(reached, 0.9 - 1e-12)]),
        "in_time_share": _share_in_time(hours, arrivals, promise),
    }


def _share_in_time(hours: np.ndarray, arrivals: np.ndarray, promise: float) -> float:
    return float((arrivals * (hours <= promise)).sum() / max(float(arrivals.sum()), 1e-9))


def plan_service(
    inputs: CustomerInputs, book: CustomerBook, facts: Facts, solve: Solver = staffing.solve
) -> ServicePlan:
    """The queue and the staffing of the day; both empty where no request was ever landed.

    Args:
        inputs: The day.
        book: The week's judgement of the customers.
        facts: What drafts may use.
        solve: Solves the staffing, or knows the answer.
    """
    queue = rank_requests(inputs, book, facts)
    if inputs.cases.is_empty():
        queue = queue.with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("answered_by"))
        return ServicePlan(queue, pl.DataFrame(), {"note": "no service requests landed", "solver": "none needed"})
    staff, waits, found = plan_staff(inputs, book, queue.height, solve)
    now = datetime.combine(inputs.as_of, datetime.min.time(), UTC)
    expected = [now + timedelta(hours=hours) if np.isfinite(hours) else None for hours in waits]
    queue = queue.with_columns(pl.Series("answered_by", expected, dtype=pl.Datetime("us", "UTC")))
    found["open requests"] = queue.height
    month = inputs.cases.filter(pl.col("opened_on") < inputs.as_of - timedelta(days=28)).height
    if month and inputs.cases["closed_at"].null_count() == inputs.cases.height:
        never = f"no request was ever closed (closed_at is empty), so that {month} of over four weeks ago count as open"
        found["note"] = f"{found['note']}; {never}" if "note" in found else never
    return ServicePlan(queue, staff, found)
