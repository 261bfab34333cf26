"""`SVFRPipeline`: load a model, restore an aligned face clip (`__call__`) or a whole video (`restore_video`)."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from huggingface_hub import ModelCard, create_repo
from PIL import Image
from torch import Tensor

import svfr
from svfr import config
from svfr.data.detectors import FaceDetector, load_detector
from svfr.data.frames import resize, task_input, to_tensor, to_uint8, to_unit
from svfr.data.parsing import FaceParser
from svfr.data.recognition import Recognizer
from svfr.data.video import probe
from svfr.files import sha256_of
from svfr.inference.card import CARD, model_card
from svfr.inference.chain import OnStep
from svfr.inference.keep import KeepRules
from svfr.inference.plan import Plan
from svfr.inference.reference import ReferenceFinder
from svfr.inference.settings import Sampling, VideoSettings
from svfr.inference.strategies import aligned_frames, restore_clips
from svfr.inference.video import FileRestoration, OnProgress, VideoReport, how_to_read, plan_file
from svfr.models.components import VAE, Components, ModelSettings
from svfr.models.devices import MEMORY_PLANS, MemoryPlan, choose_plan, free_memory, resolve_device, resolve_dtype
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.identity import IResNet
from svfr.models.lora import LORA_WEIGHTS, has_lora, merge_lora
from svfr.models.sources import find_model, find_released, load_folder, load_released, load_tiny
from svfr.models.svfr import SVFR
from svfr.models.unet import convolve_over_time
from svfr.tasks import check_mask_needed, parse_tasks


class SVFRPipeline(DiffusionPipeline):
    """Restores face videos.

    It is a `DiffusionPipeline`: `components`, `set_progress_bar_config`, `enable_model_cpu_offload` and the like are
    diffusers' own. Loading and saving are ours, since every key and shape is checked and the settings travel with the
    weights.

    Examples:
        >>> import numpy as np
        >>> from svfr import SVFRPipeline
        >>> pipe = SVFRPipeline.from_pretrained("demo", device="cpu")  # or "released", a folder, a Hub id
        >>> pipe.set_progress_bar_config(disable=True)
        >>> size = pipe.settings.size
        >>> frames = np.full((3, size, size, 3), 127, np.uint8)  # an aligned face clip, RGB
        >>> restored = pipe(frames, tasks=("bfr", "colorization"), seed=1)
        >>> restored.shape == frames.shape, restored.dtype
        (True, dtype('uint8'))
        >>> report = pipe.restore_video("in.mp4", "out.mp4", tasks="bfr")  # doctest: +SKIP

    `latent_transformer` and `landmark_predictor` are of use in training only. `detector` finds the face of a reference;
    without one, faces are taken to be aligned as in FFHQ. Where a video's faces are to be found, it is loaded.
    """

    model_cpu_offload_seq = "id_encoder->id_projector->unet->vae"
    _optional_components = ["latent_transformer", "landmark_predictor"]  # noqa: RUF012, diffusers' own attribute

    def __init__(
        self,
        unet: UNetSpatioTemporalConditionModel,
        vae: VAE,
        id_projector: IDProjector,
        id_encoder: IResNet,
        scheduler: EulerDiscreteScheduler,
        settings: ModelSettings,
        latent_transformer: LatentTransformer | None = None,
        landmark_predictor: LandmarkPredictor | None = None,
        detector: FaceDetector | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, vae=vae, id_projector=id_projector, id_encoder=id_encoder)
        self.register_modules(latent_transformer=latent_transformer, landmark_predictor=landmark_predictor)
        self.register_modules(scheduler=scheduler, settings=settings)
        self.detector = detector
        self._own_detector: FaceDetector | None = None  # for videos, where nobody gave one
        self.recognizer: Recognizer | None = None  # tells people apart; None: the weights' own ID network does
        self.parser: FaceParser | None = None  # of what is pasted into videos, keeps a hand in front of a face
        self.lora: dict[str, Any] | None = None
        self.plan: MemoryPlan | None = None
        self.tiny: AutoencoderTiny | None = None
        self.notes, self._interrupt = list[str](), False

    def prepare(self, memory: str | int = "auto", vae: str = "full", compile: bool = False) -> "SVFRPipeline":
        """Fit the networks to this machine, in place; `memory`, `vae` and `compile` as in `InferConfig`.

        Raises:
            ValueError: what cannot be had here, in one line.
        """
        if vae != "full":
            self.tiny = load_tiny(vae, self.parts)
        parts, device = self.parts, self.parts.device
        free = free_memory(parts.networks.values(), device) * 2 / self.unet.dtype.itemsize  # plans are of 16 bits
        self.plan = MEMORY_PLANS[choose_plan(free, self.settings.size) if memory == "auto" else int(memory)]
        if memory != "auto" and device.type == "cpu":
            self.notes.append(f"memory={memory}: no accelerator here, so it sets the lengths of clips and chunks alone")
        if self.plan.offload:
            parts.offload()
        if compile:
            parts.compile()
        elif device.type == "cpu":
            convolve_over_time(self.unet)
            convolve_over_time(self.vae)
        return self

    @classmethod
    def from_components(
        cls, parts: Components, detector: FaceDetector | None = None, origin: str | None = None
    ) -> "SVFRPipeline":
        """A pipeline of networks that are loaded already; `origin` is where from, for the model card."""
        pipe = cls(**parts.networks, scheduler=parts.scheduler, settings=parts.settings, detector=detector)
        pipe.register_to_config(_name_or_path=origin)
        return pipe

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        torch_dtype: str | torch.dtype | None = None,
        **unknown: Any,
    ) -> "SVFRPipeline":
        """Load a model by name.

        Args:
            source: "demo" (the bundled small model), "released" (the released SVFR and SVD, from the Hub), a folder
                that `save_pretrained` wrote, a folder of the released files, or a Hub id.
            device: "auto" or a torch device.
            dtype, torch_dtype: "auto", a name or a torch dtype.

        Raises:
            ValueError: nothing there, or something else; an unknown keyword; a device or a type that cannot be.
        """
        if unknown:
            advice = "only source, device, dtype and torch_dtype are known here; set networks on the pipeline"
            raise ValueError(f"from_pretrained: unknown '{min(unknown)}': {advice}")
        dtype = dtype if torch_dtype is None else torch_dtype
        if (released := find_released(source)) is not None:
            return cls.from_released(*released, device=device, dtype=dtype)
        device, folder = resolve_device(device), find_model(source)
        dtype = resolve_dtype(dtype, device)
        return cls.from_components(load_folder(folder, dtype).to(device, dtype), origin=str(folder))

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
        """Load the released SVFR from its own files: `unet.pth`, `id_linear.pth` and `insightface_glint360k.pth`.

        `svd` is the folder of Stable Video Diffusion img2vid-xt in diffusers layout (unet/config.json, vae/,
        scheduler/); device and dtype are as in `from_pretrained`.

        Raises:
            WeightsError: a file is missing or does not fit; the first wrong keys are named.
        """
        device = resolve_device(device)
        dtype = resolve_dtype(dtype, device)
        parts = load_released(Path(svd), Path(unet), Path(id_linear), Path(arcface), dtype)
        return cls.from_components(parts.to(device, dtype), origin="released")

    def save_pretrained(
        self, save_directory: str | Path, safe_serialization: bool = True, variant: str | None = None
    ) -> None:
        """Write the model in diffusers layout: model_index.json, a folder of safetensors for each part, a model card.

        In `save_directory` a README.md that is there stays; else it is the card (see `svfr.inference.card`).

        Raises:
            ValueError: `safe_serialization=False`, or a `variant`; neither is written. Or a LoRA is not fused.
        """
        if not safe_serialization or variant is not None:
            raise ValueError("weights are written as safetensors alone, without a variant")
        if has_lora(self.unet):
            raise ValueError("a LoRA lies beside the weights: call fuse_lora() before saving them")
        self.parts.save(folder := Path(save_directory))
        if not (folder / CARD).exists():
            self._card(folder, folder.absolute().name).save(folder / CARD)

    def push_to_hub(self, repo_id: str, **hub: Any) -> str:
        """Upload to the Hub what `save_pretrained` writes; look at its card first. Returns the commit's address.

        `repo_id` is NAME or ORGANIZATION/NAME, and made if needed; `hub` are diffusers' private, token, commit_message,
        create_pr, subfolder.
        """
        private = hub.pop("private", None)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            self._card(Path(folder), repo_id).save(Path(folder) / CARD)
            repo_id = create_repo(repo_id, private=private, token=hub.get("token"), exist_ok=True).repo_id
            return str(self._upload_folder(folder, repo_id, **hub))

    def _card(self, folder: Path, name: str) -> ModelCard:
        lora = str(self.lora["folder"]) if self.lora else None
        return model_card(folder, self.name_or_path or "weights made in memory", name, lora)

    def load_lora_weights(self, folder: str | Path, weight: float = 1.0) -> None:
        """Apply a LoRA that training wrote, and take its settings; a weight of 0 leaves all as it is.

        Raises:
            ValueError: files that cannot be used, or of another base; a LoRA is there already; peft is not installed.
        """
        if self.lora is not None:
            raise ValueError(f"{folder}: there is a LoRA already, {self.lora['folder']}; load the weights again")
        parts = self.parts
        parts.load_lora(Path(folder), weight)
        self.register_modules(settings=parts.settings)
        self.lora = {"folder": str(folder), "weight": weight, "sha256": sha256_of(Path(folder) / LORA_WEIGHTS)}

    def fuse_lora(self) -> None:
        """Merge a LoRA into the layers that it lies beside: no slower than without, and can be saved."""
        merge_lora(self.unet)

    def to(self, *arguments: Any, **named: Any) -> "SVFRPipeline":
        """As diffusers' own; a VAE that overflows in float16 (`force_upcast`) is kept in float32 there."""
        named.pop("silence_dtype_warnings", None)  # there are none
        for value in (*arguments, *named.values()):
            if isinstance(value, torch.dtype):
                self.parts.to(self.device, value)
            elif value is not None:
                super().to(value)
        return self

    @property
    def parts(self) -> Components:
        """The networks that are registered now, as the rooms below take them."""
        model = SVFR(self.unet, self.id_projector, self.latent_transformer, self.landmark_predictor)
        parts = Components(model, self.vae, self.id_encoder, self.scheduler, self.settings, self.plan, self.tiny)
        parts.notes += self.notes
        return parts

    @property
    def references(self) -> ReferenceFinder:
        """Finds and describes references with this pipeline's networks."""
        return ReferenceFinder(self.parts, self.detector, self.recognizer)

    def __call__(
        self,
        frames: np.ndarray,
        tasks: str | Iterable[str] = ("bfr",),
        mask: np.ndarray | None = None,
        reference: np.ndarray | None = None,
        output_type: Literal["np", "pt", "pil"] = "np",
        initial_noise: Tensor | tuple[Tensor, Tensor] | None = None,
        reference_landmarks: np.ndarray | None = None,
        on_step: OnStep | None = None,
        callback_on_step_end: Callable[["SVFRPipeline", int, Tensor, dict[str, Any]], Any] | None = None,
        **sampling: Any,
    ) -> Any:
        """Restore an aligned face clip.

        Args:
            frames: (f, h, w, 3) uint8 RGB.
            tasks: of `svfr.tasks.TASKS`, in any combination.
            mask: (h, w) or (f, h, w) uint8, above 127 is a hole; needed for inpainting and for nothing else.
            reference: (h, w, 3) uint8, an aligned photo of the person, used from the first clip on.
            output_type: "np", "pt" or "pil".
            initial_noise: (f, c, size / s, size / s) standard normal (`released`: one for each pass).
            reference_landmarks: (5, 2) of the reference, photo or chosen, at `size` [px]; instead of the detector.
            on_step: called after each denoising step with its share of the work, in frames.
            callback_on_step_end: called after each as (pipe, step, timestep, {}); `step` counts those of all clips, and
                the tensors cannot be changed. `pipe._interrupt = True` in it stops the work.
            **sampling: fields of `svfr.Sampling`, such as `num_inference_steps=4`.

        Returns:
            "np": (f, size, size, 3) uint8; "pt": (f, 3, size, size) float32 in [0, 1]; "pil": a list of images. After
            an interruption, those of the clips that were finished, which may be none.

        Raises:
            ValueError: an argument that cannot be used.
        """
        tasks = parse_tasks(tasks)
        if output_type not in ("np", "pt", "pil"):
            raise ValueError(f"output_type '{output_type}': choose from np, pt, pil")
        resolved = config.make(Sampling, sampling).resolve(self.parts)
        size, keep = resolved.size or 0, KeepRules.resolve(tasks, resolved)
        images, holes = aligned_frames(frames, mask, tasks, size)
        if initial_noise is not None:
            shape = (self.parts.latent_channels, *[size // self.parts.downscale] * 2)
            *_, last = noises = initial_noise if isinstance(initial_noise, tuple) else (initial_noise,)
            if any(noise.shape[1:] != shape for noise in noises):
                raise ValueError(f"initial_noise: each frame's has to be {shape}")
            if len(last) != len(images):  # pass 1 of `released` has the first clip alone
                raise ValueError(f"initial_noise has {len(last)} frames, the video {len(images)}")
        photo = None
        if reference is not None:
            photo = self.references.from_aligned(resize(_check_photo(reference), size, size), reference_landmarks)
        self._interrupt, steps, units = False, count(), [torch.empty(0, 3, size, size)]
        timesteps: deque[Tensor] = deque(maxlen=1)  # of the UNet's latest run

        def after_step(work: float, stage: str) -> None:
            if on_step is not None:
                on_step(work)
            if callback_on_step_end is not None:
                callback_on_step_end(self, next(steps), timesteps[-1], {})
            if self._interrupt:
                raise _Interrupted

        hook = self.unet.register_forward_pre_hook(lambda _, inputs: timesteps.append(inputs[1].flatten()[0]))
        with self.progress_bar(total=len(images)) as bar, hook, suppress(_Interrupted):
            choose = self.references.chooser(resolved, reference_landmarks)
            inputs = (to_tensor(task_input(image, tasks, hole)) for image, hole in zip(images, holes, strict=True))
            how: dict[str, Any] = {"initial_noise": initial_noise, "on_step": svfr.filling(bar, after_step)}
            for restored in restore_clips(self.parts, resolved, tasks, inputs, choose, photo, **how):
                units.append(to_unit(restored).cpu())
        self.maybe_free_model_hooks()
        unit = torch.cat(units)  # (f, 3, size, size)
        if output_type == "pt" and not (keep.anything and len(unit)):
            return unit
        made = zip(to_uint8(unit), images, holes, strict=False)
        results = [keep.apply(restored, image, hole, size) for restored, image, hole in made]
        if output_type == "pt":
            return torch.stack([to_unit(to_tensor(image)) for image in results])
        if output_type == "np":
            return np.stack(results) if results else np.empty((0, size, size, 3), np.uint8)
        return [Image.fromarray(image) for image in results]

    def restore_video(
        self,
        source: str | Path,
        target: str | Path,
        tasks: str | Iterable[str] = ("bfr",),
        mask: str | Path | None = None,
        reference: np.ndarray | Sequence[np.ndarray] | None = None,
        on_progress: OnProgress | None = None,
        *,
        key: str | None = None,
        **settings: Any,
    ) -> VideoReport:
        """Restore a video, an image or a folder of frames into a file of the same size, rate, rotation and sound.

        Args:
            source: the input.
            target: the result; its suffix may change with the container (see `VideoWriter`).
            tasks: of `svfr.tasks.TASKS`, in any combination.
            mask: image, video or folder of images of any size, white or transparent is a hole; one image serves all
                frames; "auto" finds holes that are white or black and stay in place.
            reference: (h, w, 3) uint8 photo of the person; of several, each face takes the one most like it.
            on_progress: called with (frames, "faces" or "restore") of work just done; what it raises stops the work.
            key: digest of all that the result depends on; an interrupted film of the same key goes on.
            **settings: fields of `svfr.inference.settings.VideoSettings`, such as `face="aligned"`.

        Raises:
            VideoError: a file cannot be used; nothing is left at `target`.
            ValueError: another argument that cannot be used.
        """
        check_mask_needed(tasks := parse_tasks(tasks), mask is not None)
        resolved, references = self._for_video(settings)
        photos = [reference] if isinstance(reference, np.ndarray) else reference or ()
        num_frames = 0
        with suppress(ValueError, OSError):  # said below
            num_frames = probe(Path(source)).num_frames
        with self.progress_bar(total=num_frames) as bar:
            work = self.parts, references, resolved, Path(source), Path(target), tasks
            how = None if mask is None else Path(mask), [*map(_check_photo, photos)], svfr.filling(bar, on_progress)
            report = FileRestoration(*work, *how, key=key, parser=self.parser).run()
        self.maybe_free_model_hooks()
        return report

    def plan_video(self, source: str | Path, on_progress: OnProgress = lambda *_: None, **settings: Any) -> Plan:
        """The plan of `source` by which `restore_video` would work; `settings`, `on_progress` and errors as there."""
        resolved, references = self._for_video(settings)
        info, options, _ = how_to_read(Path(source), resolved)
        return plan_file(references, resolved, Path(source), info, options, on_progress)

    def _for_video(self, settings: dict[str, Any]) -> tuple[VideoSettings, ReferenceFinder]:
        """The settings of a video, resolved, and what finds its faces: a detector of its own, where there is none."""
        resolved, references = config.make(VideoSettings, settings).resolve(self.parts), self.references
        if resolved.face == "auto" and self.detector is None:
            references.detector = self._own_detector = self._own_detector or load_detector("auto")
        return resolved, references


class _Interrupted(Exception):
    """A callback wants the work to end."""


def _check_photo(photo: np.ndarray) -> np.ndarray:
    photo = np.asarray(photo)
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"the reference is {photo.dtype} {photo.shape}: it has to be uint8 (h, w, 3)")
    return photo
