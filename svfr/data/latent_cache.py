"""VAE latents of clean frames on disk: what is the same in every epoch is encoded once."""

import hashlib
import math
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from svfr.data.clip_sources import ClipSource, DataError
from svfr.data.dataset import Sample

STORED = np.dtype(
    "<f2"
)  # half the space; latents lose one part in 2048, whether they are read or have just been encoded
CHECKSUM = 4  # bytes, CRC-32


class Place(NamedTuple):
    """Where a frame is from."""

    clip: int
    number: int
    mirrored: bool


class LatentCache:
    """Latents by frame, one file for each clip and its mirror image; processes and machines may share a folder.

    Each frame is stored with its checksum, so that what a killed process or a crashed machine left half-written is
    encoded anew. Clips are told apart by their names: after changing videos in place, remove the folder.

    Args:
        folder: of the cache; made if it is not there.
        source: of the clips.
        encode: frames (n, 3, s, s) in [-1, 1] -> latents (n, c, h, w) float32, not scaled.
        owner: `fingerprint` of the VAE. Latents of others are not read.
        size: side of the frames [px].

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, source: ClipSource, encode: Callable[[Tensor], Tensor], owner: str, size: int
    ) -> None:
        self.folder = folder / f"{owner}_{size}px"
        self._source, self._encode = source, encode
        self._shape = tuple(encode(torch.zeros(1, 3, size, size)).shape[1:])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise DataError(f"data.latent_cache={folder}: cannot be written, {error.strerror}") from error

    def __call__(self, batch: Sample) -> tuple[Tensor, Tensor]:
        """Latents of a batch's clean frames (b, f, c, h, w) and of its references (b, c, h, w), zeros without one.

        Float32 on the CPU, rounded to float16.
        """
        clips, mirrored = batch.clip.tolist(), batch.mirrored.tolist()
        where: list[Place | None] = [
            Place(clip, number, flipped)
            for clip, flipped, numbers in zip(clips, mirrored, batch.numbers.tolist(), strict=True)
            for number in numbers
        ]
        clean = self._latents(batch.gt.flatten(0, 1), where).unflatten(0, batch.gt.shape[:2])
        references = clean.new_zeros(clean.shape[:1] + clean.shape[2:])
        there = batch.has_reference.nonzero().flatten().tolist()
        if there:
            numbers = batch.reference_number.tolist()
            where = [Place(clips[i], numbers[i], mirrored[i]) if numbers[i] >= 0 else None for i in there]
            references[there] = self._latents(batch.reference[there], where)
        return clean, references

    def _latents(self, frames: Tensor, places: Sequence[Place | None]) -> Tensor:
        """(n, 3, s, s) -> (n, c, h, w); a frame of no clip is not kept."""
        found = [None if place is None else self._read(place) for place in places]
        missing = [index for index, latents in enumerate(found) if latents is None]
        if missing:
            for index, latents in zip(missing, self._encode(frames[missing]).cpu().numpy().astype(STORED), strict=True):
                found[index] = latents
                if (place := places[index]) is not None:
                    self._write(place, latents)
        return torch.from_numpy(np.stack([latents for latents in found if latents is not None])).float()

    def _path(self, place: Place) -> Path:
        digest = hashlib.sha256(self._source.name(place.clip).encode()).hexdigest()[:24]
        return self.folder / f"{digest}{'_mirrored' if place.mirrored else ''}.latents"

    def _read(self, place: Place) -> np.ndarray | None:
        size = math.prod(self._shape) * STORED.itemsize
        try:
            with self._path(place).open("rb") as file:
                file.seek(place.number * (size + CHECKSUM))
                latents, checksum = file.read(size), file.read(CHECKSUM)
        except FileNotFoundError:
            return None
        if _checksum(latents) != checksum:
            return None
        return np.frombuffer(latents, dtype=STORED).reshape(self._shape)

    def _write(self, place: Place, latents: np.ndarray) -> None:
        data = latents.tobytes()
        record = data + _checksum(data)
        file = os.open(self._path(place), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(file, record, place.number * len(record))
        finally:
            os.close(file)


def fingerprint(part: nn.Module) -> str:
    """Digest of a network's weights and their type."""
    digest = hashlib.sha256()
    for name, tensor in sorted(part.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM, "little")
