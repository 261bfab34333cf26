"""What is neither lost nor taken for something else in silence; frames that are sought by their numbers."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from svfr.data.video import ReadOptions, VideoError, VideoWriter, frames_at, is_media, probe, read_frames
from tests.data.video_files import NTSC, cut_without_encoding, frames_of, make_clip, picture


def notes_of(source: Path, format: str = "mp4") -> list[str]:
    """What a restoration without a face says."""
    info, notes = probe(source), list[str]()
    with VideoWriter(source.with_name(f"out.{format}"), source=info, format=format) as writer:
        for frame in read_frames(source, ReadOptions(), notes.append):
            writer.write(frame.image, frame.pts, frame.time_base)
    return [*info.notes, *notes, *writer.notes]


@pytest.mark.parametrize("name", ["a.mp4", "b.mkv", "cut.mp4", "c.ts", "d.avi", "e.gif", "frames"])
def test_frames_by_number_are_those_of_reading(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    if name == "cut.mp4":
        cut_without_encoding(make_clip(tmp_path / "whole.mp4"), source, 5 / NTSC)
    elif name == "e.gif":
        first, *others = (Image.fromarray(picture(4 * index)) for index in range(24))
        first.save(source, save_all=True, append_images=others, duration=40)
    elif name == "frames":
        source.mkdir()
        for index in range(24):
            Image.fromarray(picture(index)).save(source / f"{index}.png")
    else:
        make_clip(source, audio="mp2", codec="mpeg4" if name == "d.avi" else "libx264")
    read = frames_of(source)
    numbers = [5, 6, 7, 18, 17, 0, 5, len(read) - 1]
    np.testing.assert_array_equal(frames_at(source, numbers), [read[number].image for number in numbers])
    for beyond in ([len(read)], [0, 99]):
        with pytest.raises(VideoError, match=f"frame {beyond[-1]} is not there"):
            frames_at(source, beyond)


def test_frames_that_carry_what_pyav_does_not_know(tmp_path: Path) -> None:
    """A camera's motion JPEG with EXIF in each frame."""
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x010F] = "maker"
    for index in range(4):
        Image.fromarray(picture(index)).save(data, "JPEG", exif=exif)
    (tmp_path / "in.mjpeg").write_bytes(data.getvalue())
    assert len(frames_of(tmp_path / "in.mjpeg")) == 4


def test_what_is_dropped_of_hdr_is_said(tmp_path: Path) -> None:
    display = "mastering-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,500):cll=1000,400"
    make_clip(tmp_path / "in.mkv", pix_fmt="yuv420p10le", codec_options={"x264-params": display})
    assert notes_of(tmp_path / "in.mkv") == ["its HDR mastering data are dropped"]


def test_streams_and_sound_that_are_left_out_are_said(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        streams = [container.add_stream("libx264", rate=25, width=side, height=48) for side in (64, 32)]
        for stream in streams:
            for index in range(4):
                image = picture(index, stream.width, stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    assert notes_of(tmp_path / "in.mkv") == ["a further stream (video h264) is left out"]
    make_clip(tmp_path / "loud.mp4", audio="aac")
    assert notes_of(tmp_path / "loud.mp4", "png") == ["a folder of frames has no sound"]


def test_frames_that_are_lost_inside_are_said(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", codec_options={"g": "1"})
    with av.open(str(source)) as container, av.open(str(tmp_path / "hole.mkv"), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.dts is not None and not 8 <= number < 14:
                packet.stream = stream
                output.mux(packet)
    assert notes_of(source) == []
    [note] = notes_of(tmp_path / "hole.mkv")
    assert note.startswith("18 frames are there, its rate makes 24")


def test_sound_whose_times_fall_together_is_kept(tmp_path: Path) -> None:
    """A damaged unit of all times, 127 ns for 1 ms: several packets of sound at one time."""
    source = make_clip(tmp_path / "in.mkv", audio="libopus")
    data, unit = source.read_bytes(), b"\x2a\xd7\xb1\x83"
    place = data.index(unit) + len(unit)
    source.write_bytes(data[:place] + (127).to_bytes(3, "big") + data[place + 3 :])
    notes_of(source)


@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "a.mp4"])
def test_heic_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    assert is_media(tmp_path / name)
    with pytest.raises(VideoError, match="HEIC picture, which is not read: export it as JPEG or PNG"):
        probe(tmp_path / name)


def test_a_gif_that_seems_to_end_early_is_corrupt(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(np.roll(picture(0), 5 * index, axis=1)) for index in range(10))
    first.save(tmp_path / "in.gif", save_all=True, append_images=others, duration=80)
    data = (tmp_path / "in.gif").read_bytes()
    place = data.index(b"!\xf9\x04", len(data) // 2)
    (tmp_path / "in.gif").write_bytes(data[:place] + b";" + data[place:])
    with pytest.raises(VideoError, match=r"ends after [1-9] frames: truncated or corrupt"):
        frames_of(tmp_path / "in.gif")
