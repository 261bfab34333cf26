"""What a clip has of the clips before it, as in `inference.chain`: known first frames, a reference of the model's own
making. n = b k views of b clips in k views each."""

from collections.abc import Iterator

import torch
from torch import Tensor

from svfr.data.alignment import five_points
from svfr.data.dataset import Sample
from svfr.data.frames import to_tensor, to_uint8, to_unit
from svfr.models.components import Components
from svfr.models.identity import id_crop
from svfr.training.settings import TrainConfig

DEGRADED, OWN = 0.25, 0.5  # Assumption: shares of the known frames; inference has those of its own alone
CONTEXT, REFERENCE = 0x5EED, 0xFACE  # streams of random numbers of a sample, beside that of its noise
MILD_NOISE = 0.2  # of the latents' standard deviation, at most. Assumption: about what results differ by from the truth


def draw_context(config: TrainConfig, clean: Tensor, own: Tensor, batch: Sample) -> tuple[Tensor, Tensor]:
    """Choose the clips whose first frames are known, and how well; all draws depend on the seeds of the batch.

    From `clean` latents (n, f, c, h, w) and the model's `own` result of the first frames (n, m, c, h, w), m at least as
    many as are drawn: latents, of known frames clean, mildly degraded (alike in all views) or own; and (n, f) bool,
    which are known.
    """
    latents, known = clean.clone(), torch.zeros(clean.shape[:2], dtype=torch.bool, device=clean.device)
    num_views = batch.lq.shape[1]
    for clip, seed in enumerate(batch.seed.tolist()):
        generator = torch.Generator().manual_seed(seed ^ CONTEXT)
        chance, count, kind, degree = torch.rand(4, generator=generator).tolist()
        num = min(1 + int(count * config.max_context), clean.shape[1] - 1)
        if chance >= config.context_share:
            continue
        first = slice(clip * num_views, (clip + 1) * num_views), slice(num)
        known[first] = True
        if kind < DEGRADED:
            noise = torch.randn(latents[first].shape[1:], generator=generator).to(latents)
            blurred = torch.nn.functional.avg_pool3d(latents[first], (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
            latents[first] = latents[first].lerp(blurred, degree) + MILD_NOISE * latents[first].std() * degree * noise
        elif kind < DEGRADED + OWN:
            latents[first] = own[first]
    return latents, known


def own_references(
    components: Components, share: float, own: Tensor, batch: Sample
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """References of the model's `own` result of the first frames, scaled (n, m, c, h, w), as inference takes them from
    its first clip, for a `share` of the samples with a reference and reliable landmarks of the first frame.

    Yields index of a view, latents (c, h, w), not scaled, and ID features (d, 7, 7).
    """
    num_views, size = batch.lq.shape[1], batch.lq.shape[-1]
    for view, latents in enumerate(own):
        clip = view // num_views
        chance = torch.rand((), generator=torch.Generator().manual_seed(int(batch.seed[clip]) ^ REFERENCE))
        if not (chance < share and batch.has_reference[clip] and batch.landmarks_valid[clip, 0]):
            continue
        image = to_uint8(to_unit(components.decode(latents[:1], 1)[0]))
        points = five_points(batch.landmarks[clip, 0].cpu().numpy() * size - 0.5)
        face = id_crop(image, points, components.settings.id_crop)[None]
        features = components.id_encoder(face.to(components.device, components.id_encoder.dtype)).feature_map
        yield view, components.encode(to_tensor(image)[None])[0], features[0].float()
