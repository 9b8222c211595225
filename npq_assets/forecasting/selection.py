"""Choice by evidence: which forms make the centre of which segment, and how sure that is.

Forms are stacked on held-out rows; a segment keeps the best single simple form where the ensemble is not better there.
The loser's numbers stay in the evidence. Spread does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from npq_assets.evaluation.statistics import paired_difference
from npq_assets.forecasting import forms
from npq_assets.forecasting.rows import Rows

_LEAST_WEIGHT = 0.02
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Choice:
    """The ensemble.

    Attributes:
        forms: Members that have weight in some segment (F).
        weights: Weight by segment (S, F).
        mean: What the ensemble expected of the held-out rows (R).
        evidence: Held-out loss by segment and form, and the paired difference to the best simple form.
    """

    forms: tuple[str, ...]
    weights: np.ndarray
    mean: np.ndarray
    evidence: dict[str, Any]


def choose(members: dict[str, np.ndarray], rows: Rows, counts: np.ndarray) -> Choice:
    """Stacks the members and records what each would have lost.

    Args:
        members: What each form expected of the rows without having seen them (R each).
        rows: Held-out rows (R).
        counts: Whether each row is of a count (R).
    """
    names = list(members)
    table = np.stack([members[name] for name in names], 1)
    segment = forms.segment_of(rows.base, rows.scatter, counts)
    weights = forms.stack(table, rows.y, rows.scatter, segment, counts)
    weights[weights < _LEAST_WEIGHT] = 0.0
    weights /= weights.sum(1, keepdims=True)
    evidence: dict[str, Any] = {}
    simple = [i for i, name in enumerate(names) if name not in forms.BOOSTED]
    for s in np.unique(segment):
        here = segment == s
        lost = [_loss(table[here, i], rows.y[here], rows.scatter[here], counts[here]) for i in range(len(names))]
        losses = np.stack(lost)
        stacked = _loss(table[here] @ weights[s], rows.y[here], rows.scatter[here], counts[here])
        best = simple[int(np.argmin(losses[simple].mean(1)))]
        if stacked.mean() > losses[best].mean():
            weights[s] = np.eye(len(names))[best]
            stacked = losses[best]
        found = paired_difference(stacked, losses[best], rows.series[here], _CONFIDENCE)
        scale = max(float(losses[best].mean()), 1e-12)
        evidence[forms.SEGMENTS[s]] = {
            "rows": int(here.sum()),
            "loss": {name: round(float(losses[i].mean()) / scale, 4) for i, name in enumerate(names)},
            "ensemble": round(float(stacked.mean()) / scale, 4),
            "best_simple": names[best],
            "ratio": round(found.ratio, 4) if np.isfinite(found.ratio) else None,
            "interval": [round(v, 4) if np.isfinite(v) else None for v in (found.ratio_low, found.ratio_high)],
            "weights": {name: round(float(w), 3) for name, w in zip(names, weights[s], strict=True) if w > 0},
        }
    # A segment that had no held-out rows must not keep a form alive that no other segment uses.
    used = [i for i in range(len(names)) if weights[np.unique(segment), i].max() > 0]
    weights = weights[:, used]
    total = weights.sum(1, keepdims=True)
    weights = np.where(total > 0, weights / np.maximum(total, 1e-12), 1.0 / len(used))
    mean = (table[:, used] * weights[segment]).sum(1)
    return Choice(tuple(names[i] for i in used), np.round(weights, 6), mean, {"segments": evidence})


def _loss(mean: np.ndarray, y: np.ndarray, scatter: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Absolute error of measured demand, quasi-Poisson deviance of counts (R)."""
    safe = np.maximum(mean, 1e-9)
    positive = np.maximum(y, 0.0)
    log = np.where(positive > 0, positive * np.log(np.maximum(positive, 1e-12) / safe), 0.0)
    return np.where(counts, 2 * (log - (positive - safe)) / scatter, np.abs(y - mean))
