"""The model in service beside its predecessor and the simple method, on periods that none of them has seen.

A judgement a day, kept below evaluations/retail/judgements; decisions do not depend on it, so that a day decides alike whatever
was run before. How two models are compared is `forecasting.promotion`.
"""

from __future__ import annotations

import json
from datetime import date

import polars as pl

from npq_assets.errors import NpqError
from npq_assets.forecasting import FittedModel, load
from npq_assets.forecasting.panel import build as build_panel
from npq_assets.forecasting.promotion import SCHEMA, judge, simple_method
from npq_assets.retail.demand import frames_of
from npq_assets.retail.inputs import RetailInputs
from npq_assets.settings import Home
from npq_assets.storage import write_parquet

JUDGEMENTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "as_of": pl.Date, "champion_role": pl.String, "challenger_role": pl.String, **SCHEMA
}  # fmt: skip
_MOST_SERIES = 2_000
_MOST_PERIODS = 28


def judge_models(inputs: RetailInputs, home: Home, version: str) -> pl.DataFrame:
    """Judges the models of a day; columns as `JUDGEMENTS`, no rows if the home holds no model to compare.

    Args:
        inputs: Of the day.
        home: Where models lie.
        version: The model in service.
    """
    serving, before = _models(home, version)
    if serving is None or not serving.boosters:
        return pl.DataFrame(schema=JUDGEMENTS)
    rivals: list[tuple[str, FittedModel, str, FittedModel]] = [
        ("simple method", simple_method(serving), "in service", serving)
    ]
    if before is not None:
        rivals.append(("predecessor", before, "in service", serving))
    history, static, available = frames_of(inputs, _MOST_SERIES)
    panel = build_panel(history, inputs.frequency, static=static, available=available)
    horizon = min(serving.horizon, _MOST_PERIODS)
    rows = []
    for champion_role, champion, challenger_role, challenger in rivals:
        found = judge(champion, challenger, panel, horizon, threads=inputs.settings.threads).frame()
        rows.append(
            found.select(
                pl.lit(inputs.as_of).alias("as_of"),
                pl.lit(champion_role).alias("champion_role"),
                pl.lit(challenger_role).alias("challenger_role"),
                *SCHEMA,
            )
        )
    return pl.concat(rows)


def _models(home: Home, version: str) -> tuple[FittedModel | None, FittedModel | None]:
    """The model of that version, and the latest of those trained on less; None where there is none."""
    places = sorted(
        ((json.loads(place.read_text())["cutoff"], place) for place in home.models("retail").glob("*/model.json")),
        reverse=True,
    )
    serving = None
    for _, place in places:
        try:
            model = load(place.parent)
        except NpqError:  # made by another version of the engine: no rival
            continue
        if model.version == version:
            serving = model
        elif serving is not None and model.cutoff < serving.cutoff and model.freq == serving.freq:
            return serving, model
    return serving, None


def save_judgements(home: Home, as_of: date, judgements: pl.DataFrame) -> None:
    """Writes a day's judgements."""
    place = home.root / "evaluations" / "retail" / "judgements" / f"as_of={as_of.isoformat()}" / "judgements.parquet"
    write_parquet(judgements, place)


def read_judgements(home: Home, until: date) -> pl.DataFrame:
    """Judgements of the days up to `until`, the latest first."""
    places = sorted((home.root / "evaluations" / "retail" / "judgements").glob("as_of=*/judgements.parquet"))
    frames = [pl.read_parquet(place, hive_partitioning=False) for place in places]
    found = pl.concat([frame for frame in frames if frame.height] or [pl.DataFrame(schema=JUDGEMENTS)])
    return found.filter(pl.col("as_of") <= until).sort("as_of", "champion_role", descending=[True, False])
