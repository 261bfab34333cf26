"""Films: results that grow in segments, with a journal from which a call that was ended goes on.

Each segment is encoded on its own, and at its end the journal is brought up to date; at the end the segments are
joined as they are, with the sound. All lies in a hidden folder beside the result.
"""

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from svfr.data.h264 import SEGMENT
from svfr.data.linking import FaceTrack
from svfr.data.video import VideoWriter
from svfr.files import is_machine_error, partial_path, remove, replacing
from svfr.inference.plan import Plan, PlannedTrack
from svfr.inference.reference import Person

FORMAT = "2"  # of what is written; what another version wrote is made anew
DIGITS = 16  # of the key, in the folder's name
START, STATE = "start", "state"  # names in the journal: what is fixed before the first frame; what the rest depends on


class Film:
    """Writes a video segment by segment; a context manager.

    Left by an error that is not the input's, it keeps what a later one of the same key goes on with; without a key,
    nothing. Tensors of the journal come to `device`.
    """

    def __init__(self, target: Path, key: str | None, device: torch.device) -> None:
        self.folder = film_folder(target, key)
        self._keeps = key is not None
        self.start = read(self._journal(START), device)  # what `begin` was given; None in a new film
        # What the last `border` was given; its segments are there before it.
        self.state = (self.start and read(self._journal(STATE), device)) or {}
        self._writer: VideoWriter | None = None
        self._segments: list[Path] = []

    def begin(self, start: Mapping[str, Any], frames: int, make_writer: Callable[[Path], VideoWriter]) -> None:
        """Write down what is fixed for the whole film, if it is a new one; `frames` are those of a segment."""
        self._make_writer, self._index = make_writer, self.state.get("index", 0)
        self._segments = [self._segment(index) for index in range(0, self._index, frames)]
        if self.start is None:
            remove(self.folder)
            self.folder.mkdir()
            write(self._journal(START), start)

    def write(self, image: np.ndarray, pts: int, time_base: Fraction) -> None:
        """Append a frame; arguments as `VideoWriter.write`."""
        if self._writer is None:
            self._segments.append(self._segment(self._index))
            self._writer = self._make_writer(self._segments[-1])
        self._writer.write(image, pts, time_base)
        self._index += 1

    def border(self, state: Mapping[str, Any]) -> None:
        """End a segment, and write down with what the next one begins."""
        self._end_segment()
        write(self._journal(STATE), {**state, "index": self._index})

    def finish(self, writer: VideoWriter) -> None:
        """Join all segments in the writer of the whole."""
        self._end_segment()
        for segment in self._segments:
            writer.join(segment)

    def _end_segment(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(None, None, None)

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error or KeyboardInterrupt(), trace)
        is_the_inputs = isinstance(error, ValueError) and not is_machine_error(error)
        if error is None or is_the_inputs or not self._keeps:
            remove(self.folder)

    def _journal(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _segment(self, index: int) -> Path:
        return self.folder / f"{index:09d}.{SEGMENT}"


def film_folder(target: Path, key: str | None) -> Path:
    """Where a film grows until it is whole; `files.sweep` removes it if it isn't told to keep it."""
    return partial_path(target, key and key[:DIGITS])


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Write dicts and lists of what JSON knows, tensors and arrays, completely or not at all."""
    tensors: dict[str, Tensor] = {}

    def put(value: Any) -> dict[str, str]:
        name = str(len(tensors))
        tensors[name] = torch.as_tensor(value).detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"array" if isinstance(value, np.ndarray) else "tensor": name}

    text = json.dumps(content, default=put)
    with replacing(file) as partial:
        save_file(tensors, partial, {"content": text, "format": FORMAT})


def read(file: Path, device: torch.device) -> dict[str, Any] | None:
    """What `write` wrote, tensors on a device; None if there is nothing that can be read."""
    try:
        with safe_open(file, "pt") as opened:

            def get(value: dict[str, Any]) -> Any:
                if "tensor" in value:
                    return opened.get_tensor(value["tensor"]).to(device)
                return opened.get_tensor(value["array"]).numpy() if "array" in value else value

            about = opened.metadata()
            return dict(json.loads(about["content"], object_hook=get)) if about.get("format") == FORMAT else None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def plan_of(content: dict[str, Any]) -> Plan:
    """A plan of its `asdict`."""
    tracks = [PlannedTrack(**{**track, "face": FaceTrack(**track["face"])}) for track in content["tracks"]]
    return Plan(**{**content, "tracks": tracks, "people": [Person(**person) for person in content["people"]]})
