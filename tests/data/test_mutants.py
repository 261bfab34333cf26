"""Damaged files of many containers: each is restored or refused in one line, whatever the damage."""

import random
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from svfr.data.decoding import is_interlaced
from svfr.data.video import VideoError, VideoWriter, frames_at, probe, read_frames
from tests.data.video_files import make_clip, picture

MUTANTS = 12  # of each file
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Flip bits, overwrite a number of the head, cut out, put in, double, or cut off."""
    place, length = draw.randrange(len(data)), draw.choice([1, 4, 16, 200, 3000])
    kind = draw.choice(["flip", "number", "number", "delete", "insert", "double", "truncate"])
    if kind == "flip":
        changed = bytearray(data)
        for _ in range(draw.choice([1, 5, 50])):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)
    if kind == "number":
        place = draw.randrange(min(len(data), 1500))
        return data[:place] + draw.choice(NUMBERS).to_bytes(4, draw.choice(["big", "little"])) + data[place + 4 :]
    if kind == "delete":
        return data[:place] + data[place + length :]
    if kind == "insert":
        return data[:place] + draw.randbytes(length) + data[place:]
    if kind == "double":
        return data[: place + length] + data[place:]
    return data[: max(1, place)]


@pytest.mark.parametrize(
    ("name", "codec", "audio"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "libx264", "pcm_s16le"),
        ("a.mkv", "libx264", "aac"),
        ("a.webm", "libvpx", "libopus"),
        ("a.avi", "mpeg4", "mp2"),
        ("a.ts", "libx264", "mp2"),
        ("a.flv", "flv", "aac"),
        ("a.gif", "", ""),
    ],
)
def test_a_damaged_file_is_restored_or_refused_in_one_line(tmp_path: Path, name: str, codec: str, audio: str) -> None:
    whole = tmp_path / name
    if codec:
        make_clip(whole, codec=codec, audio=audio)
    else:
        first, *others = (Image.fromarray(picture(5 * index)) for index in range(10))
        first.save(whole, save_all=True, append_images=others, duration=80)
    restored, reasons = 0, list[str]()
    for number in range(MUTANTS):
        source = tmp_path / f"{number}{whole.suffix}"
        source.write_bytes(mutate(whole.read_bytes(), random.Random(f"{name}-{number}")))
        try:
            info = probe(source)
            if info.kind == "video":
                is_interlaced(source)
            with suppress(VideoError):
                frames_at(source, [1, 5])  # as training reads it
            with VideoWriter(tmp_path / f"{number}.out.mp4", source=info) as writer:
                for frame in read_frames(source):
                    writer.write(frame.image, frame.pts, frame.time_base)
            probe(writer.path)
            restored += 1
        except VideoError as error:
            reasons.append(str(error))
    assert not [file for file in tmp_path.iterdir() if "partial" in file.name]
    assert not any("\n" in reason for reason in reasons)
    assert 0 < restored < MUTANTS  # or the damage is none, or nothing else
