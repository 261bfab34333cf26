"""Videos in, videos out: nothing may be lost, moved or silently cut."""

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image

from svfr.data.video import Frame, VideoError, VideoInfo, VideoWriter, probe, read_frames

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT.parent / "shared" / "assets"
NTSC = Fraction(30000, 1001)


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth picture whose four corners differ, brighter with `index`."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 200 * x / max(width - 1, 1), 200 * y / max(height - 1, 1)
    return np.stack([red, green, np.full_like(red, 4 * (index % 50))], axis=-1).astype(np.uint8)


def make_clip(
    path: Path,
    *,
    pts: list[int] | None = None,
    time_base: Fraction = 1 / NTSC,
    audio: str | None = None,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int | None = None,
    noise: bool = False,
    audio_delay: float = 0,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode with PyAV alone; `noise` makes packets big, so that damage hits frames."""
    pts = list(range(24)) if pts is None else pts
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        video = cast(
            VideoStream,
            container.add_stream(codec, rate=NTSC, width=size[0], height=size[1], pix_fmt=pix_fmt),
        )
        video.codec_context.time_base = time_base
        video.codec_context.options = {"g": "8", **(codec_options or {})}
        if rotation is not None:
            video.set_display_rotation(rotation)
        sound = None
        if audio:
            sound = cast(AudioStream, container.add_stream(audio, rate=48000))
            sound.layout = "mono"
        for index, stamp in enumerate(pts):
            image = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) if noise else picture(index, *size)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, time_base
            container.mux(video.encode(frame))
            if sound:
                wave = rng.integers(-9999, 9999, (1, 1600), dtype=np.int16)
                block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                block.sample_rate, block.time_base = 48000, Fraction(1, 48000)
                block.pts = index * 1600 + round(audio_delay * 48000)
                container.mux(sound.encode(block))
        container.mux(video.encode(None))
        if sound:
            container.mux(sound.encode(None))
    return path


def cut_without_encoding(source: Path, target: Path, start: Fraction) -> Path:
    """As `ffmpeg -ss START -c copy`: frames from the keyframe before on, hidden by an edit list."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        container.seek(int(start * av.time_base))
        for packet in container.demux():
            if packet.dts is None or packet.pts is None:
                continue
            shift = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.stream.type == "video" or packet.pts >= 0:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return target


def copy_video(source: Path, target: Path, **options: object) -> tuple[list[Frame], Path]:
    info = probe(source)
    frames = []
    with VideoWriter(target, source=info, **options) as writer:  # type: ignore[arg-type]
        for frame in read_frames(source):
            frames.append(frame)
            writer.write(frame.image, frame.pts, frame.time_base)
    return frames, writer.path


def times(frames: Iterator[Frame] | list[Frame]) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames]


def sound(path: Path) -> list[tuple[bytes, Fraction]]:
    """Payload and time of the first packet, of each track."""
    tracks: dict[int, list[tuple[bytes, Fraction]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio) if container.streams.audio else ():
            if packet.size and packet.pts is not None:
                start = packet.pts * packet.time_base
                tracks.setdefault(packet.stream.index, []).append((bytes(packet), start))
    return [(b"".join(data for data, _ in track), track[0][1]) for track in tracks.values()]


def assert_copied(source: Path, target: Path) -> Path:
    frames, written = copy_video(source, target)
    before, after = probe(source), probe(written)
    assert times(read_frames(written)) == times(frames)
    assert (after.width, after.height, after.rotation) == (before.width, before.height, 0)
    assert abs(after.duration - before.duration) <= 1 / before.fps
    assert [data for data, _ in sound(written)] == [data for data, _ in sound(source)]
    for (_, start), (_, kept) in zip(sound(source), sound(written), strict=True):
        assert abs(start - kept) < Fraction(1, 10000)
    assert [file.name for file in written.parent.iterdir() if "partial" in file.name] == []
    return written


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


def frames_of(path: Path) -> list[Frame]:
    return list(read_frames(path))


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
    assert_copied(source, tmp_path / "out.mp4")
    [_, frame, *_] = read_frames(tmp_path / "out.mp4")
    assert frame.image.shape == (size[1], size[0], 3)
    if size != (2, 2):  # one chroma sample
        assert np.abs(frame.image.astype(int) - picture(1, *size)).mean() < 5


@pytest.mark.parametrize("matrix", [None, 1, 5, 9])
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
        assert context.colorspace == (matrix or (1 if height == 720 else 6))
        assert context.color_range == 1  # limited


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
    [
        "clips_hq/hdtf_RD_Radio10.mp4",
        "clips_hq/vrt_5.mp4",
        "clips_lq/svfr_lq3.mp4",
        "clips_lq/keep_synthetic_2.mp4",
    ],
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


# ---- bad input ----


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello\n" * 500)
    (tmp_path / "text.txt").write_text("hello\n" * 500)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    (tmp_path / "nothing").mkdir()
    (tmp_path / "sizes").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "sizes" / "1.png")
    Image.new("RGB", (4, 6)).save(tmp_path / "sizes" / "2.png")
    with av.open(str(tmp_path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        stream.layout = "mono"
        block = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        block.sample_rate = 48000
        container.mux([*stream.encode(block), *stream.encode(None)])
    for name, reason in {
        "missing.mp4": "No such file",
        "empty.mp4": "empty",
        "text.mp4": "no video at all",
        "text.txt": "no video stream",
        "bad.png": "not a readable image",
        "cut.jpg": "not a readable image",
        "nothing": "without images",
        "sizes": "differ in size",
        "audio.mp4": "audio only",
        "text.mp4/x.mp4": "Not a directory",
    }.items():
        with pytest.raises(VideoError, match=reason) as caught:
            list(read_frames(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("audio", [None, "mp2"])
def test_cut_off_file_gives_its_good_frames_then_an_error(tmp_path: Path, suffix: str, audio: str | None) -> None:
    path = make_clip(
        tmp_path / f"in{suffix}",
        audio=audio,
        noise=True,
        codec="mpeg4" if suffix == ".avi" else "libx264",
        options={"movflags": "+faststart"} if suffix == ".mp4" else None,
    )
    whole = frames_of(path)
    assert len(whole) == 24
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    good, message = read_until_error(path)
    assert message == f"{path}: ends after {len(good)} of 24 frames: truncated or corrupt"
    assert 4 <= len(good) < 22
    assert all(np.array_equal(a.image, b.image) for a, b in zip(good, whole, strict=False))


def test_one_half_frame_at_the_end_is_an_error(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", noise=True, options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[:-50])
    good, message = read_until_error(path)
    assert (len(good), message) == (23, f"{path}: ends after 23 of 24 frames: truncated or corrupt")


def read_until_error(path: Path) -> tuple[list[Frame], str]:
    good: list[Frame] = []
    try:
        for frame in read_frames(path):
            good.append(frame)
    except VideoError as err:
        return good, str(err)
    raise AssertionError(f"{len(good)} frames and no error")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_in_the_middle_is_an_error(tmp_path: Path, codec: str) -> None:
    path = make_clip(tmp_path / "in.mp4", noise=True, codec=codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="of 24 frames: truncated or corrupt"):
        list(read_frames(path))


# ---- writing goes wrong ----


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for path, reason in {
        tmp_path / "file" / "out.mp4": "its folder does not exist",
        tmp_path / "none" / "out.mp4": "its folder does not exist",
        tmp_path / "folder.mp4": "there is a folder",
        Path("/proc/out.mp4"): "No such file|Permission|not permitted|does not exist",  # not even root may
        tmp_path / f"{'x' * 250}.mp4": "too long",
    }.items():
        with pytest.raises(VideoError, match=reason):
            VideoWriter(path, source=info)
    with pytest.raises(VideoError, match="there is a file"):
        VideoWriter(tmp_path / "file", source=info, format="png")


@pytest.mark.parametrize("format", ["mp4", "png"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_interrupted_leaves_what_was_there(tmp_path: Path, format: str, interrupt: type[BaseException]) -> None:
    info = probe(make_clip(tmp_path / "in.mp4", audio="aac"))
    target = tmp_path / "results" / ("out.mp4" if format == "mp4" else "out")
    target.parent.mkdir()
    for round_ in range(2):
        with pytest.raises(interrupt):
            copy_until(15, interrupt, info, target, format)
        assert [file.name for file in target.parent.iterdir()] == [target.name] * round_
        copy_video(info.path, target, format=format)  # now something is there: it has to survive the second round
    assert len(frames_of(target)) == 24


def copy_until(last: int, error: type[BaseException], info: VideoInfo, target: Path, format: str) -> None:
    with VideoWriter(target, source=info, format=format) as writer:
        for frame in read_frames(info.path):
            writer.write(frame.image, frame.pts, frame.time_base)
            if frame.index == last:
                raise error


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "in.mp4"))
    with pytest.raises(VideoError, match="no frame"), VideoWriter(tmp_path / "out.mp4", source=info):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]


def test_wrong_frames_are_refused(tmp_path: Path) -> None:
    info: VideoInfo = probe(make_clip(tmp_path / "in.mp4"))
    tick = Fraction(1, 30)
    with VideoWriter(tmp_path / "out.mp4", source=info) as writer:
        writer.write(picture(0), 0, tick)
        for image in (picture(0)[:-1], picture(0)[..., 0], picture(0).astype(np.float32)):
            with pytest.raises(ValueError, match="it has to be uint8"):
                writer.write(image, 1, tick)
        with pytest.raises(ValueError, match="not later"):
            writer.write(picture(0), 0, tick)
    with pytest.raises(ValueError, match="crf is 99"):
        VideoWriter(tmp_path / "out.mp4", source=info, crf=99)
    with pytest.raises(ValueError, match='format is "webm"'):
        VideoWriter(tmp_path / "out.mp4", source=info, format="webm")


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    # With x264's macroblock tree, one in 25 files was another one on a processor with AVX-512.
    source = make_clip(tmp_path / "in.mp4", noise=True, audio="aac", pts=list(range(12)))
    files = {copy_video(source, tmp_path / "out.mp4")[1].read_bytes() for _ in range(80)}
    assert len(files) == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
from svfr.data.video import VideoError, VideoWriter, probe, read_frames
source, folder, format = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
info, frames = probe(source), list(read_frames(source))
for limit in map(int, sys.argv[4:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        target = folder / ("out.mp4" if format == "mp4" else "out")
        with VideoWriter(target, source=info, format=format) as writer:
            for frame in frames:
                writer.write(frame.image, frame.pts, frame.time_base)
    except VideoError as err:
        assert "out" in str(err) and "File too large" in str(err), err
        assert not list(folder.iterdir()), list(folder.iterdir())
    else:
        sys.exit(f"no error at {limit} bytes")
"""


@pytest.mark.parametrize("format", ["mp4", "png"])
def test_full_disk_is_an_error_wherever_it_strikes(tmp_path: Path, format: str) -> None:
    """A limit of the file's size stands in for the disk's: the same failing write, EFBIG for ENOSPC."""
    source = make_clip(tmp_path / "in.mp4", noise=True, audio="aac", pts=list(range(12)))
    _, written = copy_video(source, tmp_path / "whole.mp4")
    size = written.stat().st_size
    limits = [0, 100, 5000, size // 2, size - 3000, size - 300, size - 1] if format == "mp4" else [0, 100, 3000]
    (tmp_path / "full").mkdir()
    command = [
        sys.executable,
        "-c",
        FULL_DISK,
        str(source),
        str(tmp_path / "full"),
        format,
        *map(str, limits),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # and no codec's chatter


def test_no_chatter(tmp_path: Path) -> None:
    """Codecs write to stderr behind Python's back, into progress bars."""
    source = make_clip(tmp_path / "in.mp4", audio="aac", noise=True)
    code = (
        "import sys; from svfr.data.video import *\n"
        "with VideoWriter(sys.argv[2], source=probe(sys.argv[1])) as writer:\n"
        "    for frame in read_frames(sys.argv[1]): writer.write(frame.image, frame.pts, frame.time_base)"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "out.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
