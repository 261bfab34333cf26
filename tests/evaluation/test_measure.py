"""All pairs of a ground truth in one pass: what is computed once, what is kept, and that no number depends on it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svfr.data.recognition import load_recognizer
from svfr.evaluation import measure
from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Pair
from svfr.evaluation.settings import EvalConfig
from svfr.inference.batch import RECORDS
from svfr.metrics import BuiltMetrics, build_metrics, temporal
from svfr.metrics.frechet import FID, FVD
from svfr.metrics.identity import Identity
from svfr.metrics.landmarks import LandmarkError
from svfr.metrics.lpips import LPIPSAlex
from tests.clips import MarkDetector, scene
from tests.metrics import test_fid, test_fvd
from tests.metrics.test_image import lpips_backbone
from tests.metrics.test_landmarks import Shadow
from tests.onnx_files import linear
from tests.scripts.test_eval import clip, noisy, png

FRAMES = 11
METHODS = ("x", "y", "z")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    png(folder / "truth", clip(0, FRAMES))
    for level, method in enumerate(METHODS):
        png(folder / method, noisy(clip(0, FRAMES), 5 + 3 * level))
    linear(folder / "recognizer.onnx", 112, 6)
    lpips_backbone("alex", folder)
    return folder


def pairs(folder: Path, *methods: str) -> list[Pair]:
    truth = folder / "truth"
    computed = [Pair(method, "", "a", truth, None) for method in ("ground_truth", "bicubic")]
    return computed + [Pair(method, "bfr", "a", truth, folder / method) for method in methods or METHODS]


class Metrics:
    """Metrics of all kinds, with made networks that count how often they see what."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        plain = build_metrics(("psnr", "ssim", "gradients", "colour", "chroma_psnr", "warping")).video
        self.lpips = LPIPSAlex(folder / "alex.pth")
        recognizer, landmarker = load_recognizer(str(folder / "recognizer.onnx")), Shadow()
        fvd, fid = test_fvd.SmallNetwork(), test_fid.SmallNetwork()
        for name, network in (("ids", recognizer), ("landmarks", landmarker), ("fvd", fvd), ("fid", fid)):
            self._count(monkeypatch, type(network), "__call__", name)
        self._count(monkeypatch, temporal, "sources", "flow")
        self._count(monkeypatch, type(self.lpips.module.net), "forward", "lpips")
        faces = [Identity(recognizer), LandmarkError(landmarker)]
        self.built = BuiltMetrics([*plain, self.lpips, *faces], [FVD(fvd, clip_length=4), FID(fid)], {})

    def _count(self, monkeypatch: pytest.MonkeyPatch, owner: Any, attribute: str, name: str) -> None:
        function = getattr(owner, attribute)

        def counted(*arguments: Any) -> Any:
            self.calls[name] += 1
            return function(*arguments)

        monkeypatch.setattr(owner, attribute, counted)


@pytest.fixture
def metrics(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    return Metrics(folder, monkeypatch)


def evaluator(metrics: Metrics, output: Path, **settings: Any) -> Evaluator:
    settings = {"picture_size": 16, "chunk_size": 4, **settings}
    return Evaluator(metrics.built, MarkDetector(), EvalConfig(**settings), output)


def numbers(records: list[measure.Record], output: Path) -> list[Any]:
    arrays = [np.load(path) for path in sorted(output.rglob("*.npy"))]
    assert len(arrays) == 2 * len(records) + 2  # two set metrics; the truth's features are there once
    return [record.metrics for record in records] + [array.tolist() for array in arrays]


def test_the_truth_is_looked_at_once_for_all_methods(folder: Path, tmp_path: Path, metrics: Metrics) -> None:
    done: list[int] = []
    found = evaluator(metrics, tmp_path).evaluate(pairs(folder), done.append)
    assert [(record.method, record.status) for record in found] == [
        (method, "done") for method in ("ground_truth", "bicubic", *METHODS)
    ]
    assert sum(done) == 5 * FRAMES
    videos = 1 + 4  # the truth, and all but the row of the truth itself
    assert metrics.calls == {
        "flow": FRAMES - 1,
        "lpips": videos * FRAMES,
        "ids": videos * FRAMES,
        "landmarks": videos * FRAMES,
        "fid": videos * FRAMES,
        "fvd": videos * (FRAMES // 4),
    }


def test_no_number_depends_on_chunks_or_on_who_is_measured_beside_it(
    folder: Path, tmp_path: Path, metrics: Metrics
) -> None:
    def results(name: str, **settings: Any) -> list[Any]:
        one = evaluator(metrics, tmp_path / name, **settings)
        return numbers(one.evaluate(pairs(folder), lambda _: None), tmp_path / name)

    first = results("4")
    assert results("1", chunk_size=1) == results("3", chunk_size=3) == results("64", chunk_size=64) == first
    apart = evaluator(metrics, tmp_path / "apart")
    records = [apart.evaluate([pair], lambda _: None)[0] for pair in pairs(folder)]
    assert numbers(records, tmp_path / "apart") == first


def test_a_pair_that_fails_stops_no_other(folder: Path, tmp_path: Path, metrics: Metrics) -> None:
    images = noisy(clip(0, FRAMES), 5)
    png(tmp_path / "short", images[:5])
    png(tmp_path / "long", [*images, images[0]])
    png(tmp_path / "broken", images)
    (tmp_path / "broken" / "000006.png").write_bytes(b"broken")
    png(tmp_path / "small", scene(FRAMES, [None] * FRAMES, 32, 32))
    truth = folder / "truth"
    bad = [Pair(name, "bfr", "a", truth, tmp_path / name) for name in ("short", "broken", "small", "long")]
    group = [pairs(folder)[0], *bad, *pairs(folder)[1:]]
    found = {r.method: r for r in evaluator(metrics, tmp_path / "out").evaluate(group, lambda _: None)}
    good = {r.method: r for r in evaluator(metrics, tmp_path / "good").evaluate(pairs(folder), lambda _: None)}
    assert {name: found[name].metrics for name in good} == {name: record.metrics for name, record in good.items()}
    reasons = {record.method: str(record.reason) for record in found.values() if record.status == "failed"}
    assert list(reasons) == ["short", "broken", "small", "long"]
    assert reasons["short"].endswith("5 frames, the ground truth has 11; nothing is cut")
    assert reasons["long"].endswith("12 frames, the ground truth has 11; nothing is cut")
    assert "000006.png" in reasons["broken"]
    assert "frames are 32x32" in reasons["small"]


def test_an_interrupted_pass_leaves_nothing_half_done(folder: Path, tmp_path: Path, metrics: Metrics) -> None:
    first = evaluator(metrics, tmp_path).evaluate(pairs(folder, "x"), lambda _: None)
    done = 0

    def interrupt(frames: int) -> None:
        nonlocal done
        done += frames
        if done > 3 * FRAMES + 10:  # x and the baselines are there already
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator(metrics, tmp_path).evaluate(pairs(folder), interrupt)
    assert len(list((tmp_path / RECORDS).rglob("row.json"))) == 3
    assert not list(tmp_path.rglob("*partial*"))
    metrics.calls.clear()
    found = evaluator(metrics, tmp_path).evaluate(pairs(folder), lambda _: None)
    assert found[:3] == first
    assert metrics.calls["fid"] == 3 * FRAMES, "of the truth, y and z"
    assert len(list((tmp_path / RECORDS).rglob("clip.mp4"))) == 5


def test_frames_at_the_cap_of_psnr_are_counted(folder: Path, tmp_path: Path, metrics: Metrics) -> None:
    images = clip(0, FRAMES)
    png(tmp_path / "some", [*images[:3], *noisy(images[3:], 9)])
    pair = Pair("some", "bfr", "a", folder / "truth", tmp_path / "some")
    truth, _, record = evaluator(metrics, tmp_path / "out").evaluate([*pairs(folder)[:2], pair], lambda _: None)
    assert record.num_capped == 3
    assert record.notes == ["3 of 11 frames equal the truth (PSNR capped at 100 dB)"]
    assert truth.num_capped == FRAMES
    assert truth.notes == [], "it is the truth"
