"""Step 6: find out which clips show the same person, and make splits that share none."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.records import TRACKS, Record, load_arrays, read_step
from data_prep.runner import Step
from data_prep.settings import DataPrepConfig
from svfr import note
from svfr.inference.workers import Workers

BLOCK = 4096  # embeddings compared at a time

Pairs = np.ndarray  # (n, 2) int, indices of two items that belong together


def run(settings: DataPrepConfig, workers: Workers) -> list[Record]:
    """Write steps/identities.jsonl, the clips with `identity` (0, 1, 2, ...) and `split`.

    Clips are of one person if their embeddings are alike or their annotations name the same one. Without a recognition
    network, the clips of a file that no annotation tells apart count as one person. All clips of a file are in the same
    split, too, and so is everybody in it.
    """
    output = Path(settings.output)
    clips = read_step(output, "landmarks")
    named = equal_pairs(clip["person"] for clip in clips)
    if settings.recognizer == "none":
        alike = equal_pairs(None if clip["person"] else clip["source"] for clip in clips)
    else:
        embeddings = np.stack([load_arrays(output, TRACKS, clip["id"])["embedding"] for clip in clips])
        alike = alike_pairs(embeddings, settings.identity.threshold)
    identities = number_groups(len(clips), named, alike)

    groups = number_groups(len(clips), equal_pairs(identities), equal_pairs(clip["source"] for clip in clips))
    shares = {"test": settings.identity.test, "val": settings.identity.val}
    splits = assign_splits(groups, shares, "train", settings.seed)
    for split in [split for split, share in shares.items() if share > 0 and split not in splits]:
        note(f"identities: split {split} is empty: the clips make only {len(set(groups))} group(s)")
    return Step("identities", settings, workers, {}).finish(
        {**clip, "identity": identity, "split": split}
        for clip, identity, split in zip(clips, identities, splits, strict=True)
    )


def equal_pairs(keys: Iterable[Hashable | None]) -> Pairs:
    """Each item with the first one that has the same key; None is nobody's key."""
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(key, item), item) for item, key in enumerate(keys) if key is not None]
    return np.array(pairs, np.int64).reshape(-1, 2)


def alike_pairs(embeddings: np.ndarray, threshold: float) -> Pairs:
    """Pairs that join all items whose embeddings have a cosine of at least `threshold`.

    The embeddings are (n, d) float32 of unit length; rows of zeros are like nobody.
    """
    count = len(embeddings)
    pairs = np.zeros((0, 2), np.int64)
    for low in range(0, count, BLOCK):
        found = [pairs]
        for high in range(low, count, BLOCK):
            alike = embeddings[low : low + BLOCK] @ embeddings[high : high + BLOCK].T >= threshold
            found.append(np.argwhere(np.triu(alike, 1) if low == high else alike) + np.array([low, high]))
        pairs = equal_pairs(_components(count, np.concatenate(found)))  # as few as join the same items
    return pairs


def number_groups(count: int, *pairs: Pairs) -> list[int]:
    """The group of each of `count` items: 0, 1, 2, ... in the order of their first items.

    Single linkage: two clips of a person stay together if any chain of pairs joins them, so that splits leak nobody;
    that it may also join two people costs only a little balance.
    """
    numbers: dict[int, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in _components(count, np.concatenate(pairs))]


def _components(count: int, pairs: Pairs) -> list[int]:
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].tolist()


def assign_splits(groups: Sequence[int], shares: dict[str, float], rest: str, seed: int) -> list[str]:
    """A split for each item, the same for all items of a group.

    Groups are taken in an order that `seed` shuffles; a split takes the next ones until it has its share of the items,
    at least one group if the share is above 0 and there are more groups than splits. What is left is for `rest`.
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    wanted = {split: share for split, share in shares.items() if share > 0}
    if len(order) <= len(wanted):
        return [rest] * len(groups)
    of_group = dict.fromkeys(sizes, rest)
    for split, share in wanted.items():
        taken = 0
        while order and (taken == 0 or taken + sizes[order[0]] <= share * len(groups)):
            group = order.pop(0)
            of_group[group] = split
            taken += sizes[group]
    return [of_group[group] for group in groups]
