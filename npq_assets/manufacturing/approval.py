"""The gate between a proposed setting and a machine: approval by a person, publication, acknowledgement, roll-back.

A journal of what happened, appended to and never rewritten, is the only state. Nothing here decides what a good value is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.equipment.set_points import FileTransport, SetPoint, SetPointTransport, require_safe
from npq_assets.errors import NpqError
from npq_assets.publishing import read_decisions
from npq_assets.settings import Home

SETTINGS = DECISIONS["manufacturing.machine_settings"]
# What may follow what: a proposal is approved, then published, then acknowledged or refused; both may be rolled back.
EVENTS = ("approved", "published", "acknowledged", "refused", "rolled_back")


@dataclass(frozen=True)
class Standing:
    """Where a set-point stands: the last event of it, and by whom."""

    point: SetPoint
    event: str
    by: str
    as_of: date


def journal_place(home: Home) -> Path:
    """The journal of a home."""
    return home.root / "control" / "journal.jsonl"


def file_transport(home: Home) -> FileTransport:
    """Carries set-points as files in the home's outbox."""
    return FileTransport(home.root / "outbox" / "set_points")


def standings(home: Home) -> dict[str, Standing]:
    """Every set-point in the journal by decision id, as it stands."""
    found: dict[str, Standing] = {}
    place = journal_place(home)
    if not place.exists():
        return found
    for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            point = SetPoint(**row["point"])
            found[point.decision_id] = Standing(point, row["event"], row["by"], date.fromisoformat(row["as_of"]))
        except (ValueError, KeyError, TypeError):
            raise NpqError(f"{place}:{number}: not an entry of the journal; correct or remove the line") from None
    return found


def _append(home: Home, rows: Sequence[tuple[str, Standing]]) -> None:
    place = journal_place(home)
    place.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        json.dumps(
            {"event": event, "by": s.by, "at": now, "as_of": s.as_of.isoformat(), "point": asdict(s.point)}, sort_keys=True
        )
        for event, s in rows
    ]
    with place.open("a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))


def proposals(home: Home, as_of: date) -> list[SetPoint]:
    """A day's proposals as set-points."""
    rows = read_decisions(home, SETTINGS, as_of)
    ramps = _ramps(home)
    return [
        SetPoint(
            r["decision_id"], r["machine_id"], r["setting"], r["proposed"], r["current"], r["low"], r["high"],
            ramps.get((r["machine_id"], r["setting"]), 0.1 * (r["high"] - r["low"])),
        )
        for r in rows.sort("machine_id", "setting").iter_rows(named=True)
    ]  # fmt: skip


def _ramps(home: Home) -> dict[tuple[str, str], float]:
    place = home.mart("manufacturing", "process_settings")
    if not place.exists():
        return {}
    rows = pl.read_parquet(place).drop_nulls("ramp_limit")
    return {(m, s): float(v) for m, s, v in rows.select("machine_id", "setting", "ramp_limit").iter_rows()}


def approve(home: Home, as_of: date, decision_ids: Sequence[str], by: str) -> list[SetPoint]:
    """Approves proposals of a day; those approved before stay as they are. Returns the newly approved.

    Raises:
        NpqError: An id is none of the day's proposals, or a proposal lies outside its limits.
    """
    if not by.strip():
        raise NpqError("an approval needs a name; give --by")
    offered = {point.decision_id: point for point in proposals(home, as_of)}
    unknown = [key for key in decision_ids if key not in offered]
    if unknown:
        raise NpqError(f"{unknown[0]!r} is no proposal as of {as_of}; npq settings list shows them")
    known = standings(home)
    new = [offered[key] for key in decision_ids if key not in known]
    require_safe(new)
    _append(home, [("approved", Standing(point, "approved", by, as_of)) for point in new])
    return new


def waiting(home: Home) -> list[SetPoint]:
    """Approved set-points that were not published yet, the latest of each setting."""
    latest: dict[tuple[str, str], Standing] = {}
    for standing in standings(home).values():
        latest[standing.point.machine_id, standing.point.setting] = standing
    return [s.point for s in latest.values() if s.event == "approved"]


def publish(home: Home, transport: SetPointTransport, *, live: bool = False, by: str = "npq") -> list[SetPoint]:
    """Hands approved set-points to the machines, once each; without `live` nothing leaves. Returns them.

    Raises:
        NpqError: One of them must not be sent, or the carrier failed; none is marked as published then.
    """
    points = waiting(home)
    require_safe(points)
    if live and points:
        transport.send(points)
        known = standings(home)
        _append(home, [("published", Standing(p, "published", by, known[p.decision_id].as_of)) for p in points])
    return points


def listen(home: Home, transport: SetPointTransport) -> list[Standing]:
    """Notes what machines have said to published set-points; returns what is new."""
    known = standings(home)
    found = []
    for answer in transport.acknowledgements():
        standing = known.get(answer.decision_id)
        if standing is not None and standing.event == "published":
            event = "acknowledged" if answer.accepted else "refused"
            found.append(Standing(standing.point, event, answer.detail or standing.point.machine_id, standing.as_of))
    _append(home, [(s.event, s) for s in found]) if found else None
    return found


def roll_back(
    home: Home, decision_id: str, transport: SetPointTransport, *, live: bool = False, by: str = ""
) -> SetPoint:
    """Takes a published set-point back: the value before it is sent. Without `live` nothing leaves.

    Raises:
        NpqError: It was never published, or was taken back before.
    """
    known = standings(home)
    standing = known.get(decision_id)
    if standing is None or standing.event not in ("published", "acknowledged"):
        raise NpqError(f"{decision_id!r} was not published, or is not in force any more; npq settings list shows what is")
    back = standing.point.reversed()
    require_safe([back])
    if live:
        if not by.strip():
            raise NpqError("a roll-back needs a name; give --by")
        transport.send([back])
        _append(
            home,
            [
                ("rolled_back", Standing(standing.point, "rolled_back", by, standing.as_of)),
                ("published", Standing(back, "published", by, standing.as_of)),
            ],
        )
    return back


def listing(home: Home, as_of: date) -> list[dict[str, Any]]:
    """Proposals of a day and all set-points in the journal, with where they stand."""
    known = standings(home)
    rows = [
        {"decision_id": p.decision_id, "machine": p.machine_id, "setting": p.setting, "from": p.previous, "to": p.value,
         "standing": known[p.decision_id].event if p.decision_id in known else "proposed"}
        for p in proposals(home, as_of)
    ]  # fmt: skip
    shown = {row["decision_id"] for row in rows}
    rows += [
        {"decision_id": key, "machine": s.point.machine_id, "setting": s.point.setting, "from": s.point.previous,
         "to": s.point.value, "standing": s.event}
        for key, s in known.items()
        if key not in shown
    ]  # fmt: skip
    return rows
