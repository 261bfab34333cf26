"""What to look at: the data card in words and tables, and a picture of some frames of each clip."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_prep.records import STEPS, Record, collect_rejected
from data_prep.settings import DataPrepConfig
from data_prep.track import enlargement
from svfr.data.faces import crop
from svfr.data.manifest import SPLITS, Clip
from svfr.data.video import frames_at
from svfr.evaluation.markdown import markdown_table
from svfr.files import replacing

QUANTILES = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "most": 1.0}
SHEET = 60  # clips on the contact sheet
TILE = 128  # [px] of the contact sheet
TILES = 3  # frames of a clip on it
CAPTION = 26  # [px] two lines
GAP = 6  # [px]
COLUMNS = 4  # clips in a row

Rows = list[list[object]]  # of a table, the head first; [] for none


def write_card(path: Path, manifest: list[Clip], records: list[Record], settings: DataPrepConfig) -> None:
    """Write data_card.md, beside its manifest, from that and the records of the step identities of its clips."""
    rejected = collect_rejected(path.parent)
    scores = [clip.quality for clip in manifest if clip.quality is not None]
    quality: Rows = [[*QUANTILES], _quantiles(scores)] if scores else []
    parts = [_heading(manifest, records, settings)]
    for title, remark, rows in (
        ("Splits", "No person and no file is in two splits.", _splits(manifest)),
        ("Sizes", "", _sizes(manifest, records, settings)),
        ("Quality", "Of 0 (worst) to 1 (best); see scores.png." if scores else "Not scored.", quality),
        ("Left out", "Each with its reason in rejected.jsonl." if rejected else "Nothing.", _left_out(rejected)),
    ):
        table = markdown_table([[str(cell) for cell in row] for row in rows])
        parts += filter(None, (f"## {title}", remark, table))
    with replacing(path) as partial:
        partial.write_text("\n\n".join(parts) + "\n")


def _heading(manifest: Sequence[Clip], records: Sequence[Record], settings: DataPrepConfig) -> str:
    people, files = len({clip.identity for clip in manifest}), len({clip.source for clip in manifest})
    kinds = sorted(Counter(r["kind"] + ", interlaced" * r.get("interlaced", False) for r in records).items())
    return f"""# Data card

{len(manifest)} clips of {people} people from {files} files, {sum(clip.num_frames for clip in manifest)} frames, \
{_hours(manifest)} hours.

- Collection: {settings.source.collection}
- Licence of the footage: {settings.source.licence}
- Detector: {settings.detector}; recognition: {settings.recognizer}; landmarks: {settings.landmarks}; \
score: {settings.score}; seed {settings.seed}
- Written as: {settings.write.mode}
- Kinds of files: {", ".join(f"{count} {kind}" for kind, count in kinds)}"""


def _hours(clips: Sequence[Clip]) -> str:
    return f"{sum(clip.num_frames / clip.fps for clip in clips) / 3600:.3f}"


def _splits(manifest: Sequence[Clip]) -> Rows:
    rows: Rows = [["split", "clips", "people", "hours"]]
    for split in SPLITS:
        clips = [clip for clip in manifest if clip.split == split]
        rows.append([split, len(clips), len({clip.identity for clip in clips}), _hours(clips)])
    return rows


def _sizes(manifest: Sequence[Clip], records: Sequence[Record], settings: DataPrepConfig) -> Rows:
    values: dict[str, Sequence[float]] = {
        "frames of a clip": [clip.num_frames for clip in manifest],
        "fps": [clip.fps for clip in manifest],
        "side of the clip [px]": [clip.width for clip in manifest],
        "face in the original [px]": [record["face"] for record in records],
        f"times enlarged to {settings.write.size} px (up to 1: not)": [enlargement(r, settings) for r in records],
        "crop inside of the frame": [record["inside"] for record in records],
        "frontality": [record["frontality"] for record in records],
        "sharpness": [record["sharpness"] for record in records],
        "clips of a person": list(Counter(clip.identity for clip in manifest).values()),
        "frames with trusted landmarks": [r["trusted"] for r in records if r["trusted"] is not None],
    }
    return [["", *QUANTILES], *([name, *_quantiles(of)] for name, of in values.items() if of)]


def _left_out(rejected: Sequence[Record]) -> Rows:
    counts = Counter((item["step"], "bad file" if item["bad"] else "not wanted") for item in rejected)
    order = sorted(counts, key=lambda key: (STEPS.index(key[0]), key[1]))
    return [["step", "why", "count"], *([*key, counts[key]] for key in order)] if rejected else []


def _quantiles(values: Sequence[float]) -> list[object]:
    return [f"{value:.4g}" for value in np.quantile(values, list(QUANTILES.values()))]


def write_contact_sheet(path: Path, manifest: Sequence[Clip]) -> None:
    """Write a PNG of up to 60 clips, evenly spread over the manifest, which lies beside it."""
    count = min(SHEET, len(manifest))
    clips = [manifest[int((k + 0.5) * len(manifest) / count)] for k in range(count)]
    tiles = [_tiles(clip, path.parent) for clip in clips]
    width = max(map(len, tiles)) * TILE + GAP
    height = TILE + CAPTION + GAP
    rows = -(-len(clips) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(clips)) * width + GAP, rows * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (clip, images) in enumerate(zip(clips, tiles, strict=True)):
        left, top = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        for k, image in enumerate(images):
            sheet.paste(image, (left + k * TILE, top))
        draw.multiline_text((left, top + TILE), _caption(clip), fill="black", font_size=11, spacing=1)
    with replacing(path) as partial:
        sheet.save(partial, format="PNG")


def _tiles(clip: Clip, folder: Path) -> list[Image.Image]:
    wanted = [clip.start_frame + int((k + 0.5) * clip.num_frames / TILES) for k in range(TILES)]
    frames = frames_at(folder / clip.video, wanted)
    box = clip.crop or (0, 0, frames.shape[2], frames.shape[1])
    images = [Image.fromarray(crop(frame, box, clip.width)) for frame in frames]
    return [image.resize((TILE, TILE), Image.Resampling.BICUBIC) for image in images]


def _caption(clip: Clip) -> str:
    quality = "" if clip.quality is None else f", quality {clip.quality:.2f}"
    return f"{clip.id[:60]}\nperson {clip.identity}, {clip.split}, {clip.num_frames} frames{quality}"
