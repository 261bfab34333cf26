import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
import pytest
from benchmarks import eval as evaluation
from benchmarks.common import MIB
from benchmarks.eval import Measured, Setup, measure

SMALL = Setup(None, 32, 4, "cpu", 1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home, and no new processes, which take seconds to import all that is imported here."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("SVFR_NETWORKS", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(evaluation, "in_new_process", lambda function, *arguments: function(*arguments))


def test_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "32", "--frames", "2,6", "--chunk-size", "4", "--metrics", "psnr,warping,lpips_alex,ids"]
    assert bench.main(["eval", *arguments, "--device", "cpu", "--output", str(tmp_path / "out.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[4:]] == ["psnr", "warping", "lpips_alex", "ids"]
    assert lines[6].endswith("random weights")
    assert "not computed: network 'edgeface'" in lines[7]
    figures = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert [(one["metric"], one["num_frames"]) for one in figures[:4]] == [
        ("psnr", 2),
        ("psnr", 6),
        ("warping", 2),
        ("warping", 6),
    ]
    assert all(one["seconds"] > 0 and one["peak_rss"] > 10 * MIB for one in figures[:6])


def test_memory_that_grows_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one = Measured("psnr", 2, 1.0, 100 * MIB, 0, False, None)

    def grows(setup: Setup, name: str, num_frames: int) -> Measured:
        return replace(one, num_frames=num_frames, peak_rss=(100 + 20 * num_frames) * MIB)

    monkeypatch.setattr(evaluation, "measure", grows)
    assert bench.main(["eval", "--metrics", "psnr", "--frames", "2,3", "--device", "cpu"]) == 0
    assert bench.main(["eval", "--metrics", "psnr", "--frames", "2,9", "--device", "cpu"]) == 1
    assert "psnr: its peak memory grows with the video, from 140 to 280 MiB" in capsys.readouterr().err


def test_networks_with_random_weights_in_the_place_of_those_that_are_missing() -> None:
    columns = {name: build("cpu").columns[0].name for name, build in evaluation.RANDOM.items() if name != "lpips"}
    assert columns == {"lpips_alex": "lpips_alex"}
    assert measure(SMALL, "landmarks", 2).missing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "psnr,niqe"], "unknown metric 'niqe'"),
        (["--frames", "0"], "positive numbers"),
        (["--size", "0"], "at least 1"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], message: str, capsys: Any) -> None:
    assert bench.main(["eval", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
