"""`SVFRPipeline`: load a model, restore an aligned face clip (`__call__`) or a whole video (`restore_video`)."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from svfr.data.detectors import FaceDetector
from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_uint8, to_unit
from svfr.inference.chain import ChooseReference, OnStep, restore_chained, restore_released
from svfr.inference.keep import KeepRules
from svfr.inference.options import SamplingOptions
from svfr.inference.reference import ReferenceFinder
from svfr.inference.video import OnProgress, VideoReport, restore_video
from svfr.models.components import Components, Reference, load_folder, load_released
from svfr.models.devices import resolve_device, resolve_dtype
from svfr.models.sources import find_model, find_released
from svfr.tasks import parse_tasks, task_prompt

REFERENCE_FRAMES = ("best", "last", "none")


class SVFRPipeline:
    """Restores face videos.

    Args:
        components: the networks.
        detector: finds the face of a reference; without one, faces are taken to be aligned as in FFHQ.
    """

    def __init__(self, components: Components, detector: FaceDetector | None = None) -> None:
        self.components = components
        self.detector = detector

    @property
    def references(self) -> ReferenceFinder:
        """Finds and describes references with this pipeline's networks and detector."""
        return ReferenceFinder(self.components, self.detector)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
    ) -> "SVFRPipeline":
        """Load a model by name.

        Args:
            source: "demo" (the bundled small model), "released" (the released SVFR and SVD, from the Hub), a folder
                that `save_pretrained` wrote, a folder of the released files, or a Hub id.
            device: "auto" or a torch device.
            dtype: "auto", a name or a torch dtype.

        Raises:
            WeightsError: nothing there, or something else.
        """
        released = find_released(source)
        if released is not None:
            return cls.from_released(*released, device=device, dtype=dtype)
        device = resolve_device(device)
        dtype = resolve_dtype(dtype, device)
        return cls(load_folder(find_model(source), dtype).to(device, dtype))

    @classmethod
    def from_released(
        cls,
        svd: str | Path,
        unet: str | Path,
        id_linear: str | Path,
        arcface: str | Path,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> "SVFRPipeline":
        """Load the released SVFR from its own files.

        Args:
            svd: folder of Stable Video Diffusion img2vid-xt in diffusers layout (unet/config.json, vae/, scheduler/).
            unet: `unet.pth`.
            id_linear: `id_linear.pth`.
            arcface: `insightface_glint360k.pth`.
            device: "auto" or a torch device.
            dtype: "auto", a name or a torch dtype.

        Raises:
            WeightsError: a file is missing or does not fit; the first wrong keys are named.
        """
        device = resolve_device(device)
        dtype = resolve_dtype(dtype, device)
        components = load_released(Path(svd), Path(unet), Path(id_linear), Path(arcface), dtype)
        return cls(components.to(device, dtype))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model in diffusers layout: model_index.json and a folder of safetensors for each part."""
        self.components.save(Path(folder))

    def __call__(
        self,
        frames: np.ndarray,
        tasks: str | Iterable[str] = ("bfr",),
        mask: np.ndarray | None = None,
        reference: np.ndarray | None = None,
        num_inference_steps: int | tuple[int, int] | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        strategy: str = "chained",
        seed: int = 0,
        size: int | None = None,
        clip_length: int | None = None,
        overlap: int | None = None,
        decode_chunk_size: int | None = None,
        reference_frame: str = "best",
        keep_known: bool | None = None,
        keep_luminance: bool | None = None,
        keep_tone: bool | None = None,
        initial_noise: Tensor | tuple[Tensor, Tensor] | None = None,
        reference_landmarks: np.ndarray | None = None,
        output_type: Literal["np", "pt"] = "np",
        on_step: OnStep | None = None,
    ) -> np.ndarray | Tensor:
        """Restore an aligned face clip.

        Args:
            frames: (f, h, w, 3) uint8 RGB.
            tasks: of `svfr.tasks.TASKS`, in any combination.
            mask: (h, w) or (f, h, w) uint8, above 127 is a hole; needed for inpainting and for nothing else.
            reference: (h, w, 3) uint8, an aligned photo of the person, used from the first clip on.
            num_inference_steps: per clip; a pair sets the two passes of `released`.
            guidance_scale: between no reference and the reference.
            sampler: "euler", "dpmpp_2m" or "antithetic" (see `svfr.diffusion`); `released` knows Euler's alone.
            strategy: "chained" or "released".
            seed: of all noise.
            size: side of the square that is restored [px].
            clip_length: frames that are denoised together.
            overlap: frames that clips (`released`: windows) share.
            decode_chunk_size: frames that the VAE decodes together.
            reference_frame: "best", "last" or "none", of the first clip.
            keep_known: copy what is outside the mask from the input, when inpainting alone.
            keep_luminance: keep the input's luma outside the mask, when colorizing without bfr.
            keep_tone: keep the input's slow changes of light and colour (light alone when colorizing), with bfr.
            initial_noise: (f, c, size / s, size / s) standard normal (`released`: one for each pass).
            reference_landmarks: (5, 2) of the reference, photo or chosen, at `size` [px]; instead of the detector.
            output_type: "np" or "pt".
            on_step: called after each denoising step with the number of frames that its work amounts to.

        Returns:
            "np": (f, size, size, 3) uint8; "pt": (f, 3, size, size) float32 in [0, 1].

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        tasks = parse_tasks(tasks)
        frames = np.asarray(frames)
        masks = self._check_mask(frames, tasks, mask)
        noise = initial_noise[-1] if isinstance(initial_noise, tuple) else initial_noise
        if noise is not None and len(noise) != len(frames):
            raise ValueError(f"initial_noise has {len(noise)} frames, the video {len(frames)}")
        size = self.resolve_size(size)
        images = [resize(frame, size, size) for frame in frames]
        holes = [None if m is None else resize_mask(m, size, size) for m in masks]
        inputs = [task_input(image, tasks, hole) for image, hole in zip(images, holes, strict=True)]
        photo = None
        if reference is not None:
            photo = self.references.from_aligned(resize(_check_photo(reference), size, size), reference_landmarks)
        restored = self.stream(
            (to_tensor(image) for image in inputs),
            tasks,
            photo,
            SamplingOptions.resolve(
                self.components.settings,
                strategy,
                num_inference_steps,
                guidance_scale,
                clip_length,
                overlap,
                decode_chunk_size,
                seed,
                sampler,
            ),
            strategy=strategy,
            reference_frame=reference_frame,
            initial_noise=initial_noise,
            reference_landmarks=reference_landmarks,
            on_step=on_step,
        )
        unit = to_unit(torch.cat(list(restored))).cpu()
        keep = KeepRules.resolve(tasks, strategy, keep_known, keep_luminance, keep_tone)
        if keep.anything:
            kept = [
                keep.apply(result, image, hole, size)
                for result, image, hole in zip(to_uint8(unit), images, holes, strict=True)
            ]
            return np.stack(kept) if output_type == "np" else torch.stack([to_unit(to_tensor(k)) for k in kept])
        return to_uint8(unit) if output_type == "np" else unit

    def restore_video(
        self,
        source: str | Path,
        target: str | Path,
        tasks: str | Iterable[str] = ("bfr",),
        mask: str | Path | None = None,
        reference: np.ndarray | None = None,
        num_inference_steps: int | tuple[int, int] | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        strategy: str = "chained",
        seed: int = 0,
        size: int | None = None,
        clip_length: int | None = None,
        overlap: int | None = None,
        decode_chunk_size: int | None = None,
        reference_frame: str = "best",
        keep_known: bool | None = None,
        keep_luminance: bool | None = None,
        keep_tone: bool | None = None,
        face: str = "auto",
        format: str = "mp4",
        crf: int = 18,
        on_progress: OnProgress | None = None,
    ) -> VideoReport:
        """Restore a video, an image or a folder of frames into a file of the same size, rate, rotation and sound.

        Args:
            source: the input.
            target: the result; its suffix may change with the container (see `VideoWriter`).
            tasks: of `svfr.tasks.TASKS`, in any combination.
            mask: image, video or folder of images of any size, white is a hole; one image serves all frames.
            reference: (h, w, 3) uint8 photo of the person.
            num_inference_steps: see `__call__`, as all down to `keep_tone`.
            guidance_scale: see `__call__`.
            sampler: see `__call__`.
            strategy: see `__call__`.
            seed: see `__call__`.
            size: see `__call__`.
            clip_length: see `__call__`.
            overlap: see `__call__`.
            decode_chunk_size: see `__call__`.
            reference_frame: see `__call__`.
            keep_known: see `__call__`.
            keep_luminance: see `__call__`.
            keep_tone: see `__call__`.
            face: "auto" (the largest face's crop, pasted back) or "aligned" (the whole frame is the crop).
            format: "mp4" or "png".
            crf: H.264 quality, 0 to 51.
            on_progress: called with (frames, stage): work just done and whether it was "faces" or "restore".

        Raises:
            VideoError: a file cannot be used; nothing is left at `target`.
            ValueError: another argument that cannot be used.
        """
        tasks = parse_tasks(tasks)
        check_mask_needed(tasks, mask is not None)
        size = self.resolve_size(size)
        options = SamplingOptions.resolve(
            self.components.settings,
            strategy,
            num_inference_steps,
            guidance_scale,
            clip_length,
            overlap,
            decode_chunk_size,
            seed,
            sampler,
        )
        photo = (
            None
            if reference is None
            else self.references.from_photo(_check_photo(reference), size, whole=face == "aligned")
        )

        def stream(frames: Iterator[Tensor], first_frame: int, on_step: OnStep) -> Iterator[Tensor]:
            return self.stream(
                frames,
                tasks,
                photo,
                options,
                strategy=strategy,
                reference_frame=reference_frame,
                first_frame=first_frame,
                on_step=on_step,
            )

        return restore_video(
            stream,
            Path(source),
            Path(target),
            tasks,
            KeepRules.resolve(tasks, strategy, keep_known, keep_luminance, keep_tone),
            size=size,
            mask=None if mask is None else Path(mask),
            detector=self.detector,
            face=face,
            format=format,
            crf=crf,
            on_progress=on_progress,
        )

    def stream(
        self,
        frames: Iterator[Tensor],
        tasks: Iterable[str],
        reference: Reference | None,
        options: SamplingOptions,
        strategy: str = "chained",
        reference_frame: str = "best",
        first_frame: int = 0,
        initial_noise: Tensor | tuple[Tensor, Tensor] | None = None,
        reference_landmarks: np.ndarray | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[Tensor]:
        """Restore frames that arrive one by one; what `__call__` and `restore_video` are made of.

        Args:
            frames: (3, s, s) float in [-1, 1], the degraded input of the tasks.
            tasks: asked for.
            reference: of a photo.
            options: see `SamplingOptions.resolve`.
            strategy: "chained" streams; "released" holds everything.
            reference_frame: "best", "last" or "none".
            first_frame: index of the first frame in its video.
            initial_noise: see `__call__`.
            reference_landmarks: see `__call__`.
            on_step: see `__call__`.

        Yields:
            (n, 3, s, s) float, about [-1, 1], not clamped; each frame once.
        """
        if reference_frame not in REFERENCE_FRAMES:
            raise ValueError(f"reference_frame '{reference_frame}': choose from {', '.join(REFERENCE_FRAMES)}")
        gamma = task_prompt(tasks).to(self.components.device)
        if strategy == "released":
            if initial_noise is not None and not isinstance(initial_noise, tuple):
                raise ValueError("initial_noise has to be a pair for the strategy 'released': one for each pass")
            return restore_released(
                self.components,
                frames,
                gamma,
                options,
                reference,
                None if reference_frame == "none" else lambda clip: self.references.released(clip, reference_landmarks),
                initial_noise,
                on_step,
            )
        if isinstance(initial_noise, tuple):
            raise ValueError("initial_noise has to be one tensor for the strategy 'chained'")
        choose: ChooseReference | None = None
        if reference_frame != "none":
            choose = partial(self.references.from_clip, how=reference_frame, landmarks=reference_landmarks)
        return restore_chained(
            self.components, frames, gamma, options, reference, choose, first_frame, initial_noise, on_step
        )

    def resolve_size(self, size: int | None) -> int:
        """The side of the square to restore [px]: the weights' own if None.

        Raises:
            ValueError: the networks cannot halve it as often as they need to.
        """
        size = self.components.settings.size if size is None else size
        multiple = self.components.downscale * 2 ** (len(self.components.model.unet.config.block_out_channels) - 1)
        if size < multiple or size % multiple:
            raise ValueError(f"size is {size}: it has to be a multiple of {multiple} for these weights")
        return size

    @staticmethod
    def _check_mask(frames: np.ndarray, tasks: tuple[str, ...], mask: np.ndarray | None) -> Iterable[np.ndarray | None]:
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise ValueError(f"frames are {frames.dtype} {frames.shape}: they have to be uint8 (f, h, w, 3), f >= 1")
        check_mask_needed(tasks, mask is not None)
        if mask is None:
            return [None] * len(frames)
        if mask.ndim not in (2, 3) or mask.dtype != np.uint8:
            raise ValueError(f"the mask is {mask.dtype} {mask.shape}: it has to be uint8 (h, w) or (f, h, w)")
        if mask.ndim == 3 and len(mask) != len(frames):
            raise ValueError(f"the mask has {len(mask)} frames, the video {len(frames)}")
        return list(mask) if mask.ndim == 3 else list(repeat(mask, len(frames)))


def check_mask_needed(tasks: Iterable[str], has_mask: bool) -> None:
    """A mask goes with inpainting, and inpainting with a mask.

    Raises:
        ValueError: one without the other.
    """
    if "inpainting" in tasks and not has_mask:
        raise ValueError("the task inpainting needs a mask (white = fill in)")
    if "inpainting" not in tasks and has_mask:
        raise ValueError("a mask is given, but inpainting is not among the tasks")


def _check_photo(photo: np.ndarray) -> np.ndarray:
    photo = np.asarray(photo)
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"the reference is {photo.dtype} {photo.shape}: it has to be uint8 (h, w, 3)")
    return photo
