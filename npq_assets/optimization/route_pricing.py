"""The cheapest relaxed route of a kind of vehicle under prices of stops: what column generation asks for, again and again.

Time is cut into slots and a route may come back to a stop once it has forgotten it (ng-routes: Baldacci, Mingozzi and Roberti,
Operations Research 59, 2011). Both only ever add routes or make them cheaper, so that the least reduced cost proves a bound. What
is done with routes and reduced costs does not belong here (see `route_bound`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
ALWAYS = 1e7
"""Minutes later than any."""
_SAME = 1e-9


@dataclass(frozen=True)
class Kind:
    """Vehicles that cost and can the same, for n stops. Place 0 is the depot, place i the stop i - 1.

    Attributes:
        count: Vehicles of the kind.
        fixed: Money of using one.
        per_minute: Money per minute from leaving the depot to being back.
        cost: Money of a leg (n + 1, n + 1): its kilometres, its minutes and the service before it; inf where there is none.
        minutes: Of driving (n + 1, n + 1).
        km: (n + 1, n + 1).
        quantity, ready, due, service, late: Of the place (n + 1), those of the depot 0; late in money per minute.
        spared: Money that the stop's lateness costs at most (n + 1); inf: no such offer.
        capacity: Load.
        start, end: Of the shift (minutes after midnight).
        most_km: inf: none.
    """

    count: int
    fixed: float
    per_minute: float
    cost: Array
    minutes: Array
    km: Array
    quantity: Array
    ready: Array
    due: Array
    service: Array
    late: Array
    spared: Array
    capacity: float
    start: float
    end: float
    most_km: float


@dataclass
class Found:
    """What pricing found.

    Attributes:
        least: No relaxed route has a smaller reduced cost (money; at most 0).
        routes: Places of the cheapest route by last stop, where its reduced cost is below 0.
        reduced: Their reduced costs.
    """

    least: float
    routes: list[list[int]] = field(default_factory=list)
    reduced: list[float] = field(default_factory=list)


class Grid:
    """Relaxed routes of one kind of vehicle: at each stop a slot of time and what is remembered there, set slot by slot.

    G[t, j, S] is the least cost of a partial route whose service at j begins in slot t and which remembers no stops but those
    of S, a set of the neighbours of j. With slots of length d, f = floor((service_i + drive_ij) / d), h the price of a minute, and
    U what may be remembered at i for that to hold at j (and be loaded, in whole steps of load, rounded down),

        G[t, j, S] = late_j(t) + min_i cost_ij + min(G[t - f, i, U], G[t - f - 1, i, U])          arriving when j may begin,
        G[t, j, S] = min_(i, s) cost_ij + h max(0, ready_j - end of slot s - service_i - drive_ij) + G[s, i, U]     waiting for it,

    where late_j(t) counts from the slot's begin. A route driven at any times T is among these, at its slots floor(T / d), at no
    more than it costs: legs cost what they cost, its lateness is counted from a slot's begin and its waiting to a slot's end.
    Whatever is a function of one stop's time of arrival can be counted so: lateness that is bought off is min(late, spared).

    Args:
        kind: The vehicles.
        near: Stops remembered at each place, itself first (n + 1 lists of places; of the depot none).
        slots: Of time, from the shift's start to its end.
        steps: Of load, from none to the capacity; 0: loads are not looked at.
    """

    def __init__(self, kind: Kind, near: list[list[int]], slots: int, steps: int = 0) -> None:
        self.kind, self.near = kind, near
        own = np.flatnonzero(np.isfinite(kind.cost[0, 1:]) & np.isfinite(kind.cost[1:, 0])) + 1
        ready = np.maximum(kind.ready[own] - kind.start, 0.0)
        service, away, home = kind.service[own], kind.minutes[0, own], kind.minutes[own, 0]
        span = self._span(own, ready)
        # Stops that no vehicle of the kind reaches within its shift are none of its stops.
        fits = np.maximum(away, ready) + service + home <= span + _SAME
        # In the order in which they open, so that the stops that may be served in a slot stand side by side.
        order = np.flatnonzero(fits)[np.argsort(ready[fits], kind="stable")]
        self.own = own = own[order]
        self.at = {int(p): k for k, p in enumerate(own)}
        ready, service, away, home = ready[order], service[order], away[order], home[order]
        self.n = n = len(own)
        self.slots, self.step = max(1, slots), max(span, 1e-6) / max(1, slots)
        d = self.step
        self.steps = _steps(kind.quantity[own], kind.capacity, steps) if n else 0
        self.room = np.zeros(n, np.int64)
        if self.steps:
            self.room = np.floor(kind.quantity[own] / kind.capacity * self.steps + _SAME).astype(np.int64)
        self.width = (self.steps + 1) << max([len(near[j]) - 1 for j in own], default=0)
        self.cost = kind.cost[np.ix_(own, own)].T.copy()  # (j, i), as all that follows
        took = (service[:, None] + kind.minutes[np.ix_(own, own)]).T
        whole = np.floor(took / d + _SAME)
        exact = np.abs(took / d - whole) <= 2 * _SAME
        self.least = np.where(np.isfinite(self.cost), np.minimum(whole, self.slots), 0).astype(np.int64)
        self.first = np.floor(np.maximum(away, ready) / d + _SAME).astype(np.int64)
        self.opens = np.floor(ready / d + _SAME).astype(np.int64)
        self.last = np.minimum(np.floor((span - service - home) / d + _SAME), self.slots - 1).astype(np.int64)
        # A stop that is ready after it is due is counted as due when it is ready: vehicles that wait for it arrive before.
        due = np.maximum(kind.due[own], kind.ready[own]) - kind.start
        begins = np.arange(self.slots) * d
        self.late = np.minimum(
            kind.late[own][None, :] * np.maximum(begins[:, None] - due[None, :], 0.0), kind.spared[own]
        )
        self.late[np.arange(self.slots)[:, None] > self.last[None, :]] = np.inf
        # The last slot from whose end on a vehicle still waits, and what it pays then.
        until = np.floor((ready[:, None] - took) / d + _SAME) - 1
        self.waits = np.where(np.isfinite(self.cost), until, -1.0).clip(-1).astype(np.int64)
        self.wait_cost = kind.per_minute * np.maximum(ready[:, None] - (self.waits + 1) * d - took, 0.0)
        # F holds G, then min(G[t], G[t - 1]), then the cheapest of all slots before with h for each minute since.
        self.pad = int(np.where(np.isfinite(self.cost), self.least, 0).max(initial=0)) + 1
        depth, line = self.pad + self.slots, n * (self.width + 1)
        self.depth, self.line = depth, line
        self.f = np.full((3, depth, n, self.width + 1), np.inf)
        remembered = self._remembered()
        base = np.arange(n)[None, :, None] * (self.width + 1) + remembered
        which = np.where(exact, 0, 1)
        self.from_arrival = base + ((which * depth + self.pad - self.least) * line)[:, :, None]
        # Of two equal layouts, the one whose minimum NumPy finds faster.
        self.axis = 2 if self.width <= 16 else 1
        self.looked_at = (
            np.ascontiguousarray(self.from_arrival.transpose(0, 2, 1)) if self.axis == 2 else self.from_arrival
        )
        self.from_waiting = base + ((2 * depth + self.pad + self.waits) * line)[:, :, None]
        at_once = (self.least == 0) & np.isfinite(self.cost)
        self.at_once = np.flatnonzero(at_once.any(axis=1))
        self.at_once_cost = np.where(at_once, self.cost, np.inf)[self.at_once]
        self.within = (base + self.pad * line)[self.at_once]
        # By slot: stops that are open (the first so many), those that a vehicle may come to first, those that it waits for.
        self.opened = np.searchsorted(self.opens, np.arange(self.slots), side="right")
        self.begins = {t: np.flatnonzero(self.first == t) for t in np.unique(self.first).tolist()}
        self.opening: dict[int, list[tuple[int, Index]]] = {}
        for j in range(n):
            some = np.flatnonzero(self.waits[j] >= 0)
            if len(some) and self.opens[j] < self.slots:
                self.opening.setdefault(int(self.opens[j]), []).append((j, some))
        self.work = int(self.opened.sum()) * n * self.width

    def _span(self, own: Index, ready: Array) -> float:
        """Minutes from the start of the shift to when the last route is back, if vehicles leave no later than makes sense."""
        kind = self.kind
        if not len(own):
            return 0.0
        longest = np.where(np.isfinite(kind.cost), kind.minutes, 0.0).max(axis=0)
        road = float((longest[own] + kind.service[own]).sum() + longest[0])
        return float(max(0.0, min(kind.end - kind.start, ready.max() + road + 1.0)))

    def _remembered(self) -> Index:
        """What may be remembered and loaded at i so that no more than S, and not j, is at j: (j, i, S); the dummy if nothing."""
        n, sets = self.n, np.arange(self.width // (self.steps + 1))
        neighbours = [[self.at[p] for p in self.near[j][1:] if p in self.at] for j in self.own.tolist()]
        bit = np.full((n, n), -1)
        for j, others in enumerate(neighbours):
            bit[j, others] = np.arange(len(others))
        has = np.where(bit[:, :, None] >= 0, (sets[None, None, :] >> np.maximum(bit, 0)[:, :, None]) & 1, 1).astype(
            bool
        )
        result = np.zeros((n, n, len(sets)), np.int64)
        for b in range(max(map(len, neighbours), default=0)):
            place = np.array([others[b] if b < len(others) else -1 for others in neighbours])
            allowed = has[:, place, :] & ((place >= 0) & (place[None, :] != np.arange(n)[:, None]))[:, :, None]
            result |= allowed.astype(np.int64) << b
        left = np.arange(self.steps + 1)[None, :] - self.room[:, None]
        loaded = np.where(left >= 0, left, 0)[:, None, :, None] * len(sets) + result[:, :, None, :]
        # i itself is always remembered at i.
        loaded = np.where(has[:, :, None, :] & (left >= 0)[:, None, :, None], loaded, self.width)
        return loaded.reshape(n, n, self.width)

    def cheapest(self, price: Array, per_load: float = 0.0, per_km: float = 0.0) -> Found:
        """Routes with the least cost less the prices of their stops.

        Args:
            price: What serving each stop is worth (n).
            per_load: Charged for each unit of load above the capacity, and paid for each below it.
            per_km: The same for kilometres, above and below the longest distance.
        """
        if not self.n:
            return Found(0.0)
        kind, own, n, h, d = self.kind, self.own, self.n, self.kind.per_minute, self.step
        worth = price[own - 1] - per_load * kind.quantity[own]
        cost = self.cost - worth[:, None]
        into, back = kind.cost[0, own] + kind.fixed - worth, kind.cost[own, 0].copy()
        if per_load:
            into -= per_load * kind.capacity
        if per_km:
            cost += per_km * kind.km[np.ix_(own, own)].T
            into += per_km * (kind.km[0, own] - kind.most_km)
            back += per_km * kind.km[own, 0]
        level = np.arange(self.width) // (self.width // (self.steps + 1))
        begun = np.where(level[None, :] >= self.room[:, None], into[:, None], np.inf)
        self.asked = (cost, begun)
        f, flat = self.f, self.f.reshape(-1)
        g, near_g, waited = f[0, self.pad :], f[1, self.pad :], f[2, self.pad :]
        f[:] = np.inf
        begun_now = np.full((n, self.width), np.inf)
        arcs = cost[:, None, :] if self.axis == 2 else cost[:, :, None]
        for t in range(self.slots):
            if t:
                near_g[t] = g[t - 1]
                np.add(waited[t - 1], h * d, out=waited[t])
            m = int(self.opened[t])
            begins = self.begins.get(t)
            if begins is not None:
                begun_now[begins] = begun[begins]
            if m:
                best = (flat.take(self.looked_at[:m] + t * self.line, mode="clip") + arcs[:m]).min(axis=self.axis)
                np.minimum(best, begun_now[:m], out=best)
                for j, some in self.opening.get(t, ()):
                    after = flat.take(self.from_waiting[j, some], mode="clip")
                    after += (self.wait_cost[j, some] + cost[j, some])[:, None]
                    np.minimum(best[j], after.min(axis=0), out=best[j])
                np.add(best, self.late[t, :m, None], out=g[t, :m, :-1])
                if len(self.at_once):
                    self._at_once(t, cost, g, flat)
            np.minimum(near_g[t], g[t], out=near_g[t])
            np.minimum(waited[t], g[t], out=waited[t])
        closed = g[:, :, self.width - 1] + back[None, :]
        when = closed.argmin(axis=0)
        least = closed[when, np.arange(n)]
        found = Found(min(0.0, float(least.min()) - 1e-9 * (1.0 + abs(float(least.min())))))
        for i in np.argsort(least, kind="stable").tolist():
            if least[i] >= -1e-7:
                break
            route = self._traced(int(when[i]), i)
            if route is not None:
                found.routes.append(route)
                found.reduced.append(float(least[i]))
        return found

    def _at_once(self, t: int, cost: Array, g: Array, flat: Array) -> None:
        """Legs that may begin and end in one slot: as often as a route has stops, or until nothing becomes cheaper."""
        some = (self.opens[self.at_once] <= t) & (t <= self.last[self.at_once])
        rows = self.at_once[some]
        if not len(rows):
            return
        index = self.within[some] + t * self.line
        priced = np.where(np.isfinite(self.at_once_cost[some]), cost[rows], np.inf)[:, :, None]
        late = self.late[t, rows][:, None]
        for _ in range(self.n - 1):
            better = (flat.take(index, mode="clip") + priced).min(axis=1) + late
            if not (better < g[t, rows, :-1] - 1e-12).any():
                break
            g[t, rows, :-1] = np.minimum(g[t, rows, :-1], better)

    def _traced(self, t: int, j: int) -> list[int] | None:
        """Places of the route that ends in state (t, j); None if it goes in circles within a slot."""
        cost, begun = self.asked
        flat, places, s = self.f.reshape(-1), [], self.width - 1
        g = self.f[0, self.pad :]
        for _ in range(3 * self.n + 3):
            places.append(int(self.own[j]))
            options = flat.take(self.from_arrival[j, :, s] + t * self.line, mode="clip") + cost[j]
            i = int(options.argmin())
            best, how = options[i], "arrival"
            if self.opens[j] == t and (self.waits[j] >= 0).any():
                also = flat.take(self.from_waiting[j, :, s], mode="clip") + self.wait_cost[j] + cost[j]
                also[self.waits[j] < 0] = np.inf
                if also.min() < best:
                    i = int(also.argmin())
                    best, how = also[i], "waiting"
            if self.first[j] <= t and begun[j, s] <= best:
                return places[::-1]
            if not np.isfinite(best):
                return None
            index = int((self.from_arrival if how == "arrival" else self.from_waiting)[j, i, s])
            s = index % self.line - i * (self.width + 1)
            if how == "arrival":
                before = t - int(self.least[j, i])
                earlier = index >= self.depth * self.line and before > 0
                t = before - 1 if earlier and g[before - 1, i, s] <= g[before, i, s] else before
            else:
                at = int(self.waits[j, i])
                since = self.kind.per_minute * self.step * (at - np.arange(at + 1))
                t = int((g[: at + 1, i, s] + since).argmin())
            j = i
        return None

    def allows(self, places: list[int]) -> bool:
        """Whether a route goes to stops of the kind, within its load, and not to what it remembers."""
        if not places or any(p not in self.at for p in places):
            return False
        return self._kept(places) and int(self.room[[self.at[p] for p in places]].sum()) <= self.steps

    def cost_of(self, places: list[int]) -> float:
        """What a route costs at least, as counted here; inf if it does not fit or comes back to what it remembers."""
        if not self.allows(places):
            return float("inf")
        kind, d, h, at = self.kind, self.step, self.kind.per_minute, self.at
        clock = np.arange(self.slots)
        j = at[places[0]]
        value = np.where((clock >= self.first[j]) & (clock <= self.last[j]), self.late[:, j], np.inf)
        value = value + kind.cost[0, places[0]] + kind.fixed
        for place in places[1:]:
            i, j = j, at[place]
            f = int(self.least[j, i])
            took = kind.service[self.own[i]] + kind.minutes[self.own[i], self.own[j]]
            both = value
            if abs(took / d - np.floor(took / d + _SAME)) > 2 * _SAME:
                both = np.minimum(value, np.concatenate([[np.inf], value[:-1]]))
            arrives = np.concatenate([np.full(f, np.inf), both])[: self.slots]
            arrives[: self.opens[j]] = np.inf
            last = int(self.waits[j, i])
            if last >= 0:
                wait = h * d * (last - clock[: last + 1]) + self.wait_cost[j, i]
                arrives[self.opens[j]] = min(arrives[self.opens[j]], float((value[: last + 1] + wait).min()))
            value = arrives + self.late[:, j] + self.cost[j, i]
            value[self.last[j] + 1 :] = np.inf
        return float(value.min() + kind.cost[places[-1], 0])

    def _kept(self, places: list[int]) -> bool:
        memory: set[int] = set()
        for place in places:
            if place in memory:
                return False
            memory = (memory & set(self.near[place])) | {place}
        return True


def _steps(quantity: Array, capacity: float, wanted: int) -> int:
    """As many steps of load, or a few less, as lose least when loads are rounded down to them."""
    if not wanted or capacity <= 0 or not quantity.any():
        return 0
    few = range((2 * wanted + 2) // 3, wanted + 1)
    return max((float(np.floor(quantity / capacity * k + _SAME).sum()) / k, k) for k in few)[1]
