"""The networks that the settings name, each loaded once for each process; None where the settings say none."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.settings import DataPrepConfig
from svfr.data.detectors import FaceDetector, load_detector
from svfr.data.landmarks import Landmarker, load_landmarker
from svfr.data.quality import Arniqa
from svfr.data.recognition import Recognizer, load_recognizer


def detector(settings: DataPrepConfig) -> FaceDetector:
    """The face detector."""
    return _load(load_detector, settings.networks, settings.detector)


def recognizer(settings: DataPrepConfig) -> Recognizer | None:
    """The recognition network."""
    return _load(load_recognizer, settings.networks, settings.recognizer)


def scorer(settings: DataPrepConfig) -> Arniqa | None:
    """The network that scores the quality of a picture."""
    return None if settings.score == "none" else _load(Arniqa, settings.networks)


def landmarker(settings: DataPrepConfig) -> Landmarker | None:
    """The landmark network."""
    return _load(load_landmarker, settings.networks, settings.landmarks)


@lru_cache
def _load(load: Any, networks: str | None, *name: str) -> Any:
    return None if name == ("none",) else load(*name, Path(networks) if networks else None)
