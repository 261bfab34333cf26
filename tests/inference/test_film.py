"""Films: killed anywhere, the same call goes on, and what comes out is byte for byte what it would have been."""

import random
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from svfr.data.video import ReadOptions, VideoError, VideoWriter, probe, read_frames
from svfr.files import partial_path, sweep
from svfr.inference.film import film_folder, read, write
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.stream import behind
from tests.clips import facts, scene, truncated, video

# A call per line of the standard input: after how many frames it is killed, and where its result goes. Each is a
# process of its own, of an interpreter in which all is loaded and nothing has started threads.
CALLS = """
import mmap, os, signal, sys, time
from pathlib import Path
import torch
from svfr.inference.reference import Looks
from svfr.inference.settings import VideoSettings
from svfr.inference.video import FileRestoration
from tests import tiny
from tests.clips import MarkDetector

torch.set_num_threads(1)
folder, done = Path(sys.argv[1]), mmap.mmap(-1, 8)
for line in sys.stdin:
    limit, name = line.split()
    done[:] = bytes(8)
    if (child := os.fork()) == 0:
        pipe = tiny.pipeline()
        pipe.detector = MarkDetector()
        total = 0.0

        def count(frames, stage):
            global total
            total += frames * (stage == "restore")
            done[:] = int(total * 100).to_bytes(8, "little")

        settings = VideoSettings(segment=0.4, num_inference_steps=1).resolve(pipe.parts)
        references = pipe.references
        references.looks = Looks(None)
        report = FileRestoration(
            pipe.parts, references, settings, folder / "in.mp4", folder / name, ("bfr", "inpainting"),
            mask=folder / "mask.png", on_progress=count, key="a key",
        ).run()
        print("finished", report.num_frames, report.restored_frames, *report.notes, sep="; ", flush=True)
        os._exit(0)
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if int.from_bytes(done[:], "little") >= 100 * float(limit):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print("killed", flush=True)
            break
        time.sleep(0.002)
    else:
        if ended[1]:
            print('failed', ended[1], flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked and killed")
def test_killed_anywhere_it_goes_on(tmp_path: Path) -> None:
    """Two faces, of which one hides for a while, sound, and a hole that no face's crop shows."""
    one, other = scene(37, [(10, 30, 30)]), scene(37, [(80, 40, 28)] * 14 + [None] * 9 + [(84, 40, 28)] * 14)
    frames = [np.where(np.arange(128)[None, :, None] < 64, *pair) for pair in zip(one, other, strict=True)]
    source = video(tmp_path / "in.mp4", frames, fps=Fraction(25), sound=True)
    mask = np.zeros((96, 128), np.uint8)
    mask[4:14, 50:70] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = [sys.executable, "-c", CALLS, str(tmp_path)]
    rng = random.Random(3)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def call(limit: float, name: str) -> str:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{limit} {name}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        whole = call(np.inf, "whole.mp4")
        kills = [call(rng.uniform(*span), "killed.mp4") for span in ((15, 22), (26, 36))]
        folder = film_folder(tmp_path / "killed.mp4", "a key")
        assert (folder / "000000010.nut").exists()
        sweep(tmp_path, {folder})
        last = call(np.inf, "killed.mp4")
    assert whole.startswith("finished; 37; 37; 9 frames within tracks")
    assert "holes outside of" in whole
    assert kills == ["killed"] * 2
    assert last.startswith(whole)
    assert "went on from frame" in last.removeprefix(whole)
    assert (tmp_path / "killed.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert facts(tmp_path / "killed.mp4") == facts(source)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.mp4", "killed.mp4", "mask.png", "whole.mp4"]


@pytest.mark.parametrize("pts", [None, [0, 40, 90, 120, 300, 310, 350, 390, 600]], ids=["constant", "variable rate"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_segments_have_the_times_of_the_whole(tmp_path: Path, pts: list[int] | None, suffix: str) -> None:
    source = probe(video(tmp_path / f"in{suffix}", scene(9, [None]), pts=pts, sound=True))
    frames = list(read_frames(source.path))
    segments = [tmp_path / f"{number}.nut" for number in range(3)]
    with VideoWriter(tmp_path / "out.mp4", source=source) as writer:
        for number, segment in enumerate(segments):
            with VideoWriter(segment, source=source, format="nut") as part:
                for frame in frames[4 * number : 4 * number + 4]:
                    part.write(frame.image, frame.pts, frame.time_base)
        for segment in segments:
            writer.join(segment)
    with VideoWriter(tmp_path / "direct.mp4", source=source) as direct:
        for frame in frames:
            direct.write(frame.image, frame.pts, frame.time_base)
    assert facts(writer.path) == facts(direct.path)
    assert probe(writer.path).duration == probe(direct.path).duration


def test_frames_from_one_on_are_those_of_the_whole(tmp_path: Path) -> None:
    source = video(tmp_path / "in.mp4", scene(9, [None]), pts=[0, 40, 90, 120, 300, 310, 350, 390, 600])
    whole, rest = list(read_frames(source)), list(read_frames(source, ReadOptions(first=5)))
    assert [(frame.index, frame.pts, frame.image.tobytes()) for frame in rest] == [
        (frame.index, frame.pts, frame.image.tobytes()) for frame in whole[5:]
    ]


def test_a_fault_of_the_input_leaves_nothing(tmp_path: Path, pipe: SVFRPipeline) -> None:
    source = truncated(
        tmp_path / "in.mp4", video(tmp_path / "whole.mp4", scene(60, [None]), options={"movflags": "faststart"})
    )
    with pytest.raises(VideoError, match="truncated"):
        pipe.restore_video(source, tmp_path / "out.mp4", face="aligned", num_inference_steps=1, segment=0.2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.mp4", "whole.mp4"]


def test_a_journal_keeps_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content: dict[str, Any] = {"a": [1, None, {"b": np.arange(3)}], "c": "d", "empty": np.zeros((0, 4))}
    write(tmp_path / "state", content)
    back = read(tmp_path / "state", torch.device("cpu"))
    assert back
    np.testing.assert_array_equal(back["a"][2].pop("b"), content["a"][2].pop("b"))
    assert back.pop("empty").shape == content.pop("empty").shape
    assert back == content
    monkeypatch.setattr("svfr.inference.film.FORMAT", "of another version")
    assert read(tmp_path / "state", torch.device("cpu")) is None
    monkeypatch.undo()
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:50])
    assert read(tmp_path / "state", torch.device("cpu")) is None
    assert partial_path(tmp_path / "x.mp4", "key") == partial_path(tmp_path / "x.mp4", "key")


def test_behind_does_nothing_after_an_error() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        time.sleep(0.01)
        done.append(number)
        if number == 1:
            raise OSError("full")

    def all_of_them() -> None:
        with behind(2) as later:
            for number in range(9):
                later(work, number)

    with pytest.raises(OSError, match="full"):
        all_of_them()
    assert done == [0, 1]
