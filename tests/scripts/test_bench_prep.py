import argparse
import json
from pathlib import Path

import pytest
from benchmarks import prep

from tests.assets import NETWORKS, needs_assets


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    prep.add_arguments(parser)
    return parser.parse_args(list(arguments))


def test_a_million_clips_are_computed_from_the_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    prep.print_million({"cut": 2.0, "track": 5.2}, clips=2, num_frames=100)
    out = capsys.readouterr().out
    assert "Computed, not measured: a million clips of 50 frames, 1000 core hours" in out
    assert "| 64 | 15.6 |" in out


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="--clips"):
        prep.run(options("--clips", "0"))


@needs_assets
@pytest.mark.slow
def test_every_step_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svfr.networks._download", _offline)
    figures = tmp_path / "prep.json"
    arguments = [
        "--clips",
        "1",
        "--frames",
        "18",
        "--size",
        "128",
        "--networks",
        str(NETWORKS),
        "--output",
        str(figures),
    ]
    assert prep.run(options(*arguments)) == 0
    captured = capsys.readouterr()
    assert "not measured: score" in captured.err
    seconds = json.loads(figures.read_text())["seconds"]
    assert list(seconds) == ["ingest", "cut", "track", "landmarks", "identities", "write"]
    assert min(seconds.values()) > 0


def _offline(network: object) -> Path:
    raise OSError("offline")
