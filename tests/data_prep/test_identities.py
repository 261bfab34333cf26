import numpy as np
import pytest

from data_prep import identities
from data_prep.identities import alike_pairs, assign_splits, equal_pairs, number_groups


def people(count: int, clips: int, noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and who each is, shuffled."""
    rng = np.random.default_rng(0)
    who = rng.permutation(np.repeat(np.arange(count), clips))
    vectors = rng.standard_normal((count, 64))[who] + noise * rng.standard_normal((len(who), 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), who


def number_by_union_find(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """A second implementation: the number of each item's set, in the order of the sets' first items."""
    parent = list(range(count))

    def find(item: int) -> int:
        return item if parent[item] == item else find(parent[item])

    for one, other in pairs:
        low, high = sorted((find(one), find(other)))
        parent[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(find(item), len(numbers)) for item in range(count)]


def test_groups_and_their_numbers_are_those_of_union_find() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 30, 300):
        pairs = rng.integers(0, count, (count // 2, 2))
        expected = number_by_union_find(count, [(int(one), int(other)) for one, other in pairs])
        assert number_groups(count, pairs[:5], pairs[5:]) == expected


def test_people_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "BLOCK", 7)  # several blocks
    embeddings, who = people(6, 5)
    labels = np.array(number_groups(len(who), alike_pairs(embeddings, 0.5)))
    assert labels.max() == 5
    assert ((labels[:, None] == labels) == (who[:, None] == who)).all()


def test_chains_join() -> None:
    angles = np.radians([0, 40, 80, 180])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert number_groups(4, alike_pairs(embeddings, 0.7)) == [0, 0, 0, 1]


def test_nobody_is_like_nobody() -> None:
    assert number_groups(3, alike_pairs(np.zeros((3, 8), np.float32), 0.4)) == [0, 1, 2]


def test_equal_names_join_and_no_name_does_not() -> None:
    assert number_groups(5, equal_pairs(["b", None, "a", "b", None])) == [0, 1, 2, 0, 3]


def test_splits_have_their_shares_and_share_no_group() -> None:
    groups = np.repeat(np.arange(100), 3).tolist()
    splits = assign_splits(groups, {"test": 0.1, "val": 0.2}, "train", seed=0)
    assert {split: splits.count(split) for split in ("train", "val", "test")} == {"train": 210, "val": 60, "test": 30}
    assert len(set(zip(groups, splits, strict=True))) == 100
    assert assign_splits(groups, {"test": 0.1, "val": 0.2}, "train", seed=0) == splits
    assert assign_splits(groups, {"test": 0.1, "val": 0.2}, "train", seed=1) != splits


def test_small_collections() -> None:
    shares = {"test": 0.05, "val": 0.05}
    assert sorted(assign_splits([0, 1, 2, 3], shares, "train", 0)) == ["test", "train", "train", "val"]
    assert assign_splits([0, 0, 1], shares, "train", 0) == ["train"] * 3
    assert assign_splits([0, 1, 2, 3], {"test": 0.0, "val": 0.0}, "train", 0) == ["train"] * 4
