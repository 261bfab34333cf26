"""FFmpeg's pictures as upright RGB arrays, and arrays as pictures that encoders take."""

from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

# FFmpeg's AVColorSpace of a file -> SWS_CS_* of its scaler. What is not listed counts as untagged.
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
if int(av.__version__.split(".")[0]) < 18:  # on Python 3.10: this PyAV would take BT.2020 for another matrix
    del MATRICES[9]
BT709, BT601 = 1, 6
# The scaler's fast path darkens by 1.2 levels on average and is off by 1.8; with these flags 0.0 and 0.4
# (measured: a smooth 640x480 image, RGB -> yuv420p -> RGB). Of FFmpeg's swscale.h, as PyAV names them from 18 on only:
# SWS_BICUBIC, SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT, SWS_FULL_CHR_H_INP.
EXACT = 1 << 2 | 1 << 18 | 1 << 13 | 1 << 14
DEEP = 257  # levels of 16 bits in one of 8
TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 90, (-1, 0, 0, -1): 180, (0, 1, -1, 0): 270}  # [degrees] of display matrices


def usual_matrix(height: int) -> int:
    """FFmpeg's number of the colours that players take untagged video of a height [px] for."""
    return BT709 if height >= 720 else BT601


def to_rgb(frame: av.VideoFrame, width: int, height: int, scaler: VideoReformatter, deep: bool = False) -> np.ndarray:
    """(height, width, 3) uint8, or uint16 if `deep`, upright.

    A frame's own scaler would start a thread on each core, for each frame.
    """
    a, b, c, d = display_matrix(frame)
    matrix = MATRICES.get(frame.colorspace, MATRICES[usual_matrix(frame.height)])
    rgb = scaler.reformat(
        frame,
        format="rgb48le" if deep else "rgb24",
        width=width if a else height,
        height=height if a else width,
        src_colorspace=None if frame.format.is_rgb else matrix,
        interpolation=EXACT,
    )
    image = rgb.to_ndarray()
    if a == 0:
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def to_yuv(image: np.ndarray, pix_fmt: str, matrix: int, scaler: VideoReformatter, threads: int) -> av.VideoFrame:
    """A picture (h, w, 3) RGB, uint8 or uint16, as encoders take it, in TV range.

    `pix_fmt` is FFmpeg's name, `matrix` the scaler's number of the colours, `threads` are its own; 0: one per core.
    """
    format, image = "rgb24" if image.dtype == np.uint8 else "rgb48le", np.ascontiguousarray(image)
    return scaler.reformat(
        av.VideoFrame.from_ndarray(image, format=format),
        format=pix_fmt,
        dst_colorspace=matrix,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
        threads=threads,
    )


def to_8_bits(deep: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, rounded."""
    return ((deep.astype(np.uint32) + DEEP // 2) // DEEP).astype(np.uint8)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display transform x' = a x + c y, y' = b x + d y, by right angles and mirrors."""
    data = side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return next((matrix for matrix, angle in TURNS.items() if angle == frame.rotation % 360), (1, 0, 0, 1))
    # 3x3 in 16.16 fixed point (FFmpeg's display.h)
    a, b, _, c, d = (int(x) for x in np.rint(np.frombuffer(data, "<i4")[:5] / 2**16))
    return (a, b, c, d) if (abs(a), abs(b), abs(c), abs(d)) in ((1, 0, 0, 1), (0, 1, 1, 0)) else (1, 0, 0, 1)


def side_data(frame: av.VideoFrame) -> dict[str, Any]:
    """What a frame carries beside its pixels, by FFmpeg's name; nothing where some is of a kind that PyAV lacks."""
    try:
        return {data.type.name: data for data in cast(Any, frame.side_data)}
    except ValueError:
        return {}
