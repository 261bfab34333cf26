"""Files as the first steps read them: interlaced, too large, changed in between."""

from pathlib import Path
from typing import Any

import av
import pytest

from data_prep.cut import cut_file
from data_prep.ingest import ingest_file
from data_prep.records import Record, frames_of, walk
from data_prep.settings import CutConfig, DataPrepConfig, SourceConfig
from data_prep.write import refer_to_clips
from svfr.data.video import ReadOptions, VideoError, read_frames
from tests.data.test_odd_files import combed, combing


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An interlaced video."""
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=64, height=64, pix_fmt="yuv444p")
        for image in combed(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return tmp_path / "in.mkv"


def settings_for(source: Path, **others: Any) -> DataPrepConfig:
    return DataPrepConfig(SourceConfig(path=str(source.parent)), cut=CutConfig(min_frames=1), **others)


def ingest(source: Path, **others: Any) -> tuple[Record, DataPrepConfig]:
    settings = settings_for(source, **others)
    [record] = ingest_file({"path": str(source), "notes": [], "error": None}, settings)
    return record, settings


def test_interlaced_footage_is_made_whole(source: Path) -> None:
    whole = [frame.image for frame in read_frames(source, ReadOptions(deinterlace=True))]
    record, settings = ingest(source)
    [clip] = cut_file(record, settings)
    images = [image for image, _ in walk([clip], settings)]
    assert [image.tobytes() for image in images] == [image.tobytes() for image in whole]
    with pytest.raises(ValueError, match=r"in.mkv: interlaced, .* write.mode=clips"):
        refer_to_clips([clip], settings)
    as_it_is = [frame.image for frame in frames_of(*ingest(source, deinterlace="no"))]
    assert combing(images) < 0.3 * combing(as_it_is)


def test_a_file_that_grows_between_the_steps_is_said(source: Path) -> None:
    record, settings = ingest(source)
    source.write_bytes(source.read_bytes() + b"more")
    with pytest.raises(VideoError, match=r"in.mkv: \d+ bytes now, \d+ when it was looked into"):
        cut_file(record, settings)


def test_the_limit_of_pixels_is_a_setting(source: Path) -> None:
    with pytest.raises(VideoError, match="max_pixels=4096 would allow them"):
        ingest(source, max_pixels=4095)
    record, settings = ingest(source, max_pixels=4096)
    assert cut_file(record, settings)
