"""Settings of `scripts/train_demo.py`."""

from dataclasses import dataclass, field

from svfr.config import ConfigError, check_at_least, check_choice
from svfr.training.settings import TrainConfig


@dataclass
class VAEConfig:
    """Between pixels and latents."""

    kind: str = "patch"
    """patch (linear, fitted in seconds) | kl (SVD's kind with a temporal decoder; wants a GPU)."""
    latent_channels: int = 16
    """Of both kinds."""
    patch_size: int = 4
    """Pixels of a frame per latent pixel, along one side; of patch."""
    whitening: float = 0.5
    """0: components keep their variances relative to each other; 1: all have the same; of patch."""
    fit_clips: int = 256
    """Rendered clips whose first frames patch is fitted on."""
    block_out_channels: list[int] = field(default_factory=lambda: [32, 64, 64])
    """Of kl; each but the last halves the frame."""
    max_steps: int = 20_000
    """Of kl."""
    batch_size: int = 4
    """Clips of a step; of kl."""
    learning_rate: float = 5e-4
    """The highest, of AdamW; of kl."""
    kl_weight: float = 1e-6
    """Of the KL divergence per latent value. Assumption: the usual value of latent diffusion."""
    least_margin: float = 6.0
    """Gate [dB]: the PSNR of the round trip of held-out clips is this much above that of their degraded inputs."""

    def __post_init__(self) -> None:
        check_choice("vae.kind", self.kind, ("patch", "kl"))
        for name in ("latent_channels", "patch_size", "fit_clips", "max_steps", "batch_size"):
            check_at_least(f"vae.{name}", getattr(self, name), 1)
        if self.kind == "patch" and self.latent_channels > 3 * self.patch_size**2:
            raise ConfigError(
                f"vae.latent_channels={self.latent_channels}: a patch has {3 * self.patch_size**2} values"
            )
        if not self.block_out_channels or any(channels % 32 for channels in self.block_out_channels):
            raise ConfigError(f"vae.block_out_channels={self.block_out_channels}: have to be multiples of 32")

    @property
    def downscale(self) -> int:
        """Pixels of a frame per latent pixel, along one side."""
        return self.patch_size if self.kind == "patch" else 2 ** (len(self.block_out_channels) - 1)


@dataclass
class IdentityConfig:
    """The ID network: an ArcFace IResNet-18 with few channels."""

    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    """Of its four stages."""
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
    unseen_people: int = 60
    """People of the gate, never trained on."""
    least_accuracy: float = 0.9
    """Gate: the share of pairs of unseen people's faces that are told right, same and different ones weighing alike."""

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "people", "faces_per_person", "max_steps", "batch_size"):
            check_at_least(f"identity.{name}", getattr(self, name), 1)
        check_at_least("identity.unseen_people", self.unseen_people, 4)
        if len(self.block_out_channels) != 4:
            raise ConfigError(f"identity.block_out_channels={self.block_out_channels}: an IResNet has four stages")


@dataclass
class UNetConfig:
    """The UNet of SVFR, SVD's kind with few channels, and the noise levels it is for."""

    block_out_channels: list[int] = field(default_factory=lambda: [64, 96, 128])
    """Multiples of 32; each but the last halves the latents."""
    attention: list[bool] = field(default_factory=lambda: [False, True, False])
    """Which of these resolutions have attention; the middle has it always. At the highest it doubles the time."""
    layers_per_block: int = 1
    """Residual blocks at each resolution, on the way down."""
    cross_attention_dim: int = 128
    """Width of an ID token."""
    sigma_min: float = 0.02
    """Smallest noise level of sampling. Assumption: noise of 2% of the latents is not seen."""
    sigma_max: float = 20.0
    """Largest noise level of sampling. SVD's 700 is for generating from nothing; here the input says most."""
    num_inference_steps: int = 4
    """Default of sampling; chosen by scripts/ladder.py."""
    guidance_scale: float = 1.0
    """Default of sampling; chosen by scripts/ladder.py."""
    sampler: str = "euler"
    """Default of sampling; chosen by scripts/ladder.py."""

    def __post_init__(self) -> None:
        check_choice("unet.sampler", self.sampler, ("euler", "dpmpp_2m", "antithetic"))
        if not self.block_out_channels or any(channels % 32 for channels in self.block_out_channels):
            raise ConfigError(f"unet.block_out_channels={self.block_out_channels}: have to be multiples of 32")
        if len(self.attention) != len(self.block_out_channels):
            raise ConfigError(f"unet.attention={self.attention}: one entry for each of unet.block_out_channels")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(f"unet.sigma_min={self.sigma_min}: has to be above 0 and below unet.sigma_max")


@dataclass
class DemoConfig:
    """How `scripts/train_demo.py` trains the bundled model from nothing."""

    output_dir: str = "runs/demo"
    """Folder of all steps; what is done there is not done again."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """Of VAE and ID network: auto, or a torch device."""
    vae: VAEConfig = field(default_factory=VAEConfig)
    """Step 1."""
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    """Step 2."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    """Step 3's architecture."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Step 3, as of scripts/train.py; `init_from`, `output_dir` and `seed` are set by the script."""

    def __post_init__(self) -> None:
        check_at_least("seed", self.seed, 0)
        halved = self.vae.downscale * 2 ** (len(self.unet.block_out_channels) - 1)
        if self.train.data.size % halved:
            raise ConfigError(f"train.data.size={self.train.data.size}: has to be a multiple of {halved}")
        if not self.train.data.rendered_clips:
            raise ConfigError("train.data.rendered_clips=0: the bundled model is trained on rendered clips")
