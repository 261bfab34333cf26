"""scripts/bench.py measures each of its subjects; the figures that don't depend on the machine are right."""

from collections.abc import Callable

import bench
import pytest
import torch
from svd_xt import random_svd_xt

from tests.assets import NETWORKS, needs_assets

Run = Callable[..., list[dict[str, str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line that has to go well; gives the rows of its table."""

    def run(*arguments: str) -> list[dict[str, str]]:
        assert bench.main(arguments) == 0
        lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
        return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]

    return run


def test_chained_passes_a_clip_once_through_the_unet(run: Run) -> None:
    options = ("--frames", "8", "--steps", "2", "--size", "32", "--device", "cpu")
    chained, released, fast = run("infer", *options, "--strategies", "chained,released,fast")
    assert (chained["strategy"], released["strategy"]) == ("chained", "released")
    assert int(chained["branch-frames"]) == 1 * 8 * 2  # one branch, since nothing is referred to yet
    assert int(released["branch-frames"]) > 2 * 2 * 8 * 2  # two passes of two branches, and windows that overlap
    assert float(released["branch-frames, ratio"]) == int(released["branch-frames"]) / int(chained["branch-frames"])
    assert int(fast["branch-frames"]) == 1 * 8 * 5
    for row in (chained, released, fast):
        assert 0 < float(row["UNet s"]) < float(row["all s"])
        assert 0.1 < float(row["peak GiB"]) < 8


def test_memory_plans_fit_into_their_memory(run: Run) -> None:
    for row in run("infer", "--memory", "8,12,16,24", "--device", "cpu"):
        parts = [float(row[f"{name} GiB"]) for name in ("weights", "UNet", "decoding", "encoding")]
        peak = float(row["peak, computed GiB"])
        assert max(parts) < peak < 0.9 * int(row["memory"]) - 1  # which the libraries take
        assert parts[0] == pytest.approx(1.59 * 2, rel=0.02)  # 1.7 billion parameters


@needs_assets
def test_a_film_and_where_its_time_goes(run: Run) -> None:
    (row,) = run("film", "--frames", "9", "--networks", str(NETWORKS), "--device", "cpu")
    assert row["restored"] == "9"
    assert all(0 < float(row[f"{kind} s"]) < float(row["all s"]) for kind in ("decode", "detect", "paste", "encode"))


def test_training_steps_and_the_loader(run: Run) -> None:
    settings, work = ("data.num_frames=2", "max_steps=1", "precision=fp32"), []
    for stage in ((), ("method=one_step", "lambda_squared=1", "decoder_rate=1", "decoder_alone=true")):
        (row,) = run("train", "--device", "cpu", *settings, *stage)
        parts = [float(value) for name, value in row.items() if name.endswith(" s")]
        assert parts[0] == pytest.approx(sum(parts[1:]), rel=0.02)
        assert all(part > 0 for part in parts)
        assert 0.1 < float(row["peak GiB"]) < 8
        work.append(parts[0] * float(row["model TFLOP/s"]))
    assert work[1] > 1.05 * work[0]  # which decodes crops, too


def test_each_metric_alone(run: Run) -> None:
    names = ("psnr", "lpips")
    options = ("--frames", "9", "--rows", "3", "--size", "32", "--device", "cpu", "--networks", "nowhere")
    rows = run("eval", "--metrics", ",".join(names), *options)
    assert [row["metric"] for row in rows] == [*names, "all"]
    assert rows[1]["frames/s"].startswith("network 'vgg16'")
    hours = [row["h for 345,000 frames"] for row in rows]
    assert hours[1] == "-"
    assert float(hours[2]) == float(hours[0]) == pytest.approx(345_000 / float(rows[0]["frames/s"]) / 3600, rel=0.02)


@needs_assets
def test_steps_of_data_preparation(run: Run) -> None:
    left_out = ("score=none", "landmarks=none", "recognizer=none")
    rows = run("prep", "--files", "1", "--processes", "1", f"networks={NETWORKS}", *left_out)
    assert [row["step"] for row in rows] == ["ingest", "cut", "track", "identities", "write"]
    assert all(float(row["files/s, processes: 1"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("infer", "--weights", "nowhere"), "nowhere: no model folder"),
        (("infer", "--device", "gpu7"), "device 'gpu7' cannot be used here"),
        (("train", "max_steps=0"), "max_steps=0: has to be a number of at least 1"),
        (("prep", "scor=none"), "scor"),
    ],
)
def test_a_wrong_call_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert bench.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench.py: ")
    assert message in line


def test_random_weights_of_svd_xt_have_its_size() -> None:
    networks = random_svd_xt(torch.device("meta"), torch.bfloat16).networks
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert sizes["unet"] == 1_524_623_082 + 320 * 4 * 9  # SVD-XT's, and four more channels of input
    assert sizes["vae"] == 97_742_847
    assert networks["unet"].dtype == torch.bfloat16
    assert networks["unet"].config.num_attention_heads == (5, 10, 20, 20)
