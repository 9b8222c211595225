"""Set-ups that a machine keeps from one period into the next: linked lot sizes.

The item that a machine ends a period with needs no set-up where the next period begins with it, nor does its family where
the next begins with an item of the family. Haase, Lotsizing and Scheduling for Production Planning (1994); Suerie & Stadtler,
The capacitated lot-sizing problem with linked lot sizes, Management Science 49 (2003). For items i, machines m, open
periods t with the open period t' before, set-ups made y, links a, "kept through the period, nothing else set up" q:

    x_imt <= M (y_imt + a_imt),    y_imt + a_imt <= 1,    sum_i a_imt <= 1
    a_imt <= y_imt' + q_imt',      q_imt <= a_imt,        sum_i q_imt + y_jmt <= 1 for every j.

Families have links b and r of the same kind: y_imt <= z_kmt + b_kmt, a_imt <= b_kmt, b_kmt <= z_kmt' + r_kmt',
r_kmt <= b_kmt, sum_k r_kmt + z_lmt <= 1 for every l; an item without a family ends a family's set-up as another family does.
Before the first open period a machine stands as `LotSizingProblem.initial_setup` says. A set-up may be made at a period's
end for a lot of the next. What lots to make does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.linear import Array, Index, Model

if TYPE_CHECKING:
    from npq_assets.optimization.lot_sizing.problem import LotSizingProblem

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Linked:
    """The set-ups of a plan.

    Attributes:
        setup: Set-ups made (n, M, T).
        family_setup: Family set-ups made (K, M, T).
        kept: Item whose set-up is still there when the period begins, and used in it or kept through it; -1: none (M, T).
        standing: Item that the machine stands set up for at the period's end; -1: none (M, T).
    """

    setup: Flags
    family_setup: Flags
    kept: Index
    standing: Index


def unlinked(problem: LotSizingProblem, on: Flags) -> Linked:
    """Every lot with its own set-up (on: whether there is a lot; n, M, T)."""
    _, machines, periods = on.shape
    _, _, of = problem.family_arrays()
    family = np.zeros((len(problem.family_names), machines, periods), bool)
    for k in range(len(family)):
        family[k] = on[of == k].any(axis=0)
    none = np.full((machines, periods), -1)
    return Linked(on, family, none, none)


def cheapest_links(problem: LotSizingProblem, on: Flags, run_minutes: Array) -> Linked:
    """The set-ups that lots need when each machine ends its periods as is cheapest.

    A shortest path over each machine's periods; the state is the item that it ends the period with. The cost of a period
    is money for set-ups and overtime, and minutes that it lacks at a price above both.

    Args:
        problem: The data, with `carry_over`.
        on: Whether there is a lot, or a set-up for the next period's (n, M, T).
        run_minutes: Minutes of the lots without set-ups (M, T).
    """
    setup, kept, standing = on.copy(), np.full(on.shape[1:], -1), np.full(on.shape[1:], -1)
    family_time, family_cost, of = problem.family_arrays()
    family_setup = unlinked(problem, on).family_setup
    start = problem.standing_at_start
    lacking = 1e3 * (1.0 + float(problem.overtime_cost.max(initial=0.0)) + float(problem.setup_cost.max(initial=0.0)))
    for m in range(on.shape[1]):
        states, value = start[m : m + 1], np.zeros(1)
        steps: list[tuple[Index, Index, Index, Flags, Flags] | None] = []
        for t in range(on.shape[2]):
            lots = np.flatnonzero(on[:, m, t])
            if not lots.size:
                steps.append(None)
                continue
            own, family = _saved(states, lots, of)
            there = family_setup[:, m, t]
            money = problem.setup_cost[lots, m].sum() + family_cost[there, m].sum()
            minutes = run_minutes[m, t] + problem.setup_time[lots, m].sum() + family_time[there, m].sum()
            money = money - own * problem.setup_cost[states, m][:, None]
            minutes = minutes - own * problem.setup_time[states, m][:, None]
            if len(family_time):
                money = money - family * family_cost[of[states], m][:, None]
                minutes = minutes - family * family_time[of[states], m][:, None]
            over = np.maximum(0.0, minutes - problem.capacity[m, t])
            beyond = np.maximum(0.0, over - problem.overtime_limit[m, t])
            total = value[:, None] + money + problem.overtime_cost[m, t] * over + lacking * beyond
            pick = total.argmin(axis=0)
            steps.append((states, lots, pick, own, family))
            states, value = lots, total[pick, np.arange(len(lots))]
        at = int(value.argmin())
        for t in range(on.shape[2] - 1, -1, -1):
            standing[m, t] = states[at]
            step = steps[t]
            if step is None:
                kept[m, t] = states[at]
                continue
            before, lots, pick, own, family = step
            came = int(pick[at])
            if own[came, at]:
                setup[before[came], m, t], kept[m, t] = False, before[came]
            if family[came, at]:
                family_setup[of[before[came]], m, t] = False
            states, at = before, came
    return Linked(setup, family_setup, kept, standing)


def _saved(states: Index, lots: Index, of: Index) -> tuple[Flags, Flags]:
    """Whether the set-up of the item, and of the family, that a period begins with is saved: by state before and last lot.

    Both are first in the period. They are set up again where they are last as well and something else lies between.
    """
    before, last = states[:, None], lots[None, :]
    own = np.isin(before, lots) & ((before != last) | (len(lots) == 1))
    family = np.where(before >= 0, of[before], -1)
    families = of[lots]
    saved = (family >= 0) & np.isin(family, families)
    saved = saved & ((family != of[last]) | (families == families[0]).all())
    return own, saved


@dataclass
class Links:
    """Where an integer program's links are; -1 where there is none.

    Attributes:
        item: The item's set-up is there when the period begins (n, M, T).
        family: The family's is (K, M, T).
    """

    item: Index
    family: Index

    def after(self, point: Array) -> Flags:
        """Whether the next open period begins with the item (n, M, T)."""
        begun = np.where(self.item >= 0, point[self.item] > 0.5, False)
        later = np.zeros_like(begun)
        known = np.asarray((self.item >= 0).any(axis=0))
        for m in range(begun.shape[1]):
            open_periods = np.flatnonzero(known[m])
            for t in range(begun.shape[2]):
                following = open_periods[open_periods > t]
                if following.size:
                    later[:, m, t] = begun[:, m, following[0]]
        return later

    def values(self, kept: Index) -> Array:
        """Values of the items' links for the items kept (M, T), in the order of `item[item >= 0]`."""
        i, m, t = np.nonzero(self.item >= 0)
        return np.asarray(kept[m, t] == i, float)


def no_links(problem: LotSizingProblem) -> Links:
    """What a program without links has."""
    n, machines, periods = problem.shape
    families = len(problem.family_names)
    return Links(np.full((n, machines, periods), -1), np.full((families, machines, periods), -1))


def add_links(model: Model, problem: LotSizingProblem, y: Index, z: Index) -> Links:
    """Links with their rows for the set-ups of a program: y (n, M, T) and z (K, M, T); the caller writes lots and families.

    Families' links and what is kept through a period are whole numbers wherever set-ups and items' links are.
    """
    links = no_links(problem)
    of = problem.family_arrays()[2]
    start = problem.standing_at_start
    for m in range(y.shape[1]):
        members = np.flatnonzero((y[:, m] >= 0).any(axis=1))
        before: int | None = None
        for t in (int(k) for k in np.flatnonzero((y[:, m] >= 0).any(axis=0))):
            first = before is None
            own = members[members == start[m]] if first else members
            families = np.unique(of[own][of[own] >= 0])
            if first and start[m] >= 0 and of[start[m]] >= 0:
                families = of[start[m] : start[m] + 1]  # also where the item itself is made no more
            if own.size:
                links.item[own, m, t] = model.add_columns(len(own), 0.0, 0.0, 1.0, integer=True)
            if families.size:
                links.family[families, m, t] = model.add_columns(len(families), 0.0, 0.0, 1.0)
            if own.size or families.size:
                _begin(model, links, y, of, own, families, m, t)
            if before is not None:
                _through(model, links, y, z, of, own, families, m, before, t)
            before = t
    return links


def _begin(
    model: Model, links: Links, y: Index, of: Index, own: Index, families: Index, m: int, t: int
) -> None:  # fmt: skip
    """One item at most; it is not set up anew; its family is there with it."""
    row = model.add_rows(1, high=1.0)
    model.add_entries(row, links.family[families, m, t], 1.0)
    model.add_entries(row, links.item[own[of[own] < 0], m, t], 1.0)
    both = own[y[own, m, t] >= 0]
    rows = model.add_rows(len(both), high=1.0)
    model.add_entries(rows, links.item[both, m, t], 1.0)
    model.add_entries(rows, y[both, m, t], 1.0)
    rows = model.add_rows(len(families), high=0.0)
    for row, k in zip(rows, families, strict=True):
        model.add_entries(row, links.item[own[of[own] == k], m, t], 1.0)
    model.add_entries(rows, links.family[families, m, t], -1.0)


def _through(
    model: Model, links: Links, y: Index, z: Index, of: Index, own: Index, families: Index, m: int, before: int, t: int
) -> None:  # fmt: skip
    """What begins a period was set up in the one before, or kept through it."""
    for link, made, members, ends in (
        (links.item, y, own, y[:, m, before]),
        (links.family, z, families, np.concatenate([z[:, m, before], y[of < 0, m, before]])),
    ):
        if not members.size:
            continue
        rows = model.add_rows(len(members), high=0.0)
        model.add_entries(rows, link[members, m, t], 1.0)
        new = made[members, m, before] >= 0
        model.add_entries(rows[new], made[members[new], m, before], -1.0)
        old = link[members, m, before] >= 0
        if not old.any():
            continue
        through = model.add_columns(int(old.sum()), 0.0, 0.0, 1.0)
        model.add_entries(rows[old], through, -1.0)
        rows = model.add_rows(len(through), high=0.0)
        model.add_entries(rows, through, 1.0)
        model.add_entries(rows, link[members[old], m, before], -1.0)
        ends = ends[ends >= 0]
        rows = model.add_rows(len(ends), high=1.0)
        model.add_entries(rows, ends, 1.0)
        model.add_entries(rows[:, None], through[None, :], 1.0)
