#!/usr/bin/env python
"""Train the bundled model on rendered faces, from nothing (VAE, ID network, SVFR) or from an earlier one's networks.

    python scripts/train_demo.py --config configs/demo_128.yaml [--until identity] [key=value ...]
    python scripts/train_demo.py --config configs/demo_64.yaml --render-testset DIR [--clips 6] [--frames 16]

Each step leaves its result in OUTPUT_DIR: vae/, id_encoder/, init/, a run folder of scripts/train.py for each stage
(svfr/, ...), model/.
Run again, it does what is left. The second call trains nothing: it renders clips of people that no training has seen,
to judge a model on by make_testset.py and eval.py.
Exit code: 0 all steps done, 1 training failed, 2 the call itself was wrong, 130 stopped before.
"""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from svfr import config
from svfr.config import ConfigError, check_least
from svfr.data.alignment import five_points
from svfr.evaluation.testset import write_clip
from svfr.files import replacing
from svfr.models.autoencoders import PatchAutoencoder, fit_patch_autoencoder
from svfr.models.components import Components, ModelSettings
from svfr.models.devices import resolve_device
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.identity import IResNet, align_face
from svfr.models.sources import SVD_SCHEDULER, find_model, load_folder
from svfr.models.svfr import SVFR
from svfr.models.unet import LATENTS_IN
from svfr.models.weights import load_part
from svfr.synthetic import render_clip
from svfr.training.loop import TrainingError, train
from svfr.training.run_folder import find_newest, step_name
from svfr.training.settings import TrainConfig

CONFIG = "config.yaml"
ID_SCALE = 32.0  # of the cosines. Assumption: half of ArcFace's, for hundreds of people instead of many thousands
ID_MARGIN = 0.3  # [rad], added to the angle to one's own centre. Assumption: ArcFace's 0.5 is for longer training
ID_WARMUP = 0.05  # share of the steps over which the learning rate rises
HEAD_DIM, TIME_EMBED_DIM, LANDMARK_HIDDEN = 32, 64, 128  # channels of the UNet's and the landmark predictor's parts
DEFAULTS = ModelSettings(num_inference_steps=4, guidance_scale=1.0, id_crop="arcface")
REPORT_SEEDS = 2_000_000  # clips from here up are neither trained on nor used to choose anything


@dataclass
class VAEConfig:
    """The linear autoencoder of patches."""

    latent_channels: int = 16
    """Principal components that are kept."""
    patch_size: int = 4
    """Pixels of a frame per latent pixel, along one side."""
    whitening: float = 0.5
    """0: components keep their variances relative to each other; 1: all have the same."""
    decoder_channels: int = 0
    """Of the decoder's convolutions across patches, which a stage with `decoder_rate` trains; 0 for none."""
    fit_clips: int = 256
    """Rendered clips whose first frames it is fitted on."""


@dataclass
class IdentityConfig:
    """The ID network: an ArcFace IResNet-18 with few channels."""

    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    """Channels of its four stages."""
    embedding_dim: int = 128
    """Length of an embedding."""
    people: int = 400
    """Rendered people that it is trained on."""
    faces_per_person: int = 12
    """Each in another pose, light and place."""
    max_steps: int = 600
    """Optimizer steps."""
    batch_size: int = 64
    """Faces of a step."""
    learning_rate: float = 2e-3
    """The highest, of AdamW."""


@dataclass
class UNetConfig:
    """The UNet of SVFR, SVD's kind with few channels, and its noise levels."""

    block_out_channels: list[int] = field(default_factory=lambda: [64, 96, 128])
    """Multiples of 32; each but the last halves the latents."""
    attention: list[bool] = field(default_factory=lambda: [False, True, False])
    """Which of these resolutions have attention; the middle has it always. At the highest it doubles the time."""
    cross_attention_dim: int = 128
    """Width of an ID token."""
    sigma_min: float = 0.02
    """Smallest noise level of sampling. Assumption: noise of 2% of the latents is not seen."""
    sigma_max: float = 20.0
    """Largest noise level of sampling. SVD's 700 is for generating from nothing; here the input says most."""


@dataclass
class DemoConfig:
    """How the bundled model is trained."""

    output_dir: str = "runs/demo"
    """Folder of all steps; what is done there is not done again."""
    seed: int = 0
    """Seeds everything."""
    device: str = "auto"
    """Where the ID network trains: auto, or a torch device."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """Step 1."""
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    """Step 2."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    """Step 3's architecture."""
    warm_start: str | None = None
    """Weights that are the start instead of nothing, with another linear autoencoder and size."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Step 3, as of scripts/train.py; `init_from`, `output_dir` and `seed` are set by the script."""
    stages: dict[str, Any] = field(default_factory=lambda: {"svfr": {}})
    """Step 3's runs, each from the weights of the one before: what differs from `train` there, by name."""

    def __post_init__(self) -> None:
        check_least(self, seed=0)
        for section in ("vae", "identity"):
            part = getattr(self, section)
            numbers = {key: 1 for key, value in vars(part).items() if isinstance(value, int)}
            check_least(part, f"{section}.", **numbers | ({"decoder_channels": 0} if part is self.vae else {}))
        for name in self.stages:
            self.stage(name)
        vae, unet, data = self.vae, self.unet, self.train.data
        values, halved = 3 * vae.patch_size**2, vae.patch_size * 2 ** (len(unet.block_out_channels) - 1)
        checks = (
            ("vae.latent_channels", 1 <= vae.latent_channels <= values, f"a patch has {values} values"),
            ("vae.decoder_channels", vae.decoder_channels % 2 == 0, "has to be even"),
            ("vae.patch_size", not (vae.decoder_channels and vae.patch_size % 2), "has to be even to be refined"),
            ("identity.block_out_channels", len(self.identity.block_out_channels) == 4, "there are four stages"),
            ("unet.block_out_channels", not any(c % 32 for c in unet.block_out_channels), "have to be multiples of 32"),
            ("unet.attention", len(unet.attention) == len(unet.block_out_channels) > 0, "one for each resolution"),
            ("unet.sigma_min", 0 < unet.sigma_min < unet.sigma_max, "has to be above 0 and below unet.sigma_max"),
            ("train.data.size", data.size % halved == 0, f"has to be a multiple of {halved}"),
            ("train.data.rendered_clips", data.rendered_clips > 0, "it is rendered clips that the model learns"),
        )
        for key, holds, message in checks:
            if not holds:
                raise ConfigError(f"{key}={attrgetter(key)(self)}: {message}")

    def stage(self, name: str) -> TrainConfig:
        """The settings of a run of step 3."""
        base, changes = asdict(self.train), self.stages[name]
        data = base["data"] | changes.get("data", {})
        run = {"output_dir": str(Path(self.output_dir) / name), "data": data}
        return config.make(TrainConfig, base | {"seed": self.seed} | changes | run)


class ArcFaceLoss(nn.Module):
    """Additive angular margin loss (ArcFace, Deng et al. 2019, Eq. 3)."""

    def __init__(self, num_people: int, embedding_dim: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(num_people, embedding_dim) * 0.01)

    def forward(self, embeddings: Tensor, people: Tensor) -> Tensor:
        """Embeddings (b, d) of the people (b,) -> scalar."""
        cosines = functional.normalize(embeddings) @ functional.normalize(self.centres).T  # (b, n)
        own = cosines.gather(1, people[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        with_margin = torch.cos((own.acos() + ID_MARGIN).clamp(max=torch.pi))
        return functional.cross_entropy(ID_SCALE * cosines.scatter(1, people[:, None], with_margin), people)


def fit_vae(settings: DemoConfig) -> PatchAutoencoder:
    """The linear autoencoder of the first frames of rendered clips."""
    vae = settings.vae
    seeds = tqdm(range(vae.fit_clips), desc="render frames", unit="clip")
    frames = np.concatenate([render_clip(seed, 1, settings.train.data.size).frames for seed in seeds])
    pixels = torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1  # (n, 3, s, s)
    return fit_patch_autoencoder(pixels, vae.patch_size, vae.latent_channels, vae.whitening, vae.decoder_channels)


def render_faces(people: int, faces_per_person: int, size: int) -> np.ndarray:
    """Aligned faces (people, faces_per_person, 112, 112, 3) uint8 RGB, every second one rendered at twice the size."""
    faces = np.empty((people, faces_per_person, 112, 112, 3), np.uint8)
    for seed in tqdm(range(people * faces_per_person), desc="render faces", unit="face"):
        person, index = divmod(seed, faces_per_person)
        clip = render_clip(seed, 1, size * (1 + index % 2), identity=person)
        faces[person, index] = align_face(clip.frames[0], five_points(clip.landmarks[0]))
    return faces


def train_identity(settings: DemoConfig, device: torch.device) -> IResNet:
    """The ID network, trained to tell rendered people apart; a TrainingError where the loss is not finite."""
    identity, seed = settings.identity, settings.seed
    faces = render_faces(identity.people, identity.faces_per_person, settings.train.data.size)
    faces = faces.reshape(-1, *faces.shape[2:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = IResNet(18, tuple(identity.block_out_channels), identity.embedding_dim)
        torch.manual_seed(seed)
        loss_of = ArcFaceLoss(identity.people, identity.embedding_dim)
    model = nn.ModuleList([encoder, loss_of]).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=identity.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step, identity.max_steps))
    bar = tqdm(range(identity.max_steps), desc="ID network", unit="step")
    for step in bar:
        rng = np.random.default_rng([seed, step])
        chosen = rng.choice(len(faces), size=min(identity.batch_size, len(faces)), replace=False)
        # Contiguous: PyTorch 2.15's convolutions crash in the backward pass of channels-last faces on some CPUs.
        batch = torch.from_numpy(faces[chosen]).movedim(-1, 1).contiguous().float() / 127.5 - 1
        mirrored = torch.from_numpy(rng.random(len(chosen)) < 0.5)
        batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        people = torch.from_numpy(chosen // identity.faces_per_person).to(device)
        loss = loss_of(encoder(batch.to(device)).embedding, people)
        if not loss.isfinite():
            raise TrainingError(f"ID network: the loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    return encoder.cpu().eval()


def learning_rate_at(step: int, max_steps: int) -> float:
    """Share of the highest learning rate: a linear rise, then half a cosine down to 0."""
    warmup = max(1, round(ID_WARMUP * max_steps))
    fall = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, max_steps - warmup)))
    return min((step + 1) / warmup, fall)


def assemble_untrained(settings: DemoConfig, vae: PatchAutoencoder, id_encoder: IResNet) -> Components:
    """What SVFR's training starts from: VAE and ID network as trained, UNet and heads at random from the seed."""
    unet, data, channels = settings.unet, settings.train.data, settings.unet.block_out_channels
    kinds = [f"{'CrossAttn' if attention else ''}%sBlockSpatioTemporal" for attention in unet.attention]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = SVFR(
            UNetSpatioTemporalConditionModel(
                sample_size=data.size // settings.vae.patch_size,
                in_channels=LATENTS_IN * settings.vae.latent_channels,
                out_channels=settings.vae.latent_channels,
                down_block_types=tuple(kind % "Down" for kind in kinds),
                up_block_types=tuple(kind % "Up" for kind in reversed(kinds)),
                block_out_channels=tuple(channels),
                addition_time_embed_dim=TIME_EMBED_DIM,
                projection_class_embeddings_input_dim=3 * TIME_EMBED_DIM,
                layers_per_block=1,
                cross_attention_dim=unet.cross_attention_dim,
                num_attention_heads=tuple(width // HEAD_DIM for width in channels),
                num_frames=data.num_frames,
            ),
            IDProjector(id_encoder.config.block_out_channels[-1], unet.cross_attention_dim),
            LatentTransformer(channels[-1]),
            LandmarkPredictor(channels[-1], LANDMARK_HIDDEN),
        )
    scheduler = EulerDiscreteScheduler(sigma_min=unet.sigma_min, sigma_max=unet.sigma_max, **SVD_SCHEDULER)
    model_settings = replace(DEFAULTS, size=data.size, clip_length=data.num_frames)
    return Components(model, vae, id_encoder, scheduler, model_settings)


@torch.no_grad()
def warm_start(settings: DemoConfig, vae: PatchAutoencoder) -> Components:
    """The networks of `settings.warm_start` with another VAE and size; the new model begins by restoring as the old one
    does at its size, since both autoencoders are linear and so is what leads from one's latents to the other's."""
    components = load_folder(find_model(str(settings.warm_start)))
    unet, old, channels, data = components.model.unet, components.vae, settings.vae.latent_channels, settings.train.data
    zoom, rest = divmod(settings.vae.patch_size, old.config.patch_size)
    if not isinstance(old, PatchAutoencoder) or old.config.decoder_channels:
        raise ConfigError(f"warm_start={settings.warm_start}: its VAE is not linear")
    if rest:
        raise ConfigError(f"vae.patch_size={settings.vae.patch_size}: has to be a multiple of that of warm_start")

    def basis(autoencoder: PatchAutoencoder) -> Tensor:
        """What each of its latents adds to a patch (c, 3, p, p)."""
        return functional.pixel_shuffle(autoencoder.decoder.weight.transpose(0, 1), autoencoder.config.patch_size)

    def matrix(autoencoder: PatchAutoencoder, patches: Tensor) -> Tensor:
        """Its latents of patches, without the offset, (c, n)."""
        flat = functional.pixel_unshuffle(patches, autoencoder.config.patch_size).flatten(1)
        return autoencoder.encoder.weight.flatten(1) @ flat.T

    to_old = matrix(old, functional.avg_pool2d(basis(vae), zoom))  # (c_old, c)
    from_old = matrix(vae, functional.interpolate(basis(old), scale_factor=zoom, mode="bilinear"))  # (c, c_old)
    first, last = unet.conv_in, unet.conv_out
    unet.conv_in = nn.Conv2d(LATENTS_IN * channels, first.out_channels, 3, padding=1)
    unet.conv_out = nn.Conv2d(last.in_channels, channels, 3, padding=1)
    by_input = first.weight.unflatten(1, (LATENTS_IN, -1))  # x, LQ, reference
    unet.conv_in.weight.copy_(torch.einsum("onchw,cd->ondhw", by_input, to_old).flatten(1, 2))
    unet.conv_in.bias.copy_(first.bias)
    unet.conv_out.weight.copy_(torch.einsum("dc,cihw->dihw", from_old, last.weight))
    unet.conv_out.bias.copy_(from_old @ last.bias)
    unet.register_to_config(in_channels=LATENTS_IN * channels, out_channels=channels, num_frames=data.num_frames)
    components.vae = vae
    components.settings = replace(components.settings, size=data.size, clip_length=data.num_frames)
    return components


def write_model(folder: Path, weights: Path, step: str, settings: DemoConfig) -> None:
    """Write trained weights in half precision, with their settings and a card."""
    components = load_folder(weights)
    for part in components.networks.values():
        nn.Module.to(part, torch.float16)
    components.save(folder)
    config.save(replace(settings, output_dir=DemoConfig.output_dir), folder / CONFIG)  # names no folder of this machine
    (folder / "README.md").write_text(
        "# A small SVFR model of rendered faces\n\n"
        f"Trained by `scripts/train_demo.py`, weights of {step}, half precision. It knows rendered\n"
        f"faces, not real ones. `{CONFIG}` has all settings: the same call makes the same weights on a CPU; on a GPU\n"
        "they differ by rounding.\n"
    )


def once(path: Path, write: Callable[[Path], object]) -> Path:
    """The result of a step: `write` makes it, unless it is there."""
    if not path.exists():
        with replacing(path) as partial:
            write(partial)
    return path


def claim(folder: Path, settings: DemoConfig) -> None:
    """Note the settings in the run's folder; results of other settings are neither used nor overwritten."""
    path = folder / CONFIG
    before = config.load(DemoConfig, path) if path.is_file() else settings
    for key in ("seed", "vae", "identity", "unet", "warm_start", "train.data.size"):
        if attrgetter(key)(before) != attrgetter(key)(settings):
            raise ConfigError(f"{key}: other settings than in {path}; take another output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    config.save(settings, path)


def train_all(settings: DemoConfig, until: str | None) -> int:
    """All steps up to the one that is asked for; returns the exit code."""
    folder, device = Path(settings.output_dir), resolve_device(settings.device)
    claim(folder, settings)
    vae = once(folder / "vae", lambda path: fit_vae(settings).save_pretrained(path))
    if until == "vae":
        return 0
    autoencoder = load_part(PatchAutoencoder, vae, torch.float32)
    if settings.warm_start is None:
        id_encoder = once(folder / "id_encoder", lambda path: train_identity(settings, device).save_pretrained(path))
        if until == "identity":
            return 0
        parts = autoencoder, load_part(IResNet, id_encoder, torch.float32)
        weights = once(folder / "init", lambda path: assemble_untrained(settings, *parts).save(path))
    else:
        weights = once(folder / "init", lambda path: warm_start(settings, autoencoder).save(path))
    for name in settings.stages:
        finished = train(replace(settings.stage(name), init_from=str(weights)))
        if (step := find_newest(folder / name / "weights", print)) is None:
            return config.INTERRUPTED
        weights = folder / name / "weights" / step_name(step)
        with replacing(folder / "model") as partial:
            write_model(partial, weights, f"step {step} of {name}", settings)
        print(f"{name}: weights of step {step}; use them with --weights {folder / 'model'}")
        if not finished or name == until:
            return 0 if finished else config.INTERRUPTED
    return 0


def run(options: argparse.Namespace) -> int:
    """Train, or write held-out clips as folders of PNG files, the ground truth of scripts/make_testset.py."""
    check_least(options, "--", clips=1, frames=1)
    settings = config.load(DemoConfig, options.config, options.settings)
    if options.until not in (None, "vae", "identity", *settings.stages):
        raise ConfigError(f"--until {options.until}: choose from vae, identity, {', '.join(settings.stages)}")
    if options.render_testset is None:
        return train_all(settings, options.until)
    for seed in tqdm(range(REPORT_SEEDS, REPORT_SEEDS + options.clips), desc="render", unit="clip"):
        frames = render_clip(seed, options.frames, settings.train.data.size).frames
        write_clip(options.render_testset / str(seed), frames)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="configs/demo_64.yaml, or one like it")
    parser.add_argument("--until", help="the last step to do: vae, identity, or the name of a stage")
    parser.add_argument("--render-testset", type=Path, metavar="DIR", help="render held-out clips there, no training")
    parser.add_argument("--clips", type=int, default=6, help="of the test set")
    parser.add_argument("--frames", type=int, default=16, help="of each of its clips")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, such as train.max_steps=2000")
    options = parser.parse_intermixed_args(arguments)
    return config.run_command("train_demo.py", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
