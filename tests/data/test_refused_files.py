"""Files that are refused: in one line, and closed."""

from pathlib import Path

import av
import pytest
from PIL import Image

from svfr.data.video import ReadOptions, VideoError, probe, read_frames
from tests.assets import FIELD, needs_field
from tests.data.video_files import make_clip, picture

OPEN = Path("/proc/self/fd")  # a link for each open file


@needs_field
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "truncated"),
        ("fuzz/eps_named_png_runs_ghostscript.png", "not a readable image: none of PNG"),
        ("fuzz/bomb_png_13300x13300_12GB.png", "max_pixels=176890000"),
        ("fuzz/bomb_gif_8000x8000_9GB.gif", "max_pixels=64000000"),
        ("fuzz/gif_truncated_4_of_10_frames_done.gif", "truncated"),
        ("fuzz/image_TypeError_probe_a_tif_968.tif", "not a readable image"),
        ("fuzz/ffconcat_named_mp4_reads_neighbour_victim.mp4.mp4", "not a video of a format that is read"),
        ("fuzz/prep_stops_cannot_allocate_memory.mp4", "Cannot allocate memory"),
    ],
)
def test_hostile_files_are_one_line(name: str, reason: str) -> None:
    with pytest.raises(VideoError, match=reason) as caught:
        list(read_frames(FIELD / name))
    assert str(caught.value).startswith(f"{FIELD / name}: ")
    assert "\n" not in str(caught.value)


def test_too_many_pixels_name_the_setting_that_allows_them(tmp_path: Path) -> None:
    Image.new("1", (32767, 32767)).save(tmp_path / "bomb.png")
    with pytest.raises(VideoError, match="max_pixels=1073676289 would"):
        probe(tmp_path / "bomb.png")
    Image.fromarray(picture(0)).save(tmp_path / "in.png")
    make_clip(tmp_path / "in.mp4")
    for name in ("in.png", "in.mp4"):
        with pytest.raises(VideoError, match="max_pixels=3072 would"):
            list(read_frames(tmp_path / name, ReadOptions(max_pixels=3071)))
        assert list(read_frames(tmp_path / name, ReadOptions(max_pixels=3072)))


@pytest.mark.skipif(not OPEN.is_dir(), reason="open files are counted on Linux")
def test_files_that_are_refused_are_closed(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "in.png")
    make_clip(tmp_path / "in.mp4")
    make_clip(tmp_path / "whole.mp4", audio="aac")
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(tmp_path / "sound.mp4"), "w") as output:
        track = output.add_stream_from_template(whole.streams.audio[0])
        for packet in whole.demux(audio=0):
            if packet.size:
                packet.stream = track
                output.mux(packet)
    before = len(list(OPEN.iterdir()))
    for name, most in (("in.png", 3071), ("in.mp4", 3071), ("sound.mp4", 3072)):
        with pytest.raises(VideoError) as refused:  # whose trace holds all that was opened
            list(read_frames(tmp_path / name, ReadOptions(max_pixels=most)))
        assert len(list(OPEN.iterdir())) == before, refused
