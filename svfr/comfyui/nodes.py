"""What ComfyUI's graph sees: load a model, restore frames, restore a video file.

ComfyUI calls the method that `FUNCTION` names with the inputs of `INPUT_TYPES`, and takes a tuple of `RETURN_TYPES`.
Its IMAGE is (b, h, w, 3) float32 in [0, 1], its MASK (b, h, w) or (h, w), 1 where something is to be filled in.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from svfr.data.video import read_frames
from svfr.inference.pipeline import SVFRPipeline
from svfr.tasks import TASKS

try:  # there is none outside of ComfyUI
    import comfy.model_management as comfy_memory
    from comfy.model_patcher import ModelPatcher
    from comfy.utils import ProgressBar
except ImportError:
    comfy_memory = None

CATEGORY = "SVFR"
TASK_SWITCHES = {task: ("BOOLEAN", {"default": task == "bfr"}) for task in TASKS}
SEED = ("INT", {"default": 0, "min": 0, "max": 2**63 - 1})


class Model(NamedTuple):
    """What the socket SVFR carries."""

    pipeline: SVFRPipeline
    patcher: Any  # ComfyUI's handle of all its networks, by which it frees memory; None outside of ComfyUI

    def on_device(self) -> SVFRPipeline:
        """The pipeline on ComfyUI's device, with as much memory freed as ComfyUI finds right."""
        if self.patcher is not None:
            comfy_memory.load_models_gpu([self.patcher])
        return self.pipeline


class Progress:
    """ComfyUI's progress bar over frames; its Cancel ends the work at the next step."""

    def __init__(self, num_frames: int) -> None:
        self.bar, self.done = None if comfy_memory is None else ProgressBar(num_frames), 0.0

    def __call__(self, frames: float, stage: str = "restore") -> None:
        """Some frames of a stage are done."""
        if self.bar is not None and comfy_memory is not None:
            comfy_memory.throw_exception_if_processing_interrupted()
            self.done += frames if stage == "restore" else 0.0
            self.bar.update_absolute(round(self.done))


class LoadModel:
    """Weights by name, folder or Hub id."""

    CATEGORY, FUNCTION, RETURN_TYPES, RETURN_NAMES = CATEGORY, "load", ("SVFR",), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        dtypes = ["auto", "bfloat16", "float16", "float32"]
        return {"required": {"weights": ("STRING", {"default": "released"}), "dtype": (dtypes, {"default": "auto"})}}

    def load(self, weights: str, dtype: str) -> tuple[Model]:
        """Load them on the CPU; they go to ComfyUI's device when they are used."""
        device = "cpu" if comfy_memory is None else comfy_memory.get_torch_device()
        if dtype == "auto":
            dtype = "float32" if torch.device(device).type == "cpu" else "bfloat16"
        pipeline = SVFRPipeline.from_pretrained(weights, device="cpu", dtype=dtype)
        patcher = None
        if comfy_memory is not None:
            networks = nn.ModuleDict(pipeline.parts.networks)
            patcher = ModelPatcher(networks, load_device=device, offload_device=comfy_memory.unet_offload_device())
        return (Model(pipeline, patcher),)


class RestoreFrames:
    """The faces of frames: of whole pictures, or frames that are aligned face crops."""

    CATEGORY, FUNCTION, RETURN_TYPES, RETURN_NAMES = CATEGORY, "restore", ("IMAGE",), ("images",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        frames = {"model": ("SVFR",), "images": ("IMAGE",), "face": (["auto", "aligned"], {"default": "auto"})}
        optional = {"mask": ("MASK",), "reference": ("IMAGE",)}
        return {"required": {**frames, **TASK_SWITCHES, "seed": SEED}, "optional": optional}

    def restore(
        self,
        model: Model,
        images: Tensor,
        face: str,
        seed: int,
        mask: Tensor | None = None,
        reference: Tensor | None = None,
        **tasks: bool,
    ) -> tuple[Tensor]:
        """(b, h, w, 3) -> (b, h, w, 3), of aligned crops (b, s, s, 3) at the model's size."""
        frames, chosen = _to_array(images), _chosen(tasks, mask is not None)
        photo, holes = None if reference is None else _to_array(reference)[0], None
        if mask is not None and "inpainting" in chosen:
            holes = _to_array(mask)
            if holes.ndim == 2 or len(holes) == 1:  # one mask for all frames
                holes = np.repeat(holes.reshape(1, *holes.shape[-2:]), len(frames), axis=0)
        pipeline, progress = model.on_device(), Progress(len(frames))
        if face == "aligned":
            return (_to_image(pipeline(frames, chosen, holes, photo, on_step=progress, seed=seed)),)
        with TemporaryDirectory(prefix="svfr-") as folder:
            source = _write(Path(folder, "source"), frames[..., :3])
            masks = None if holes is None else _write(Path(folder, "masks"), holes)
            how: dict[str, Any] = {"on_progress": progress, "seed": seed, "format": "png"}
            report = pipeline.restore_video(source, Path(folder, "restored"), chosen, masks, photo, **how)
            for note in report.notes:
                print(f"SVFR: {note}")
            return (_to_image(np.stack([frame.image for frame in read_frames(report.output)])),)


class RestoreVideo:
    """A video file, in memory that its length does not change, with its sound."""

    CATEGORY, FUNCTION, RETURN_TYPES, RETURN_NAMES = CATEGORY, "restore", ("STRING",), ("path",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What the node asks for."""
        paths = {name: ("STRING", {"default": ""}) for name in ("source", "target")}
        optional = {"mask_path": ("STRING", {"default": ""}), "reference": ("IMAGE",)}
        return {"required": {"model": ("SVFR",), **paths, **TASK_SWITCHES, "seed": SEED}, "optional": optional}

    def restore(
        self,
        model: Model,
        source: str,
        target: str,
        seed: int,
        mask_path: str = "",
        reference: Tensor | None = None,
        **tasks: bool,
    ) -> dict[str, Any]:
        """The path of the result, whose suffix may be another than the target's, and the notes for the node."""
        chosen = _chosen(tasks, bool(mask_path))
        photo = None if reference is None else _to_array(reference)[0]
        mask = mask_path if "inpainting" in chosen else None
        report = model.on_device().restore_video(source, target, chosen, mask, photo, Progress(0), seed=seed)
        return {"ui": {"text": report.notes}, "result": (str(report.output),)}


def _chosen(switches: dict[str, bool], has_mask: bool) -> tuple[str, ...]:
    chosen = tuple(task for task in TASKS if switches.get(task))
    if not chosen:
        raise ValueError(f"SVFR: switch on at least one of {', '.join(TASKS)}")
    if "inpainting" in chosen and not has_mask:
        raise ValueError("SVFR: inpainting needs a mask, white where something is to be filled in")
    return chosen


def _write(folder: Path, frames: np.ndarray) -> Path:
    """Frames (f, h, w[, 3]) uint8 as PNG files."""
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:06d}.png")
    return folder


def _to_array(images: Tensor) -> np.ndarray:
    """[0, 1] -> uint8, of the same shape."""
    return (images.detach().cpu().float().clamp(0, 1) * 255).round().byte().numpy()


def _to_image(frames: np.ndarray) -> Tensor:
    """uint8 -> float32 in [0, 1], of the same shape."""
    return torch.from_numpy(frames).float() / 255


NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "SVFRLoadModel": LoadModel,
    "SVFRRestoreFrames": RestoreFrames,
    "SVFRRestoreVideo": RestoreVideo,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SVFRLoadModel": "Load SVFR",
    "SVFRRestoreFrames": "Restore faces (SVFR)",
    "SVFRRestoreVideo": "Restore a video file (SVFR)",
}
