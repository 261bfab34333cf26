import numpy as np

from data_prep import grouping as identities
from data_prep.grouping import Groups, assign_splits, join_alike


def people(count: int, clips: int, noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and who each is, shuffled."""
    rng = np.random.default_rng(0)
    who = rng.permutation(np.repeat(np.arange(count), clips))
    vectors = rng.standard_normal((count, 64))[who] + noise * rng.standard_normal((len(who), 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), who


def test_people_are_told_apart(monkeypatch) -> None:
    monkeypatch.setattr(identities, "BLOCK", 7)  # several blocks
    embeddings, who = people(6, 5)
    groups = Groups(len(who))
    join_alike(groups, embeddings, 0.5)
    labels = np.array(groups.labels())
    assert labels.max() == 5
    assert ((labels[:, None] == labels) == (who[:, None] == who)).all()


def test_chains_join() -> None:
    angles = np.radians([0, 40, 80, 180])
    groups = Groups(4)
    join_alike(groups, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), 0.7)
    assert groups.labels() == [0, 0, 0, 1]


def test_nobody_is_like_nobody() -> None:
    groups = Groups(3)
    join_alike(groups, np.zeros((3, 8), np.float32), 0.4)
    assert groups.labels() == [0, 1, 2]


def test_equal_names_join_and_no_name_does_not() -> None:
    groups = Groups(5)
    groups.join_equal(["b", None, "a", "b", None])
    assert groups.labels() == [0, 1, 2, 0, 3]


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
