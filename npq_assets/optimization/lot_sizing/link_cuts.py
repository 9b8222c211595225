"""Rows that tighten the relaxation of linked lot sizes, found where a relaxed point breaks them.

Where lots may use a set-up kept from before, a relaxed point keeps a little of every item's set-up all the time and makes each
item for nothing, a little in every period. What machine m makes of item i in periods s to e needs the set-up there when s begins,
or one made from s to e; so for what the lots w_imtu make for the demand d_iu,

    sum_{s <= t <= e} w_imtu <= d_iu (a_ims + sum_{s <= t <= e} y_imt),

and the same with the family's b and z. With e = u these are the inventory balance inequalities of Suerie & Stadtler, The
capacitated lot-sizing problem with linked lot sizes, Management Science 49 (2003). The program itself is in `linking.py`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npq_assets.optimization.linear import Array, Index, Solution, add_new_rows, run_linear

if TYPE_CHECKING:
    from npq_assets.optimization.lot_sizing.problem import LotSizingProblem
    from npq_assets.optimization.lot_sizing.pure import PureForm
    from npq_assets.optimization.lot_sizing.tight import Form

ROUNDS = 8
RAISED_BY = 5e-3  # share by which a round must raise the bound for another to follow
BROKEN_BY = 0.02  # share of a demand from which a broken row is added


@dataclass(frozen=True)
class Serving:
    """What lots make for which demand; all of one length.

    Attributes:
        item: The lot's item.
        machine: Its machine.
        made: Its period.
        due: Period of the demand.
        column: The variable w.
        units: The demand.
    """

    item: Index
    machine: Index
    made: Index
    due: Index
    column: Index
    units: Array

    @staticmethod
    def joined(parts: list[Serving]) -> Serving:
        """One after the other."""
        none = np.zeros(0, np.int64)
        if not parts:
            return Serving(none, none, none, none, none, np.zeros(0))
        names = ("item", "machine", "made", "due", "column", "units")
        return Serving(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Windows:
    """Rows: one of item, machine, due period, first and last period made, and whether the family's set-ups count (R, 6)."""

    rows: Index

    def add_to(self, problem: LotSizingProblem, form: PureForm | Form) -> None:
        """Adds the rows to a program of the same problem."""
        model, serving, links = form.model, form.serving, form.links
        of = problem.family_arrays()[2]
        place = np.full((*problem.shape, problem.shape[2]), -1)
        place[serving.item, serving.machine, serving.made, serving.due] = np.arange(len(serving.column))
        for i, m, u, s, e, family in self.rows:
            made = place[i, m, s : e + 1, u]
            made = made[made >= 0]
            if not made.size:
                continue
            units = serving.units[made[0]]
            j, kept, setups = (of[i], links.family, form.z) if family else (i, links.item, form.y)
            columns = np.concatenate([setups[j, m, s : e + 1], kept[j, m, s : s + 1]])
            columns = columns[columns >= 0]
            (row,) = model.add_rows(1, high=0.0)
            model.add_entries(row, serving.column[made], 1.0 / units)
            model.add_entries(row, columns, -1.0)


def solve_tightened(
    problem: LotSizingProblem, form: PureForm | Form, *, seconds: float, rounds: int = ROUNDS
) -> tuple[Solution, Windows]:
    """The relaxation; without links it is solved as it stands.

    Args:
        problem: The data.
        form: The program; the rows that relaxed points break are added to it.
        seconds: Time limit.
        rounds: How often at most the rows broken are added; the first brings most.

    Returns:
        The last relaxation, and the rows added, which hold for every program of the problem.
    """
    ends = time.monotonic() + seconds
    model, found = form.model, np.zeros((0, 6), np.int64)
    highs = model.load(relaxed=True)
    highs.setOptionValue("time_limit", max(0.01, seconds))
    relaxed = run_linear(highs)
    for _ in range(rounds if (form.links.item >= 0).any() else 0):
        if relaxed.x is None or time.monotonic() > ends:
            break
        broken = broken_windows(problem, form, relaxed.x)
        if not len(broken):
            break
        before = model.rows
        Windows(broken).add_to(problem, form)
        add_new_rows(highs, model, before)
        found = np.concatenate([found, broken])
        highs.setOptionValue("time_limit", highs.getRunTime() + max(0.01, ends - time.monotonic()))
        again = run_linear(highs)
        if again.x is None:
            break  # the bound of the rows before stands
        raised, relaxed = again.bound - relaxed.bound, again
        if raised < RAISED_BY * abs(again.bound):
            break
    return relaxed, Windows(found)


def broken_windows(problem: LotSizingProblem, form: PureForm | Form, point: Array) -> Index:
    """For every item, machine, demand and first period the last period whose row is broken most (R, 6)."""
    n, machines, periods = problem.shape
    serving, links = form.serving, form.links
    of = problem.family_arrays()[2]
    share = np.zeros((n, machines, periods, periods))
    np.add.at(
        share,
        (serving.item, serving.machine, serving.made, serving.due),
        point[serving.column] / serving.units,
    )
    found = []
    for family in (False, True):
        members = np.flatnonzero(of >= 0) if family else np.arange(n)
        if not members.size:
            continue
        at = of[members] if family else members
        setups, kept = (form.z, links.family) if family else (form.y, links.item)
        made = np.where(setups[at] >= 0, point[setups[at]], 0.0)
        begun = np.where(kept[at] >= 0, point[kept[at]], 0.0)
        opened = np.asarray((form.y >= 0).any(axis=0))
        over = share[members] - made[:, :, :, None]
        for s in range(periods):
            beyond = np.cumsum(over[:, :, s:], axis=2) - begun[:, :, s, None, None]
            last = beyond.argmax(axis=2)
            worst = np.take_along_axis(beyond, last[:, :, None], axis=2)[:, :, 0]
            i, m, u = np.nonzero((worst > BROKEN_BY) & opened[None, :, s, None])
            rows = [members[i], m, u, np.full(len(i), s), s + last[i, m, u], np.full(len(i), int(family))]
            found.append(np.stack(rows, axis=1))
    rows_found: Index = np.concatenate(found)
    return rows_found
