"""The data card: what is in the data set, in words and tables."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_prep.records import STEPS, Record, replacing
from data_prep.settings import DataPrepConfig
from svfr.data.manifest import SPLITS, Clip


def write_card(
    path: Path,
    manifest: Sequence[Clip],
    records: Sequence[Record],
    rejected: Sequence[Record],
    settings: DataPrepConfig,
) -> None:
    """Write data_card.md.

    Args:
        path: of the card.
        manifest: the clips.
        records: of the same clips, of the step identities.
        rejected: what the steps left out.
        settings: of the preparation.
    """
    sections = [
        _heading(manifest, records, settings),
        _splits(manifest),
        _sizes(manifest, records),
        _quality(manifest),
        _left_out(rejected),
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n")


def _heading(manifest: Sequence[Clip], records: Sequence[Record], settings: DataPrepConfig) -> str:
    files = len({clip.source for clip in manifest})
    hours = sum(clip.num_frames / clip.fps for clip in manifest) / 3600
    return "\n".join(
        [
            "# Data card",
            "",
            f"{len(manifest)} clips of {len({clip.identity for clip in manifest})} people from {files} files, "
            f"{sum(clip.num_frames for clip in manifest)} frames, {hours:.3f} hours.",
            "",
            f"- Collection: {settings.source.collection}",
            f"- Licence of the footage: {settings.source.licence}",
            f"- Detector: {settings.detector}; recognition: {settings.recognizer}; landmarks: {settings.landmarks}; "
            f"score: {settings.score}; seed {settings.seed}",
            f"- Written as: {settings.write.mode}",
            f"- Kinds of files: {_counts(record['kind'] for record in records)}",
        ]
    )


def _splits(manifest: Sequence[Clip]) -> str:
    rows = []
    for split in SPLITS:
        clips = [clip for clip in manifest if clip.split == split]
        hours = sum(clip.num_frames / clip.fps for clip in clips) / 3600
        rows.append([split, len(clips), len({clip.identity for clip in clips}), f"{hours:.3f}"])
    return "## Splits\n\nNo person and no file is in two splits.\n\n" + _table(
        ["split", "clips", "people", "hours"], rows
    )


def _sizes(manifest: Sequence[Clip], records: Sequence[Record]) -> str:
    values: dict[str, Sequence[float]] = {
        "frames of a clip": [clip.num_frames for clip in manifest],
        "fps": [clip.fps for clip in manifest],
        "side of the clip [px]": [clip.width for clip in manifest],
        "face in the original [px]": [record["face"] for record in records],
        "crop inside of the frame": [record["inside"] for record in records],
        "frontality": [record["frontality"] for record in records],
        "sharpness": [record["sharpness"] for record in records],
        "clips of a person": list(Counter(clip.identity for clip in manifest).values()),
    }
    trusted = [record["trusted"] for record in records if record["trusted"] is not None]
    if trusted:
        values["frames with trusted landmarks"] = trusted
    return "## Sizes\n\n" + _table(["", *QUANTILES], [[name, *_quantiles(of)] for name, of in values.items()])


def _quality(manifest: Sequence[Clip]) -> str:
    scores = [clip.quality for clip in manifest if clip.quality is not None]
    if not scores:
        return "## Quality\n\nNot scored."
    return "## Quality\n\nOf 0 (worst) to 1 (best); see scores.png.\n\n" + _table(list(QUANTILES), [_quantiles(scores)])


def _left_out(rejected: Sequence[Record]) -> str:
    if not rejected:
        return "## Left out\n\nNothing."
    rows: list[list[object]] = []
    for step in STEPS:
        for kind, bad in (("bad file", True), ("not wanted", False)):
            count = sum(item["step"] == step and item["bad"] == bad for item in rejected)
            if count:
                rows.append([step, kind, count])
    return "## Left out\n\nEach with its reason in rejected.jsonl.\n\n" + _table(["step", "why", "count"], rows)


QUANTILES = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "most": 1.0}


def _quantiles(values: Sequence[float]) -> list[object]:
    return [f"{value:.4g}" for value in np.quantile(values, list(QUANTILES.values()))]


def _counts(values: Iterable[str]) -> str:
    return ", ".join(f"{count} {value}" for value, count in sorted(Counter(values).items()))


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
