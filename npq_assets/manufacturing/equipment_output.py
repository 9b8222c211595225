"""What decisions about equipment keep between their steps, under the hash of their inputs, beside the production plan.

What was decided belongs to `maintenance`, `quality` and `control`.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from npq_assets.errors import NpqError, Unavailable
from npq_assets.evaluation.ledger import ledger_rows
from npq_assets.manufacturing.control import ControlDecision, decide_settings
from npq_assets.manufacturing.equipment_inputs import (
    ControlInputs,
    MaintenanceInputs,
    QualityInputs,
    read_control,
    read_maintenance,
    read_quality,
)
from npq_assets.manufacturing.inputs import STOPS_FILE, plan_folder
from npq_assets.manufacturing.maintenance import MaintenanceDecision, plan_maintenance
from npq_assets.manufacturing.output import read_facts
from npq_assets.manufacturing.quality import HeldOut, QualityDecision, decide_quality, held_out, signals_alone
from npq_assets.settings import Home
from npq_assets.storage import fingerprint, write_json, write_parquet
from npq_assets.version import code_version

_FRAMES: dict[str, tuple[str, ...]] = {
    "maintenance": ("plan", "risks", "accounts", "stops"),
    "quality": ("alerts", "signals", "accounts", "units"),
    "control": ("settings", "accounts", "refusals"),
}
# Kept since later than the others: decisions stored before have none.
_ADDED = {("quality", "units")}
_MADE: dict[str, type[Any]] = {
    "maintenance": MaintenanceDecision,
    "quality": QualityDecision,
    "control": ControlDecision,
}


def _place(home: Home, as_of: date, part: str, frame: str) -> Path:
    folder = plan_folder(home, as_of)
    return folder / STOPS_FILE if (part, frame) == ("maintenance", "stops") else folder / f"{part}_{frame}.parquet"


def _save(home: Home, as_of: date, part: str, decision: Any, inputs_hash: str) -> None:
    """Writes the frames; the JSON that vouches for them last."""
    for name in _FRAMES[part]:
        write_parquet(getattr(decision, name), _place(home, as_of, part, name))
    write_json({"inputs": inputs_hash, **decision.facts}, plan_folder(home, as_of) / f"{part}.json")


def _skip(home: Home, as_of: date, part: str, reason: str) -> None:
    """Notes why nothing was decided, and withdraws what was decided for the day before."""
    for name in _FRAMES[part]:
        _place(home, as_of, part, name).unlink(missing_ok=True)
    write_json({"skipped": [reason], "nothing": True}, plan_folder(home, as_of) / f"{part}.json")


def load(home: Home, as_of: date, part: str, inputs_hash: str | None = None) -> Any:
    """The stored decision of a day: a `MaintenanceDecision`, `QualityDecision` or `ControlDecision`; None if there is none."""
    facts = read_facts(plan_folder(home, as_of) / f"{part}.json")
    if facts is None or facts.get("nothing") or (inputs_hash is not None and facts["inputs"] != inputs_hash):
        return None
    places = {name: _place(home, as_of, part, name) for name in _FRAMES[part]}
    frames = {
        name: pl.read_parquet(place, hive_partitioning=False)
        for name, place in places.items()
        if (part, name) not in _ADDED or place.exists()
    }
    return _MADE[part](**frames, facts=facts)


def skipped(home: Home, as_of: date, part: str) -> str | None:
    """Why nothing was decided for a day; None if something was, or nobody tried."""
    facts = read_facts(plan_folder(home, as_of) / f"{part}.json")
    return str(facts["skipped"][0]) if facts and facts.get("nothing") else None


def maintenance_of(home: Home, as_of: date) -> tuple[MaintenanceDecision | None, str]:
    """Decides about components, or reads what was decided of the same inputs; else None and the reason.

    Returns:
        The decision, and `new`, `stored` or the reason.
    """
    try:
        inputs: MaintenanceInputs = read_maintenance(home, as_of)
        wanted = fingerprint(inputs.snapshot, code_version())
        stored = load(home, as_of, "maintenance", wanted)
        if stored is not None:
            return stored, "stored"
        decision = plan_maintenance(inputs)
    except NpqError as reason:
        _skip(home, as_of, "maintenance", str(reason))
        return None, str(reason)
    _save(home, as_of, "maintenance", decision, wanted)
    return decision, "new"


def quality_of(home: Home, as_of: date) -> tuple[QualityDecision | None, str]:
    """Decides about units; as `maintenance_of`."""
    try:
        inputs: QualityInputs = read_quality(home, as_of)
    except Unavailable as reason:
        _skip(home, as_of, "quality", str(reason))
        return None, str(reason)
    wanted = fingerprint(inputs.snapshot, code_version())
    stored = load(home, as_of, "quality", wanted)
    if stored is not None:
        return stored, "stored"
    try:
        decision = decide_quality(inputs, _judged(home, as_of, inputs))
    except NpqError as reason:
        # Without enough defects nothing can be learned of units; the charts need none.
        decision = signals_alone(inputs)
        decision.facts["skipped"] = [*decision.facts["skipped"], str(reason)]
    _save(home, as_of, "quality", decision, wanted)
    return decision, "new"


def _judged(home: Home, as_of: date, inputs: QualityInputs) -> HeldOut:
    """The model judged on the units it is learned from: once a week."""
    monday = as_of - timedelta(days=as_of.weekday())
    folder = home.root / "plans" / "manufacturing" / "quality" / f"week={monday.isoformat()}"
    wanted = fingerprint(inputs.learned_hash, code_version())
    facts = read_facts(folder / "held_out.json")
    if facts is not None and facts["inputs"] == wanted:
        return HeldOut(pl.read_parquet(folder / "held_out.parquet", hive_partitioning=False))
    found = held_out(inputs)
    write_parquet(found.rows, folder / "held_out.parquet")
    write_json({"inputs": wanted}, folder / "held_out.json")
    return found


def control_of(home: Home, as_of: date) -> tuple[ControlDecision | None, str]:
    """Decides about settings; as `maintenance_of`."""
    try:
        inputs: ControlInputs = read_control(home, as_of)
    except Unavailable as reason:
        _skip(home, as_of, "control", str(reason))
        return None, str(reason)
    wanted = fingerprint(inputs.snapshot, code_version())
    stored = load(home, as_of, "control", wanted)
    if stored is not None:
        return stored, "stored"
    decision = decide_settings(inputs)
    _save(home, as_of, "control", decision, wanted)
    return decision, "new"


def equipment_accounts(home: Home, as_of: date) -> list[pl.DataFrame]:
    """Ledger rows of a day's decisions about equipment."""
    found = []
    for part, kind in (
        ("maintenance", "maintenance_plan"),
        ("quality", "quality_alerts"),
        ("control", "machine_settings"),
    ):
        decision = load(home, as_of, part)
        if decision is not None and decision.accounts.height:
            found.append(ledger_rows("manufacturing", kind, decision.accounts, decision.facts))
    return found
