"""Where the boxes and edges of a drawing go: layers from top to bottom, after Sugiyama, Tagawa and Toda (1981).

Four steps: a layer for each box (the longest path to it, then as far down as its users allow); an order within each
layer with few crossings (barycentres, swept down and up); straight vertical lines of boxes, moved near their neighbours
without changing that order; and points for the edges to pass. An edge over several layers passes a point in each; edges
from one box share theirs, and so look like a trunk with branches. All loops are iterative, and for n boxes and m edges
with p points the work is a constant number of sweeps over n + m + p.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

Point = tuple[float, float]

GAP = 18.0  # between boxes of a layer
LAYER_GAP = 34.0
_SWEEPS = 12
_MOST_POINTS = 40_000  # beyond it long edges go straight through


class Placement(NamedTuple):
    """Centres of the boxes, one line of points an edge, and the size of the whole."""

    centres: list[Point]
    lines: list[list[Point]]
    width: float
    height: float


def place(
    sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], beside: Sequence[bool] | None = None
) -> Placement:
    """Places boxes so that every edge goes down.

    Args:
        sizes: width and height of each box.
        edges: pairs of indices (from, to), without cycles; the same pair may occur several times.
        beside: boxes that stand beside the main line, such as parameters: they do not draw their users towards them.

    Returns:
        The placement, with the upper left corner at (0, 0). A line starts at the lower edge of a box, or on an earlier
        line from it which it leaves there, and ends at the upper edge of another box. Where it passes a layer it has
        two points, above and below.
    """
    if not sizes:
        return Placement([], [], 0.0, 0.0)
    layers = _layers(len(sizes), edges)
    grid = _Grid(sizes, edges, layers, beside or [False] * len(sizes))
    grid.order()
    return grid.positions()


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for source, target in set(edges):
        above[target].append(source)
        below[source].append(target)
    missing = [len(sources) for sources in above]
    queue = deque(box for box in range(count) if not missing[box])
    order: list[int] = []
    layer = [0] * count
    while queue:
        box = queue.popleft()
        order.append(box)
        for target in below[box]:
            layer[target] = max(layer[target], layer[box] + 1)
            missing[target] -= 1
            if not missing[target]:
                queue.append(target)
    if len(order) < count:
        raise ValueError("the edges have a cycle")
    for box in reversed(order):
        if below[box] and len(above[box]) <= len(below[box]):  # makes no edge longer in sum
            layer[box] = min(layer[target] for target in below[box]) - 1
    return layer


def _rightwards(gaps: dict[int, dict[int, float]], back: dict[int, dict[int, float]]) -> list[int]:
    """The lines, each after all that are on its left."""
    missing = {line: len(before) for line, before in back.items()}
    order = [line for line, count in missing.items() if not count]
    for line in order:  # grows
        for other in gaps[line]:
            missing[other] -= 1
            if not missing[other]:
                order.append(other)
    return order


class _Grid:
    """Boxes and the points of long edges, by layer. An item below ``count`` is a box, from there on a point."""

    def __init__(
        self,
        sizes: Sequence[tuple[float, float]],
        edges: Sequence[tuple[int, int]],
        layer: list[int],
        beside: Sequence[bool],
    ) -> None:
        self.sizes = sizes
        self.count = len(sizes)
        self.layer = layer
        self.beside = beside
        self.rows: list[list[int]] = [[] for _ in range(max(layer) + 1)]
        for box, number in enumerate(layer):
            self.rows[number].append(box)
        self.above: list[list[tuple[int, float]]] = [[] for _ in sizes]  # neighbours in the next layer, and their pull
        self.below: list[list[tuple[int, float]]] = [[] for _ in sizes]
        points: dict[tuple[int, int], int] = {}
        self.chains: list[list[int]] = []  # of each edge, the items that it passes, both ends included
        lowest: dict[int, int] = {}
        for source, target in edges:
            lowest[source] = max(lowest.get(source, 0), layer[target])
        total = sum(number - layer[source] - 1 for source, number in lowest.items())
        for source, target in edges:
            chain = [source]
            if total <= _MOST_POINTS:
                for number in range(layer[source] + 1, layer[target]):
                    if (source, number) not in points:
                        points[source, number] = self._point(number, chain[-1], source)
                    chain.append(points[source, number])
            chain.append(target)
            self.chains.append(chain)
            if self.layer[chain[-2]] == layer[target] - 1:
                self._connect(chain[-2], target, 0.05 if beside[source] else 4.0 if len(chain) == 2 else 2.0)

    def _point(self, number: int, before: int, source: int) -> int:
        item = len(self.above)
        self.above.append([])
        self.below.append([])
        self.layer.append(number)
        self.rows[number].append(item)
        self._connect(before, item, 8.0 if before != source else 2.0)
        return item

    def _connect(self, upper: int, lower: int, pull: float) -> None:
        self.above[lower].append((upper, pull))
        self.below[upper].append((lower, pull))

    # The order within the layers ----------------------------------------------------------------------------------

    def order(self) -> None:
        """Sorts each layer by the mean position of its neighbours, from above and from below in turn."""
        best, fewest = [list(row) for row in self.rows], self._crossings()
        for sweep in range(_SWEEPS):
            if fewest == 0:
                break
            down = sweep % 2 == 0
            numbers = range(1, len(self.rows)) if down else range(len(self.rows) - 2, -1, -1)
            for number in numbers:
                self._sort(number, self.above if down else self.below, self.rows[number - 1 if down else number + 1])
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self.rows], crossings
        self.rows = best

    def _sort(self, number: int, neighbours: list[list[tuple[int, float]]], fixed: list[int]) -> None:
        """Sorts what has neighbours in ``fixed``; what has none keeps its place. At a tie, boxes beside come last."""
        row = self.rows[number]
        place_of = {item: index for index, item in enumerate(fixed)}
        keys: dict[int, tuple[float, bool]] = {}
        for item in row:
            places = [place_of[neighbour] for neighbour, _ in neighbours[item]]
            if places:
                keys[item] = (sum(places) / len(places), item < self.count and self.beside[item])
        moved = iter(sorted(keys, key=keys.__getitem__))
        self.rows[number] = [next(moved) if item in keys else item for item in row]

    def _crossings(self) -> int:
        total = 0
        for upper, lower in zip(self.rows, self.rows[1:], strict=False):
            place_of = {item: index for index, item in enumerate(lower)}
            ends: list[int] = []
            for item in upper:
                ends.extend(sorted(place_of[neighbour] for neighbour, _ in self.below[item]))
            # Two edges cross where the later one ends before the earlier one: inversions, counted in a Fenwick tree.
            tree = [0] * (len(lower) + 1)
            for seen, end in enumerate(ends):
                index, not_after = end + 1, 0
                while index:
                    not_after += tree[index]
                    index -= index & -index
                total += seen - not_after
                index = end + 1
                while index < len(tree):
                    tree[index] += 1
                    index += index & -index
        return total

    # Coordinates --------------------------------------------------------------------------------------------------

    def positions(self) -> Placement:
        """Straightens lines of boxes and moves them near their neighbours, as far as order and widths allow."""
        line_of = self._aligned()
        rooms = self._rooms()
        x = self._moved(line_of, rooms)
        left = min(x[item] - self._width(item) / 2 for row in self.rows for item in row)
        right = max(x[item] + self._width(item) / 2 for row in self.rows for item in row)
        tops, bottoms, y = [], [], 0.0
        for row in self.rows:
            height = max((self.sizes[item][1] for item in row if item < self.count), default=0.0)
            tops.append(y)
            bottoms.append(y + height)
            y += height + LAYER_GAP
        x = [value - left for value in x]
        centres = [(x[box], (tops[self.layer[box]] + bottoms[self.layer[box]]) / 2) for box in range(self.count)]
        return Placement(centres, self._lines(x, centres, tops, bottoms), right - left, y - LAYER_GAP)

    def _width(self, item: int) -> float:
        return self.sizes[item][0] if item < self.count else 2.0

    def _rooms(self) -> list[float]:
        """Where each item would be if its layer were packed from the left."""
        rooms = [0.0] * len(self.above)
        for row in self.rows:
            for before, item in itertools.pairwise(row):
                rooms[item] = rooms[before] + (self._width(before) + self._width(item)) / 2 + GAP
        return rooms

    def _aligned(self) -> list[int]:
        """The vertical line of each item: from one layer to the next it goes on along the strongest edge.

        Edges that are accepted into lines do not cross, so lines lie left or right of one another (Brandes and Köpf,
        2001), and there is an order of all lines from left to right.
        """
        line_of = list(range(len(self.above)))
        place_of = {item: index for row in self.rows for index, item in enumerate(row)}
        for row in self.rows[1:]:
            candidates = []
            for item in row:
                strong = sorted((edge for edge in self.above[item] if edge[1] >= 1), key=lambda e: place_of[e[0]])
                middle = (len(strong) - 1) / 2
                candidates += [(-pull, abs(k - middle), k, up, item) for k, (up, pull) in enumerate(strong)]
            used: set[int] = set()
            accepted: list[tuple[int, int]] = []  # places in the upper and in the lower layer, rising in both
            for _, _, _, upper, item in sorted(candidates):
                here = (place_of[upper], place_of[item])
                at = bisect.bisect(accepted, here)
                crosses = (at > 0 and accepted[at - 1][1] >= here[1]) or (
                    at < len(accepted) and (accepted[at][0] == here[0] or accepted[at][1] <= here[1])
                )
                if upper not in used and item not in used and not crosses:
                    accepted.insert(at, here)
                    used |= {upper, item}
                    line_of[item] = line_of[upper]
        return line_of

    def _moved(self, line_of: list[int], rooms: list[float]) -> list[float]:
        """Coordinates: each line goes where its neighbours draw it, then lines that are too close give way.

        Giving way to the right and giving way to the left both keep the distances, and so does the mean of the two.
        """
        gaps: dict[int, dict[int, float]] = {line: {} for line in set(line_of)}  # from a line to those on its right
        back: dict[int, dict[int, float]] = {line: {} for line in gaps}
        members: dict[int, list[int]] = {line: [] for line in gaps}
        for row in self.rows:
            for before, item in itertools.pairwise(row):
                left, right = line_of[before], line_of[item]
                gap = max(gaps[left].get(right, 0.0), rooms[item] - rooms[before])
                gaps[left][right] = back[right][left] = gap
            for item in row:
                members[line_of[item]].append(item)
        order = _rightwards(gaps, back)
        passing = {(line_of[item], number): item for number, row in enumerate(self.rows) for item in row}
        wishes = {line: self._wishes(line, items, line_of, rooms, passing) for line, items in members.items()}
        at = dict.fromkeys(order, 0.0)
        for _ in range(_SWEEPS):
            wish = {}
            for line, drawn in wishes.items():
                weight = sum(pull for _, _, pull in drawn)
                there = sum(pull * (at[other] + offset) for other, offset, pull in drawn)
                wish[line] = there / weight if weight else at[line]
            rightwards: dict[int, float] = {}
            for line in order:
                rightwards[line] = max([wish[line], *(rightwards[other] + gap for other, gap in back[line].items())])
            leftwards: dict[int, float] = {}
            for line in reversed(order):
                leftwards[line] = min([wish[line], *(leftwards[other] - gap for other, gap in gaps[line].items())])
            at = {line: (rightwards[line] + leftwards[line]) / 2 for line in order}
        # Once the main lines stand, what is beside them moves up to them.
        for _ in range(3):
            most: dict[int, float] = {}
            for line in reversed(order):
                drawn = wishes[line]
                beside = bool(drawn) and all(pull < 1 for _, _, pull in drawn)
                most[line] = min([most[other] - gap for other, gap in gaps[line].items()], default=math.inf)
                most[line] = most[line] if beside else at[line]
            for line in order:
                drawn = wishes[line]
                if drawn and all(pull < 1 for _, _, pull in drawn):
                    wish_here = sum(at[other] + offset for other, offset, _ in drawn) / len(drawn)
                    least = max([at[other] + gap for other, gap in back[line].items()], default=-math.inf)
                    at[line] = max(least, min(wish_here, most[line]))
        return [at[line] for line in line_of]

    def _wishes(
        self,
        line: int,
        items: list[int],
        line_of: list[int],
        rooms: list[float],
        passing: dict[tuple[int, int], int],
    ) -> list[tuple[int, float, float]]:
        """What draws a line: another line, how far from it, and how strongly."""
        found = []
        for item in items:
            for neighbour, pull in itertools.chain(self.above[item], self.below[item]):
                other = line_of[neighbour]
                if other == line or (pull < 1 and len(items) > 1):
                    continue
                # What stands beside a line wants to stand next to it in its own layer, not below or above it.
                near = passing.get((other, self.layer[item])) if pull < 1 else None
                found.append((other, 0.0 if near is None else rooms[item] - rooms[near], pull))
        return found

    def _lines(
        self, x: list[float], centres: list[Point], tops: list[float], bottoms: list[float]
    ) -> list[list[Point]]:
        ports = self._ports(x)
        lines: list[list[Point]] = [[] for _ in self.chains]
        drawn: dict[int, int] = {}  # how far the trunk of a box goes already
        for number in sorted(range(len(self.chains)), key=lambda number: len(self.chains[number])):
            chain = self.chains[number]
            source, target = chain[0], chain[-1]
            begin = drawn.get(source, 0)
            drawn[source] = len(chain) - 2
            if begin:
                line = [(x[chain[begin]], bottoms[self.layer[chain[begin]]])]
            else:
                line = [(x[source], centres[source][1] + self.sizes[source][1] / 2)]
            for item in chain[begin + 1 : -1]:
                line += [(x[item], tops[self.layer[item]]), (x[item], bottoms[self.layer[item]])]
            line.append((ports[number], centres[target][1] - self.sizes[target][1] / 2))
            lines[number] = line
        return lines

    def _ports(self, x: list[float]) -> list[float]:
        """Where each edge enters its box: side by side, in the order in which they come."""
        entering: dict[int, list[int]] = {}
        for number, chain in enumerate(self.chains):
            entering.setdefault(chain[-1], []).append(number)
        ports = [0.0] * len(self.chains)
        for target, numbers in entering.items():
            numbers.sort(key=lambda number: x[self.chains[number][-2]])
            # An edge from straight above enters in the middle, the others on the two sides of it.
            middle = (len(numbers) - 1) / 2
            straight = [k for k, n in enumerate(numbers) if abs(x[self.chains[n][-2]] - x[target]) < 1]
            if len(straight) == 1:
                middle = straight[0]
            step = min(16.0, self.sizes[target][0] * 0.4 / max(middle, len(numbers) - 1 - middle, 1))
            for index, number in enumerate(numbers):
                ports[number] = x[target] + (index - middle) * step
        return ports
