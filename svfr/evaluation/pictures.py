"""Pictures of a video that are taken while it streams by: a strip of frames, a temporal slice, a small clip, the worst.

Small JPEG files and MP4, and as PNG of all pixels the slice and the frames of the strip.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from svfr.data.frames import resize
from svfr.data.video import VideoInfo, VideoWriter
from svfr.evaluation.settings import EvalConfig
from svfr.metrics.temporal import temporal_slice

QUALITY = 88  # of JPEG
CLIP_CRF = 26  # Assumption: small, and still clean at the report's size
CLIP_FRAMES = 150  # the report's clips end here
SLICE_FRAMES = 400  # and its slices here
WORST_GAP = 12  # Assumption: worst frames are that far apart [frames], not one moment several times
WORST = 3
STRIP_FRAMES = 6  # of a video in its strip, and kept whole (0.4 MB each at 512 px)
THUMBNAIL = 16  # [px] side of the gray pictures that show a shift in time
FARTHEST = 3  # [frames] lag that is tried
CLEARLY = 0.75  # Assumption: share of the error that another lag may leave, or it is none


class Pictures(AbstractContextManager):
    """Takes the frames of one video in turn; a context manager that writes strip.jpg, clip.mp4, worst_I.jpg, and of
    full size slice.png and frame_I.png into a folder.

    `info` is the ground truth's; with `is_truth`, restored and truth are the same, and no frame is the worst.
    """

    def __init__(self, folder: Path, info: VideoInfo, settings: EvalConfig, is_truth: bool) -> None:
        self._folder, self._column = folder, settings.slice_column
        height = settings.picture_size
        self._size = (max(2, 2 * round(height * info.width / info.height / 2)), 2 * (height // 2))
        num_frames = max(1, info.num_frames)
        self._strip_indices = {round(i) for i in np.linspace(0, num_frames - 1, min(STRIP_FRAMES, num_frames))}
        self._strip: list[np.ndarray] = []
        self._slice: list[np.ndarray] = []  # (h, 1, 3) each
        self._worst: list[tuple[float, int, np.ndarray]] = []  # (squared error, index, restored beside truth)
        self._thumbnails: list[np.ndarray] = []  # (2, THUMBNAIL^2) each, restored and truth
        self._is_truth = is_truth
        self._index = 0
        clip_info = VideoInfo(info.path, *self._size, info.fps)
        self._clip = VideoWriter(folder / "clip.mp4", source=clip_info, crf=CLIP_CRF)
        self._time_base = 1 / info.fps

    def __exit__(self, *error: Any) -> None:
        self._clip.__exit__(*error)
        if error[0] is None:
            _save(np.concatenate(self._strip, axis=1), self._folder / "strip.jpg")
            _save(np.concatenate(self._slice, axis=1), self._folder / "slice.png")
            for _, index, picture in self._worst:
                _save(picture, self._folder / f"worst_{index:06d}.jpg")

    def add(self, restored: np.ndarray, truth: np.ndarray) -> None:
        """Take the next frame, (h, w, 3) uint8 each."""
        small = resize(restored, *self._size)
        if self._index in self._strip_indices:
            self._strip.append(small)
            _save(restored, self._folder / f"frame_{self._index:06d}.png")
        if self._index < SLICE_FRAMES:
            self._slice.append(temporal_slice([restored], self._column))
        if self._index < CLIP_FRAMES:
            self._clip.write(small, self._index, self._time_base)
        if not self._is_truth:
            self._keep_worst(small, restored, truth)
            self._thumbnails.append(np.stack([_thumbnail(image) for image in (restored, truth)]))
        self._index += 1

    def lag(self) -> int:
        """How many frames the restored video comes late (see `best_lag`)."""
        return best_lag(*np.stack(self._thumbnails, axis=1)) if self._thumbnails else 0

    def _keep_worst(self, small: np.ndarray, restored: np.ndarray, truth: np.ndarray) -> None:
        error = float(np.square(restored.astype(np.int32) - truth).mean())
        near = [entry[0] for entry in self._worst if self._index - entry[1] < WORST_GAP]
        far = [entry for entry in self._worst if self._index - entry[1] >= WORST_GAP]
        if error > (far[-1][0] if len(far) == WORST else max(near, default=-1.0)):
            beside = np.concatenate([small, resize(truth, *self._size)], axis=1)
            self._worst = sorted([*far, (error, self._index, beside)], key=lambda entry: -entry[0])[:WORST]


def best_lag(restored: np.ndarray, truth: np.ndarray) -> int:
    """By how many frames a restored video comes late (negative: early): the lag in -3..3 of least squared error.

    Of small gray pictures (f, d) float of the same frames. Each value's mean over time is taken off, so that motion
    alone counts. 0 unless another lag leaves less than 3/4 of the error of none.
    """
    num_frames = len(truth)
    if num_frames < 4 * FARTHEST:
        return 0
    ours, theirs = restored - restored.mean(axis=0), truth - truth.mean(axis=0)
    inner = slice(FARTHEST, num_frames - FARTHEST)  # the same frames of the truth for every lag
    errors = {
        lag: float(np.square(ours[inner.start + lag : inner.stop + lag] - theirs[inner]).mean())
        for lag in range(-FARTHEST, FARTHEST + 1)
    }
    best = min(errors, key=lambda lag: (errors[lag], abs(lag)))
    return best if errors[best] < CLEARLY * errors[0] else 0


def _thumbnail(image: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).ravel().astype(np.float32)


def _save(image: np.ndarray, file: Path) -> None:
    Image.fromarray(np.ascontiguousarray(image)).save(file, quality=QUALITY, compress_level=1)  # of JPEG, of PNG
