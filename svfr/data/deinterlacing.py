"""Interlaced video: fields of two times woven into one picture, as television and camcorders made it."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import av
from av.filter import Graph

from svfr.data.demuxing import open_video, video_stream
from svfr.data.errors import MAX_PIXELS, one_line_errors

LOOKED_AT = 60  # frames from the start
# Share of the judged frames that have to be combed where they are not flagged. Assumption: noise combs some.
COMBED = 0.5
VERDICT = "lavfi.idet.multiple.current_frame"


def deinterlaced(stream: av.VideoStream, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """A whole picture of each pair of fields, as many and of the same times as `frames`, by FFmpeg's bwdif."""
    times: list[tuple[int | None, int]] = []  # of the frames inside the filter, whose own unit is half as long

    def noted() -> Iterator[av.VideoFrame]:
        for frame in frames:
            times.append((frame.pts, frame.duration))
            yield frame

    for frame in _filtered(stream, "bwdif", "mode=send_frame:parity=auto:deint=all", noted()):
        frame.pts, frame.duration = times.pop(0)
        yield frame


def is_interlaced(path: Path, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether the first frames of a video are flagged so, or most of them look combed (FFmpeg's idet)."""
    with one_line_errors(path), open_video(path) as container:
        stream = video_stream(container, path, max_pixels)
        frames = list[av.VideoFrame]()
        with suppress(av.FFmpegError):  # of a damaged file, which reading tells
            frames.extend(islice(container.decode(stream), LOOKED_AT))
        if sum(frame.interlaced_frame for frame in frames) > len(frames) / 2:
            return True
        judged = [frame.metadata.get(VERDICT) for frame in _filtered(stream, "idet", "", iter(frames))]
        known = [verdict for verdict in judged if verdict != "undetermined"]
        return bool(known) and sum(verdict in ("tff", "bff") for verdict in known) > COMBED * len(known)


def _filtered(
    stream: av.VideoStream, name: str, options: str, frames: Iterator[av.VideoFrame]
) -> Iterator[av.VideoFrame]:
    graph = Graph()
    graph.link_nodes(graph.add_buffer(template=stream), graph.add(name, options), graph.add("buffersink")).configure()
    for frame in chain(frames, (None,)):
        graph.push(frame)
        with suppress(av.BlockingIOError, av.EOFError):
            while True:
                filtered = graph.pull()
                assert isinstance(filtered, av.VideoFrame)
                yield filtered
