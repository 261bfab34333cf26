"""Pictures to look at: a histogram of the scores, a sheet of clips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_prep.records import PrepareError, replacing

TILE = 128  # [px]
CAPTION = 26  # [px] two lines
GAP = 6  # [px]
COLUMNS = 4  # clips in a row of the sheet


def histogram(scores: Sequence[float], limits: dict[str, float | int | None], path: Path) -> None:
    """Write a histogram of scores in [0, 1] as PNG; `limits` are written into its title."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PrepareError("matplotlib is not installed: pip install 'svfr[data]'") from error
    with mpl.rc_context({"svg.hashsalt": "0"}):
        figure = Figure(figsize=(7, 4), dpi=100)
        axes = figure.subplots()
        axes.hist(scores, bins=50, range=(0, 1), color="#4477aa")
        least = limits.get("min")
        if least is not None:
            axes.axvline(least, color="#aa3333")
        axes.set_xlabel("quality (0 worst, 1 best)")
        axes.set_ylabel("clips")
        axes.set_title(f"{len(scores)} clips, mean {np.mean(scores) if scores else 0:.3f}")
        figure.tight_layout()
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def contact_sheet(clips: Sequence[tuple[list[np.ndarray], str]], path: Path) -> None:
    """Write frames of clips, each with two lines about it, as PNG.

    Args:
        clips: some (s, s, 3) uint8 frames of each, the same number for all, and its caption.
        path: of the picture.
    """
    width = max((len(frames) for frames, _ in clips), default=1) * TILE + GAP
    height = TILE + CAPTION + GAP
    rows = -(-len(clips) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(clips)) * width + GAP, rows * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (frames, caption) in enumerate(clips):
        left, top = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        for k, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.BICUBIC), (left + k * TILE, top))
        draw.multiline_text((left, top + TILE), caption, fill="black", font_size=11, spacing=1)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")
