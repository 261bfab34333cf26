"""The model card of a folder of weights, as the Hub shows it: licences of all parts, training, figures."""

import json
import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from svfr.files import read_json
from svfr.models.components import DEMO_FOLDER, INDEX_NAME
from svfr.models.sources import RELEASED_FOLDER, RELEASED_HUB_ID, SVD_HUB_ID

CARD, TABLE, METRICS = "README.md", "table.md", "metrics.jsonl"
OURS = "Apache-2.0"
UNKNOWN = "not known here: its makers have to state it"
SVD = f"Stable Video Diffusion's community licence (https://huggingface.co/{SVD_HUB_ID})"
RELEASED = f"that of https://huggingface.co/{RELEASED_HUB_ID}"
ARCFACE = "InsightFace's: non-commercial research only"
USE = """```python
from svfr import SVFRPipeline

pipe = SVFRPipeline.from_pretrained("{name}")
frames = pipe(frames, tasks="bfr")  # aligned face clip (f, h, w, 3) uint8 RGB
report = pipe.restore_video("in.mp4", "out.mp4", tasks="bfr")
```"""


def model_card(folder: Path, source: str, name: str, lora: str | None = None) -> ModelCard:
    """The card of a model; one that was written before goes on with the weights.

    Args:
        folder: of the model, as `save_pretrained` writes it.
        source: where its weights come from: a name or a folder, whose `config.yaml` (its training), `table.md`
            (figures, as `scripts/eval.py` writes them), `metrics.jsonl` and README.md the card takes in.
        name: of the model.
        lora: folder of the LoRA that was merged in.
    """
    start = DEMO_FOLDER if source == "demo" else Path(source)
    own = ModelCard.load(start / CARD) if (start / CARD).is_file() else None
    if own is not None and own.data.library_name == "svfr" and lora is None:
        return own
    index = read_json(folder / INDEX_NAME)
    parts = [part for part, entry in index.items() if isinstance(entry, list) and part != "scheduler"]
    licences = _licences(source, parts)
    if lora is not None:
        licences["unet"] += f", with a LoRA merged in: {UNKNOWN}"
    is_free = set(licences.values()) == {OURS}
    data = ModelCardData(
        license="apache-2.0" if is_free else "other",
        license_name=None if is_free else "several, see below",
        library_name="svfr",
        pipeline_tag="video-to-video",
        tags=["diffusers", "video-face-restoration", "face-restoration", "colorization", "inpainting"],
    )
    rows = [f"| {part} | {index[part][-1]} | {licences[part]} |" for part in parts]
    settings = [f"- {key}: {value}" for key, value in index["settings"].items()]
    text = [f"---\n{data.to_yaml()}\n---", f"# {name}"]
    if index["settings"]["untrained"]:
        text += ["**These weights are untrained: results are noise.**"]
    text += [
        "Restores face videos (blind restoration, colorization, inpainting) by SVFR (arXiv 2501.01235).",
        USE.format(name=name),
        "## Licences",
        "\n".join(["| part | network | licence of the weights |", "|---|---|---|", *rows]),
        "## What the weights want",
        "\n".join(settings),
        "## Training",
        *_training(start, source),
        *([f"LoRA merged in: `{lora}`."] if lora else []),
    ]
    if (start / TABLE).is_file():
        text += ["## Figures", (start / TABLE).read_text().strip()]
    if own is not None:
        text += [f"## The card of {source}", re.sub("^#", "###", own.text.strip(), flags=re.M)]
    return ModelCard("\n\n".join(text) + "\n")


def _training(start: Path, source: str) -> list[str]:
    """Paragraphs on how the weights were made, as far as files beside them say it."""
    text = [f"Weights: `{Path(source).name}`."]
    if facts := read_json(start / "provenance.json"):
        text[0] += f" Code revision {facts.get('git_revision')}, seed {facts.get('seed')}."
    # Beside the weights, or in the run's folder.
    for file in (start / METRICS, start.absolute().parents[1] / METRICS if start.is_dir() else start):
        if file.is_file() and (lines := file.read_text().split("\n")[:-1]):
            last = json.loads(lines[-1])
            text += ["Last measured: " + ", ".join(f"{key} {value:.6g}" for key, value in last.items()) + "."]
            break
    if (start / "config.yaml").is_file():
        text += ["Settings:", f"```yaml\n{(start / 'config.yaml').read_text().strip()}\n```"]
    return text


def _licences(source: str, parts: list[str]) -> dict[str, str]:
    """The licence of each part, by what its weights were started from."""
    folder = DEMO_FOLDER if source == "demo" else Path(source)
    if folder.resolve() == DEMO_FOLDER:
        return dict.fromkeys(parts, OURS)
    if source == "released" or (folder / RELEASED_FOLDER).is_dir():
        known = {"unet": f"{RELEASED}, after {SVD}", "vae": SVD, "id_projector": RELEASED, "id_encoder": ARCFACE}
        return {part: known.get(part, UNKNOWN) for part in parts}
    config = (folder / "config.yaml").read_text() if (folder / "config.yaml").is_file() else ""
    started = {key: value for key, value in re.findall(r"^(init_from|arcface): (.+)$", config, re.M) if value != "null"}
    card = (folder / CARD).read_text() if (folder / CARD).is_file() else ""
    known = dict(re.findall(r"^\| (\w+) \| \w+ \| (.+) \|$", card, re.M))  # of a card that `model_card` wrote
    licences = {part: known.get(part, UNKNOWN) for part in parts}
    if (start := started.get("init_from")) is not None:
        if "arcface" in started:  # of SVD, which has no other network of ours
            licences |= {"unet": f"trained from {SVD}", "vae": SVD, "id_encoder": ARCFACE}
        else:
            of_start = _licences(start, parts)
            licences = {part: f"trained from {start}: {of_start[part]}" for part in parts}
    return licences
