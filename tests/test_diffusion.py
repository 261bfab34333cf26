from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import AysSchedules
from torch import Tensor

from svfr.diffusion import (
    SAMPLERS,
    Denoiser,
    ays_sigmas,
    euler_step,
    get_scalings,
    guide,
    karras_sigmas,
    sample_dpmpp_2m,
    sample_euler,
)
from tests import tiny


def test_scalings_against_the_formulas() -> None:
    for sigma in (0.002, 1.0, 700.0):
        scalings = get_scalings(torch.tensor(sigma, dtype=torch.float64))
        expected = (
            1 / (sigma**2 + 1),
            -sigma / np.sqrt(sigma**2 + 1),
            1 / np.sqrt(sigma**2 + 1),
            np.log(sigma) / 4,
        )
        np.testing.assert_allclose(torch.stack(scalings).numpy(), expected, rtol=1e-12)


def test_a_perfect_v_prediction_gives_the_clean_latents() -> None:
    clean, noise = torch.randn(2, 5, 4, 8, 8, dtype=torch.float64)
    for sigma in torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64):
        x = clean + sigma * noise
        skip, out, _, _ = get_scalings(sigma)
        v = (noise - sigma * clean) / (sigma**2 + 1).sqrt()  # x_t = cos x0 + sin n, v = cos n - sin x0
        torch.testing.assert_close(skip * x + out * v, clean)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 25, 50])
def test_sigmas_are_those_of_diffusers(num_steps: int) -> None:
    scheduler = tiny.scheduler()
    scheduler.set_timesteps(num_steps)
    sigmas = karras_sigmas(num_steps, 0.002, 700.0)
    torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=1e-5, atol=0)
    torch.testing.assert_close(get_scalings(sigmas[:-1]).noise, scheduler.timesteps, rtol=1e-5, atol=1e-6)


def test_sampling_equals_diffusers_scheduler() -> None:
    generator = torch.Generator().manual_seed(0)
    start = 700 * torch.randn(1, 3, 4, 8, 8, generator=generator)
    outputs = torch.randn(6, 1, 3, 4, 8, 8, generator=generator)

    scheduler = tiny.scheduler()
    scheduler.set_timesteps(6)
    x, expected = start, []
    for timestep, output in zip(scheduler.timesteps, outputs, strict=True):
        x = scheduler.step(output, timestep, x).prev_sample
        expected.append(x)

    waiting = iter(outputs)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        skip, out, _, _ = get_scalings(sigma)
        return skip * x + out * next(waiting)

    given = list(sample_euler(denoise, start, karras_sigmas(6, 0.002, 700.0)))
    assert len(given) == 6
    torch.testing.assert_close(torch.stack(given), torch.stack(expected), rtol=1e-4, atol=1e-4)


def dpmpp_2m_by_hand(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> list[Tensor]:
    """Algorithm 2 of DPM-Solver++ word for word, at alpha = 1, with lambda = -ln(sigma)."""
    lambdas, steps = [-np.log(float(sigma)) if sigma > 0 else np.inf for sigma in sigmas], []
    estimates: list[Tensor] = []
    for i in range(1, len(sigmas)):
        estimates.append(denoise(x, sigmas[i - 1]))
        h = lambdas[i] - lambdas[i - 1]
        if i == 1 or np.isinf(h):
            target = estimates[-1]
        else:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            target = (1 + 1 / (2 * r)) * estimates[-1] - 1 / (2 * r) * estimates[-2]
        x = float(sigmas[i] / sigmas[i - 1]) * x - (np.exp(-h) - 1) * target
        steps.append(x)
    return steps


@pytest.mark.parametrize("num_steps", [1, 2, 3, 8])
def test_dpmpp_2m_is_the_paper_s_algorithm(num_steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, start = torch.randn(6, 6, generator=generator), 80 * torch.randn(4, 6, generator=generator)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (x / (1 + sigma)) @ weight.to(x)

    sigmas = karras_sigmas(num_steps, 0.01, 80.0)
    given = list(sample_dpmpp_2m(denoise, start, sigmas))
    expected = dpmpp_2m_by_hand(denoise, start.double(), sigmas.double())
    assert len(given) == num_steps
    torch.testing.assert_close(torch.stack(given).double(), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_dpmpp_2m_equals_diffusers_scheduler() -> None:
    """Its multistep solver at second order; the last step, which ours ends at the estimate, is left out."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="sample", algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(8)
    alphas = 1 / (scheduler.sigmas**2 + 1).sqrt()  # it works on alpha (x0 + sigma noise)
    sigmas = scheduler.sigmas
    clean = torch.randn(8, 2, 5, generator=torch.Generator().manual_seed(1))
    waiting = iter(clean)
    start = float(sigmas[0]) * torch.ones(2, 5)
    given = list(sample_dpmpp_2m(lambda x, sigma: next(waiting), start, sigmas))
    x = start * alphas[0]
    for timestep, estimate, ours, alpha in zip(scheduler.timesteps, clean, given, alphas[1:], strict=True):
        x = scheduler.step(estimate, timestep, x).prev_sample
        torch.testing.assert_close(ours * alpha, x, rtol=1e-3, atol=1e-3)


def test_dpmpp_2m_is_of_higher_order() -> None:
    """On Gaussian data of std s, whose ideal denoiser is known, x scales exactly by sqrt((s^2 + b^2) / (s^2 + a^2))."""
    std, start = 0.5, torch.ones(1, dtype=torch.float64)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x * std**2 / (std**2 + sigma**2)

    errors = {}
    for name, sample in SAMPLERS.items():
        sigmas = karras_sigmas(20, 0.01, 10.0).double()[:-1]
        *_, last = sample(denoise, start, sigmas)
        errors[name] = abs(last.item() - float((std**2 + sigmas[-1] ** 2) / (std**2 + sigmas[0] ** 2)) ** 0.5)
    assert errors["dpmpp_2m"] < errors["euler"] / 4


@pytest.mark.parametrize("sample", SAMPLERS.values())
def test_sampling_ends_at_what_the_denoiser_says(sample: Callable[..., Iterator[Tensor]]) -> None:
    clean = torch.randn(1, 2, 4, 8, 8)
    *_, last = sample(lambda x, sigma: clean, torch.randn_like(clean) * 10, karras_sigmas(4, 0.01, 10.0))
    torch.testing.assert_close(last, clean)


@pytest.mark.parametrize("sample", SAMPLERS.values())
def test_known_frames_are_set_before_each_step(sample: Callable[..., Iterator[Tensor]]) -> None:
    sigmas, seen = karras_sigmas(3, 0.01, 10.0), []

    def known(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[:1], float(sigma)), x[1:]])

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((float(x[0, 0]), float(sigma)))
        return x * 0

    list(sample(denoise, torch.ones(2, 1), sigmas, known))
    assert seen == [(float(sigma), float(sigma)) for sigma in sigmas[:-1]]


def test_euler_step_by_hand() -> None:
    x, clean = torch.tensor([10.0]), torch.tensor([4.0])
    assert euler_step(x, clean, torch.tensor(3.0), torch.tensor(1.0)).item() == 6.0
    assert euler_step(x, clean, torch.tensor(3.0), torch.tensor(0.0)).item() == 4.0


def test_guide() -> None:
    one, other = torch.tensor([1.0]), torch.tensor([3.0])
    assert [guide(one, other, scale).item() for scale in (0.0, 1.0, 2.0)] == [1.0, 3.0, 5.0]


def test_ays_levels_are_diffusers_own_and_stretch() -> None:
    theirs = torch.tensor(AysSchedules["StableDiffusionVideoSigmas"])
    torch.testing.assert_close(ays_sigmas(10, 0.002, 700.0), theirs, rtol=1e-5, atol=0)
    twice = ays_sigmas(20, 0.002, 700.0)
    torch.testing.assert_close(twice[:-1:2], theirs[:-1])
    torch.testing.assert_close(twice[1], (theirs[0] * theirs[1]).sqrt())
    other = ays_sigmas(5, 0.02, 20.0)
    assert other[[0, -1]].tolist() == [20.0, 0.0]
    assert (other.diff() < 0).all()
    assert ays_sigmas(1, 0.02, 20.0).tolist() == [20.0, 0.0]
