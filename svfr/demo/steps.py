"""The steps that train the bundled model from nothing. Each has a gate; what has passed it is not done again."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder

from svfr.config import ConfigError
from svfr.data.frames import to_uint8, to_unit
from svfr.demo.autoencoder import fit_patches, round_trip, train_vae
from svfr.demo.build import write_init
from svfr.demo.clips import held_out_clip
from svfr.demo.identity import embed, render_crops, train_identity, unseen_crops, verification_accuracy
from svfr.demo.settings import DemoConfig
from svfr.models.components import INDEX_NAME, VAE, VAE_CLASSES
from svfr.models.identity import IResNet
from svfr.models.weights import load_part
from svfr.synthetic import render_clip

GATE_NAME = "gate.json"
GATED = ("renderer", "vae", "id_encoder")  # folders of the steps that have a gate
GATE_CLIPS = 12  # held-out clips of the VAE's gate
GATE_FACES = 6  # faces of each unseen person, of the ID network's
INSIDE_FRAME = 0.98  # of the landmarks of rendered clips, the renderer's gate


class GateError(ValueError):
    """A step whose result is not good enough for the next; one line."""


@dataclass(frozen=True)
class Gate:
    """What a step was measured by."""

    measure: str
    value: float
    least: float
    settings: str
    """Digest of the settings that the result depends on."""

    @property
    def passed(self) -> bool:
        """Whether the next step may start."""
        return self.value >= self.least


def check_renderer(config: DemoConfig, folder: Path) -> None:
    """Step 0: clips are the same each time, and their landmarks lie inside the frame."""

    def measure() -> float:
        clips = [render_clip(seed, 2, config.train.data.size) for seed in range(GATE_CLIPS)]
        again = render_clip(0, 2, config.train.data.size)
        if not np.array_equal(clips[0].frames, again.frames):
            raise GateError("the renderer gives other frames for the same seed")
        points = np.stack([clip.landmarks for clip in clips])
        return float(((points >= 0) & (points < config.train.data.size)).all(axis=-1).mean())

    _run(folder / "renderer", "share of landmarks in the frame", INSIDE_FRAME, config.train.data.size, None, measure)


def make_vae(config: DemoConfig, folder: Path, device: torch.device) -> VAE:
    """Step 1: fit or train the VAE; its round trip of held-out clips is held against their degraded inputs."""
    target, settings = folder / "vae", config.vae
    data = config.train.data
    kind = VAE_CLASSES["PatchAutoencoder" if settings.kind == "patch" else "AutoencoderKLTemporalDecoder"]

    def make() -> None:
        vae: VAE
        if settings.kind == "patch":
            vae = fit_patches(
                range(settings.fit_clips), data.size, settings.patch_size, settings.latent_channels, settings.whitening
            )
        else:
            vae = new_kl_vae(config)
            train_vae(
                vae,
                target / "training",
                size=data.size,
                num_frames=data.num_frames,
                batch_size=settings.batch_size,
                max_steps=settings.max_steps,
                learning_rate=settings.learning_rate,
                kl_weight=settings.kl_weight,
                seed=config.seed,
                device=device,
                dtype=torch.bfloat16 if config.train.precision == "bf16" else torch.float32,
                num_workers=data.num_workers,
            )
        vae.cpu().save_pretrained(target / "weights")

    def measure() -> float:
        vae = load_part(kind, target / "weights", torch.float32).to(device)
        gains = []
        for index in range(GATE_CLIPS):
            clip = held_out_clip(index, ("bfr",), data.num_frames, data.size, data.preset)
            frames = torch.from_numpy(clip.truth).movedim(-1, 1).float() / 127.5 - 1
            decoded = to_uint8(to_unit(round_trip(vae, frames)))
            gains.append(psnr(decoded, clip.truth) - psnr(clip.degraded, clip.truth))
        return float(np.mean(gains))

    relevant = [
        *(settings.kind, settings.latent_channels, settings.patch_size, settings.whitening, settings.fit_clips),
        *(settings.block_out_channels, data.size, config.seed),
    ]
    _run(target, "dB of the round trip above the degraded input", settings.least_margin, relevant, make, measure)
    return load_part(kind, target / "weights", torch.float32)


def make_identity(config: DemoConfig, folder: Path, device: torch.device) -> IResNet:
    """Step 2: train the ID network; it has to tell people apart that it has never seen."""
    target, settings, size = folder / "id_encoder", config.identity, config.train.data.size

    def make() -> None:
        crops = _cached(
            target / "faces.npy", lambda: render_crops(range(settings.people), settings.faces_per_person, size, 0)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            encoder = IResNet(18, tuple(settings.block_out_channels), settings.embedding_dim)
        train_identity(
            encoder,
            crops,
            target / "training",
            max_steps=settings.max_steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=config.seed,
            device=device,
        )
        encoder.cpu().save_pretrained(target / "weights")

    def measure() -> float:
        encoder = load_part(IResNet, target / "weights", torch.float32).to(device)
        crops = unseen_crops(settings.unseen_people, GATE_FACES, size)
        return verification_accuracy(embed(encoder, crops.reshape(-1, *crops.shape[2:])), settings.unseen_people)

    people = (settings.people, settings.faces_per_person)
    relevant = [settings.block_out_channels, settings.embedding_dim, *people, size, config.seed]
    _run(target, "accuracy on pairs of unseen people", settings.least_accuracy, relevant, make, measure)
    return load_part(IResNet, target / "weights", torch.float32)


def make_init(config: DemoConfig, folder: Path, vae: VAE, id_encoder: IResNet) -> Path:
    """What `svfr.training.loop` starts from: a model folder whose UNet and heads have no weights yet."""
    target = folder / "init"
    if not (target / INDEX_NAME).is_file():
        write_init(target, config, vae, id_encoder)
    return target


def new_kl_vae(config: DemoConfig) -> AutoencoderKLTemporalDecoder:
    """SVD's kind of VAE with few channels, at random from the seed."""
    channels = config.vae.block_out_channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=1,
            latent_channels=config.vae.latent_channels,
            sample_size=config.train.data.size,
            scaling_factor=1.0,
            force_upcast=False,
        )


def read_gate(folder: Path) -> Gate | None:
    """What a finished step was measured by."""
    path = folder / GATE_NAME
    return Gate(**json.loads(path.read_text())) if path.is_file() else None


def psnr(restored: np.ndarray, truth: np.ndarray) -> float:
    """PSNR of a clip [dB], uint8, over all its pixels."""
    error = np.square(restored.astype(np.float64) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def _run(
    folder: Path, what: str, least: float, settings: Any, make: Callable[[], None] | None, measure: Callable[[], float]
) -> None:
    """Make and measure, unless that is done; a result of other settings is neither used nor overwritten."""
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    gate = read_gate(folder)
    if gate is not None and gate.settings != digest:
        raise ConfigError(f"{folder}: made with other settings; take another output_dir, or remove it")
    if gate is None or not gate.passed:
        if make is not None:
            make()
        folder.mkdir(parents=True, exist_ok=True)
        gate = Gate(what, round(measure(), 4), least, digest)
        partial = folder / f".{GATE_NAME}.partial"
        partial.write_text(json.dumps(asdict(gate), indent=2) + "\n")
        os.replace(partial, folder / GATE_NAME)
    if gate.value < least:
        raise GateError(f"{folder}: {what} is {gate.value:.4g}, at least {least:.4g} is needed")
    print(f"{folder.name}: {what} {gate.value:.4g} (at least {least:.4g})")


def _cached(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is made once; mapped into memory."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.save(file, make())
        os.replace(partial, path)
    return np.load(path, mmap_mode="r", allow_pickle=False)
