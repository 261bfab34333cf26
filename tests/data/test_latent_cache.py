"""Latents on disk are those of the frames, encoded once."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svfr.config import ConfigError
from svfr.data.clip_sources import DataError
from svfr.data.dataset import Sample, collate
from svfr.data.latent_cache import LatentCache, fingerprint
from tests import runs as training
from tests.data.test_dataset import SIZE, MadeClips, dataset


class CountedEncoder:
    """Latents that tell the frames apart, and how many frames were encoded."""

    def __init__(self) -> None:
        self.frames = 0

    def __call__(self, frames: Tensor) -> Tensor:
        self.frames += len(frames)
        return nn.functional.avg_pool2d(frames, 8) * 3.14159


def cache(folder: Path, encoder: CountedEncoder, owner: str = "vae") -> LatentCache:
    result = LatentCache(folder, MadeClips(), encoder, owner, SIZE)
    encoder.frames = 0
    return result


def batch(**settings: Any) -> Sample:
    samples = dataset(reference_dropout=0, **settings)
    return collate([samples[(0, index)] for index in range(3)])


def direct(made: Sample) -> tuple[Tensor, Tensor]:
    encode = CountedEncoder()
    clean = encode(made.gt.flatten(0, 1)).unflatten(0, made.gt.shape[:2])
    return clean.half().float(), encode(made.reference).half().float()


@pytest.mark.parametrize("flip", [False, True])
def test_frames_are_encoded_once(tmp_path: Path, flip: bool) -> None:
    made, encoder = batch(flip=flip), CountedEncoder()
    latents = cache(tmp_path, encoder)
    for expected_frames in (3 * (3 + 1), 0):
        encoder.frames = 0
        for got, wanted in zip(latents(made), direct(made), strict=True):
            assert torch.equal(got, wanted)
        assert encoder.frames == expected_frames
    assert cache(tmp_path, encoder)(made)[0].equal(direct(made)[0])  # of another process
    assert encoder.frames == 0


def test_a_reference_that_was_a_frame_before_is_not_encoded(tmp_path: Path) -> None:
    made, encoder = batch(flip=False), CountedEncoder()
    latents = cache(tmp_path, encoder)
    latents(made)
    made.numbers[0, 0], made.gt[0, 0] = made.reference_number[0], made.reference[0]
    encoder.frames = 0
    assert torch.equal(latents(made)[0], direct(made)[0])
    assert encoder.frames == 0


def test_mirror_images_and_other_networks_have_their_own(tmp_path: Path) -> None:
    made, encoder = batch(flip=False), CountedEncoder()
    cache(tmp_path, encoder)(made)
    made.mirrored[:] = True
    made.gt, made.reference = made.gt.flip(-1), made.reference.flip(-1)
    got = cache(tmp_path, encoder)(made)
    assert encoder.frames == 12
    assert torch.equal(got[0], direct(made)[0])
    cache(tmp_path, encoder, "another")(made)
    assert encoder.frames == 12


def test_references_of_no_clip_are_not_kept_and_none_are_zeros(tmp_path: Path) -> None:
    made, encoder = batch(), CountedEncoder()
    made.reference_number[:] = -1
    made.has_reference[1] = False
    latents = cache(tmp_path, encoder)
    for frames in (3 * 3 + 2, 2):
        encoder.frames = 0
        references = latents(made)[1]
        assert encoder.frames == frames
    assert not references[1].any()
    assert torch.equal(references[[0, 2]], direct(made)[1][[0, 2]])


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_what_is_damaged_is_encoded_anew(tmp_path: Path, damage: str) -> None:
    made, encoder = batch(flip=False), CountedEncoder()
    latents = cache(tmp_path, encoder)
    latents(made)
    for path in latents.folder.iterdir():
        data = bytearray(path.read_bytes())
        if damage == "bit":
            data[-7] ^= 16
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"" if damage == "empty" else data)
    encoder.frames = 0
    for _ in range(2):
        assert torch.equal(latents(made)[0], direct(made)[0])
    assert 3 <= encoder.frames <= 12


def test_fingerprint_is_of_weights_and_their_type() -> None:
    torch.manual_seed(0)
    part = nn.Linear(3, 2)
    first = fingerprint(part)
    assert fingerprint(part) == first
    assert fingerprint(nn.Linear(3, 2)) != first
    assert fingerprint(part.bfloat16()) != first


def test_bad_settings_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.latent_cache=.*file.*cannot be written"):
        LatentCache(tmp_path / "file", MadeClips(), CountedEncoder(), "vae", SIZE)
    with pytest.raises(ConfigError, match=r"data\.latent_cache"):
        training.config(tmp_path, data__latent_cache=tmp_path)


def test_space_is_taken_by_what_is_stored_alone(tmp_path: Path) -> None:
    class LongClips(MadeClips):
        length = 1000

    latents = LatentCache(tmp_path, LongClips(), CountedEncoder(), "vae", SIZE)
    made = batch()
    made.numbers += 990
    latents(made)
    used = sum(os.stat(path).st_blocks * 512 for path in latents.folder.iterdir())
    assert used < 3 * 8 * 4096
    assert np.isfinite(latents(made)[0].numpy()).all()
