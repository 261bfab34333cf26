"""A picture with some frames of each clip and two lines about it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from svfr.data.faces import crop
from svfr.data.manifest import Clip
from svfr.data.video import read_frames
from svfr.files import replacing

TILE = 128  # [px]
TILES = 3  # frames of a clip
CAPTION = 26  # [px] two lines
GAP = 6  # [px]
COLUMNS = 4  # clips in a row


def write_contact_sheet(path: Path, manifest: Sequence[Clip], count: int) -> None:
    """Write a PNG of up to `count` clips, evenly spread over the manifest, which lies beside it."""
    clips = manifest
    if len(manifest) > count:
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
    found: dict[int, np.ndarray] = {}
    for frame in read_frames(folder / clip.video):
        if frame.index in wanted:
            box = clip.crop or (0, 0, frame.image.shape[1], frame.image.shape[0])
            found[frame.index] = crop(frame.image, box, clip.width)
        if frame.index >= wanted[-1]:
            break
    images = [Image.fromarray(found[index]) for index in wanted if index in found]
    return [image.resize((TILE, TILE), Image.Resampling.BICUBIC) for image in images]


def _caption(clip: Clip) -> str:
    quality = "" if clip.quality is None else f", quality {clip.quality:.2f}"
    return f"{clip.id[:60]}\nperson {clip.identity}, {clip.split}, {clip.num_frames} frames{quality}"
