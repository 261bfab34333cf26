"""Videos in, videos out: nothing may be lost or moved."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from svfr.data.pixels import MATRICES
from svfr.data.video import VideoError, VideoWriter, probe, read_frames
from tests.data.video_files import (
    NTSC,
    assert_copied,
    copy_video,
    cut_without_encoding,
    frames_of,
    make_clip,
    picture,
    sound,
    times,
)

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT.parent / "shared" / "assets"


# ---- whole videos ----


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_fractional_rate_and_sound_survive(tmp_path: Path, suffix: str) -> None:
    webm = suffix == ".webm"
    source = make_clip(
        tmp_path / f"in{suffix}", audio="libopus" if webm else "aac", codec="libvpx" if webm else "libx264"
    )
    info = probe(source)
    assert (info.width, info.height, info.has_audio, info.kind) == (64, 48, True, "video")
    assert info.num_frames == 24
    assert [frame.index for frame in read_frames(source)] == list(range(24))
    assert info.duration == pytest.approx(24 / NTSC, abs=0.005)
    written = assert_copied(source, tmp_path / "out.mp4")
    if suffix == ".mp4":
        assert info.fps == probe(written).fps == NTSC
        assert probe(written).duration == info.duration


def test_variable_rate_keeps_every_timestamp_and_the_length(tmp_path: Path) -> None:
    stamps = [0, 33, 70, 71, 200, 210, 400, 433, 466, 500, 533, 1800]
    source = make_clip(
        tmp_path / "in.mp4",
        pts=stamps,
        time_base=Fraction(1, 1000),
        codec_options={"bf": "0"},
        options={"video_track_timescale": "1000"},  # as screen recorders do
    )
    assert_copied(source, tmp_path / "out.mp4")
    frames = frames_of(tmp_path / "out.mp4")
    assert times(frames) == [Fraction(stamp, 1000) for stamp in stamps]
    assert [frame.pts for frame in frames] == [frame.pts for frame in read_frames(source)]
    assert probe(tmp_path / "out.mp4").duration == probe(source).duration


def test_offset_between_sound_and_picture_survives(tmp_path: Path) -> None:
    late_sound = make_clip(tmp_path / "a.mp4", audio="aac", audio_delay=0.21)
    assert sound(late_sound)[0][1] > Fraction(1, 10)
    assert_copied(late_sound, tmp_path / "a_out.mp4")
    late_picture = make_clip(tmp_path / "b.mp4", audio="aac", pts=list(range(5, 29)))
    assert float(times(frames_of(late_picture))[0]) == pytest.approx(5 / NTSC, abs=0.001)
    assert_copied(late_picture, tmp_path / "b_out.mp4")


def test_hidden_frames_of_a_cut_stay_hidden(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", audio="aac", pts=list(range(30)))
    cut = cut_without_encoding(whole, tmp_path / "cut.mp4", 12 / NTSC)  # 4 after the keyframe 8
    with av.open(str(cut)) as container:
        assert container.streams.video[0].frames > 18  # what a naive reader would give
    assert probe(cut).num_frames == len(frames_of(cut)) == 18
    assert_copied(cut, tmp_path / "out.mp4")
    assert np.abs(frames_of(cut)[0].image.astype(int) - picture(12)).mean() < 5


def test_broadcast_starts_at_zero_and_loses_nothing(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.ts", audio="mp2", pts=list(range(3000, 3024)), audio_delay=100.2)
    frames, written = copy_video(source, tmp_path / "out.mp4")
    assert len(frames) == 24
    assert times(frames)[0] == 0
    assert times(read_frames(written)) == times(frames)
    [(payload, start)], [(copied, kept)] = sound(source), sound(written)
    with av.open(str(source)) as container:
        first = next(container.decode(video=0))
        assert first.pts is not None
        assert first.time_base is not None
        assert abs(kept - (start - first.pts * first.time_base)) < Fraction(1, 10000)
    assert copied == payload


def test_sound_that_mp4_refuses_goes_elsewhere(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", audio="wavpack")
    assert assert_copied(source, tmp_path / "out.mp4") == tmp_path / "out.mkv"
    assert not (tmp_path / "out.mp4").exists()
    mu_law = make_clip(tmp_path / "in.mov", audio="pcm_mulaw")
    assert assert_copied(mu_law, tmp_path / "mu.mp4") == tmp_path / "mu.mov"


def test_pcm(tmp_path: Path) -> None:
    assert_copied(make_clip(tmp_path / "in.mkv", audio="pcm_s16le"), tmp_path / "out.mp4")
    assert_copied(make_clip(tmp_path / "in.avi", audio="pcm_s16le", codec="mpeg4"), tmp_path / "avi.mp4")


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied_to_pixels(tmp_path: Path, rotation: int) -> None:
    source = make_clip(tmp_path / "in.mp4", rotation=rotation)
    info = probe(source)
    expected = np.rot90(picture(3), rotation // 90)
    assert info.rotation == rotation
    assert (info.height, info.width) == expected.shape[:2]
    assert np.abs(frames_of(source)[3].image.astype(int) - expected).mean() < 3
    written = assert_copied(source, tmp_path / "out.mp4")
    assert np.abs(frames_of(written)[3].image.astype(int) - expected).mean() < 3


def test_mirror_is_applied_to_pixels(tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    make_clip(path)
    with av.open(str(path)) as source, av.open(str(tmp_path / "mirrored.mp4"), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90, hflip=True)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    [first, *_] = read_frames(tmp_path / "mirrored.mp4")
    assert np.abs(first.image.astype(int) - np.rot90(picture(0))[:, ::-1]).mean() < 3


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48), (1, 1), (2, 2), (3, 64)])
def test_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    source = make_clip(tmp_path / "in.mkv", size=size, codec="ffv1", pix_fmt="bgr0", pts=list(range(4)))
    width, height = size
    with VideoWriter(tmp_path / "out.mp4", source=probe(source)) as writer:
        for frame in read_frames(source):
            writer.write(frame.image, frame.pts, frame.time_base)
    [_, frame, *_] = read_frames(tmp_path / "out.mp4")
    assert frame.image.shape == (height + height % 2, width + width % 2, 3)  # players take 4:2:0 with even sides alone
    padded = [f"{width}x{height} is padded to even sides, by one px"] if width % 2 or height % 2 else []
    assert writer.notes == padded
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].pix_fmt == "yuv420p"
    if min(size) > 3:  # one or two chroma samples
        assert np.abs(frame.image[:height, :width].astype(int) - picture(1, *size)).mean() < 5


BT2020 = pytest.param(9, marks=pytest.mark.skipif(9 not in MATRICES, reason="PyAV before 18 does not know BT.2020"))


@pytest.mark.parametrize("matrix", [None, 1, 5, BT2020])
@pytest.mark.parametrize("height", [48, 720])
def test_colours_stay(tmp_path: Path, matrix: int | None, height: int) -> None:
    tags = {} if matrix is None else {"colorspace": str(matrix)}
    source = make_clip(tmp_path / "in.mp4", size=(64, height), pts=[0, 1], codec_options=tags)
    frames, written = copy_video(source, tmp_path / "out.mp4", crf=4)
    for before, after in zip(frames, read_frames(written), strict=True):
        moved = after.image.astype(int) - before.image
        assert np.abs(moved).mean() < 1.5
        assert abs(moved.mean()) < 0.5
    with av.open(str(written)) as container:
        context = container.streams.video[0].codec_context
        assert context.colorspace == (matrix or 2)  # what is not said is not guessed
        assert context.color_range == (1 if matrix else 0)  # limited, which is what players take the unsaid for


@pytest.mark.parametrize("matrix", [1, 5])
def test_the_matrix_tag_is_obeyed(tmp_path: Path, matrix: int) -> None:
    red = av.VideoFrame.from_ndarray(np.full((48, 64, 3), (200, 30, 30), np.uint8), format="rgb24")
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.colorspace = matrix
        stream.codec_context.options = {"crf": "1"}
        container.mux(stream.encode(red.reformat(format="yuv420p", dst_colorspace=matrix)))
        container.mux(stream.encode(None))
    [frame] = read_frames(tmp_path / "in.mp4")
    assert np.abs(frame.image.astype(int) - (200, 30, 30)).max() <= 4


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("ffv1", "yuv420p10le", ".mkv"),
        ("ffv1", "gray", ".mkv"),
        ("ffv1", "bgra", ".mkv"),
        ("qtrle", "argb", ".mov"),
        ("mjpeg", "yuvj420p", ".avi"),
        ("gif", "rgb8", ".gif"),
    ],
)
def test_pixel_formats_become_rgb(tmp_path: Path, codec: str, pix_fmt: str, suffix: str) -> None:
    source = make_clip(
        tmp_path / f"in{suffix}", codec=codec, pix_fmt=pix_fmt, pts=list(range(6)), time_base=Fraction(1, 25)
    )
    frames = frames_of(source)
    assert len(frames) == 6
    assert all(frame.image.shape == (48, 64, 3) and frame.image.flags.c_contiguous for frame in frames)
    if pix_fmt == "gray":
        assert np.ptp(frames[0].image.astype(int), axis=-1).max() <= 1
    else:
        assert np.abs(frames[5].image.astype(int) - picture(5)).mean() < (25 if codec == "gif" else 4)
    copy_video(source, tmp_path / "out.mp4")
    assert len(frames_of(tmp_path / "out.mp4")) == 6


def test_pixel_aspect_survives(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", codec_options={"aspect": "2"})
    copy_video(source, tmp_path / "out.mp4")
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        aspect = before.streams.video[0].sample_aspect_ratio
        assert after.streams.video[0].sample_aspect_ratio == aspect == 2


def test_other_output_size(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    with VideoWriter(tmp_path / "out.mp4", source=info, width=128, height=96) as writer:
        for frame in read_frames(info.path):
            writer.write(frame.image.repeat(2, axis=0).repeat(2, axis=1), frame.pts, frame.time_base)
    assert (probe(writer.path).width, probe(writer.path).height) == (128, 96)


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", pts=list(range(300)), noise=True, options={"movflags": "+faststart"})
    frames = read_frames(path)
    first = next(frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # while it is being read
    with pytest.raises(VideoError, match="of 300 frames: truncated"):
        list(frames)
    assert first.index == 0


@pytest.mark.parametrize(
    "name",
    ["clips_hq/hdtf_RD_Radio10.mp4", "clips_hq/vrt_5.mp4", "clips_lq/svfr_lq3.mp4", "clips_lq/keep_synthetic_2.mp4"],
)
def test_real_clips(tmp_path: Path, name: str) -> None:
    source = ASSETS / name
    if not source.exists():
        pytest.skip(f"no {source}")
    written = assert_copied(source, tmp_path / "out.mp4")
    # RD_Radio10 has one frame that no decoder gives: its rate on average is lower.
    assert float(probe(written).fps) == pytest.approx(float(probe(source).fps), rel=0.02)


# ---- images ----


def test_one_image(tmp_path: Path) -> None:
    Image.fromarray(picture(5)).save(tmp_path / "in.png")
    info = probe(tmp_path / "in.png")
    assert (info.kind, info.num_frames, info.fps, info.has_audio) == ("image", 1, 25, False)
    copy_video(tmp_path / "in.png", tmp_path / "out.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), picture(5))


def test_image_modes(tmp_path: Path) -> None:
    gray = picture(5)[..., 0]
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([picture(5), gray])).save(tmp_path / "b.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    Image.fromarray(picture(5)).save(tmp_path / "c.png", exif=turned)
    images = {name: next(read_frames(tmp_path / f"{name}.png")).image for name in "abc"}
    assert np.array_equal(images["a"], np.dstack([gray] * 3))
    assert np.array_equal(images["b"], picture(5))
    assert np.array_equal(images["c"], np.rot90(picture(5), -1))
    assert probe(tmp_path / "c.png").width == 48


def test_folder_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in (10, 9, 1):
        Image.fromarray(picture(index)).save(folder / f"f{index}.png")
    (folder / "notes.txt").write_text("not an image")
    info = probe(folder)
    assert (info.kind, info.num_frames, info.fps) == ("frames", 3, 25)
    frames, _ = copy_video(folder, tmp_path / "out", format="png")
    assert [frame.image[0, 0, 2] for frame in frames] == [4, 36, 40]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["f1.png", "f10.png", "f9.png"]
    copy_video(folder, tmp_path / "out", format="png")  # replaces
    copy_video(folder, tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").fps == 25
    assert len(frames_of(tmp_path / "out.mp4")) == 3


def test_video_to_folder(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", audio="aac")
    frames, written = copy_video(source, tmp_path / "out", format="png")
    assert sorted(file.name for file in written.iterdir()) == [f"{index:06d}.png" for index in range(24)]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, read_frames(written), strict=True))
    (written / "thesis.doc").write_text("mine")
    with pytest.raises(VideoError, match="other files"):
        VideoWriter(written, source=probe(source), format="png")
