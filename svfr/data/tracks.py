"""One face followed through a video, with a square crop for each of its frames."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from svfr.data.detectors import Face, iou

# The square crop of a face, in larger sides S of its box: side 1.40 S, centre 0.05 S above the box's centre. Measured:
# YuNet's boxes on 6 FFHQ-aligned photos, which are the crops wanted, at 8 sizes from 200 to 1024 px: side 1.40 +- 0.09,
# shift right 0.02 +- 0.03 (none taken), up 0.05 +- 0.03; the eyes are then 122 px apart at 512 px (FFHQ's template:
# 126). InsightFace's boxes are as large within 1.5%, their centres 0.04 S higher (21 frames of one clip).
MARGIN = 1.40
SHIFT_UP = 0.05

MATCH_IOU = 0.2  # Assumption: less overlap with the box before is a jump: a cut, or another person
LONGEST_GAP = 0.5  # [s] Assumption: missed detections up to this are interpolated
DWARFED = 2.0  # Assumption: another face takes over when its area is this many times the followed one's
TAKEOVER = 0.1  # [s] Assumption: and when it is seen that long; one false detection cuts no track in two
SMOOTHING = 0.2  # [s] Assumption: sigma of the Gaussian that steadies the crop


@dataclass(frozen=True)
class FaceTrack:
    """One face through consecutive frames.

    Attributes:
        start: index of its first frame.
        boxes: (n, 4) float64, square crops x0, y0, x1, y1 [px]; may reach outside of the frame.
        landmarks: (n, 5, 2) float32 [px] in the frame.
        detected: (n,) bool; the other frames were filled in between.
        visible: (n,) bool; False where a frame that was filled in does not look like its neighbours: a flash, a black
            frame, something before the face.
    """

    start: int
    boxes: np.ndarray
    landmarks: np.ndarray
    detected: np.ndarray
    visible: np.ndarray

    @property
    def stop(self) -> int:
        """Index after its last frame."""
        return self.start + len(self.boxes)

    @property
    def largest(self) -> float:
        """The largest side of its crops [px]."""
        return float((self.boxes[:, 2] - self.boxes[:, 0]).max())


class Sightings:
    """A face's detections so far: indices of frames, and the faces detected there; frames that cannot show it."""

    def __init__(self, index: int, face: Face) -> None:
        self.frames = [index]
        self.faces = [face]
        self.hidden: list[int] = []

    def add(self, index: int, face: Face) -> None:
        """Add a detection in one more frame."""
        self.frames.append(index)
        self.faces.append(face)

    def match(self, faces: list[Face]) -> Face | None:
        """The face that overlaps most with the last detection; None if all overlap less than `MATCH_IOU`."""
        overlaps = [iou(self.faces[-1].box, face.box) for face in faces]
        best = max(range(len(faces)), key=overlaps.__getitem__, default=None)
        return faces[best] if best is not None and overlaps[best] >= MATCH_IOU else None

    def cut_at(self, index: int) -> None:
        """Remove the detections from frame `index` on."""
        kept = sum(frame < index for frame in self.frames)
        del self.frames[kept:], self.faces[kept:]


def track_largest_face(detections: Iterable[list[Face]], fps: float) -> list[FaceTrack]:
    """Follow the largest face through a video; where it changes, a new track starts.

    Another face is followed when it is far larger, or when the first one is gone. Missed detections are filled in when
    the face comes back where it was.

    Args:
        detections: of each frame, largest face first; read once.
        fps: [1/s] of the frames.

    Returns:
        Tracks in the order of time, which do not overlap; [] if no face was found.

    Raises:
        ValueError: fps isn't above 0.
    """
    if not fps > 0:
        raise ValueError(f"fps must be above 0, not {fps}")
    longest_gap = round(LONGEST_GAP * fps)
    takeover = math.ceil(TAKEOVER * fps)
    finished: list[Sightings] = []
    current: Sightings | None = None
    rival: Sightings | None = None  # a face that may take over, followed from where it first was seen
    for index, faces in enumerate(detections):
        while current is not None and index - current.frames[-1] - 1 > longest_gap:
            finished.append(current)
            current, rival = rival, None
        if current is None:
            current = Sightings(index, faces[0]) if faces else None
            continue
        if not faces:
            continue
        match = current.match(faces)
        if match is not None:
            current.add(index, match)
        least = 0.0 if match is None else DWARFED * match.area
        rivals = [face for face in faces if face is not match and face.area > least]
        same = rival.match(rivals) if rival is not None else None
        if rival is not None and same is not None:
            rival.add(index, same)
        else:
            rival = Sightings(index, rivals[0]) if rivals else None
        if rival is not None and len(rival.frames) >= takeover:
            current.cut_at(rival.frames[0])
            finished.append(current)
            current, rival = rival, None
    if current is not None:
        finished.append(current)
        if rival is not None and rival.frames[0] > current.frames[-1]:
            finished.append(rival)
    return [steady_track(sightings, fps) for sightings in finished]


def steady_track(sightings: Sightings, fps: float) -> FaceTrack:
    """Fill the gaps linearly, make the boxes square with `MARGIN` and steady them."""
    seen = np.array(sightings.frames)
    frames = np.arange(seen[0], seen[-1] + 1)
    values = np.stack([np.concatenate([f.box, f.landmarks.ravel()]) for f in sightings.faces]).astype(np.float64)
    filled = np.stack([np.interp(frames, seen, column) for column in values.T], axis=1)
    low, high = filled[:, 0:2], filled[:, 2:4]
    face_side = (high - low).max(axis=1)
    centre = (low + high) / 2 - np.array([0.0, SHIFT_UP]) * face_side[:, None]
    steady = smooth(np.column_stack([centre, MARGIN * face_side]), SMOOTHING * fps)
    # The fit at the ends may lie a little beyond what was seen; a side must stay a side.
    half = np.maximum(steady[:, 2:], MARGIN * face_side.min()) / 2
    boxes = np.concatenate([steady[:, :2] - half, steady[:, :2] + half], axis=1)
    landmarks = filled[:, 4:].reshape(-1, 5, 2).astype(np.float32)
    visible = ~np.isin(frames, sightings.hidden)
    return FaceTrack(int(seen[0]), boxes, landmarks, np.isin(frames, seen), visible)


def square_around(box: np.ndarray) -> np.ndarray:
    """(4,) the square crop of one face's box [px]."""
    side, centre = max(box[2:] - box[:2]), (box[:2] + box[2:]) / 2
    centre = centre - np.array([0.0, SHIFT_UP]) * side
    return np.concatenate([centre - MARGIN * side / 2, centre + MARGIN * side / 2])


def face_boxes(crops: np.ndarray) -> np.ndarray:
    """The faces' own boxes, as squares, from (n, 4) crops of a track [px]: `steady_track` backwards."""
    side = (crops[:, 2:] - crops[:, :2]) / MARGIN
    centre = (crops[:, :2] + crops[:, 2:]) / 2 + np.array([0.0, SHIFT_UP]) * side
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """(n, d) values smoothed along n by a Gaussian of `sigma` samples.

    Each value is that of a straight line fitted with Gaussian weights. Away from the ends this is the Gaussian mean;
    at the ends, where half of its samples are missing, the mean would lag behind a moving face.
    """
    n = len(values)
    reach = min(math.ceil(3 * sigma), n - 1)
    if reach < 1:
        return values.copy()
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)

    def summed(column: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        # Nothing lies beyond the ends. Convolving mirrors the offsets, so s1 and t1 both change their sign.
        return np.convolve(column, kernel, mode="full")[reach : reach + n]

    ones = np.ones(n)
    s0, s1, s2 = (summed(ones, weight * offset**power) for power in range(3))
    t0 = np.stack([summed(column, weight) for column in values.T], axis=1)
    t1 = np.stack([summed(column, weight * offset) for column in values.T], axis=1)
    return (s2[:, None] * t0 - s1[:, None] * t1) / (s0 * s2 - s1**2)[:, None]
