"""The gate between a proposed setting and a machine: a person approves, `equipment.setpoints` carries, and can take back.

A journal of approvals, appended to and never rewritten, is the only state of the gate; what became of a set-point behind it is
in the journal of the last door. Nothing here decides what a good value is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.equipment import setpoints
from npq_assets.equipment.setpoints import Delivery, FilePublisher, Limits, Publisher, SetPoint
from npq_assets.errors import NpqError
from npq_assets.publishing import read_decisions
from npq_assets.settings import Home

SETTINGS = DECISIONS["manufacturing.machine_settings"]


@dataclass(frozen=True)
class Approval:
    """A set-point that a person approved."""

    point: SetPoint
    by: str
    as_of: date


def outbox(home: Home) -> Path:
    """Where set-points go as files."""
    return home.root / "outbox" / "manufacturing" / "set_points"


def door_journal(home: Home) -> Path:
    """What the last door remembers."""
    return outbox(home) / "journal"


def _journal(home: Home) -> Path:
    return home.root / "control" / "approvals.jsonl"


def publisher_for(home: Home) -> Publisher:
    """The broker that `npq.toml` names, else files in the outbox."""
    if home.settings.mqtt:
        from npq_assets.equipment.setpoints import MqttPublisher
        from npq_assets.mqtt import broker_of

        return MqttPublisher(broker_of(home.settings))
    return file_publisher(home)


def file_publisher(home: Home) -> Publisher:
    """Files in the outbox, which nobody acknowledges."""
    return cast(Publisher, FilePublisher(outbox(home)))


def approvals(home: Home) -> list[Approval]:
    """Everything that was approved, in order.

    Raises:
        NpqError: A line of the journal is not an approval.
    """
    place = _journal(home)
    found = []
    for number, line in enumerate(place.read_text(encoding="utf-8").splitlines() if place.exists() else (), 1):
        try:
            row = json.loads(line)
            found.append(Approval(SetPoint(**row["point"]), row["by"], date.fromisoformat(row["as_of"])))
        except (ValueError, KeyError, TypeError):
            raise NpqError(f"{place}:{number}: not an approval; correct or remove the line") from None
    return found


def proposals(home: Home, as_of: date) -> list[SetPoint]:
    """A day's proposals as set-points."""
    rows = read_decisions(home, SETTINGS, as_of).sort("machine_id", "setting")
    return [
        SetPoint(r["machine_id"], r["setting"], r["proposed"], r["current"], r["low"], r["high"], r["decision_id"])
        for r in rows.iter_rows(named=True)
    ]


def limits_of(home: Home) -> Limits:
    """Lowest and highest value of every setting as master data stand now.

    Raises:
        NpqError: The mart was not built yet.
    """
    place = home.mart("manufacturing", "process_settings")
    if not place.exists():
        raise NpqError(f"{place}: not built yet; without limits nothing is sent (npq run makes it)")
    rows = pl.read_parquet(place).select("machine_id", "setting", "low", "high")
    return {(m, s): (low, high) for m, s, low, high in rows.iter_rows()}


def _too_far(home: Home, point: SetPoint) -> str:
    """Why the step from the value before is longer than the ramp allows; empty if it is not."""
    rows = pl.read_parquet(home.mart("manufacturing", "process_settings")).filter(
        (pl.col("machine_id") == point.machine_id) & (pl.col("setting") == point.setting)
    )
    ramp = (
        rows["ramp_limit"][0] if rows.height and rows["ramp_limit"][0] is not None else 0.1 * (point.high - point.low)
    )
    step = abs(point.value - point.previous)
    return "" if step <= ramp * (1 + 1e-6) + 1e-9 else f"a step of {step:g} is more than {ramp:g}"


def _moved(home: Home, points: Sequence[SetPoint]) -> dict[str, str]:
    """Why set-points do not fit what is in force now, by message id: the ramp was measured from another value."""
    masters, changes = (home.mart("manufacturing", name) for name in ("process_settings", "setting_changes"))
    now: dict[tuple[str, str], float] = {}
    for place, column in ((masters, "current"), (changes, "value")):
        rows = pl.read_parquet(place) if points and place.exists() else pl.DataFrame()
        if column in rows.columns:
            latest = rows.sort("changed_at") if "changed_at" in rows.columns else rows
            now |= {(m, s): value for m, s, value in latest.select("machine_id", "setting", column).iter_rows()}
    found = {}
    for point in points:
        value = now.get(point.key, point.previous)
        # Its own value is in force where a machine took it without saying so.
        if not any(math.isclose(value, known, rel_tol=1e-6, abs_tol=1e-9) for known in (point.previous, point.value)):
            found[point.message_id] = (
                f"the value in force is {value:g} now, not {point.previous:g} as when it was proposed; "
                "npq run proposes anew"
            )
    return found


def approve(home: Home, as_of: date, decision_ids: Sequence[str], by: str) -> list[SetPoint]:
    """Approves proposals of a day; what was approved before stays as it is. Returns the newly approved.

    Raises:
        NpqError: No name, an id that is none of the day's proposals, or a value that must not be sent.
    """
    if not by.strip():
        raise NpqError("an approval needs a name; give --by")
    offered = {point.decision_id: point for point in proposals(home, as_of)}
    known = {approval.point.decision_id for approval in approvals(home)}
    unknown = [key for key in decision_ids if key not in offered]
    if unknown:
        raise NpqError(f"{unknown[0]!r} is no proposal as of {as_of}; npq settings list shows them")
    new = [offered[key] for key in decision_ids if key not in known]
    limits, moved = limits_of(home) if new else {}, _moved(home, new)
    for point in new:
        reason = setpoints.refusal(point, limits) or _too_far(home, point) or moved.get(point.message_id)
        if reason:
            raise NpqError(f"{point.setting} of {point.machine_id} is not approved: {reason}")
    if new:
        place = _journal(home)
        place.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [{"point": asdict(p), "by": by, "at": now, "as_of": as_of.isoformat()} for p in new]
        with place.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
    return new


def waiting(home: Home) -> list[SetPoint]:
    """Approved set-points, the latest approval of each setting, of which no outcome is known."""
    latest: dict[tuple[str, str], Approval] = {approval.point.key: approval for approval in approvals(home)}
    return [a.point for a in latest.values() if standing(home, a.point) in ("approved", "sent", "silent")]


def publish(
    home: Home, publisher: Publisher, *, live: bool = False, seconds: float = setpoints.ACK_SECONDS
) -> list[Delivery]:
    """Hands approved set-points on; without `live` nothing leaves. See `equipment.setpoints.publish`."""
    points = [p for p in waiting(home) if not (standing(home, p) == "sent" and not publisher.acknowledges)]
    moved = _moved(home, points)
    refused = [Delivery(p, p.message_id, "refused", moved[p.message_id]) for p in points if p.message_id in moved]
    points = [p for p in points if p.message_id not in moved]
    return refused + setpoints.publish(
        points,
        publisher,
        door_journal(home),
        dry_run=not live,
        limits=limits_of(home) if points else None,
        seconds=seconds,
    )


def roll_back(
    home: Home,
    decision_ids: Sequence[str],
    publisher: Publisher,
    *,
    live: bool = False,
    seconds: float = setpoints.ACK_SECONDS,
) -> list[Delivery]:
    """Sets the values again that were in force before approved set-points; without `live` nothing leaves.

    Raises:
        NpqError: One was never approved, or never sent.
    """
    known = {a.point.decision_id: a.point for a in approvals(home)}
    for key in decision_ids:
        if key not in known or standing(home, known[key]) == "approved":
            raise NpqError(f"{key!r} was never sent to a machine; npq settings list shows what was")
    points = [known[key] for key in decision_ids]
    return setpoints.roll_back(
        points, publisher, door_journal(home), dry_run=not live, limits=limits_of(home), seconds=seconds
    )


def standing(home: Home, point: SetPoint) -> str:
    """Where an approved set-point stands: `approved`, or what the last door knows of it."""
    place = door_journal(home) / f"{point.message_id}.json"
    return str(json.loads(place.read_text())["steps"][-1]["status"]) if place.exists() else "approved"


def listing(home: Home, as_of: date) -> list[dict[str, Any]]:
    """Proposals of a day and everything approved before, with where it stands."""
    approved = {a.point.decision_id: a for a in approvals(home)}
    rows = [(p, standing(home, p) if p.decision_id in approved else "proposed") for p in proposals(home, as_of)]
    shown = {p.decision_id for p, _ in rows}
    rows += [(a.point, standing(home, a.point)) for key, a in approved.items() if key not in shown]
    return [
        {"decision_id": p.decision_id, "machine": p.machine_id, "setting": p.setting, "from": p.previous, "to": p.value,
         "standing": where}
        for p, where in rows
        if math.isfinite(p.value)
    ]  # fmt: skip
