"""What a restoration will do and take, before it is done: the lines of `--dry-run`, a picture of the people."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.frames import to_tensor
from svfr.inference.chain import Chain
from svfr.inference.plan import Plan
from svfr.inference.settings import Sampling
from svfr.models.components import Components
from svfr.tasks import task_prompt

LABEL = 14  # [px] above a person's picture


def clip_seconds(components: Components, sampling: Sampling, tasks: tuple[str, ...]) -> float:
    """How long a clip takes here [s], measured with one and two steps of a gray clip; `sampling` is resolved."""
    length, size, steps = sampling.clip_length, sampling.size, sampling.num_inference_steps
    assert length and size  # resolved
    num_steps = steps if isinstance(steps, int) else sum(steps)
    gray = np.full((size, size, 3), 128, dtype=np.uint8)
    reference = components.encode_reference(to_tensor(gray), gray, FFHQ_TEMPLATE * size / 512)
    lq, gamma = torch.zeros(length, 3, size, size), task_prompt(tasks).to(components.device)
    seconds = []
    for count in (1, 1, min(num_steps, 2)):  # the first warms up
        few = replace(sampling, strategy="chained", num_inference_steps=count)
        started = time.perf_counter()
        Chain(components, few, gamma, reference=reference)(lq).cpu()
        seconds.append(time.perf_counter() - started)
    return seconds[1] + (num_steps - 1) * max(0.0, seconds[2] - seconds[1])


def plan_lines(plan: Plan, sampling: Sampling, plan_seconds: float, seconds_of_a_clip: float) -> Iterator[str]:
    """A plan in lines: shots, people, clips, steps and the time to expect, of which `plan_seconds` are for planning."""
    length, overlap = sampling.clip_length, sampling.overlap
    assert length and overlap is not None  # resolved
    frames = [int(track.face.visible.sum()) for track in plan.tracks]
    clips = sum(1 + max(0, math.ceil((count - length) / (length - overlap))) for count in frames)
    yield f"{plan.num_frames} frames, {len(plan.shots)} shots, starting at {', '.join(map(str, plan.shots))}"
    chosen = {person.number for person in plan.restored}
    for person in plan.people:
        spans = [f"{t.face.start}-{t.face.stop - 1}" for t in plan.tracks if t.person == person.number]
        yield f"person {person.number}: " + (f"frames {', '.join(spans)}" if person.number in chosen else "left as is")
    steps = sampling.num_inference_steps
    yield f"{clips} clips of {length} frames at {sampling.size} px, steps: {steps}"
    yield f"about {plan_seconds + clips * seconds_of_a_clip:.0f} s"
    yield from plan.notes


def contact_sheet(plan: Plan, path: Path) -> None:
    """Write a PNG with the people's numbers and pictures."""
    pictures = [person.picture for person in plan.people]
    side = max(len(picture) for picture in pictures)
    columns = min(len(pictures), 8)
    sheet = Image.new("RGB", (columns * side, math.ceil(len(pictures) / columns) * (side + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, person in enumerate(plan.people):
        x, y = index % columns * side, index // columns * (side + LABEL)
        draw.text((x + 2, y + 1), str(person.number), fill="black")
        sheet.paste(Image.fromarray(person.picture), (x, y + LABEL))
    sheet.save(path)
