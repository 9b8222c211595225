"""A panel kept on disk and extended day by day, so that a new day costs what the day costs, not what the history does.

Only the recent years that models look at are kept. Reading and checking of rows belongs to `panel`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from npq_assets.errors import NpqError
from npq_assets.forecasting.calendar import Calendar
from npq_assets.forecasting.model import recent
from npq_assets.forecasting.panel import Frame, Panel, build
from npq_assets.storage import replacing, write_json


def save_panel(panel: Panel, folder: Path | str) -> Path:
    """Writes the recent years of a panel into `folder`, as arrays that are read without parsing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    panel = recent(panel)
    arrays = {"y": panel.y, "observed": panel.observed, "in_stock": panel.in_stock, "first": panel.first}
    if panel.bound is not None:
        arrays["bound"] = panel.bound
    arrays |= {f"known_{i}": values for i, values in enumerate(panel.known.values())}
    arrays |= {f"group_{i}": codes for i, (_, codes) in enumerate(panel.groups.values())}
    arrays |= {f"numeric_{i}": values for i, values in enumerate(panel.numeric.values())}
    for name, values in arrays.items():
        with replacing(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, np.ascontiguousarray(values))
    document = {
        "ids": [str(name) for name in panel.ids],
        "unit": panel.calendar.unit,
        "anchor": panel.calendar.anchor,
        "start": panel.start,
        "known": list(panel.known),
        "groups": {name: labels for name, (labels, _) in panel.groups.items()},
        "numeric": list(panel.numeric),
        "words": {name: list(words) for name, words in panel.words.items()},
        "bound": panel.bound is not None,
    }
    write_json(document, folder / "panel.json")
    return folder


def load_panel(folder: Path | str) -> Panel:
    """Reads a panel that `save_panel` wrote.

    Raises:
        NpqError: The folder holds no readable panel.
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / "panel.json").read_text(encoding="utf-8"))

        def array(name: str) -> np.ndarray:
            return np.asarray(np.load(folder / f"{name}.npy", allow_pickle=False))

        return Panel(
            np.array(document["ids"], dtype=str),
            Calendar(document["unit"], document["anchor"]),
            document["start"],
            array("y"),
            array("observed"),
            array("in_stock"),
            array("first"),
            {name: array(f"known_{i}") for i, name in enumerate(document["known"])},
            {name: (labels, array(f"group_{i}")) for i, (name, labels) in enumerate(document["groups"].items())},
            {name: array(f"numeric_{i}") for i, name in enumerate(document["numeric"])},
            {name: tuple(words) for name, words in document["words"].items()},
            array("bound") if document["bound"] else None,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise NpqError(f"{folder}: no readable panel ({error}); build it again from the history") from error


def extended(
    panel: Panel,
    history: Frame,
    freq: str,
    *,
    future: Frame | None = None,
    available: Frame | None = None,
    horizon: int = 0,
) -> Panel:
    """The panel with later rows; equal to the one built from all rows at once.

    Args:
        panel: What was known.
        history: Rows of later periods: unique_id, ds, y and the same covariates.
        freq: As for `build`.
        future: Covariates ahead.
        available: unique_id, ds, in_stock of the new rows.
        horizon: Periods after the last for which covariates are laid out.

    Raises:
        NpqError: A row is not later than what is known, or is of a series that is not in the panel (build it anew then).
    """
    ids = [str(name) for name in panel.ids]
    new = build(history, freq, future=future, available=available, horizon=horizon, ids=ids, words=panel.words)
    if len(new.ids) != len(ids):
        strange = sorted(set(map(str, new.ids)) - set(ids))[0]
        raise NpqError(f"history: {strange} is not in the stored panel; build the panel anew from the whole history")
    n, length = panel.shape
    gap = new.start - (panel.start + length)
    if gap < 0:
        first = new.dates(np.array([0]))[0]
        raise NpqError(f"history: {first} is known already; corrections of the past need a panel built anew")
    width = length + gap + new.shape[1]

    def joined(old: np.ndarray, late: np.ndarray, between: float | bool) -> np.ndarray:
        return np.concatenate([old, np.full((n, gap), between, old.dtype), late.astype(old.dtype)], 1)

    observed = joined(panel.observed, new.observed, False)
    seen = observed.any(1)
    known: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([*panel.known, *new.known]):
        values = np.full((n, width + horizon), np.nan, np.float32)
        if name in panel.known:
            old = panel.known[name][:, : values.shape[1]]
            values[:, : old.shape[1]] = old
        if name in new.known:
            late = new.known[name]
            place = values[:, length + gap : length + gap + late.shape[1]]
            np.copyto(place, late[:, : place.shape[1]], where=~np.isnan(late[:, : place.shape[1]]))
        known[name] = values
    bound = None
    if panel.bound is not None or new.bound is not None:
        none = np.zeros((1, 1), np.float32)
        old_bound, late_bound = (
            np.broadcast_to(none, of.shape) if of.bound is None else of.bound for of in (panel, new)
        )
        bound = joined(old_bound, late_bound, 0.0)
    first_row = np.where(panel.first < length, panel.first, length + gap + new.first)
    return replace(
        panel,
        y=joined(panel.y, new.y, 0.0),
        observed=observed,
        in_stock=joined(panel.in_stock, new.in_stock, True),
        first=np.where(seen | (panel.first < length), first_row, width),
        known=known,
        bound=bound,
    )
