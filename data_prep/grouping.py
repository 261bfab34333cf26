"""Who is who in a collection of clips, and splits that share no person."""

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np

BLOCK = 4096  # embeddings compared at a time


class Groups:
    """Disjoint sets of the numbers 0..n-1 (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, item: int) -> int:
        """The least number of an item's set."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        """Make one set of two."""
        low, high = sorted((self.find(a), self.find(b)))
        self._parent[high] = low

    def join_equal(self, keys: Sequence[Hashable | None]) -> None:
        """Join the items that have the same key; None is nobody's."""
        first: dict[Hashable, int] = {}
        for item, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, item), item)

    def labels(self) -> list[int]:
        """For each item the number of its set: 0, 1, 2, ... in the order of their first items."""
        numbers: dict[int, int] = {}
        return [numbers.setdefault(self.find(item), len(numbers)) for item in range(len(self._parent))]


def join_alike(groups: Groups, embeddings: np.ndarray, threshold: float) -> None:
    """Join all items whose embeddings have a cosine of at least `threshold`, directly or through others.

    Single linkage: two clips of a person stay together if any chain of likenesses joins them, so that splits leak
    nobody; that it may also join two people costs only a little balance.

    Args:
        groups: of n items.
        embeddings: (n, d) float32 of unit length; rows of zeros are like nobody.
        threshold: cosine.
    """
    for low in range(0, len(embeddings), BLOCK):
        for high in range(low, len(embeddings), BLOCK):
            alike = embeddings[low : low + BLOCK] @ embeddings[high : high + BLOCK].T >= threshold
            if low == high:
                alike = np.triu(alike, 1)
            for a, b in zip(*np.nonzero(alike), strict=True):
                groups.join(low + int(a), high + int(b))


def assign_splits(groups: Sequence[int], shares: dict[str, float], rest: str, seed: int) -> list[str]:
    """A split for each item, the same for all items of a group.

    Groups are taken in an order that `seed` shuffles; a split takes the next ones until it has its share of the items,
    at least one group if the share is above 0 and there are more groups than splits.

    Args:
        groups: number of each item's group.
        shares: of the items, by split.
        rest: split of what is left.
        seed: of the shuffle.
    """
    sizes: dict[int, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    wanted = {split: share for split, share in shares.items() if share > 0}
    of_group = dict.fromkeys(sizes, rest)
    if len(order) <= len(wanted):
        return [rest] * len(groups)
    for split, share in wanted.items():
        taken = 0
        while order and (taken == 0 or taken + sizes[order[0]] <= share * len(groups)):
            group = order.pop(0)
            of_group[group] = split
            taken += sizes[group]
    return [of_group[group] for group in groups]
