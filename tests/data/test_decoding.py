"""Files that cannot be read to their end: the good frames, then one clear line."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageFile

from svfr.data.video import Frame, VideoError, probe, read_frames
from tests.data.video_files import frames_of, make_clip


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello\n" * 500)
    (tmp_path / "text.txt").write_text("hello\n" * 500)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    (tmp_path / "nothing").mkdir()
    (tmp_path / "sizes").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "sizes" / "1.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "sizes" / "2.png")
    with av.open(str(tmp_path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        stream.layout = "mono"
        block = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        block.sample_rate = 48000
        container.mux([*stream.encode(block), *stream.encode(None)])
    for name, reason in {
        "missing.mp4": "No such file",
        "empty.mp4": "empty",
        "text.mp4": "no video at all",
        "text.txt": "not a video of a format that is read",
        "bad.png": "not a readable image",
        "cut.jpg": "not a readable image",
        "nothing": "without images",
        "sizes": "differ in size",
        "audio.mp4": "audio only",
        "text.mp4/x.mp4": "Not a directory",
    }.items():
        with pytest.raises(VideoError, match=reason) as caught:
            list(read_frames(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("audio", [None, "mp2"])
def test_cut_off_file_gives_its_good_frames_then_an_error(tmp_path: Path, suffix: str, audio: str | None) -> None:
    path = make_clip(
        tmp_path / f"in{suffix}",
        audio=audio,
        noise=True,
        codec="mpeg4" if suffix == ".avi" else "libx264",
        options={"movflags": "+faststart"} if suffix == ".mp4" else None,
    )
    whole = frames_of(path)
    assert len(whole) == 24
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    good, message = read_until_error(path)
    assert message == f"{path}: ends after {len(good)} of 24 frames: truncated or corrupt"
    assert 4 <= len(good) < 22
    assert all(np.array_equal(a.image, b.image) for a, b in zip(good, whole, strict=False))


def test_one_half_frame_at_the_end_is_an_error(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", noise=True, options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[:-50])
    good, message = read_until_error(path)
    assert (len(good), message) == (23, f"{path}: ends after 23 of 24 frames: truncated or corrupt")


def read_until_error(path: Path) -> tuple[list[Frame], str]:
    good: list[Frame] = []
    try:
        for frame in read_frames(path):
            good.append(frame)
    except VideoError as err:
        return good, str(err)
    raise AssertionError(f"{len(good)} frames and no error")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_in_the_middle_is_an_error(tmp_path: Path, codec: str) -> None:
    path = make_clip(tmp_path / "in.mp4", noise=True, codec=codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="of 24 frames: truncated or corrupt"):
        list(read_frames(path))


def turned_png(path: Path, late: bool) -> None:
    """A PNG of 6 x 4 px that is to be shown turned by a quarter; its EXIF before or after the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    rest = content[:start] + content[end:]
    place = rest.index(b"IEND") - 4 if late else rest.index(b"IDAT") - 4
    path.write_bytes(rest[:place] + content[start:end] + rest[place:])


def test_looking_at_a_folder_of_frames_decodes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    load = ImageFile.ImageFile.load

    def counted(image: ImageFile.ImageFile) -> Any:
        decoded.extend([str(image.filename)] if image.tile else [])
        return load(image)

    for index in range(5):
        Image.fromarray(np.full((4, 6, 3), 40 * index, np.uint8)).save(tmp_path / f"{index}.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    assert (probe(tmp_path).width, probe(tmp_path).height) == (6, 4)
    assert decoded == []
    assert len(list(read_frames(tmp_path))) == 5
    assert len(decoded) == 5, "each once"


@pytest.mark.parametrize("late", [False, True])
def test_png_files_that_are_to_be_turned(tmp_path: Path, late: bool) -> None:
    turned_png(tmp_path / "0.png", late)
    assert (probe(tmp_path).width, probe(tmp_path).height) == (4, 6)
    [frame] = read_frames(tmp_path)
    assert frame.image.shape == (6, 4, 3)
