import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from svfr.metrics import COLUMNS, METRICS, Chunk, Column, build_metrics
from svfr.metrics.base import Row, VideoMetric
from svfr.networks import NETWORKS
from tests import assets
from tests.metrics.made import measure, video

FRAMES = torch.zeros(2, 3, 8, 9, dtype=torch.uint8)


def test_chunk_has_its_length() -> None:
    assert len(Chunk(FRAMES, FRAMES, torch.zeros(2, 8, 9, dtype=torch.bool), torch.zeros(2, 5, 2))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FRAMES.float(), FRAMES), r"restored frames: \(2, 3, 8, 9\) torch.float32, .* \(2, 3, 8, 9\) torch.uint8"),
        ((FRAMES.float(), FRAMES.float()), r"ground truth: \(2, 3, 8, 9\) torch.float32"),
        ((FRAMES, FRAMES[:1]), r"restored frames: \(2, 3, 8, 9\) torch.uint8, .* \(1, 3, 8, 9\)"),
        ((FRAMES, FRAMES, torch.zeros(2, 8, 9)), r"mask: \(2, 8, 9\) torch.float32, .* torch.bool"),
        ((FRAMES, FRAMES, None, torch.zeros(2, 68, 2)), r"landmarks: \(2, 68, 2\) .* \(2, 5, 2\)"),
    ],
)
def test_a_chunk_of_other_shapes_is_refused(arguments: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chunk(*arguments)


class Red(VideoMetric):
    """Red of the frames that have any."""

    columns = (Column("red", "Red", "higher"),)
    protocol: Mapping[str, Any] = {}

    def _measure(self, chunk: Chunk, at: int) -> Row:
        return {"red": chunk.restored[at, 0].double().mean().item() or None}


def test_mean_leaves_out_what_is_not_defined() -> None:
    metric = Red()
    metric.reset()
    assert metric.compute() == {"red": None}
    assert metric.update(Chunk(FRAMES + torch.tensor([1, 0])[:, None, None, None].byte(), FRAMES)) == {"red": [1, None]}
    metric.update(Chunk(FRAMES[:1] + 3, FRAMES[:1]))
    assert metric.compute() == {"red": 2}
    metric.reset()
    assert metric.compute() == {"red": None}


def test_what_is_of_the_truth_is_computed_once_for_all_that_are_beside_it() -> None:
    truth, shared, calls = FRAMES, dict[str, Any](), list[str]()

    def embed(frame: torch.Tensor) -> int:
        assert frame.shape == (1, 3, 8, 9)
        calls.append("restored" if frame.any() else "truth")
        return len(calls)

    chunks = [Chunk(FRAMES + 1, truth, shared=shared) for _ in range(3)] + [Chunk(truth, truth, shared=shared)]
    assert [chunk.both("embedding", 1, embed) for chunk in chunks] == [(2, 1), (3, 1), (4, 1), (1, 1)]
    assert calls == ["truth", "restored", "restored", "restored"]
    assert chunks[0].both("embedding", 0, embed) == (6, 5), "another frame"
    assert chunks[0].of_truth("more", lambda: 5) == chunks[3].of_truth("more", lambda: 6) == 5


def test_every_column_has_one_owner_known_without_its_network() -> None:
    owned = [column.name for metric in METRICS.values() for column in metric.columns]
    assert list(COLUMNS) == owned, "no name twice"
    assert {"psnr", "lpips_alex_mask", "vidd_cosine_stride5", "fvd_clips"} <= set(COLUMNS)
    assert {name for name, metric in METRICS.items() if any(column.needs_faces for column in metric.columns)} == {
        "ids",
        "landmarks",
        "photo",
    }


def test_unknown_metric() -> None:
    with pytest.raises(ValueError, match="unknown metric 'niqe': choose from psnr, ssim"):
        build_metrics(["niqe"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SVFR_NETWORKS", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_what_cannot_be_computed_is_said_in_one_line_and_the_rest_runs(home: Path) -> None:
    built = build_metrics(networks=home, download=False)
    networks = {
        "lpips": "vgg16",
        "lpips_alex": "alexnet",
        "ids": "edgeface",
        "landmarks": "pfld",
        "fvd": "i3d",
        "fid": "inception",
    }
    assert list(built.missing) == list(networks)
    for name, line in built.missing.items():
        entry = NETWORKS[networks[name]]
        assert "\n" not in line
        for part in (entry.name, entry.file, entry.licence, f"{(entry.size or 0) / 1e6:.1f} MB"):
            assert part in line
    assert not built.sets
    columns = [column.name for metric in built.video for column in metric.columns]
    assert columns == [
        "psnr",
        "psnr_mask",
        "ssim",
        "ssim_y",
        "ssim_mask",
        "gmsd",
        "gradient_energy",
        "ciede2000",
        "colourfulness",
        "chroma_psnr",
        "colour_drift",
        "warping_error",
    ]
    for metric in built.video:
        row, by_frame = measure(metric, [video(3, 32)])
        assert None not in row.values()
        assert set(by_frame) == {column.name for column in metric.columns}


@assets.needs_assets
def test_with_the_networks_every_column_has_its_title_and_every_protocol_is_json(home: Path) -> None:
    built = build_metrics(("ids", "landmarks", "psnr", "psnr"), assets.NETWORKS, download=False)
    assert not built.missing
    assert [metric.columns[0].name for metric in built.video] == ["ids", "landmark_error", "psnr"]
    for metric in (*built.video, *build_metrics(("ssim", "colour", "warping")).video):
        assert all(COLUMNS[column.name] is column for column in metric.columns)
        assert json.loads(json.dumps(metric.protocol)) == metric.protocol


def test_a_broken_network_is_said_as_well(home: Path) -> None:
    (home / "mine.onnx").write_bytes(b"")
    built = build_metrics(("ids", "psnr"), home, recognizer=str(home / "mine.onnx"))
    assert [metric.columns[0].name for metric in built.video] == ["psnr"]
    assert "mine.onnx: not a readable ONNX file" in built.missing["ids"]
