"""The decision report as an asset: gathers what the day's steps left behind and writes the page."""

from datetime import date

import dagster as dg
import polars as pl

from npq_assets.orchestration import AS_OF, RETRY, HomeResource, as_of_of
from npq_assets.reporting.report import ReportData, build_report
from npq_assets.settings import Home
from npq_assets.storage import write_text

KEY = dg.AssetKey(["reports", "decision_report"])
_FANS = 24
_PAST = {"day": 56, "week": 60}


def report_asset(parents: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """The report behind the ledger and the evaluation."""

    @dg.asset(
        key=KEY,
        deps=parents,
        partitions_def=AS_OF,
        group_name="reports",
        kinds={"python", "html"},
        owners=["team:platform"],
        retry_policy=RETRY,
        description="The day's decisions ranked by money at stake, with forecasts, costs beside naive rule and bound, "
        "limits, data quality and how earlier decisions turned out: one page that opens anywhere.",
    )
    def decision_report(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
        """Writes the page of the partition's day."""
        day = as_of_of(context)
        page = home.home.report(day)
        write_text(build_report(gather(home.home, day)), page)
        return dg.MaterializeResult(metadata={"page": dg.MetadataValue.path(str(page)), "bytes": page.stat().st_size})

    return decision_report


def gather(home: Home, day: date) -> ReportData:
    """Reads what a day's page shows; see `report.ReportData`."""
    from npq_assets.ingestion import balances
    from npq_assets.logistics import output as logistics
    from npq_assets.logistics import showing as logistics_showing
    from npq_assets.manufacturing import output as plant
    from npq_assets.manufacturing import showing as plant_showing
    from npq_assets.retail.judging import read_judgements
    from npq_assets.retail.output import load_plan, load_skipped, read_summary
    from npq_assets.retail.showing import (
        customers_skipped,
        decisions_shown,
        fans,
        limits_shown,
        offer_limits_shown,
        relaxation_shown,
    )

    plan = load_plan(home, day)
    facts = plan[1] if plan else {}
    orders = plan[0] if plan else None
    driven = logistics.load_plan(home, day)
    made = plant.load_plan(home, day)
    unplanned = plant.load_skipped(home, day)
    return ReportData(
        as_of=day,
        company=home.root.name.lstrip(".") or "home",
        period=str(facts.get("period", "day")),
        currency=home.settings.currency,
        summary=read_summary(home, day),
        decisions=_together(
            decisions_shown(orders),
            plant_showing.decisions_shown(made),
            logistics_showing.decisions_shown(driven[0] if driven else None),
        ),
        fans=fans(home, day, orders, _FANS, _PAST[str(facts.get("period", "day"))]),
        limits=_together(
            limits_shown(home, day) if plan else pl.DataFrame(),
            offer_limits_shown(home, day),
            logistics_showing.limits_shown(driven[0]) if driven else pl.DataFrame(),
        ),
        relaxation=[
            *(relaxation_shown(home, day) if plan else []),
            *(str(line) for line in (driven[1]["relaxation"] if driven else [])),
        ],
        picture=logistics.load_picture(home, day) if driven else "",
        picture_text=logistics_showing.facts_shown(driven[1]) if driven else [],
        quality=_quality(balances(home)),
        skipped=[
            str(line)
            for line in [
                *(facts.get("skipped", []) or [load_skipped(home, day)]),
                *customers_skipped(home, day),
                *(made.facts["skipped"] if made else [unplanned]),
                *(driven[1]["skipped"] if driven else [logistics.load_skipped(home, day)]),
            ]
            if line
        ],
        sections=plant_showing.sections(home, day),
        history=_mart(home, "decision_costs", "decided_at", day),
        accuracy=_mart(home, "forecast_accuracy", "as_of", day),
        value_added=_mart(home, "forecast_value_added", "as_of", day),
        judgements=read_judgements(home, day).head(8),
        trace={
            name: str(facts[key])
            for name, key in (
                ("input snapshot", "input_snapshot"),
                ("model version", "model_version"),
                ("model trained as of", "model_trained_as_of"),
                ("solver", "solver"),
                ("status", "status"),
            )
            if key in facts
        },
    )


def _together(*frames: pl.DataFrame) -> pl.DataFrame:
    """Rows of several systems in one table: the columns that all have; those that hold different types become text."""
    filled = [frame for frame in frames if frame.height] or [frame for frame in frames if frame.width][:1]
    if not filled:
        return pl.DataFrame()
    names = [name for name in filled[0].columns if all(name in frame.columns for frame in filled)]
    mixed = [name for name in names if len({frame.schema.get(name) for frame in filled}) > 1]
    return pl.concat([frame.with_columns(pl.col(mixed).cast(pl.String)).select(names) for frame in filled])


def _quality(found: object) -> pl.DataFrame:
    from npq_assets.ingestion.report import balance_json

    assert isinstance(found, dict)
    rows = [
        {
            "table": name,
            **{k: row[k] for k in ("files", "landed", "accepted", "superseded", "quarantined", "unreadable_files")},
            "reasons": "; ".join(
                [*(f"{count} x {reason}" for reason, count in list(row["reasons"].items())[:4]), *row["remarks"][:2]]
            ),
        }
        for name, row in balance_json(found).items()
    ]
    return pl.DataFrame(rows)


def _mart(home: Home, model: str, time: str, day: date) -> pl.DataFrame:
    """The last days before `day` of an evaluation mart that have an outcome."""
    place = home.mart("retail", model)
    if not place.exists():
        return pl.DataFrame()
    frame = pl.read_parquet(place).filter(pl.col(time) < day)
    if "settled" in frame.columns and "forecasts" not in frame.columns:
        frame = frame.filter(pl.col("settled") > 0)
    order = [time, "step"] if "step" in frame.columns else [time]
    return frame.sort(order).tail(21)
