"""The model card of a folder of weights, as the Hub shows it: licences of all parts, training, figures."""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from svfr.files import read_json
from svfr.models.components import INDEX_NAME
from svfr.models.sources import DEMO_FOLDER, RELEASED_FOLDER, RELEASED_HUB_ID, SVD_HUB_ID

CARD = "README.md"
OURS, UNKNOWN = "Apache-2.0", "not known here: its makers have to state it"
SVD = f"Stable Video Diffusion's community licence (https://huggingface.co/{SVD_HUB_ID})"
RELEASED = f"that of https://huggingface.co/{RELEASED_HUB_ID}"
ARCFACE = "InsightFace's: non-commercial research only"
TAGS = ["diffusers", "video-face-restoration", "face-restoration", "colorization", "inpainting"]
TEXT = """# {name}

Restores face videos (blind restoration, colorization, inpainting) by SVFR (arXiv 2501.01235).

```python
from svfr import SVFRPipeline

frames = SVFRPipeline.from_pretrained("{name}")(frames, tasks="bfr")  # aligned face clip (f, h, w, 3) uint8 RGB
```

| part | network | licence of the weights |
|---|---|---|
{rows}

What the weights want: {settings}.
"""


def model_card(folder: Path, source: str, name: str, lora: str | None = None) -> ModelCard:
    """The card of a model; one that was written before goes on with the weights.

    `folder` is the model's, as `save_pretrained` writes it, `lora` that of a LoRA that was merged in. `source` is where
    the weights come from: a name or a folder, whose `config.yaml` (its training), `table.md` (figures, as
    `scripts/eval.py` writes them), `metrics.jsonl` and README.md the card takes in.
    """
    start = Path(source)
    own = ModelCard.load(start / CARD) if (start / CARD).is_file() else None
    if own is not None and own.data.library_name == "svfr" and lora is None:
        return own
    index = read_json(folder / INDEX_NAME)
    parts = [part for part, entry in index.items() if isinstance(entry, list) and part != "scheduler"]
    licences = _licences(source, parts)
    licences["unet"] += f", with a LoRA merged in, {lora}: {UNKNOWN}" if lora else ""
    is_free = set(licences.values()) == {OURS}
    licence: dict[str, Any] = {"license": "apache-2.0"} if is_free else {"license": "other", "license_name": "several"}
    data = ModelCardData(library_name="svfr", pipeline_tag="video-to-video", tags=TAGS, **licence)
    rows = "\n".join(f"| {part} | {index[part][-1]} | {licences[part]} |" for part in parts)
    settings = ", ".join(f"{key} {value}" for key, value in index["settings"].items())
    text = [TEXT.format(name=name, rows=rows, settings=settings)]
    if facts := read_json(start / "provenance.json"):
        text.append(f"Trained by code revision {facts.get('git_revision')} with seed {facts.get('seed')}.\n")
    for file in (start / "metrics.jsonl", start.absolute() / "../../metrics.jsonl"):  # or in the run's folder
        if file.is_file() and (lines := re.findall(r"(.+)\n", file.read_text())):
            text.append(", ".join(f"{key} {value:.6g}" for key, value in json.loads(lines[-1]).items()) + "\n")
    for name, form in (("config.yaml", "## Training\n\n```yaml\n{}\n```\n"), ("table.md", "## Figures\n\n{}\n")):
        text += [form.format((start / name).read_text().strip())] if (start / name).is_file() else []
    text += [re.sub("^#", "##", own.text.strip(), flags=re.M) + "\n"] if own is not None else []
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(text))


def _licences(source: str, parts: list[str]) -> dict[str, str]:
    """The licence of each part, by what its weights were started from."""
    folder = Path(source)
    if source == "demo" or folder.resolve() == DEMO_FOLDER:
        return dict.fromkeys(parts, OURS)
    known: dict[str, str] = {}
    config = (folder / "config.yaml").read_text() if (folder / "config.yaml").is_file() else ""
    started = dict(re.findall(r"^(init_from|arcface): (?!null)(.+)$", config, re.M))
    if source == "released" or (folder / RELEASED_FOLDER).is_dir():
        known = {"unet": f"{RELEASED}, after {SVD}", "vae": SVD, "id_projector": RELEASED, "id_encoder": ARCFACE}
    elif "arcface" in started:  # started from SVD, which has no other network of ours
        known = {"unet": f"trained from {SVD}", "vae": SVD, "id_encoder": ARCFACE}
    elif "init_from" in started:
        known = {part: f"trained from {text}" for part, text in _licences(started["init_from"], parts).items()}
    elif (folder / CARD).is_file():  # one that `model_card` wrote
        known = dict(re.findall(r"^\| (\w+) \| \w+ \| (.+) \|$", (folder / CARD).read_text(), re.M))
    return {part: known.get(part, UNKNOWN) for part in parts}
