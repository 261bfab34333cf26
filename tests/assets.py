"""Real clips, photos and networks to test with; they lie beside the checkout (`../shared/assets`)."""

from pathlib import Path

import cv2
import numpy as np
import pytest

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"
NETWORKS = ASSETS / "networks"
FIELD = ASSETS.parent / "field"  # small inputs that once failed
CLIPS = sorted(ASSETS.glob("clips_*/*.mp4"))
PHOTOS = sorted(ASSETS.glob("images/*.png"))

needs_assets = pytest.mark.skipif(
    not NETWORKS.is_dir(), reason="the real clips and networks are not beside the checkout"
)

needs_field = pytest.mark.skipif(not FIELD.is_dir(), reason="the inputs that once failed are not beside the checkout")


def frames(path: Path, indices: range) -> list[np.ndarray]:
    """RGB frames of a clip."""
    capture = cv2.VideoCapture(str(path))
    result = []
    for index in range(indices.stop):
        assert capture.grab(), f"{path} ends at frame {index}"
        if index in indices:
            result.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    return result


def photo(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
