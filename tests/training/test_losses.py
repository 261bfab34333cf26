import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from svfr.diffusion import get_scalings
from svfr.training.losses import (
    WING_CURVATURE,
    WING_WIDTH,
    Denominator,
    denoising_loss,
    facial_prior_loss,
    temporal_loss,
    texture_loss,
    ulr_loss,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Eq. 1


def test_edm_weighting_is_the_plain_error_of_the_v_prediction(generator: torch.Generator) -> None:
    clean, noise, prediction = (torch.randn(2, 3, 4, 5, 5, generator=generator) for _ in range(3))
    sigma = torch.tensor([0.3, 7.0])
    wide = sigma[:, None, None, None, None]
    noisy = clean + wide * noise
    skip, out, _, _ = get_scalings(wide)
    target = (clean - skip * noisy) / out
    loss = denoising_loss(skip * noisy + out * prediction, clean, sigma, "edm")
    assert loss.item() == pytest.approx((prediction - target).square().mean().item(), rel=1e-4)


def test_epsilon_weighting_is_the_error_of_the_noise(generator: torch.Generator) -> None:
    clean, noise, error = (torch.randn(2, 3, 4, 5, 5, generator=generator) for _ in range(3))
    sigma = torch.tensor([0.3, 7.0])
    wide = sigma[:, None, None, None, None]
    noisy, denoised = clean + wide * noise, clean + 0.1 * error
    predicted_noise = (noisy - denoised) / wide
    loss = denoising_loss(denoised, clean, sigma, "epsilon")
    assert loss.item() == pytest.approx((predicted_noise - noise).square().mean().item(), rel=1e-4)


def test_denoising_loss_by_hand() -> None:
    clean = torch.zeros(1, 1, 1, 1, 2)
    denoised = torch.tensor([1.0, 3.0]).view_as(clean)  # mean square 5
    assert denoising_loss(denoised, clean, torch.tensor([2.0]), "edm").item() == pytest.approx(5 * 5 / 4)
    assert denoising_loss(denoised, clean, torch.tensor([2.0]), "epsilon").item() == pytest.approx(5 / 4)


# Eq. 2


def plain_ulr(features: Tensor, videos: list[int], frames: list[int], tau: float, printed: bool) -> float:
    """Eq. 2 by loops over numbers."""
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in features.tolist()]

    def similarity(i: int, j: int) -> float:
        return math.exp(sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / tau)

    row_losses = []
    for i in range(len(rows)):
        negatives = sum(similarity(i, j) for j in range(len(rows)) if videos[j] != videos[i])
        positives = [j for j in range(len(rows)) if j != i and videos[j] == videos[i] and frames[j] == frames[i]]
        if not positives or not negatives:
            continue
        terms = [-math.log(similarity(i, j) / (negatives + (0 if printed else similarity(i, j)))) for j in positives]
        row_losses.append(sum(terms) / len(terms))
    return sum(row_losses) / len(row_losses) if row_losses else 0.0


VIDEOS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3]  # the last one has no positive
FRAMES = [0, 1, 0, 1, 0, 1, 0, 0, 5, 5, 9]


@pytest.mark.parametrize("denominator", ["standard", "printed"])
@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_ulr_against_plain_loops(generator: torch.Generator, denominator: Denominator, tau: float) -> None:
    features = torch.randn(len(VIDEOS), 6, generator=generator)
    loss = ulr_loss(features, torch.tensor(VIDEOS), torch.tensor(FRAMES), tau, denominator)
    assert loss.item() == pytest.approx(plain_ulr(features, VIDEOS, FRAMES, tau, denominator == "printed"), rel=1e-5)


def test_ulr_by_hand() -> None:
    features = torch.tensor([[1.0, 0], [0, 2], [3, 0]])  # rows 0 and 2 agree, row 1 is another video
    ids = torch.tensor([7, 8, 7]), torch.tensor([0, 0, 0])
    expected = -math.log(math.e / (math.e + 1))
    assert ulr_loss(features, *ids, temperature=1.0).item() == pytest.approx(expected)
    assert ulr_loss(features, *ids, temperature=1.0, denominator="printed").item() == pytest.approx(-1)


@pytest.mark.parametrize(("videos", "frames"), [([0, 1, 2], [0, 0, 0]), ([0, 0, 0], [0, 0, 1])])
def test_ulr_without_positives_or_without_negatives_is_0_with_zero_gradient(
    videos: list[int], frames: list[int]
) -> None:
    features = torch.ones(3, 4, requires_grad=True)
    loss = ulr_loss(features, torch.tensor(videos), torch.tensor(frames), 0.07)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_ulr_pulls_views_together_and_pushes_videos_apart() -> None:
    features = torch.tensor([[1.0, 0.2, 0], [0.2, 1, 0], [0.6, 0.6, 0.5]], requires_grad=True)
    optimizer = torch.optim.SGD([features], lr=0.1)
    ids = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0])
    cosine = torch.nn.functional.cosine_similarity
    before = features.detach().clone()
    for _ in range(100):
        optimizer.zero_grad()
        ulr_loss(features, *ids, 0.5).backward()
        optimizer.step()
    assert cosine(features[0], features[1], dim=0) > cosine(before[0], before[1], dim=0)
    assert cosine(features[0], features[2], dim=0) < cosine(before[0], before[2], dim=0)


# Eq. 3


def plain_wing(x: float, w: float, epsilon: float) -> float:
    x = abs(x)
    return w * math.log(1 + x / epsilon) if x < w else x - (w - w * math.log(1 + w / epsilon))


def wing(x: float) -> float:
    """The loss of one coordinate that is off by x, times the number of coordinates."""
    prediction = torch.zeros(1, 68, 2)
    prediction[0, 3, 1] = x
    return facial_prior_loss(prediction, torch.zeros(1, 68, 2), torch.tensor([True])).item() * 136


@pytest.mark.parametrize("x", [0.0, 1e-3, -0.01, 0.0389, 0.0392, 0.5, -1.0])
def test_wing_loss_against_the_formula(x: float) -> None:
    assert wing(x) == pytest.approx(plain_wing(x, WING_WIDTH, WING_CURVATURE), rel=1e-4, abs=1e-9)


def test_wing_loss_is_continuous_where_the_logarithm_ends() -> None:
    assert wing(WING_WIDTH - 1e-6) == pytest.approx(wing(WING_WIDTH + 1e-6), abs=1e-4)
    assert wing(WING_WIDTH) == pytest.approx(WING_WIDTH * math.log(6), rel=1e-4)  # w ln(1 + w / epsilon)


def test_frames_without_reliable_landmarks_do_not_count(generator: torch.Generator) -> None:
    prediction, target = (torch.rand(3, 2, 68, 2, generator=generator) for _ in range(2))
    valid = torch.tensor([[True, False], [True, True], [False, False]])
    expected = facial_prior_loss(prediction[valid], target[valid], torch.ones(3, dtype=torch.bool))
    prediction[~valid] = 99
    assert facial_prior_loss(prediction, target, valid).item() == pytest.approx(expected.item(), rel=1e-5)
    prediction.requires_grad_(True)
    nothing = facial_prior_loss(prediction, target, torch.zeros_like(valid))
    nothing.backward()
    assert nothing.item() == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


def test_parts_of_a_batch_add_up_by_their_mean_count(generator: torch.Generator) -> None:
    prediction, target = (torch.rand(4, 68, 2, generator=generator) for _ in range(2))
    valid = torch.tensor([True, False, True, True])
    whole = facial_prior_loss(prediction, target, valid)
    halves = [facial_prior_loss(prediction[s], target[s], valid[s], num_valid=1.5) for s in (slice(2), slice(2, 4))]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-5)  # type: ignore[union-attr]


# Eq. 4


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: denoising_loss(x, torch.zeros(2, 1, 1, 2, 2), torch.ones(2), "edm"),
        lambda x: ulr_loss(x.flatten(1), torch.tensor([0, 0]), torch.tensor([0, 0]), 0.07),
    ],
)
def test_losses_have_gradients_of_the_right_shape(loss: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(2, 1, 1, 2, 2, requires_grad=True)
    loss(x).backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


def test_temporal_loss_by_hand() -> None:
    levels = torch.tensor([[0.0, 0.1, 0.3, 0.3], [0.0, 0.1, 0.3, 0.3]])
    frames = levels[:, :, None, None, None].expand(2, 4, 3, 5, 5)
    still = torch.zeros_like(frames)
    assert temporal_loss(frames, still, torch.tensor([False, False])).item() == pytest.approx(0.1)
    seam = temporal_loss(frames, still, torch.tensor([False, True])).item()  # there, a step counts as two
    assert seam == pytest.approx((0.1 + 0.2 + 0.2 + 0.2) / 6)
    assert temporal_loss(frames, frames + 0.5, torch.tensor([True, True])) == pytest.approx(0, abs=1e-6)
    assert temporal_loss(frames[:, :1], still[:, :1], torch.tensor([True, True])) == 0


def test_texture_is_the_difference_of_local_roughness_where_gradients_agree_by_hand() -> None:
    ramp = torch.arange(16.0).expand(1, 3, 16, 16)
    one, other = ((step**2 + (1 / 255) ** 2) ** 0.5 for step in (0.04, 0.01))  # a pixel further is this much brighter
    expected = (0.04 * 0.01 / (one * other)) ** 4 * (one - other) ** 2
    assert texture_loss(0.04 * ramp, 0.01 * ramp).item() == pytest.approx(expected, rel=1e-4)
    assert texture_loss(0.04 * ramp, -0.01 * ramp) == 0  # an edge that runs the other way asks for nothing
    assert texture_loss(0.04 * ramp, 0.01 * ramp.mT) < 1e-12


def test_roughness_where_nothing_is_known_earns_nothing(generator: torch.Generator) -> None:
    truth, hatched = torch.rand(2, 8, 3, 32, 32, generator=generator).unbind()
    right = 0.5 * truth
    assert texture_loss(0.5 * hatched, truth) < 0.05 * texture_loss(right, truth)


def test_a_mean_of_all_that_may_be_is_too_smooth(generator: torch.Generator) -> None:
    truth = torch.rand(8, 3, 32, 32, generator=generator)
    mean = truth.mean(dim=0, keepdim=True).expand_as(truth)
    sharper = (mean - 0.5) * 8**0.5 + 0.5  # as strong as the truth, and nowhere right
    assert texture_loss(sharper, truth) < 0.2 * texture_loss(mean, truth)
