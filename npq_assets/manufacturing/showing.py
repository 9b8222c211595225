"""Manufacturing decisions as people see them: rows of the report's table, a Gantt picture, and the planner's answers."""

from __future__ import annotations

import base64
from datetime import date, timedelta
from html import escape
from typing import Any

import polars as pl

from npq_assets.manufacturing.drivers import DriverFindings
from npq_assets.manufacturing.equipment_showing import equipment_sections
from npq_assets.manufacturing.forecast import ProductionForecast
from npq_assets.manufacturing.monitoring import Monitoring, load_monitoring
from npq_assets.manufacturing.output import load_findings, load_forecast, load_plan, load_schedule
from npq_assets.manufacturing.plan import ProductionPlan
from npq_assets.manufacturing.schedule import DAY
from npq_assets.reporting.report import DECISION_COLUMNS, Section
from npq_assets.settings import Home

_COLORS = ("#2a7f9e", "#7a9a5b", "#c2872f", "#8a5a83", "#4b6cb7", "#b3564a", "#5b8f8a", "#9a8f3b")
_OPENS = 6 * 60


def decisions_shown(plan: ProductionPlan | None) -> pl.DataFrame:
    """Products planned in the columns of the report's table, those with most at stake first."""
    if plan is None:
        return pl.DataFrame(schema=dict.fromkeys(DECISION_COLUMNS, pl.String))
    lots = (
        plan.lots.sort("product_id", "period_start")
        .group_by("product_id", maintain_order=True)
        .agg(
            pl.len().alias("lots"),
            pl.col("quantity").sum().alias("units"),
            pl.col("period_start").first().alias("first"),
            pl.col("machine_id").first().alias("machine"),
            pl.col("quantity").first().alias("amount"),
            pl.col("reason").first(),
        )
    )
    rows = plan.accounts.join(lots, on="product_id", how="left")
    action = pl.format(
        "make {} on {} first, {} in {} lots", pl.col("amount").round(0).cast(pl.Int64), "machine",
        pl.col("units").round(0).cast(pl.Int64), "lots",
    )  # fmt: skip
    return rows.select(
        "decision_id",
        pl.lit("production_plan").alias("kind"),
        pl.format("{} ({})", "product_id", "cell").alias("subject"),
        pl.when(pl.col("lots") > 0).then(action).otherwise(pl.lit("make none")).alias("action"),
        pl.col("first").dt.to_string("%Y-%m-%d").fill_null("").alias("when"),
        (pl.col("naive_expected_cost") - pl.col("expected_cost")).alias("stake"),
        "expected_cost",
        pl.col("naive_expected_cost").alias("naive_cost"),
        "lower_bound",
        pl.col("reason").fill_null("stock lasts"),
    ).sort([pl.col("stake").abs(), pl.col("decision_id")], descending=[True, False])


def gantt(jobs: pl.DataFrame, as_of: date, width: int = 920) -> str:
    """The schedule as an inline SVG: a row a machine, a bar a lot, setups dark before it, days apart; needs no network.

    Args:
        jobs: lot_id, product_id, operation, machine_id, start, end, setup_minutes (minutes from the opening).
        as_of: The first day.
        width: Pixels.
    """
    if jobs.is_empty():
        return ""
    machines = sorted(set(jobs["machine_id"]))
    products = sorted(set(jobs["product_id"]))
    row, left, top = 24, 118, 24
    last = int(jobs["end"].max() or 1)  # type: ignore[arg-type]
    height = top + row * len(machines) + 8

    def x(minute: float) -> float:
        return left + (width - left - 8) * minute / max(last, 1)

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="schedule from {as_of}" '
        'xmlns="http://www.w3.org/2000/svg" class="gantt" font-family="sans-serif">'
    ]
    for k in range(last // DAY + 1):
        at = x(k * DAY)
        day = date.fromordinal(as_of.toordinal() + k)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 4}" y2="{height - 6}" stroke="#8888" stroke-width=".7"/>'
            f'<text x="{at + 3:.1f}" y="14" font-size="11" fill="#778">{day:%a} {day} {_OPENS // 60:02d}:00</text>'
        )
    for k, machine in enumerate(machines):
        y = top + row * k
        parts.append(
            f'<text x="{left - 6}" y="{y + 15}" font-size="11" text-anchor="end" fill="#778">{escape(machine)}</text>'
        )
        for job in jobs.filter(pl.col("machine_id") == machine).sort("start").iter_rows(named=True):
            color = _COLORS[products.index(job["product_id"]) % len(_COLORS)]
            setup = job["setup_minutes"] or 0
            begin, end = x(job["start"]), x(job["end"])
            if setup:
                at = x(max(0, job["start"] - setup))
                parts.append(
                    f'<rect x="{at:.1f}" y="{y + 3}" width="{max(begin - at, 0.8):.1f}" height="{row - 6}" fill="#4a4f57">'
                    f"<title>setup {setup} min</title></rect>"
                )
            words = f"{job['lot_id']}, operation {job['operation']}: minute {job['start']} to {job['end']}"
            parts.append(
                f'<rect x="{begin:.1f}" y="{y + 3}" width="{max(end - begin, 1.0):.1f}" height="{row - 6}" rx="2" '
                f'fill="{color}"><title>{escape(words)}</title></rect>'
            )
            if end - begin > 34:
                parts.append(
                    f'<text x="{begin + 3:.1f}" y="{y + 15}" font-size="10" fill="#fff">{escape(str(job["product_id"]))}</text>'
                )
    return "".join([*parts, "</svg>"])


def gantt_markdown(jobs: pl.DataFrame, as_of: date) -> str:
    """The Gantt picture for the Dagster UI."""
    svg = gantt(jobs, as_of)
    return (
        f"![schedule](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
        if svg
        else "nothing to schedule"
    )


def change_curve(facts: dict[str, Any]) -> str:
    """What the schedule costs against how many lots it moves, as a Markdown table."""
    if not facts.get("cost_of_change"):
        return "no schedule in force: nothing to move"
    lines = ["| a move costs | lots moved | the schedule costs |", "| ---: | ---: | ---: |"]
    lines += [f"| {p['price']:g} | {p['moved_jobs']} | {p['schedule_cost']:,.2f} |" for p in facts["cost_of_change"]]
    return "\n".join(lines)


def _change_sentences(facts: dict[str, Any]) -> list[str]:
    """The curve in words."""
    return [
        f"Where moving a lot is worth {p['price']:g}: {p['moved_jobs']} of {facts['followed']} lots move, and the schedule "
        f"costs {p['schedule_cost']:,.2f}{' (chosen)' if p['price'] == facts['price_of_move'] else ''}."
        for p in facts.get("cost_of_change", [])
    ]


def sections(home: Home, day: date) -> list[Section]:
    """The pages of the plant: schedule, late orders, worth of capacity, what drives output, scrap and energy; equipment."""
    found = []
    schedule, plan = load_schedule(home, day), load_plan(home, day)
    if schedule is not None and schedule.jobs.height:
        late = schedule.rows.filter(pl.col("late_minutes") > 0)["order_id"].n_unique()
        words = f"{schedule.facts['jobs']} lots of the next days; {late} orders late in it. Dark: setups."
        lines = _change_sentences(schedule.facts)
        if lines:
            words += (
                f" {schedule.facts['followed']} of them were in the schedule in force; {schedule.facts['frozen']} operations"
                " that start first stay as they are."
            )
        found.append(Section("Job schedule", words, picture=gantt(schedule.jobs, day), lines=lines))
    if plan is not None:
        shown = plan.late.head(25).select(
            pl.col("order_id").alias("Order"), pl.col("product_id").alias("Product"), pl.col("due_on").alias("Due"),
            pl.col("delivered_on").alias("Complete"), pl.col("late_quantity").round(0).alias("Units late"),
            pl.col("late_cost").round(2).alias("Costs"), pl.col("cost_to_force").round(2).alias("More in all if forced in"),
            pl.col("reason").alias("Why"),
        )  # fmt: skip
        lead = (
            f"{plan.late.height} orders in hand are late in the plan."
            if plan.late.height
            else "No order in hand is late in the plan."
        )
        found.append(Section("Orders that will be late, and why", lead, shown))
        worth = plan.worth.filter(pl.col("worth_per_hour") > 0.005).sort(
            ["worth_per_hour", "machine_id", "period_start"], descending=[True, False, False]
        )
        table = worth.head(20).select(
            pl.col("machine_id").alias("Machine"), pl.col("period_start").alias("Day"),
            pl.col("regular_minutes").round(0).alias("Minutes"), pl.col("used_minutes").round(0).alias("Used"),
            pl.col("worth_per_hour").round(2).alias("One more hour saves"), pl.col("method").alias("By"),
        )  # fmt: skip
        words = (
            "What one more hour of a machine would save." if worth.height else "No machine's time is short in the plan."
        )
        found.append(Section("What an hour of a machine is worth", words, table))
    if (kept := _adherence_shown(home, day)) is not None:
        found.append(kept)
    if (watched := load_monitoring(home, day)) is not None and "skipped" not in watched.facts:
        found.insert(0, _alerts_shown(watched))
    if (ahead := load_forecast(home, day)) is not None:
        found.append(_forecast_shown(ahead))
    if (drivers := load_findings(home, day)) is not None:
        found.append(_drivers_shown(drivers))
    return [*found, *equipment_sections(home, day)]


def _forecast_shown(ahead: ProductionForecast) -> Section:
    """Units due by line: eight weeks, and what the back-test says of orders in hand."""
    title = "What will have to be made: weeks ahead, by line"
    if ahead.skipped:
        return Section(title, ahead.skipped)
    first = ahead.lines["week_start"].min()
    table = ahead.lines.filter(pl.col("week_start") < pl.lit(first) + pl.duration(weeks=8)).select(
        pl.col("line").alias("Line"), pl.col("week_start").alias("Week from"), pl.col("in_hand").round(0).alias("In hand"),
        pl.col("mean").round(0).alias("Expected due"), pl.col("q0.1").round(0).alias("10 %"),
        pl.col("q0.9").round(0).alias("90 %"),
    )  # fmt: skip
    tried = ahead.backtest
    lines = [] if tried is None else [
        tried.sentence,
        *(f"{step} week{'s' if step > 1 else ''} ahead: loss {with_orders:.1%} of demand with orders in hand, "
          f"{without:.1%} without." for step, with_orders, without in tried.by_step.iter_rows()),
    ]  # fmt: skip
    lead = "Units due, orders in hand and expected, as of the week's Monday."
    if tried is None:
        lead += " The history is too short to try orders in hand: history alone."
    return Section(title, lead, table, lines=lines)


def _adherence_shown(home: Home, day: date) -> Section | None:
    """What became of the plans of the last four weeks: by machine, and where most is missing."""
    place = home.mart("manufacturing", "plan_adherence")
    if not place.exists():
        return None
    rows = pl.read_parquet(place).filter((pl.col("as_of") < day) & (pl.col("as_of") >= day - timedelta(days=28)))
    planned = float(rows["planned"].sum())
    if planned <= 0:
        return None
    table = (
        rows.group_by("machine_id")
        .agg(pl.col("planned").sum(), pl.col("made_as_planned").sum(), pl.col("made").sum(), pl.col("as_of").n_unique())
        .with_columns((pl.col("planned") - pl.col("made_as_planned")).alias("missing"))
        .sort(["missing", "machine_id"], descending=[True, False])
        .select(
            pl.col("machine_id").alias("Machine"), pl.col("as_of").alias("Days"), pl.col("planned").round(0).alias("Planned"),
            pl.col("made_as_planned").round(0).alias("Made as planned"),
            (pl.col("made") - pl.col("made_as_planned")).round(0).alias("Made beyond"),
            pl.col("missing").round(0).alias("Missing"),
        )
    )  # fmt: skip
    worst = rows.with_columns((pl.col("planned") - pl.col("made_as_planned")).alias("missing")).sort(
        ["missing", "as_of", "machine_id", "product_id"], descending=[True, True, False, False]
    )
    lines = [
        f"{r['as_of']}: {r['machine_id']} made {r['made']:,.0f} of {r['planned']:,.0f} {r['product_id']}."
        for r in worst.head(5).iter_rows(named=True)
        if r["missing"] >= 1
    ]
    share = float(rows["made_as_planned"].sum()) / planned
    lead = f"{share:.0%} of the units that the last {rows['as_of'].n_unique()} plans wanted on their first day were made on it."
    return Section("What became of the plans", lead, table, lines=lines)


def _drivers_shown(drivers: DriverFindings) -> Section:
    """What moves output, scrap and energy: the sentences, and below them the findings that hold, then the others."""
    rows = drivers.findings.sort(
        ["conclusive", "target", "contribution", "factor"], descending=[True, False, True, False], nulls_last=True
    )
    table = rows.head(40).select(
        pl.col("target").str.to_titlecase().alias("Moves"), pl.col("factor").alias("Factor"),
        pl.col("effect").round(2).alias("Effect"), pl.col("low").round(2).alias("From"), pl.col("high").round(2).alias("To"),
        pl.col("vif").round(1).alias("Inflation"), pl.col("contribution").round(2).alias("In trees"),
        pl.when("conclusive").then(pl.lit("yes")).otherwise(pl.lit("no")).alias("Holds"), pl.col("sentence").alias("In words"),
    )  # fmt: skip
    lead = (
        "Associations in the log as of the week's Monday: least squares with robust 95 % intervals beside a tree model. "
        "Effects are in points; factors with a variance inflation above 10 cannot be told apart."
    )
    return Section("What moves output, scrap and energy", lead, table, lines=drivers.summary["sentence"].to_list())


def _alerts_shown(watched: Monitoring) -> Section:
    """The alerts on machines, those first that put most money at risk."""
    facts = watched.facts
    table = watched.rows.select(
        pl.col("machine_id").alias("Machine"), pl.col("reason").alias("What was seen"),
        pl.col("opened_at").dt.strftime("%Y-%m-%d %H:%M").alias("Since"), pl.col("age_hours").round(0).alias("Hours"),
        pl.col("owner").alias("Owner"), pl.col("action").alias("To do"), pl.col("money_at_risk").round(2).alias("Money at risk"),
    )  # fmt: skip
    lead = (
        f"{facts['open']} alerts are open, {facts['opened']} of them new, {facts['closed']} closed. Of {facts['evidence']} earlier "
        f"ones on a machine's level, a failure is taken to follow {facts['right']:.0%} within a week."
        if facts["open"]
        else f"No alert is open; {facts['closed']} closed."
    )
    return Section("Machines that need a look", lead, table)
