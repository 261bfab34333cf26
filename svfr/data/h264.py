"""H.264: a file of it with the sound of its source, or a segment of one; compression of a clip in memory."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from svfr.data.decoding import VideoInfo
from svfr.data.demuxing import VideoFile
from svfr.data.images import ANIMATION_UNIT
from svfr.data.other_streams import OtherStreams
from svfr.data.pixels import BT601, EXACT, MATRICES, to_yuv, usual_matrix

SEGMENT = "nut"  # keeps packets and times as they are
USUAL_RATE = 25  # [1/s]
# What x264's macroblock tree does to the CRF. Measured on a talking head, 128 px, CRF 18 to 43: the same PSNR within
# 0.2 dB.
TREE_SHIFT = 2.0
TREE_EXPONENT = 0.4  # the quantizer's scale goes with a frame's duration to the power -(1 - qcompress)
UNKNOWN = 2  # FFmpeg's number of a colour space, primaries or transfer curve that is not said


class H264File:
    """A file of encoded frames of `shape` (h, w) and what goes along with those of the source, interleaved by time.

    `container` is one of `CONTAINERS`, or `SEGMENT`, which holds a part of the frames alone. The source gives sound,
    time base, pixel aspect and colour tags; a deep one gives 10 bits. `show` is told what is changed or left out.
    """

    def __init__(
        self,
        file: Path,
        container: str,
        source: VideoInfo,
        shape: tuple[int, int],
        x264: Mapping[str, str],
        show: Callable[[str], None],
    ) -> None:
        self._input = VideoFile(source.path, source.width * source.height) if source.kind == "video" else None
        template = self._input.stream if self._input else None
        unit = {"video": template and template.time_base, "animation": ANIMATION_UNIT}.get(source.kind)
        self._time_base = unit or 1 / source.fps
        self._step = max(1, round(1 / (source.fps * self._time_base)))
        options = {}
        if container not in ("matroska", SEGMENT):
            # Units of the source, for the frames and for the start of the tracks, or times would be rounded.
            units = self._time_base.denominator
            tracks = self._input.audio if self._input else []
            common = math.lcm(units, 1000, *(t.time_base.denominator for t in tracks if t.time_base))
            options = {
                "movflags": "+faststart",  # the index first, so that a browser can start at once
                "video_track_timescale": str(units),
                "movie_timescale": str(common if common < 2**31 else max(units, 1000)),
            }
        self._output = av.open(f"file:{file}", "w", format=container, options=options)
        height, width = shape
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))  # players take 4:2:0, which has even sides
        if height % 2 or width % 2:
            show(f"{width}x{height} is padded to even sides, by one px")
        self._stream = self._output.add_stream("libx264", rate=source.fps)
        encoder = self._stream.codec_context
        encoder.width, encoder.height = width + width % 2, height + height % 2
        encoder.pix_fmt = "yuv420p" if source.bits <= 8 else "yuv420p10le"
        encoder.time_base = self._time_base
        # veryfast: some 200 frames/s of 512x512 on two cores; slower ones mostly save space. bf=0: MP4 stores steps of
        # decoding times, which B-frames shift; with a variable rate the length would come out wrong.
        # mbtree=0: on processors with AVX-512, the macroblock tree gives other files from run to run; without it they
        # are larger, and better at the same CRF (three clips: by 3 to 38%, 0.0 to 1.2 dB).
        encoder.options = {"preset": "veryfast", "bf": "0", "mbtree": "0", **x264}
        self._matrix = _copy_look(template, encoder, source, height)
        self._scaler = VideoReformatter()
        self._held: av.VideoFrame | av.Packet | None = None  # until the next frame's time says its duration
        self._held_pts = 0
        self._durations: dict[int | None, int] = {}  # by pts, of the frames inside the encoder

        self._others: OtherStreams | None = None
        if self._input and container != SEGMENT:
            self._others = OtherStreams(self._input, self._output, container, show)
        self._output.start_encoding()

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Append a frame (h, w, 3) at a time [s], and the sound up to it."""
        image = np.pad(image, self._padding, mode="edge")
        frame = to_yuv(image, self._stream.pix_fmt or "", self._matrix, self._scaler, threads=0)
        frame.pts, frame.time_base = round(time / self._time_base), self._time_base
        self._append(frame, frame.pts, time)

    def join(self, segment: Path) -> Fraction | None:
        """Append the frames of a `SEGMENT` of the same arguments as they are encoded; returns the last one's time."""
        time: Fraction | None = None
        with av.open(f"file:{segment}", format=SEGMENT) as file:
            for packet in file.demux(video=0):
                if packet.pts is None:  # the last one, which is empty
                    continue
                time = packet.pts * packet.time_base
                packet.pts = packet.dts = round(time / self._time_base)  # without B-frames they are the same
                packet.time_base, packet.stream = self._time_base, self._stream
                self._append(packet, packet.pts, time)
        return time

    def finish(self) -> None:
        """Encode what is left, copy the rest of the sound, complete the file."""
        if self._others:
            self._others.finish()
        if self._held is not None:
            source_pts, source_duration = self._others.last_picture if self._others else (-1, 0)
            ends_alike = source_pts == self._held_pts and source_duration > 0
            self._encode(self._held, source_duration if ends_alike else self._step)
        self._encode(None, 0)
        self._output.close()

    def close(self) -> None:
        """Release the files; without `finish`, what was written is not complete."""
        if self._input:
            self._input.close()
        self._output.close()

    def _append(self, frame: av.VideoFrame | av.Packet, pts: int, time: Fraction) -> None:
        if self._held is not None:
            self._encode(self._held, pts - self._held_pts)
        self._held, self._held_pts = frame, pts
        if self._others:
            self._others.copy(until=time)

    def _encode(self, frame: av.VideoFrame | av.Packet | None, duration: int) -> None:
        if frame is not None:
            self._durations[frame.pts] = duration
        for packet in [frame] if isinstance(frame, av.Packet) else self._stream.encode(frame):
            # The encoder assumes a constant rate.
            packet.duration = self._durations.pop(packet.pts)
            self._output.mux(packet)


def _copy_look(template: av.VideoStream | None, encoder: av.VideoCodecContext, source: VideoInfo, height: int) -> int:
    """Give the encoder the source's pixel aspect and colour tags; returns the scaler's number of the colour matrix."""
    tags = (usual_matrix(height),) * 3
    matrix = MATRICES[tags[0]]
    if template is not None:
        look = template.codec_context
        tags = (look.colorspace, look.color_primaries, look.color_trc)
        matrix = MATRICES.get(look.colorspace, matrix)
        if look.colorspace not in MATRICES:  # RGB, or not said
            tags = (UNKNOWN, *tags[1:])
        if aspect := template.sample_aspect_ratio:
            encoder.sample_aspect_ratio = 1 / aspect if source.rotation in (90, 270) else aspect
    encoder.colorspace, encoder.color_primaries, encoder.color_trc = tags
    encoder.color_range = ColorRange.MPEG
    return matrix


def h264_round_trip(frames: np.ndarray, crf: int, rate: int = USUAL_RATE) -> np.ndarray:
    """Compress a clip (f, h, w, 3) uint8 RGB with x264 and decompress it again: preset medium, 4:2:0.

    One thread, so that the same frames give the same result. For the same reason the macroblock tree is off, which
    differs from run to run on processors with AVX-512. The CRF, 0 (nearly lossless) to 51 (worst), makes up for what
    the tree does to the quality on average: 2 for itself, and less on frames that are shown for longer, by 11 at a rate
    of 1 frame/s. Odd sizes, which 4:2:0 cannot have, are padded by repeating the edge and cut again.
    """
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = padded.shape[2], padded.shape[1], "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, USUAL_RATE), Fraction(USUAL_RATE)
    encoder.thread_count = 1
    # Six steps of CRF double the quantizer's scale.
    shifted = crf + TREE_SHIFT - 6 * TREE_EXPONENT * math.log2(USUAL_RATE / rate)
    encoder.options = {"crf": f"{max(0.0, shifted):.2f}", "mbtree": "0"}
    matrix, scaler, packets = MATRICES[BT601], VideoReformatter(), []
    for index, image in enumerate(padded):
        frame = to_yuv(image, "yuv420p", matrix, scaler, threads=1)
        frame.pts, frame.time_base = index, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)

    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    images = [
        scaler.reformat(frame, format="rgb24", src_colorspace=matrix, interpolation=EXACT, threads=1).to_ndarray()
        for frame in decoded
    ]
    assert len(images) == len(frames), f"{len(frames)} frames became {len(images)}"
    return np.stack(images)[:, :height, :width]
