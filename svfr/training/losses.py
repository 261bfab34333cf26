"""The training losses of SVFR, Eq. 1 to 4, and one of sharpness: pure functions.

Shapes: b videos, f frames, c channels, h x w, n rows.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

Weighting = Literal["edm", "epsilon", "unit"]
Denominator = Literal["standard", "printed"]
# Wing loss, Feng et al. 2018: w = 10 px, epsilon = 2 px at 256 px. Assumption: SVFR, which names no values, uses these.
WING_WIDTH = 10 / 256
WING_CURVATURE = 2 / 256
TEXTURE_SIDE = 5  # [px] of the windows. Assumption: an edge and what lies beside it
TEXTURE_POWER = 4  # of the cosine. Assumption: half of the agreement is next to none
TEXTURE_FLOOR = 1 / 255  # half a grey level: what is flatter than this is flat


def denoising_loss(
    denoised: Tensor, clean: Tensor, sigma: Tensor, weighting: Weighting, known: Tensor | None = None
) -> Tensor:
    """Denoising loss on the estimate of the clean latents (SVFR, Eq. 1): scalar mean over videos of the mean over all
    elements that count.

    Args:
        denoised: D (b, f, c, h, w).
        clean: x0 (b, f, c, h, w).
        sigma: (b,) noise levels.
        weighting: "edm", (1 + sigma^2) / sigma^2: the plain error of SVD's v-prediction; "epsilon", 1 / sigma^2: the
            error of the noise, which is Eq. 1 as printed; "unit", 1.
        known: (b, f) bool, frames that don't count; not all of a video.
    """
    errors = (denoised.float() - clean.float()).square().mean(dim=(2, 3, 4))  # (b, f)
    counts = torch.ones_like(errors) if known is None else (~known).float()
    error = (errors * counts).sum(dim=1) / counts.sum(dim=1)  # (b,)
    noise = sigma.square().reciprocal()
    weight = {"edm": noise + 1, "epsilon": noise, "unit": torch.ones_like(noise)}[weighting]
    return (weight * error).mean()


def ulr_loss(
    features: Tensor, video_ids: Tensor, frame_ids: Tensor, temperature: float, denominator: Denominator = "standard"
) -> Tensor:
    """Contrastive unified latent regularization (SVFR, Eq. 2).

    Pulls together one frame's features under different degradations, pushes apart those of different videos. Other
    frames of the same video are neither.

    Args:
        features: (n, d) task features x_hat, of any length: they are normalized here.
        video_ids: (n,) integer; of the video.
        frame_ids: (n,) integer; of the frame in its video. Rows equal in both ids are positives.
        temperature: tau.
        denominator: "standard" (InfoNCE: the positive and all negatives) or "printed" (negatives only, as in Eq. 2).

    Returns:
        Scalar mean over rows of the mean over their positives; rows without a positive or a negative don't count. 0,
        with zero gradient, if there is none.
    """
    features = torch.nn.functional.normalize(features.float(), dim=-1)
    logits = features @ features.T / temperature  # (n, n)
    same_video = video_ids[:, None] == video_ids
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    positive = same_video & (frame_ids[:, None] == frame_ids) & ~itself
    counts = positive.any(dim=1) & ~same_video.all(dim=1)
    if not counts.any():
        return features.sum() * 0.0
    logits, positive, negative = logits[counts], positive[counts], ~same_video[counts]
    negatives = logits.masked_fill(~negative, -math.inf).logsumexp(dim=1, keepdim=True)  # (m, 1)
    normalizer = torch.logaddexp(logits, negatives) if denominator == "standard" else negatives
    losses = (normalizer - logits) * positive
    return (losses.sum(dim=1) / positive.sum(dim=1)).mean()


def facial_prior_loss(
    landmarks: Tensor, target: Tensor, valid: Tensor, num_valid: float | Tensor | None = None
) -> Tensor:
    """Wing loss of the predicted landmarks (SVFR, Eq. 3), with C = w - w ln(1 + w / epsilon), so that it is continuous:
    scalar mean over coordinates of valid frames; 0 if there is none.

    Args:
        landmarks: (..., 68, 2) predicted, as fractions of the frame's sides.
        target: (..., 68, 2) in the same unit.
        valid: (...) bool; frames whose landmarks are reliable. The others don't count.
        num_valid: number of frames to take the mean over, instead of that of `valid`: with several processes, their
            mean, so that the average of their gradients is the gradient of the whole batch.
    """
    distance = (landmarks.float() - target.float()).abs()
    offset = WING_WIDTH - WING_WIDTH * math.log1p(WING_WIDTH / WING_CURVATURE)
    near = WING_WIDTH * torch.log1p(distance / WING_CURVATURE)
    wing = torch.where(distance < WING_WIDTH, near, distance - offset)
    frame_losses = wing.mean(dim=(-2, -1)) * valid
    count = valid.sum() if num_valid is None else torch.as_tensor(num_valid, device=valid.device)
    return frame_losses.sum() / count.clamp(min=1e-9)


def temporal_loss(frames: Tensor, truth: Tensor, seam: Tensor) -> Tensor:
    """How neighbouring frames change, against the truth: L1 distance, scalar; 0 of single frames.

    Args:
        frames: (n, f, 3, s, s) in about [-1, 1].
        truth: (n, f, 3, s, s).
        seam: (n,) bool; where two clips meet after the first frame. Assumption: the step across a seam, which the eye
            sees most, counts as much as all others of its row.
    """
    changes = (frames.diff(dim=1) - truth.diff(dim=1)).abs().mean(dim=(2, 3, 4))  # (n, f - 1)
    weights = torch.ones_like(changes)
    weights[seam, :1] = max(1.0, changes.shape[1] - 1)
    return (weights * changes).sum() / max(1, changes.numel())


def texture_loss(frames: Tensor, truth: Tensor) -> Tensor:
    """How rough each place is: mean squared difference of the gradients' root mean squares over windows, scalar.

    The mean of all pictures that may have been is smoother than any, and only a sharper one has less of this loss. A
    window counts by how well its gradients already point where the truth's do: a network that had to be rough where it
    knows nothing hatched eyes and mouths. Gradients are Prewitt's, as those of the metric: differences of single pixels
    would be content with grain. Assumption: simplified from the texture matching of EnhanceNet (Sajjadi et al. 2017),
    without a network.

    Args:
        frames: (m, 3, s, s) in about [-1, 1].
        truth: (m, 3, s, s).
    """
    across = frames.new_tensor([[1.0, 0.0, -1.0]] * 3) / 6
    kernels = torch.stack([across, across.T])[:, None]  # (2, 1, 3, 3)
    one, other = (
        conv2d(pictures.flatten(0, 1)[:, None], kernels).unflatten(0, (-1, 3)) for pictures in (frames, truth)
    )

    def product(a: Tensor, b: Tensor) -> Tensor:
        """Mean over windows of the scalar product, (m, 1, h, w)."""
        return avg_pool2d((a * b).sum(dim=2).mean(dim=1, keepdim=True), TEXTURE_SIDE, stride=1)

    strength, target = ((product(each, each) + TEXTURE_FLOOR**2).sqrt() for each in (one, other))
    agreement = (product(one, other) / (strength * target)).clamp(min=0).detach()  # a cosine
    return (agreement**TEXTURE_POWER * (strength - target).square()).mean()
