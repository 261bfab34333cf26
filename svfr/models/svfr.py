"""SVFR: all that is trained, in the one module that the training loop and the pipeline both call."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from svfr.diffusion import get_scalings
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.unet import FixedContext, keep_mid_features, widen_conv_in


class SVFROutput(NamedTuple):
    """What one forward pass gives."""

    prediction: Tensor  # F (b, f, c, h, w), SVD's v-prediction
    denoised: Tensor  # D (b, f, c, h, w), float32 estimate of the clean latents
    mid_features: Tensor  # x_d (b, f, d, h / 8, w / 8), output of the UNet's mid block


class SVFR(nn.Module):
    """The denoiser with its task prompt, reference and identity, and the heads, None for inference alone.

    Examples:
        >>> import torch
        >>> from svfr import SVFR, SVFRPipeline
        >>> parts = SVFRPipeline.from_pretrained("demo", device="cpu").components
        >>> model = SVFR(parts["unet"], parts["id_projector"])
        >>> clip = torch.zeros(1, 2, model.unet.config.out_channels, 16, 16)  # latents (b, f, c, h, w)
        >>> tokens = torch.zeros(1, 49, model.id_projector.config.out_channels)
        >>> with torch.no_grad():
        ...     output = model(clip, clip, clip, tokens, sigma=torch.ones(1), task_prompt=torch.tensor([[1.0, 0, 0]]))
        >>> output.denoised.shape == clip.shape
        True
    """

    def __init__(
        self,
        unet: UNetSpatioTemporalConditionModel,  # stock; one with SVD's 8 input channels is widened in place
        id_projector: IDProjector,  # M_id
        latent_transformer: LatentTransformer | None = None,  # T_l of the unified latent regularization
        landmark_predictor: LandmarkPredictor | None = None,  # P_lm of the facial prior
    ) -> None:
        super().__init__()
        widen_conv_in(unet)
        keep_mid_features(unet)
        self.unet, self.id_projector = unet, id_projector
        self.latent_transformer, self.landmark_predictor = latent_transformer, landmark_predictor

    def forward(
        self,
        noisy_latents: Tensor,
        lq_latents: Tensor,
        ref_latents: Tensor,
        id_tokens: Tensor | FixedContext,
        sigma: Tensor,
        task_prompt: Tensor,
    ) -> SVFROutput:
        """Estimate the clean latents of degraded videos.

        Args:
            noisy_latents: (b, f, c, h, w) scaled latents plus sigma times noise.
            lq_latents: (b, f, c, h, w) of the degraded frames, not scaled (released code).
            ref_latents: (b, f, c, h, w) of each frame's reference, not scaled, zeros without one; or (b, c, h, w), one
                for all frames.
            id_tokens: (b, n, d) from the ID projector, zeros without a reference; or, while sampling, fixed ones.
            sigma: (b,) noise levels > 0.
            task_prompt: (b, 3) gamma of 0 and 1.
        """
        num_frames = noisy_latents.shape[1]
        dtype = self.unet.dtype
        if ref_latents.ndim == 4:
            ref_latents = ref_latents.unsqueeze(1)  # (b, 1, c, h, w)
        scalings = get_scalings(sigma.float())
        skip, out, inp = (factor.view(-1, 1, 1, 1, 1) for factor in scalings[:3])
        noisy_latents = noisy_latents.float()

        ref_latents = ref_latents.to(dtype).expand(-1, num_frames, -1, -1, -1)
        parts = (inp * noisy_latents, lq_latents, ref_latents)
        sample = torch.cat([part.to(dtype) for part in parts], dim=2)  # (b, f, 3 c, h, w)
        given = id_tokens.installed() if isinstance(id_tokens, FixedContext) else nullcontext(id_tokens.to(dtype))
        with given as tokens:
            # The task prompt takes the place of SVD's (fps, motion bucket, noise augmentation).
            prediction = self.unet(sample, scalings.noise, tokens, added_time_ids=task_prompt, return_dict=False)[0]
        denoised = skip * noisy_latents + out * prediction.float()

        mid_features = self.unet.mid_block.last_output.unflatten(0, (-1, num_frames))
        self.unet.mid_block.last_output = None  # it holds the graph
        return SVFROutput(prediction, denoised, mid_features)

    @torch.no_grad()
    def fix_context(self, id_tokens: Tensor) -> FixedContext:
        """Project (b, n, d) ID tokens once for a whole sampling run; pass the result to `forward` in their place."""
        if hook := getattr(self.unet, "_hf_hook", None):
            hook.pre_forward(self.unet)  # it may wait on the CPU, and here layers of it are called
        return FixedContext(self.unet, id_tokens.to(self.unet.dtype))
