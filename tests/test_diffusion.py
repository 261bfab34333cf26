import numpy as np
import pytest
import torch
from torch import Tensor

from svfr.diffusion import euler_step, get_scalings, guide, karras_sigmas, sample_euler
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


def test_no_steps() -> None:
    with pytest.raises(ValueError, match="num_inference_steps is 0"):
        karras_sigmas(0, 0.002, 700.0)


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


def test_sampling_ends_at_what_the_denoiser_says() -> None:
    clean = torch.randn(1, 2, 4, 8, 8)
    *_, last = sample_euler(lambda x, sigma: clean, torch.randn_like(clean) * 10, karras_sigmas(4, 0.01, 10.0))
    torch.testing.assert_close(last, clean)


def test_known_frames_are_set_before_each_step() -> None:
    sigmas, seen = karras_sigmas(3, 0.01, 10.0), []

    def known(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[:1], float(sigma)), x[1:]])

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((float(x[0, 0]), float(sigma)))
        return x * 0

    list(sample_euler(denoise, torch.ones(2, 1), sigmas, known))
    assert seen == [(float(sigma), float(sigma)) for sigma in sigmas[:-1]]


def test_euler_step_by_hand() -> None:
    x, clean = torch.tensor([10.0]), torch.tensor([4.0])
    assert euler_step(x, clean, torch.tensor(3.0), torch.tensor(1.0)).item() == 6.0
    assert euler_step(x, clean, torch.tensor(3.0), torch.tensor(0.0)).item() == 4.0


def test_guide() -> None:
    one, other = torch.tensor([1.0]), torch.tensor([3.0])
    assert [guide(one, other, scale).item() for scale in (0.0, 1.0, 2.0)] == [1.0, 3.0, 5.0]
