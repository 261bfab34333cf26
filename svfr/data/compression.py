"""H.264 compression and decompression of a clip in memory."""

import math
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from svfr.data.h264 import yuv_frame
from svfr.data.video_reader import BT601, EXACT, MATRICES

MATRIX = MATRICES[BT601]
USUAL_RATE = 25  # [1/s]
# What the macroblock tree does to the CRF. Measured on a talking head, 128 px, CRF 18 to 43: the same
# PSNR within 0.2 dB.
TREE_SHIFT = 2.0
TREE_EXPONENT = 0.4  # the quantizer's scale goes with a frame's duration to the power -(1 - qcompress)


def h264_round_trip(frames: np.ndarray, crf: int, rate: int = USUAL_RATE) -> np.ndarray:
    """Compress a clip with x264 and decompress it again: preset medium, 4:2:0.

    One thread, so that the same frames give the same result. For the same reason the macroblock tree is off, which
    differs from run to run on processors with AVX-512. The CRF makes up for what the tree does to the quality on
    average: 2 for itself, and less on frames that are shown for longer, by 11 at 1 frame/s. Odd sizes, which 4:2:0
    cannot have, are padded by repeating the edge and cut again.

    Args:
        frames: (f, h, w, 3) uint8 RGB.
        crf: constant rate factor of x264, 0 (nearly lossless) to 51 (worst).
        rate: [1/s] frame rate given to the encoder.

    Returns:
        (f, h, w, 3) uint8.
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
    scaler = VideoReformatter()
    packets = []
    for index, image in enumerate(padded):
        frame = yuv_frame(image, "yuv420p", MATRIX, scaler, threads=1)
        frame.pts, frame.time_base = index, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)

    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    images = [
        scaler.reformat(frame, format="rgb24", src_colorspace=MATRIX, interpolation=EXACT, threads=1).to_ndarray()
        for frame in decoded
    ]
    assert len(images) == len(frames), f"{len(frames)} frames became {len(images)}"
    return np.stack(images)[:, :height, :width]
