import csv
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import lpips
import numpy as np
import pytest
import torch
import torchvision
from lpips import pretrained_networks
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity
from torch import Tensor

from svfr.files import sha256_of
from svfr.metrics import build_metrics
from svfr.metrics.base import Chunk
from svfr.metrics.colour import ChromaPSNR, Colour, chroma_psnr, ciede2000, colourfulness, to_lab
from svfr.metrics.image import PSNR, SSIM, Gradients, _convolve, luma, psnr, ssim_map, window_means
from svfr.metrics.lpips import LPIPS, LPIPSAlex
from tests import assets
from tests.metrics.made import check_streaming, frames, measure, noisy, video

FLAT = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
WEIGHTS = np.array([0.299, 0.587, 0.114])  # of luma, ITU-R 601
PAIRS = ("I03", "I04", "I06", "I08", "I19")


def lpips_backbone(net: str, folder: Path) -> tuple[Path, Any]:
    """A file of random weights in the layout of torchvision's, and the network that has them."""
    with torch.device("meta"):  # no memory for the classifier, which LPIPS doesn't use
        network = {"vgg": torchvision.models.vgg16, "alex": torchvision.models.alexnet}[net](weights=None)
    network.features.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in network.features.parameters():
        torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1)
    path = folder / f"{net}.pth"
    torch.save({name: value for name, value in network.state_dict().items() if "features" in name}, path)
    return path, network


def assert_near(values: list[float | None], expected: list[float | None]) -> None:
    """Equal within 1e-5, None where None is expected."""
    assert [value is None for value in values] == [value is None for value in expected]
    numbers = [[value for value in row if value is not None] for row in (values, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5)


def test_psnr_against_plain_numpy() -> None:
    chunk = video()
    assert chunk.mask is not None
    expected: list[float] = []
    holes: list[float | None] = []
    for restored, truth, mask in zip(chunk.restored.numpy(), chunk.truth.numpy(), chunk.mask.numpy(), strict=True):
        squares = (restored.astype(float) - truth) ** 2
        expected.append(20 * math.log10(255) - 10 * math.log10(squares.mean()))
        inside = [squares[:, y, x].mean() for y, x in np.argwhere(mask)]
        holes.append(20 * math.log10(255) - 10 * math.log10(np.mean(inside)) if inside else None)
    row, by_frame = measure(PSNR(), [chunk])
    assert by_frame["psnr"] == pytest.approx(expected)
    assert_near(by_frame["psnr_mask"], holes)
    assert row["psnr"] == pytest.approx(np.mean(expected))
    assert row["psnr_mask"] == pytest.approx(np.mean([value for value in holes if value is not None]))


def test_psnr_of_a_known_difference() -> None:
    assert psnr(FLAT + 1, FLAT).item() == pytest.approx(48.1308036)  # 20 log10(255)
    assert psnr(FLAT + 10, FLAT).item() == pytest.approx(28.1308036)
    assert psnr(noisy(frames(0, 1, 256, 256).clamp(60, 190), 10), frames(0, 1, 256, 256).clamp(60, 190)).item() == (
        pytest.approx(20 * math.log10(255 / math.sqrt(10**2 + 1 / 12)), abs=0.05)  # rounding adds 1/12
    )


def test_psnr_of_equal_frames_is_the_ceiling_and_of_no_hole_nothing() -> None:
    row, _ = measure(PSNR(), [Chunk(FLAT, FLAT, torch.zeros(1, 16, 16, dtype=torch.bool))])
    assert row == {"psnr": 100, "psnr_mask": None}
    assert measure(PSNR(), [Chunk(FLAT, FLAT)])[0] == row


def test_holes_are_measured_alone() -> None:
    truth = frames(0, 1, 40, 40)
    restored = truth.clone()
    restored[:, :, 10:30, 10:30] = 255 - restored[:, :, 10:30, 10:30]
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[:, 10:30, 10:30] = True
    ours, by_ssim = (measure(metric, [Chunk(restored, truth, mask)])[0] for metric in (PSNR(), SSIM()))
    assert ours["psnr_mask"] == pytest.approx(psnr(restored[:, :, 10:30, 10:30], truth[:, :, 10:30, 10:30]).item())
    assert ours["psnr"] == pytest.approx(ours["psnr_mask"] + 10 * math.log10(4), abs=1e-6)  # a quarter of the frame
    assert by_ssim["ssim_mask"] < by_ssim["ssim"]
    assert measure(PSNR(), [Chunk(restored, truth, ~mask)])[0]["psnr_mask"] == 100


def gaussian_ssim(restored: np.ndarray, truth: np.ndarray) -> float:
    """SSIM of (h, w) by its definition, window by window."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(restored.shape[0] - 10):
        for x in range(restored.shape[1] - 10):
            a, b = (image[y : y + 11, x : x + 11].astype(float) for image in (restored, truth))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            structure = (2 * covariance + c2) / (var_a + var_b + c2)
            values.append((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * structure)
    return float(np.mean(values))


def test_ssim_by_its_definition_and_by_scikit_image() -> None:
    truth = frames(3, 1, 24, 20)
    restored = noisy(truth, 15)
    a, b = (image[0].permute(1, 2, 0).numpy() for image in (restored, truth))
    row, _ = measure(SSIM(), [Chunk(restored, truth, torch.ones(1, 24, 20, dtype=torch.bool))])
    assert row["ssim"] == pytest.approx(np.mean([gaussian_ssim(a[..., c], b[..., c]) for c in range(3)]), abs=1e-9)
    assert row["ssim"] == row["ssim_mask"], "a hole that is the whole frame"
    gray_a, gray_b = (np.rint(0.299 * i[..., 0] + 0.587 * i[..., 1] + 0.114 * i[..., 2]) for i in (a, b))
    assert row["ssim_y"] == pytest.approx(gaussian_ssim(gray_a, gray_b), abs=1e-9)
    library = structural_similarity(
        a, b, channel_axis=2, gaussian_weights=True, use_sample_covariance=False, data_range=255
    )
    assert row["ssim"] == pytest.approx(library, abs=1e-9)


def test_ssim_and_ciede2000_are_scikit_images_to_the_last_digits() -> None:
    truth = frames(1, 2, 150, 131)
    restored = noisy(truth, 25)
    restored[0, :, :40], truth[0, :, 20:60] = restored[0, :1, :40], truth[0, :1, 20:60]  # some gray
    by_frame = {**measure(SSIM(), [Chunk(restored, truth)])[1], **measure(Colour(), [Chunk(restored, truth)])[1]}
    for at in range(2):
        a, b = (side[at].permute(1, 2, 0).numpy() for side in (restored, truth))
        known: dict[str, Any] = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 255}
        ssim = structural_similarity(a.astype(float), b.astype(float), channel_axis=2, full=True, **known)[1]
        gray = [np.rint(image @ np.array([299, 587, 114]) / 1000) for image in (a, b)]
        ssim_y = structural_similarity(*gray, full=True, **known)[1]
        inner = (slice(5, -5), slice(5, -5))
        assert by_frame["ssim"][at] == pytest.approx(ssim[inner].mean(), abs=1e-15)
        assert by_frame["ssim_y"][at] == pytest.approx(ssim_y[inner].mean(), abs=1e-15)
        difference = deltaE_ciede2000(rgb2lab(a), rgb2lab(b))
        assert by_frame["ciede2000"][at] == pytest.approx(difference.mean(), abs=1e-14)  # its values are about 10
        np.testing.assert_allclose(
            ciede2000(*(to_lab(side[at : at + 1]) for side in (restored, truth)))[0], difference, atol=1e-11
        )


def test_windows_of_other_devices_are_those_of_the_cpu() -> None:
    planes = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (2, 3, 30, 40)))
    impulse = torch.zeros(1, 21, 21, dtype=torch.float64)
    impulse[0, 10, 10] = 1
    window = window_means(impulse)[0].sum(dim=0)
    found = _convolve(planes.flatten(0, 1), window)
    torch.testing.assert_close(found.unflatten(0, (2, 3)), window_means(planes), rtol=1e-13, atol=0)


def test_ssim_of_small_frames_is_not_defined() -> None:
    small = frames(0, 2, 10, 30)
    row, by_frame = measure(SSIM(), [Chunk(small, small)])
    assert row == {"ssim": None, "ssim_y": None, "ssim_mask": None}
    assert by_frame["ssim"] == [None, None]


@assets.needs_assets
@pytest.mark.parametrize("index", range(len(PAIRS)))
def test_published_values_of_the_calibration_pairs(index: int) -> None:
    folder = assets.ASSETS / "iqa_calibration"
    with (folder / "results_official.csv").open() as file:
        published = {row[0]: float(row[1 + index]) for row in csv.reader(file) if row[0] in ("psnr", "ssim")}
    restored, truth = (assets.photo(folder / f"{kind}_dir_{PAIRS[index]}.bmp") for kind in ("dist", "ref"))
    a, b = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (restored, truth))
    assert psnr(a, b).item() == pytest.approx(published["psnr"], abs=0.006)
    assert ssim_map(luma(a), luma(b)).mean().item() == pytest.approx(published["ssim"], abs=1.1e-4)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_against_the_package_called_directly(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, backbone = lpips_backbone(net, tmp_path)
    metric = (LPIPS if net == "vgg" else LPIPSAlex)(path)
    assert metric.protocol["backbone"]["sha256"] == sha256_of(path)
    monkeypatch.setattr(pretrained_networks.tv, "vgg16" if net == "vgg" else "alexnet", lambda pretrained: backbone)
    direct = {spatial: lpips.LPIPS(net=net, spatial=spatial, verbose=False) for spatial in (False, True)}
    chunk = video(3, 40)
    assert chunk.mask is not None
    a, b = chunk.restored / 127.5 - 1, chunk.truth / 127.5 - 1
    with torch.no_grad():
        expected, maps = direct[False](a, b).flatten(), direct[True](a, b)[:, 0]
    column, masked = (column.name for column in metric.columns)
    row, by_frame = measure(metric, [chunk])
    assert expected.min() > 0
    assert by_frame[column] == pytest.approx(expected.tolist(), rel=1e-5)
    assert row[column] == pytest.approx(expected.mean().item(), rel=1e-5)
    holes = [m[hole].mean().item() if hole.any() else None for m, hole in zip(maps, chunk.mask, strict=True)]
    assert_near(by_frame[masked], holes)
    check_streaming(metric, chunk)
    assert measure(metric, [Chunk(chunk.truth, chunk.truth)])[0] == {column: 0, masked: None}
    small = frames(0, 1, 15, 15)
    assert measure(metric, [Chunk(small, small)])[0] == {column: None, masked: None}


def test_lpips_refuses_another_network(tmp_path: Path) -> None:
    path, _ = lpips_backbone("alex", tmp_path)
    with pytest.raises(ValueError, match=r"alex.pth: not torchvision's vgg16; key: features.0.weight"):
        LPIPS(path)
    torch.save({"features.0.weight": [1]}, path)
    with pytest.raises(ValueError, match=r"alex.pth: not a state dict"):
        LPIPSAlex(path)


def one_colour(*rgb: int) -> Tensor:
    return torch.tensor(rgb, dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)


def lab_distance(first: np.ndarray, second: np.ndarray) -> float:
    """CIEDE2000 of two CIELAB colours, from the formulas of Sharma, Wu & Dalal (2005)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    stretch = 1 + (1 - math.sqrt(mean**7 / (mean**7 + 25**7))) / 2
    c1, c2 = math.hypot(a1 * stretch, b1), math.hypot(a2 * stretch, b2)
    h1, h2 = (math.degrees(math.atan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180
    h = (h1 + h2) / 2 if abs(h1 - h2) <= 180 else ((h1 + h2 + 360) / 2) % 360
    c, lightness = (c1 + c2) / 2, (l1 + l2) / 2
    t = 1.0
    for weight, factor, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63)):
        t += weight * math.cos(math.radians(factor * h + shift))
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / math.sqrt(20 + (lightness - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = -2 * math.sqrt(c**7 / (c**7 + 25**7)) * math.sin(math.radians(60 * math.exp(-(((h - 275) / 25) ** 2))))
    d_l, d_c, d_h = (
        (l2 - l1) / s_l,
        (c2 - c1) / s_c,
        2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn) / 2) / s_h,
    )
    return math.sqrt(d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h)


def colour_difference(first: Tensor, second: Tensor) -> float:
    return ciede2000(to_lab(first), to_lab(second)).mean().item()


def test_ciede2000_against_its_formulas_and_opencvs_colours() -> None:
    # Pairs 1 and 17 of Sharma et al.'s table.
    assert lab_distance(np.array([50, 2.6772, -79.7751]), np.array([50, 0, -82.7485])) == pytest.approx(
        2.0425, abs=1e-4
    )
    assert lab_distance(np.array([50, 2.5, 0]), np.array([73, 25, -18])) == pytest.approx(27.1492, abs=1e-4)
    colours = [(255, 0, 0), (0, 0, 255), (90, 60, 160), (200, 160, 140), (10, 90, 30)]
    for first, second in pairwise(colours):
        lab = cv2.cvtColor(np.array([[first, second]], np.float32) / 255, cv2.COLOR_RGB2Lab)[0].astype(float)
        expected = lab_distance(lab[0], lab[1])
        assert colour_difference(one_colour(*first), one_colour(*second)) == pytest.approx(expected, rel=2e-3)
    assert colour_difference(one_colour(0, 0, 0), one_colour(255, 255, 255)) == pytest.approx(100, abs=0.01)


def test_colourfulness_by_its_definition() -> None:
    chunk = video(2)
    for frame, value in zip(chunk.restored.numpy().astype(float), colourfulness(chunk.restored), strict=True):
        red, green, blue = frame
        rg, yb = red - green, 0.5 * (red + green) - blue
        expected = math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())
        assert value.item() == pytest.approx(expected)
    gray = chunk.truth[:, :1].expand(-1, 3, -1, -1)
    assert colourfulness(gray).tolist() == [0, 0]
    row = measure(Colour(), [Chunk(gray, chunk.truth)])[0]
    assert row["ciede2000"] > 0
    assert row["colourfulness"] == 0
    assert colourfulness(one_colour(255, 0, 0)).item() == pytest.approx(0.3 * math.hypot(255, 127.5))


def test_chroma_psnr_by_hand_and_of_gray_noise() -> None:
    # Cb changes by 0.5 a level of blue, Cr by -0.081312.
    error = 8**2 * (0.5**2 + 0.081312**2) / 2
    blue = one_colour(100, 90, 88), one_colour(100, 90, 80)
    assert chroma_psnr(*blue).item() == pytest.approx(10 * math.log10(255**2 / error))
    assert chroma_psnr(FLAT, FLAT).item() == 100
    assert chroma_psnr(FLAT + 10, FLAT).item() == 100, "brightness alone"
    chunk = video(1)
    a, b = (image[0].permute(1, 2, 0).numpy().astype(float) for image in (chunk.restored, chunk.truth))
    squares = [((0.564 * (i[..., 2] - y), 0.713 * (i[..., 0] - y)), i) for i in (a, b) for y in [i @ WEIGHTS]]
    expected = np.mean(np.square(np.array(squares[0][0]) - np.array(squares[1][0])))  # Cb, Cr by their definition
    assert chroma_psnr(chunk.restored, chunk.truth).item() == pytest.approx(
        10 * math.log10(255**2 / expected), abs=0.01
    )


@pytest.mark.parametrize(
    "metric",
    [PSNR(), SSIM(), Colour(), ChromaPSNR(), Gradients()],
    ids=lambda metric: type(metric).__name__,
)
def test_cutting_the_video_does_not_matter(metric: Any) -> None:
    row = check_streaming(metric, video())
    assert None not in row.values()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("name", ["psnr", "ssim", "colour", "chroma_psnr", "gradients"])
def test_an_accelerator_gives_the_same_numbers(name: str) -> None:
    device = str(torch.accelerator.current_accelerator())
    [ours], [theirs] = (build_metrics([name], device=place).video for place in (device, "cpu"))
    assert ours.device == device or device == "mps"
    assert measure(ours, [video()])[0] == pytest.approx(measure(theirs, [video()])[0], rel=1e-12)


def test_equal_videos_are_perfect_and_noise_costs() -> None:
    truth = frames(0, 3, 40, 40)
    perfect = {**measure(SSIM(), [Chunk(truth, truth)])[0], **measure(Colour(), [Chunk(truth, truth)])[0]}
    assert (perfect["ssim"], perfect["ssim_y"], perfect["ciede2000"]) == (1, 1, 0)
    before: dict[str, Any] = {"psnr": 100, "ssim": 1, "ciede2000": 0}
    for sigma in (2, 8, 32):
        chunk = Chunk(noisy(truth, sigma), truth)
        row = {column: value for m in (PSNR(), SSIM(), Colour()) for column, value in measure(m, [chunk])[0].items()}
        assert row["psnr"] < before["psnr"]
        assert row["ssim"] < before["ssim"]
        assert row["ciede2000"] > before["ciede2000"]
        before = row
