import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svfr.models.autoencoders import PatchAutoencoder, fit_patch_autoencoder
from tests import tiny


def frames(num: int = 12, size: int = 48, seed: int = 0) -> Tensor:
    """(n, 3, size, size) in [-1, 1]."""
    return torch.from_numpy(tiny.clip(num, size, size, seed)).movedim(-1, 1).float() / 127.5 - 1


def patches_of(images: np.ndarray, p: int) -> np.ndarray:
    """(n, 3, H, W) -> (n h w, 3 p p), by plain loops."""
    n, _, height, width = images.shape
    cut = [
        images[i, :, y : y + p, x : x + p].reshape(-1)
        for i in range(n)
        for y in range(0, height, p)
        for x in range(0, width, p)
    ]
    return np.stack(cut)


def test_reconstruction_is_that_of_principal_components() -> None:
    given, p, channels = frames(), 4, 6
    autoencoder = fit_patch_autoencoder(given, p, channels)
    decoded = autoencoder.decode(autoencoder.encode(given).latent_dist.mode(), num_frames=len(given)).sample
    data = patches_of(given.double().numpy(), p)
    centred = data - data.mean(axis=0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ rows[:channels].T @ rows[:channels] + data.mean(axis=0)
    np.testing.assert_allclose(patches_of(decoded.detach().numpy(), p), expected, atol=1e-4)


def test_latents_have_mean_0_and_variance_1_and_no_width() -> None:
    given = frames()
    posterior = fit_patch_autoencoder(given, 4, 10, whitening=1.0).encode(given).latent_dist
    latents = posterior.mode()
    assert latents.shape == (12, 10, 12, 12)
    assert torch.equal(posterior.sample(), latents)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(10), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.var(dim=(0, 2, 3), unbiased=False), torch.ones(10), atol=1e-3, rtol=0)


@pytest.mark.parametrize("whitening", [0.0, 0.5])
def test_less_whitening_keeps_the_order_of_the_components(whitening: float) -> None:
    given = frames()
    full, part = (fit_patch_autoencoder(given, 4, 8, whitening=w) for w in (0.0, whitening))
    natural, latents = (a.encode(given).latent_dist.mode().std(dim=(0, 2, 3), unbiased=False) for a in (full, part))
    assert latents.square().mean().item() == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(latents / latents[0], (natural / natural[0]) ** (1 - whitening), rtol=1e-2, atol=1e-3)
    one, other = (a.decode(a.encode(given).latent_dist.mode()).sample for a in (full, part))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_all_components_lose_nothing_and_a_patch_is_a_latent_pixel() -> None:
    given = frames()
    autoencoder = fit_patch_autoencoder(given, 4, 48)
    latents = autoencoder.encode(given).latent_dist.mode()
    torch.testing.assert_close(autoencoder.decode(latents).sample, given, atol=1e-3, rtol=0)
    changed = given.clone()
    changed[0, :, 4:8, 8:12] += 0.1
    moved = (autoencoder.encode(changed).latent_dist.mode() != latents).any(dim=1).nonzero().tolist()
    assert moved == [[0, 1, 2]]


def test_fit_is_the_same_each_time_and_survives_constant_colours() -> None:
    given = frames()
    one, other = (fit_patch_autoencoder(given, 4, 8, decoder_channels=4).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)
    gray = fit_patch_autoencoder(torch.full((2, 3, 16, 16), 0.25), 4, 8)
    latents = gray.encode(torch.full((1, 3, 16, 16), 0.25)).latent_dist.mode()
    assert latents.isfinite().all()
    torch.testing.assert_close(gray.decode(latents).sample, torch.full((1, 3, 16, 16), 0.25))


def test_more_channels_than_values() -> None:
    with pytest.raises(ValueError, match="latent_channels is 13: a patch has 12 values"):
        PatchAutoencoder(patch_size=2, latent_channels=13)


def test_what_refines_begins_with_nothing_and_then_sees_beyond_a_patch() -> None:
    plain, refined = (fit_patch_autoencoder(frames(), 4, 8, decoder_channels=channels) for channels in (0, 4))
    latents = plain.encode(frames(2)).latent_dist.mode()
    assert torch.equal(plain.decode(latents).sample, refined.decode(latents).sample)
    assert not refined.load_state_dict(plain.state_dict(), strict=False).unexpected_keys  # older files fit
    refiner = refined.decoder.refiner
    assert refiner is not None
    torch.manual_seed(0)
    for parameter in refiner.fine[-1].parameters():
        nn.init.normal_(parameter)
    changed = latents.clone()
    changed[0, :, 5, 5] += 1
    moved = (refined.decode(changed).sample != refined.decode(latents).sample).any(dim=1)
    assert moved[0, 19, 19]  # of the patch beside it
    assert not moved[1].any()


@pytest.mark.parametrize(("patch_size", "channels"), [(4, 3), (3, 4)])
def test_odd_numbers_cannot_be_refined(patch_size: int, channels: int) -> None:
    with pytest.raises(ValueError, match=f"decoder_channels is {channels}, patch_size {patch_size}: have to be even"):
        PatchAutoencoder(patch_size, 4, decoder_channels=channels)
