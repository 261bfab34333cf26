"""What is written, or is not: no half files, the same bytes each time, no chatter."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from svfr.data.video import VideoError, VideoInfo, VideoWriter, probe, read_frames
from tests.data.video_files import copy_video, frames_of, make_clip, picture

ROOT = Path(__file__).resolve().parents[2]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for path, reason in {
        tmp_path / "file" / "out.mp4": "its folder does not exist",
        tmp_path / "none" / "out.mp4": "its folder does not exist",
        tmp_path / "folder.mp4": "there is a folder",
        Path("/proc/out.mp4"): "No such file|Permission|not permitted|does not exist",  # not even root may
        tmp_path / f"{'x' * 252}.mp4": "too long",
    }.items():
        with pytest.raises(VideoError, match=reason):
            VideoWriter(path, source=info)
    with pytest.raises(VideoError, match="there is a file"):
        VideoWriter(tmp_path / "file", source=info, format="png")


@pytest.mark.parametrize("format", ["mp4", "png"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_interrupted_leaves_what_was_there(tmp_path: Path, format: str, interrupt: type[BaseException]) -> None:
    info = probe(make_clip(tmp_path / "in.mp4", audio="aac"))
    target = tmp_path / "results" / ("out.mp4" if format == "mp4" else "out")
    target.parent.mkdir()
    for round_ in range(2):
        with pytest.raises(interrupt):
            copy_until(15, interrupt, info, target, format)
        assert [file.name for file in target.parent.iterdir()] == [target.name] * round_
        copy_video(info.path, target, format=format)  # now something is there: it has to survive the second round
    assert len(frames_of(target)) == 24


def copy_until(last: int, error: type[BaseException], info: VideoInfo, target: Path, format: str) -> None:
    with VideoWriter(target, source=info, format=format) as writer:
        for frame in read_frames(info.path):
            writer.write(frame.image, frame.pts, frame.time_base)
            if frame.index == last:
                raise error


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    with pytest.raises(VideoError, match="no frame"), VideoWriter(tmp_path / "out.mp4", source=info):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    info: VideoInfo = probe(make_clip(tmp_path / "in.mp4"))
    tick = Fraction(1, 30)
    with VideoWriter(tmp_path / "out.mp4", source=info) as writer:
        writer.write(picture(0), 0, tick)
        for image in (picture(0)[:-1], picture(0)[..., 0], picture(0).astype(np.float32)):
            with pytest.raises(ValueError, match="it has to be uint8"):
                writer.write(image, 1, tick)
        with pytest.raises(ValueError, match="not later"):
            writer.write(picture(0), 0, tick)
    with pytest.raises(ValueError, match="crf is 99"):
        VideoWriter(tmp_path / "out.mp4", source=info, crf=99)
    with pytest.raises(ValueError, match='format is "webm"'):
        VideoWriter(tmp_path / "out.mp4", source=info, format="webm")


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    # With x264's macroblock tree, one in 25 files was another one on a processor with AVX-512.
    source = make_clip(tmp_path / "in.mp4", noise=True, audio="aac", pts=list(range(12)))
    files = {copy_video(source, tmp_path / "out.mp4")[1].read_bytes() for _ in range(80)}
    assert len(files) == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
from svfr.data.video import VideoError, VideoWriter, probe, read_frames
source, folder, format = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
info, frames = probe(source), list(read_frames(source))
for limit in map(int, sys.argv[4:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        target = folder / ("out.mp4" if format == "mp4" else "out")
        with VideoWriter(target, source=info, format=format) as writer:
            for frame in frames:
                writer.write(frame.image, frame.pts, frame.time_base)
    except VideoError as err:
        assert "out" in str(err) and "File too large" in str(err), err
        assert not list(folder.iterdir()), list(folder.iterdir())
    else:
        sys.exit(f"no error at {limit} bytes")
"""


@pytest.mark.parametrize("format", ["mp4", "png"])
def test_full_disk_is_an_error_wherever_it_strikes(tmp_path: Path, format: str) -> None:
    """A limit of the file's size stands in for the disk's: the same failing write, EFBIG for ENOSPC."""
    source = make_clip(tmp_path / "in.mp4", noise=True, audio="aac", pts=list(range(12)))
    _, written = copy_video(source, tmp_path / "whole.mp4")
    size = written.stat().st_size
    limits = [0, 100, 5000, size // 2, size - 3000, size - 300, size - 1] if format == "mp4" else [0, 100, 3000]
    (tmp_path / "full").mkdir()
    command = [sys.executable, "-c", FULL_DISK, str(source), str(tmp_path / "full"), format, *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # and no codec's chatter


def test_no_chatter(tmp_path: Path) -> None:
    """Codecs write to stderr behind Python's back, into progress bars."""
    source = make_clip(tmp_path / "in.mp4", audio="aac", noise=True)
    code = (
        "import sys; from svfr.data.video import *\n"
        "with VideoWriter(sys.argv[2], source=probe(sys.argv[1])) as writer:\n"
        "    for frame in read_frames(sys.argv[1]): writer.write(frame.image, frame.pts, frame.time_base)"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "out.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
