"""References as they will be: degraded, or of another clip of the same person."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svfr.data.clip_sources import ManifestClips
from svfr.data.manifest import read_manifest, write_manifest
from tests.data.test_dataset import dataset, face, manifest, shades  # noqa: F401  # fixtures, two of which `manifest` needs

SHARES = (0.0, 0.5, 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_the_references_is_degraded_and_the_id_network_sees_the_same(share: float) -> None:
    plain, other = (dataset(reference_dropout=0, reference_degraded=value, flip=False) for value in (0.0, share))
    degraded = []
    for index in range(10):
        a, b = plain[0, index], other[0, index]
        degraded.append(not torch.equal(a.reference, b.reference))
        assert torch.equal(a.id_face, b.id_face) != degraded[-1]
        assert torch.equal(a.lq, b.lq)
        assert (a.reference.float() - b.reference.float()).abs().mean() < 60  # still the same picture
    assert sum(degraded) / 10 == pytest.approx(share, abs=0.4 if share == 0.5 else 0)


@pytest.fixture
def people(manifest: Path) -> Path:  # noqa: F811  # as fixtures are asked for
    """Two clips of one person, "two" bright below, and one of another."""
    one, two, _ = read_manifest(manifest)
    of_one = (
        replace(one, identity=4),
        replace(one, identity=4, id="late", start_frame=4, num_frames=4, landmarks="l.npz"),
    )
    np.savez(manifest.parent / "l.npz", points=np.stack([face()] * 4), score=np.ones(4))
    write_manifest(manifest.parent / "people.jsonl", [*of_one, replace(two, identity=5), replace(two, id="nobody")])
    return manifest.parent / "people.jsonl"


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_the_references_is_of_another_clip_of_the_same_identity(people: Path, share: float) -> None:
    source, seen = ManifestClips(people, "train", other_clip=share), []
    for seed in range(20):
        excerpt = source.read(1, 4, 24, np.random.default_rng(seed), True)
        assert excerpt.reference is not None
        assert excerpt.reference_landmarks is not None
        seen.append(shades(excerpt.reference[None])[0])
        assert seen[-1] in range(2, 10)
    outside = sum(number not in range(4, 8) for number in seen) / 20  # the clip's own frames are 4 to 7
    assert (outside == 0) == (share == 0)
    if share:
        assert outside == pytest.approx(share / 2, abs=0.3)


def test_without_another_clip_the_reference_is_of_the_clip_itself(people: Path) -> None:
    always, never = (ManifestClips(people, "train", other_clip=share) for share in (1.0, 0.0))
    for index in (2, 3):  # a person with one clip, and a clip of nobody known
        one, other = (source.read(index, 3, 24, np.random.default_rng(0), True) for source in (always, never))
        assert one.reference is not None
        assert other.reference is not None
        np.testing.assert_array_equal(one.reference, other.reference)
    (people.parent / "l.npz").write_bytes(b"")
    broken = always.read(0, 3, 24, np.random.default_rng(0), True)
    assert broken.reference is not None
