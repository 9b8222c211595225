"""The decision report: one self-contained HTML page of a day's decisions, ranked by the money at stake.

Nothing on the page is fetched from anywhere, and nothing depends on when it was made. Where the numbers come from does not
belong here (see `assets`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from npq_assets.reporting.summary import kind_name
from npq_assets.reporting.svg import STYLE, Fan, bar_chart, fan_chart

DECISION_COLUMNS = (
    "decision_id",
    "kind",
    "subject",
    "action",
    "when",
    "stake",
    "expected_cost",
    "naive_cost",
    "lower_bound",
    "reason",
)


@dataclass(frozen=True)
class Section:
    """A part of the page that a system adds.

    Attributes:
        title: Its heading.
        lead: What a reader should know first.
        table: Rows under their column names, if any.
        picture: An inline SVG, if any.
        lines: Sentences, if any.
    """

    title: str
    lead: str = ""
    table: pl.DataFrame = field(default_factory=pl.DataFrame)
    picture: str = ""
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes:
        as_of: The day decided for.
        company: What the home is called.
        currency: Printed with money.
        period: `day` or `week`.
        summary: As `reporting.summary.summary_frame` gives it.
        decisions: The columns of `DECISION_COLUMNS`, all of the day's decisions.
        fans: Pictures of the decisions with most at stake, each with the decision's id.
        limits: supplier_id, arrives_on, limit, amount, used, worth_per_unit, of limits that bind.
        relaxation: What contradicted itself in the inputs, in words.
        quality: table, files, landed, accepted, superseded, quarantined, unreadable_files, reasons.
        skipped: What could not be computed, with the reason.
        history: decided_at, expected_cost, naive_cost, settled, settled_by_expectation, settled_expected_cost, realized_cost,
            naive_realized_cost, hindsight_cost, of earlier days.
        accuracy: as_of, step, wape, bias, coverage_80, coverage_90 of earlier forecasts.
        value_added: as_of, overridden, forecasts, naive_wape, engine_wape, planner_wape, settled, credit of earlier forecasts.
        judgements: as_of, champion_role, challenger_role, champion_loss, challenger_loss, low, high, reason.
        trace: Input snapshot, model version and the like.
        picture: Map of the day's routes as SVG; empty if there are none.
        picture_text: Lines under the map.
        sections: What systems show beside their decisions.
    """

    as_of: date
    company: str
    period: str
    summary: pl.DataFrame
    decisions: pl.DataFrame
    currency: str = ""
    fans: Sequence[tuple[str, Fan]] = ()
    limits: pl.DataFrame = field(default_factory=pl.DataFrame)
    relaxation: Sequence[str] = ()
    quality: pl.DataFrame = field(default_factory=pl.DataFrame)
    skipped: Sequence[str] = ()
    history: pl.DataFrame = field(default_factory=pl.DataFrame)
    accuracy: pl.DataFrame = field(default_factory=pl.DataFrame)
    value_added: pl.DataFrame = field(default_factory=pl.DataFrame)
    judgements: pl.DataFrame = field(default_factory=pl.DataFrame)
    trace: Mapping[str, str] = field(default_factory=dict)
    picture: str = ""
    picture_text: Sequence[str] = ()
    sections: Sequence[Section] = ()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("npq_assets.reporting", "templates"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["money"] = lambda value: "–" if value is None else f"{value:,.2f}"
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,.0f}"
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.1%}"
    return environment


def build_report(data: ReportData) -> str:
    """The page; the same data give the same bytes."""
    totals = data.summary.select(pl.col("expected", "naive", "bound").sum()).to_dicts() if data.summary.height else []
    total = totals[0] if totals else None
    return (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            summary=[{**row, "name": kind_name(row["kind"])} for row in data.summary.to_dicts()],
            total=total,
            bars=Markup(_bars(total)) if total else "",
            fans=[(key, fan.title, Markup(fan_chart(fan))) for key, fan in data.fans],
            limits=data.limits.to_dicts(),
            quality=data.quality.to_dicts(),
            history=data.history.to_dicts(),
            accuracy=data.accuracy.to_dicts(),
            value_added=data.value_added.to_dicts(),
            judgements=data.judgements.fill_nan(None).to_dicts(),
            rows=Markup(_json(data.decisions)),
            picture=Markup(data.picture),
            chart_style=Markup(STYLE),
            sections=[(part, part.table.columns, part.table.rows(), Markup(part.picture)) for part in data.sections],
        )
    )


def _bars(total: dict[str, float]) -> str:
    bars = [
        ("npq", total["expected"], "npq"),
        ("naive rule", total["naive"], "naive"),
        ("proven bound", total["bound"], "bound"),
    ]
    return bar_chart(bars, title="expected cost of all decisions, beside the naive rule and the proven bound")


def _json(decisions: pl.DataFrame) -> str:
    """Rows as JSON that is safe inside a script element."""
    rows: list[list[Any]] = []
    for row in decisions.select(DECISION_COLUMNS).iter_rows():
        rows.append([round(v, 4) if isinstance(v, float) else v if isinstance(v, int | None) else str(v) for v in row])
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
