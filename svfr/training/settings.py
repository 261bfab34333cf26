"""Settings of `scripts/train.py`."""

from dataclasses import dataclass, field
from typing import Literal

from svfr.config import ConfigError, check_at_least, check_least
from svfr.data.dataset import SampleConfig
from svfr.training.losses import Denominator, Weighting

SHARPENING = tuple(
    f"lambda_{term}" for term in ("pixel", "squared", "perceptual", "texture", "temporal", "adversarial")
)


@dataclass
class DataConfig(SampleConfig):
    """What training reads. Exactly one of `manifests`, `images` and `rendered_clips` is given."""

    manifests: list[str] = field(default_factory=list)
    """Manifests that data preparation wrote; their clips of the split `train` are used, `val` validates."""
    best: int | None = None
    """Train on this many clips of all manifests together, those of the highest quality; none: on all."""
    allow_outside: bool = False
    """Whether manifests may name files outside of their folder."""
    images: str | None = None
    """A folder of aligned photos; each is a clip of one frame (num_frames=1)."""
    rendered_clips: int = 0
    """Rendered clips in place of footage: this many per epoch."""
    num_workers: int = 4
    """Loader processes of each training process; 0 loads in the training process."""
    val_clips: int = 4
    """Clips that validation restores, each of another video; of two training clips' length, chained."""

    def __post_init__(self) -> None:
        check_least(self, "data.", size=1, num_frames=1, num_views=1, best=1)
        check_least(self, "data.", rendered_clips=0, num_workers=0, val_clips=0)
        shares = ("reference_dropout", "reference_degraded", "reference_other_clip", "old_media", "max_broken_share")
        check_least(self, "data.", **dict.fromkeys(shares, (0, 1)))
        if sum([bool(self.manifests), self.images is not None, self.rendered_clips > 0]) > 1:
            raise ConfigError("data.manifests, data.images, data.rendered_clips: give one of them")
        if self.images is not None and self.num_frames != 1:
            raise ConfigError("data.num_frames: has to be 1 for data.images")
        for tasks, weight in self.task_weights.items():
            check_at_least(f"data.task_weights.{tasks}", weight, 0)


@dataclass
class LoRAConfig:
    """Fine-tuning of little: see `svfr.models.lora`."""

    rank: int = 0
    """Of the updates of attention and feed-forward layers, beside which conv_in, task embedding, ID projector and heads
    are trained whole, and the rest is frozen in `precision`; 0: all weights are trained."""

    def __post_init__(self) -> None:
        check_at_least("lora.rank", self.rank, 0)


@dataclass
class TrainConfig:
    """How `scripts/train.py` trains. Defaults are for SVD-XT's size on GPUs with 80 GB."""

    init_from: str | None = None
    """SVD's folder or Hub id, the released SVFR files, or any weights of ours ("demo", a folder)."""
    arcface: str | None = None
    """ArcFace checkpoint (insightface_glint360k.pth); needed when starting from SVD, which has none."""
    output_dir: str = "runs/svfr"
    """Folder of the run; a run that is there already goes on."""
    seed: int = 0
    """Seeds the initialization, the data and all noise."""
    max_steps: int = 20_000
    """Optimizer steps. Assumption: the paper states none."""
    batch_size: int = 1
    """Clips per process and forward pass, each in `data.num_views` views."""
    accumulate: int = 1
    """Forward passes per optimizer step."""
    learning_rate: float = 1e-5
    """AdamW's. Assumption: usual in SVD fine-tuning; the paper states none."""
    weight_decay: float = 0.01
    """AdamW's."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """AdamW with its moments in float32, or, of large tensors, in 8 bits (bitsandbytes)."""
    warmup_steps: int = 500
    """Steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate after the warm-up; cosine falls to 0 at max_steps."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.9999
    """Decay of the moving average of the weights, which is what is saved; rises from 0 over the first steps."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Precision of the forward pass and the frozen networks; the trained weights and the heads are float32."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the UNet block by block: faster steps, after some minutes."""
    weighting: Weighting = "edm"
    """Weighting of the denoising loss: edm (v-prediction), epsilon (Eq. 1 as printed), or unit."""
    sigma_mean: float = 0.7
    """Mean of ln(sigma). Assumption: common in SVD fine-tuning."""
    sigma_std: float = 1.6
    """Standard deviation of ln(sigma). Assumption: as above."""
    lambda_ulr: float = 0.01
    """Weight of the unified latent regularization (SVFR, Sec. 5.3); 0 leaves it out, latent transformer included."""
    lambda_prior: float = 0.1
    """Weight of the facial prior (SVFR, Sec. 5.3); 0 leaves it out, landmark predictor included."""
    ulr_temperature: float = 0.07
    """tau of Eq. 2. Assumption: the usual value of InfoNCE."""
    ulr_denominator: Denominator = "standard"
    """Denominator of Eq. 2: standard (InfoNCE), or printed (negatives only)."""
    ulr_noise: Literal["own", "shared"] = "own"
    """Noise of the videos that Eq. 2 tells apart: own (each its own; those of all processes), or shared (one level and
    one noise for the clips of a process's forward pass, which are compared with each other alone)."""
    context_frames: int = 0
    """First frames of a clip that inference takes from the clip before; 0: the released way, without."""
    clip_length: int | None = None
    """Frames that inference with these weights restores together; None: as many as training does."""
    context_share: float = 0.3
    """Share of samples whose first frames are known, if `context_frames` is above 0."""
    max_context: int = 3
    """So many are known at most; their number is drawn."""
    reference_own: float = 0.0
    """Share of the references that are the model's own one-step result of the clip's first frame."""
    method: Literal["svfr", "one_step"] = "svfr"
    """svfr (denoising, Eq. 1) | one_step (one run of the UNet, from zero at `one_step_sigma`)."""
    one_step_sigma: float = 20.0
    """Noise level of one-step results, where training has been: 20 to 50 for SVD, not its 700."""
    lambda_pixel: float = 0.0
    """Weight of the decoded pixels' L1 error. Any of these six above 0 is stage 2 of method=one_step."""
    lambda_squared: float = 0.0
    """Weight of the decoded pixels' squared error."""
    lambda_perceptual: float = 0.0
    """Weight of LPIPS (VGG) where its network is, else of gradients and features of the ID network."""
    lambda_texture: float = 0.0
    """Weight of the error of the gradients' local strength: asks for sharpness."""
    lambda_temporal: float = 0.0
    """Weight of the L1 error of neighbouring frames' differences."""
    lambda_adversarial: float = 0.0
    """Weight of the hinge adversarial loss."""
    decoder_rate: float = 0.0
    """Learning rate of the VAE's decoder in stage 2, a multiple of the model's; 0 leaves the decoder as it is."""
    decoder_alone: bool = False
    """Train the decoder alone, for what the model gives as it is."""
    crop_size: int = 256
    """Largest side of the crops that are decoded [px]."""
    crop_frames: int = 4
    """Frames of them."""
    discriminator: Literal["unet", "patch"] = "unet"
    """Light heads on the features of the start's own UNet encoder | a small network on the pixels."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    validate_every: int = 500
    """Steps between validations; 0 for none."""
    checkpoint_every: int = 500
    """Steps between checkpoints; there is always one at the end."""
    keep_checkpoints: int = 3
    """Checkpoints that are kept, the newest."""
    keep_weights: int = 3
    """Steps of `weights/` that are kept, the newest."""
    max_skipped: int = 20
    """Training stops after this many skipped steps in a row (gradients that are not finite, a loss that explodes)."""
    explosion: float = 20.0
    """A loss of more than this many times its running mean explodes."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    """What is written beside metrics.jsonl; wandb's own WANDB_MODE=offline works."""
    device: Literal["auto", "cpu"] = "auto"
    """An accelerator if there is one, or the CPU."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is read."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """What of the UNet is trained."""

    @property
    def sharpens(self) -> bool:
        """Whether decoded crops are compared: stage 2 of one_step."""
        return any(getattr(self, name) for name in SHARPENING)

    def __post_init__(self) -> None:
        check_least(self, max_steps=1, batch_size=1, accumulate=1, log_every=1, crop_size=1, crop_frames=1)
        check_least(self, clip_length=1, checkpoint_every=1, keep_checkpoints=1, keep_weights=1)
        check_least(self, seed=0, warmup_steps=0, weight_decay=0, validate_every=0, context_frames=0, ema_decay=0)
        check_least(self, lambda_ulr=0, lambda_prior=0, decoder_rate=0, **dict.fromkeys(SHARPENING, 0))
        check_least(self, context_share=(0, 1), reference_own=(0, 1))
        above_0 = ("learning_rate", "max_grad_norm", "sigma_std", "ulr_temperature", "one_step_sigma")
        check_least(self, **dict.fromkeys(above_0, 1e-12), max_context=max(1, self.context_frames))
        if self.ema_decay >= 1:
            raise ConfigError(f"ema_decay={self.ema_decay}: has to be below 1")
        for name in (*SHARPENING, "decoder_rate"):
            if getattr(self, name) and self.method != "one_step":
                raise ConfigError(f"{name}={getattr(self, name)}: goes with method=one_step alone")
        if self.decoder_rate and (self.lora.rank or not self.sharpens):
            raise ConfigError(
                f"decoder_rate={self.decoder_rate}: trains the whole model (lora.rank=0) with a lambda_* of stage 2"
            )
        if self.decoder_alone and not self.decoder_rate:
            raise ConfigError("decoder_alone=true: wants a decoder_rate above 0")
        if self.lambda_texture and self.crop_size < 8:
            raise ConfigError(f"crop_size={self.crop_size}: lambda_texture wants at least 8")
        if self.context_frames >= self.data.num_frames:
            raise ConfigError(f"context_frames={self.context_frames}: has to be below data.num_frames")
        if self.clip_length and self.context_frames >= self.clip_length:
            raise ConfigError(f"context_frames={self.context_frames}: has to be below clip_length ({self.clip_length})")
        if self.lambda_ulr and self.data.num_views < 2:
            raise ConfigError("data.num_views=1: the regularization needs two views; set lambda_ulr=0")
        if self.ulr_noise == "shared" and self.batch_size < 2:
            raise ConfigError(f"batch_size={self.batch_size}: ulr_noise=shared compares a process's own clips, take 2")
