"""Face detectors by name: YuNet, which is permissive, and any InsightFace pack, which is not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from svfr.data.recognition import onnx_providers
from svfr.networks import PACKS, find, first_line, installed_packs, load_by_name

# [px] Longer side at which frames are searched. Measured with YuNet: a face of 60 px in a 1080p frame is
# missed at 320 and 480, found at 640; frames of 512 px are searched as they are.
SEARCH_SIDE = 640
SMALLEST_FACE = 10  # [px] at the search size: the least that YuNet was trained on (OpenCV Zoo)
# [px] at the search size. YuNet was trained on faces up to 300 px (OpenCV Zoo). Measured on FFHQ photos: boxes above
# 400 px lose score (0.92 -> 0.74 at 490 px) and then shrink, while half the resolution gives 0.94.
LARGE_FACE = 400
SAME_FACE_IOU = 0.3  # the non-maximum suppression threshold of OpenCV's YuNet demo
YUNET_SCORE = 0.6  # Assumption: below the demo's 0.9, since degraded faces score less
INSIGHTFACE_SCORE = 0.5  # InsightFace's default
# Assumption: a closer look is at this many times the size, and takes this share of the usual score.
CLOSER_SIZE, CLOSER_SCORE = 2, 0.5


@dataclass(frozen=True)
class Face:
    """A detected face."""

    box: np.ndarray  # (4,) float32 x0, y0, x1, y1 [px]
    landmarks: np.ndarray  # (5, 2) float32 [px]: eye at image left, eye at image right, nose, mouth left, mouth right
    score: float  # in [0, 1]
    sharpness: float = 0.0  # by `svfr.data.faces.sharpness`, where somebody measures it

    @property
    def area(self) -> float:
        """Area of the box [px^2]."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class FaceDetector(Protocol):
    """Finds the faces of an image; a closer look sees it larger and takes doubtful faces, too."""

    name: str  # of the detector, for reports
    source: str  # the file or folder that it was loaded from

    def __call__(self, image: np.ndarray, closer: bool = False) -> list[Face]:
        """(h, w, 3) uint8 RGB -> faces, largest first; [] if there is none."""


def load_detector(name: str = "auto", networks: Path | None = None) -> FaceDetector:
    """A face detector by name.

    Args:
        name: "insightface" (any pack that is already there), the name of one of the table's packs, "yunet", or "auto":
            an InsightFace pack that is already there, else YuNet.
        networks: searched before $SVFR_NETWORKS and the user's cache.

    Raises:
        NetworkMissing: its files are not there and cannot be downloaded.
        ValueError: another name, a package that is not installed, or a broken file.
    """
    packs = installed_packs(networks)

    def insightface(pack: str | None = None) -> FaceDetector:
        _require_insightface()  # before its pack is downloaded
        return InsightFace(packs[0] if packs and pack is None else find(pack or "insightface/buffalo_l", networks))

    loaders: dict[str, Callable[[], FaceDetector]] = {pack: partial(insightface, pack) for pack in PACKS}
    loaders |= {"insightface": insightface, "yunet": lambda: YuNet(find("yunet", networks))}
    return load_by_name("detector", name, loaders, [partial(InsightFace, pack) for pack in packs])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union, in [0, 1], of two boxes x0, y0, x1, y1."""
    inner = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner
    return float(inner / union) if union > 0 else 0.0


class YuNet:
    """OpenCV's face detector YuNet (Wu et al. 2023). Frames are searched at `SEARCH_SIDE` at most."""

    name = "yunet"

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        level = cv2.utils.logging.getLogLevel()
        # OpenCV 5 warns at each load that a target was not set, which nobody asked for.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), score_threshold=YUNET_SCORE, nms_threshold=SAME_FACE_IOU
            )
        except cv2.error as error:
            raise ValueError(f"{path}: OpenCV cannot load this network ({error.err})") from error
        finally:
            cv2.utils.logging.setLogLevel(level)

    def __call__(self, image: np.ndarray, closer: bool = False) -> list[Face]:
        """As of `FaceDetector`."""
        if _too_small(image):
            return []
        bgr, longer = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), max(image.shape[:2])
        side = min(SEARCH_SIDE, longer)
        self._network.setScoreThreshold(YUNET_SCORE * (CLOSER_SCORE if closer else 1))
        if closer:
            return self._detect(bgr, CLOSER_SIZE * side)
        faces = self._detect(bgr, side)
        if not faces or max(faces[0].box[2:] - faces[0].box[:2]) * side > LARGE_FACE * longer:
            coarse = self._detect(bgr, min(SEARCH_SIDE // 2, longer))
            faces = coarse + [f for f in faces if all(iou(f.box, c.box) < SAME_FACE_IOU for c in coarse)]
        return _largest_first(faces)

    def _detect(self, bgr: np.ndarray, side: int) -> list[Face]:
        """Faces found with the longer side scaled to `side`, in px of the image, largest first."""
        height, width = bgr.shape[:2]
        if side != max(height, width):
            ratio = side / max(height, width)
            size = max(1, round(width * ratio)), max(1, round(height * ratio))
            bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC)
        self._network.setInputSize((bgr.shape[1], bgr.shape[0]))
        _, rows = self._network.detect(bgr)
        if rows is None:
            return []
        scale = np.array([width / bgr.shape[1], height / bgr.shape[0]], dtype=np.float32)
        faces = []
        for row in rows:  # x, y, w, h, 5 points, score
            corner, extent, points = row[:2] * scale, row[2:4] * scale, row[4:14].reshape(5, 2) * scale
            faces.append(Face(np.concatenate([corner, corner + extent]), points, float(row[14])))
        return _largest_first(faces)


class InsightFace:
    """The detection network of an InsightFace pack, a folder, through InsightFace's own loader and decoder."""

    name = "insightface"

    def __init__(self, pack: Path) -> None:
        _require_insightface()
        from insightface.model_zoo import model_zoo

        providers = onnx_providers()
        # InsightFace tells networks apart by loading them all. The names of its detectors come first here, so that no
        # recognition network of 200 MB is loaded in vain.
        files = sorted(pack.glob("*.onnx"), key=lambda file: (not file.name.startswith(("det", "scrfd")), file.name))
        for file in files:
            try:
                network = model_zoo.get_model(str(file), providers=providers)
            except Exception as error:  # onnxruntime's errors have no common class
                raise ValueError(f"{file}: InsightFace cannot load this network ({first_line(error)})") from error
            if network is not None and network.taskname == "detection":
                break
        else:
            raise ValueError(f"{pack}: none of its {len(files)} ONNX files is a face detector of InsightFace's kind")
        if not network.use_kps:
            raise ValueError(f"{file}: this face detector gives no landmarks")
        on_cpu = providers[:1] != ["CUDAExecutionProvider"]
        network.prepare(-1 if on_cpu else 0, input_size=(SEARCH_SIDE, SEARCH_SIDE), det_thresh=INSIGHTFACE_SCORE)
        self.source = str(file)
        self._network = network

    def __call__(self, image: np.ndarray, closer: bool = False) -> list[Face]:
        """As of `FaceDetector`."""
        if _too_small(image):
            return []
        self._network.det_thresh = INSIGHTFACE_SCORE * (CLOSER_SCORE if closer else 1)
        how = {"input_size": (CLOSER_SIZE * SEARCH_SIDE,) * 2} if closer else {}
        boxes, landmarks = self._network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), **how)
        return _largest_first(
            Face(box[:4].astype(np.float32), points.astype(np.float32), float(box[4]))
            for box, points in zip(boxes, landmarks, strict=True)
        )


def _require_insightface() -> None:
    try:
        import insightface  # noqa: F401
    except ImportError as error:
        raise ValueError("the detector 'insightface' is not installed: pip install 'svfr[faces]'") from error


def _too_small(image: np.ndarray) -> bool:
    """Whether no face can be found; the networks' own resizing fails on frames of a few px."""
    short, long = sorted(image.shape[:2])
    return short * min(1, SEARCH_SIDE / long) < SMALLEST_FACE


def _largest_first(faces: Iterable[Face]) -> list[Face]:
    """Faces sorted by area; boxes without area or with values that aren't finite are left out."""
    finite = [face for face in faces if np.isfinite(face.box).all() and np.isfinite(face.landmarks).all()]
    return sorted((face for face in finite if face.area > 0), key=lambda face: face.area, reverse=True)
