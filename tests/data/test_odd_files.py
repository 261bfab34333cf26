"""Files as people bring them: rates, times, sound, pictures that are not as in a textbook, and what is made of them."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageCms

from svfr.data.decoding import is_interlaced
from svfr.data.video import ReadOptions, VideoError, VideoWriter, kind_of, probe, read_frames
from tests.assets import FIELD, needs_field
from tests.data.video_files import NTSC, frames_of, make_clip, picture, sound, times


def restore(source: Path, target: Path) -> tuple[Path, list[str]]:
    """As a restoration without a face does it: where the result is, and the notes."""
    info, notes = probe(source), list[str]()
    with VideoWriter(target, source=info) as writer:
        for frame in read_frames(source, ReadOptions(deep=info.bits > 8), notes.append):
            writer.write(frame.image if frame.deep is None else frame.deep, frame.pts, frame.time_base)
    return writer.path, [*info.notes, *notes, *writer.notes]


# ---- rates and times ----


@needs_field
@pytest.mark.parametrize(
    ("name", "num_frames", "fps", "end"),
    [
        ("webm_browser_no_defaultduration_moving_face.webm", 60, 30, 2.2),
        ("joined_ts_with_sound.ts", 50, 25, 2.0),
        ("joined_ts_no_sound.ts", 50, 25, 1.96),
        ("start_at_100s.flv", 50, 25, 1.98),
        ("avi_null_frames.avi", 42, 25, 1.96),
        ("thumbnail_stream_first.mov", 50, 25, 1.96),
        ("fuzz/mkv_sound_timestamps_invalid_argument.mkv", 22, 25, 0.76),
    ],
)
def test_times_are_those_of_the_pictures(tmp_path: Path, name: str, num_frames: int, fps: float, end: float) -> None:
    written, _ = restore(FIELD / name, tmp_path / "out.mp4")
    assert float(probe(FIELD / name).fps) == pytest.approx(fps, rel=0.1)
    stamps = times(frames_of(written))
    assert len(stamps) == num_frames
    assert float(stamps[0]) < 0.03
    assert float(stamps[-1]) == pytest.approx(end, abs=0.03)


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
def test_joined_broadcasts_go_on_where_they_were_joined(tmp_path: Path, suffix: str) -> None:
    parts = [
        make_clip(
            tmp_path / f"{start}{suffix}", audio="mp2", pts=list(range(start, start + 24)), audio_delay=start / 30
        )
        for start in (9, 0)
    ]
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    stamps = times(frames_of(joined))
    assert len(stamps) == 48
    assert all(abs(step - float(1 / NTSC)) < 0.05 for step in np.diff([float(stamp) for stamp in stamps]))
    written, _ = restore(joined, tmp_path / "out.mp4")
    assert times(frames_of(written)) == stamps
    with av.open(str(written)) as container:
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(48 / NTSC, abs=0.15)


def test_a_late_start_of_all_streams_is_no_empty_head(tmp_path: Path) -> None:
    late = make_clip(tmp_path / "in.mkv", audio="aac", pts=list(range(3000, 3024)), audio_delay=100.1)
    assert float(times(frames_of(late))[0]) < 0.01
    written, _ = restore(late, tmp_path / "out.mp4")
    assert probe(written).duration < 1
    assert sound(written)[0][1] < Fraction(1, 10)


def test_a_rate_that_the_times_contradict_is_not_believed(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mkv", pts=[33 * index for index in range(24)], time_base=Fraction(1, 1000), codec="libvpx"
    )
    data = source.read_bytes()
    default_duration = b"\x23\xe3\x83"  # of the track, in nanoseconds
    place = data.index(default_duration)
    size = data[place + 3] & 0x7F
    source.write_bytes(data[: place + 4] + (10**6).to_bytes(size, "big") + data[place + 4 + size :])
    with av.open(str(source)) as container:
        assert container.streams.video[0].average_rate == 1000
    assert float(probe(source).fps) == pytest.approx(1000 / 33, rel=0.01)


def test_longer_sound_is_no_missing_picture(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.flv", audio="aac", codec="flv")
    whole = frames_of(source)
    with av.open(str(source)) as container, av.open(str(tmp_path / "long.flv"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None and (packet.stream.type == "audio" or packet.dts < 300):
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    assert 5 < len(frames_of(tmp_path / "long.flv")) < len(whole)


# ---- sound and what else goes along ----


@pytest.mark.parametrize(
    ("suffix", "codec", "kept", "result"),
    [
        (".mp4", "aac", "aac", ".mp4"),
        (".mkv", "flac", "flac", ".mp4"),
        (".mkv", "libopus", "opus", ".mp4"),
        (".mov", "pcm_s16le", "pcm_s16le", ".mov"),
        (".avi", "adpcm_ima_wav", "aac", ".mp4"),
        (".mkv", "ac3", "ac3", ".mp4"),
        (".vob", "pcm_dvd", "aac", ".mp4"),
    ],
)
def test_sound_is_kept_or_encoded_and_never_refused(
    tmp_path: Path, suffix: str, codec: str, kept: str, result: str
) -> None:
    video = {".avi": "mpeg4", ".vob": "mpeg2video"}.get(suffix, "libx264")
    source = make_clip(tmp_path / f"in{suffix}", audio=codec, codec=video)
    written, notes = restore(source, tmp_path / "out.mp4")
    assert written.suffix == result
    with av.open(str(written)) as container:
        track = container.streams.audio[0]
        assert track.codec_context.name == kept
        seconds = sum(frame.samples for frame in container.decode(track)) / track.rate
    assert seconds == pytest.approx(24 * 1600 / 48000, abs=0.1)
    assert notes == ([] if kept in codec else [f"sound {codec} is encoded to AAC"])


@needs_field
@pytest.mark.parametrize("name", ["u10_adpcm_ima_wav.avi", "u12_latm.ts", "u12_pcmbluray.m2ts", "wmav2.wmv"])
def test_sound_of_the_field_is_encoded_in_step(tmp_path: Path, name: str) -> None:
    written, [note] = restore(FIELD / name, tmp_path / "out.mp4")
    assert note.startswith("sound ")
    assert note.endswith(" is encoded to AAC")
    lengths = []
    for path in (FIELD / name, written):
        with av.open(str(path)) as container:
            track = container.streams.audio[0]
            lengths.append(sum(frame.samples for frame in container.decode(track)) / track.rate)
    assert lengths[0] == pytest.approx(lengths[1], abs=0.1)


@needs_field
def test_languages_titles_subtitles_and_chapters_are_kept(tmp_path: Path) -> None:
    written, notes = restore(FIELD / "two_languages_subs_chapters.mp4", tmp_path / "out.mp4")
    with av.open(str(written)) as container:
        languages = [stream.metadata.get("language") for stream in container.streams.audio]
        assert languages == ["eng", "deu"]
        assert [stream.codec_context.name for stream in container.streams.subtitles] == ["mov_text"]
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["one", "two"]
        assert (container.metadata["title"], container.metadata["artist"]) == ("Granny 1962", "me")
    assert notes == []


def test_subtitles_that_the_container_does_not_take_are_said(tmp_path: Path) -> None:
    plain, text = make_clip(tmp_path / "plain.mkv", audio="aac"), tmp_path / "words.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:00,500\nhello\n")
    with av.open(str(plain)) as one, av.open(str(text)) as other, av.open(str(tmp_path / "in.mkv"), "w") as output:
        sources = [*one.streams, *other.streams]
        targets = [output.add_stream_from_template(stream) for stream in sources]
        output.start_encoding()
        for source, target in zip(sources, targets, strict=True):
            container = source.container
            container.seek(0)
            for packet in container.demux(source):
                if packet.size:
                    packet.stream = target
                    output.mux(packet)
    _, notes = restore(tmp_path / "in.mkv", tmp_path / "out.mp4")
    assert notes == ["subtitles (srt) are left out: mp4 does not take them"]


# ---- pictures ----


def test_deep_video_stays_deep_with_its_colour_tags(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mkv",
        codec="ffv1",
        pix_fmt="yuv420p10le",
        codec_options={"colorspace": "9", "color_primaries": "9", "color_trc": "16"},
    )
    assert probe(source).bits == 10
    written, _ = restore(source, tmp_path / "out.mp4")
    with av.open(str(source)) as one, av.open(str(written)) as other:
        stream = other.streams.video[0]
        assert stream.pix_fmt == "yuv420p10le"
        context = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (9, 9, 16)
        before, after = next(one.decode(video=0)), next(other.decode(video=0))
        luma = [
            np.frombuffer(bytes(frame.planes[0]), "<u2").reshape(frame.height, -1)[:, :64] for frame in (before, after)
        ]
    assert np.abs(luma[0].astype(int) - luma[1]).mean() < 4  # of 1023, at CRF 18


def combed(count: int, size: int = 64) -> list[np.ndarray]:
    """A bar that moves between the fields of a picture."""

    def at(time: int) -> np.ndarray:
        image = np.full((size, size, 3), 60, np.uint8)
        image[:, 4 + 2 * time : 14 + 2 * time] = 220
        return image

    frames = []
    for index in range(count):
        frame = at(2 * index)
        frame[1::2] = at(2 * index + 1)[1::2]
        frames.append(frame)
    return frames


def combing(frames: list[np.ndarray]) -> float:
    """Mean difference of neighbouring lines."""
    return float(np.mean([np.abs(np.diff(frame[..., 0].astype(int), axis=0)).mean() for frame in frames]))


def test_interlaced_video_is_found_and_made_whole(tmp_path: Path) -> None:
    for name, pictures in (("combed", combed(10)), ("whole", [combed(1)[0][::2].repeat(2, axis=0)] * 10)):
        with av.open(str(tmp_path / f"{name}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=25, width=64, height=64, pix_fmt="yuv444p")
            for image in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    assert is_interlaced(tmp_path / "combed.mkv")
    assert not is_interlaced(tmp_path / "whole.mkv")
    as_it_is = frames_of(tmp_path / "combed.mkv")
    made = list(read_frames(tmp_path / "combed.mkv", ReadOptions(deinterlace=True)))
    assert times(made) == times(as_it_is)
    assert combing([f.image for f in made]) < 0.3 * combing([f.image for f in as_it_is])


@needs_field
def test_flagged_interlaced_video_is_found() -> None:
    assert is_interlaced(FIELD / "interlaced_tff_face.mp4")
    assert not is_interlaced(FIELD / "mask_clip.mp4")


def test_a_size_that_changes_is_scaled_and_said(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{side}.ts", size=(side, 48)) for side in (64, 96)]
    (tmp_path / "in.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    written, notes = restore(tmp_path / "in.ts", tmp_path / "out.mp4")
    assert len(frames_of(written)) == 48
    assert notes == ["the picture changes its size at frame 24: scaled to the first"]


def test_the_video_is_not_a_thumbnail_beside_it(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mov"), "w") as container:
        thumbnail = container.add_stream("mjpeg", rate=25, width=640, height=480, pix_fmt="yuvj420p")
        video = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        for stream, count in ((thumbnail, 1), (video, 12)):
            for index in range(count):
                image = picture(index, stream.width, stream.height)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    assert (probe(tmp_path / "in.mov").width, len(frames_of(tmp_path / "in.mov"))) == (64, 12)


def test_what_can_be_read_of_a_truncated_file_is_salvaged_if_asked(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", noise=True, options={"movflags": "+faststart"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    with pytest.raises(VideoError, match="truncated"):
        frames_of(source)
    notes = list[str]()
    frames = list(read_frames(source, ReadOptions(salvage=True), notes.append))
    assert 5 < len(frames) < 24
    assert notes == [f"ends after {len(frames)} of 24 frames: truncated or corrupt"]


STILLS: dict[str, Callable[[Image.Image, Path], None]] = {
    "a.jfif": lambda image, path: image.save(path, "JPEG", quality=95),
    "a.avif": lambda image, path: image.save(path, "AVIF", quality=95),
    "a.jp2": lambda image, path: image.save(path, "JPEG2000"),
    "a.tga": lambda image, path: image.save(path, "TGA"),
    "a.ppm": lambda image, path: image.save(path, "PPM"),
    "a.unknown": lambda image, path: image.save(path, "PNG"),
    "a.gif": lambda image, path: image.save(path, "GIF"),
}


@pytest.mark.parametrize("name", STILLS)
def test_stills_of_many_formats(tmp_path: Path, name: str) -> None:
    STILLS[name](Image.fromarray(picture(3)), tmp_path / name)
    assert kind_of(tmp_path / name) == "image"
    [frame] = read_frames(tmp_path / name)
    assert np.abs(frame.image.astype(int) - picture(3)).mean() < 6  # GIF has 256 colours
    written, _ = restore(tmp_path / name, tmp_path / "out.png")
    assert Image.open(written).size == (64, 48)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_are_videos_of_their_times(tmp_path: Path, format: str) -> None:
    source = tmp_path / f"in.{format.lower()}"
    first, *others = (Image.fromarray(picture(10 * index)) for index in range(5))
    first.save(source, format, save_all=True, append_images=others, duration=[100, 50, 200, 40, 40], lossless=True)
    assert kind_of(source) == "animation"
    stamps = [0, 100, 150, 350, 390] if format != "TIFF" else [0, 40, 80, 120, 160]
    assert [int(1000 * time) for time in times(frames_of(source))] == stamps
    written, _ = restore(source, tmp_path / "out.mp4")
    assert [int(1000 * time) for time in times(frames_of(written))] == stamps
    assert np.abs(frames_of(source)[4].image.astype(int) - picture(40)).mean() < 6


def test_a_profile_of_srgb_or_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.fromarray(picture(3)).save(tmp_path / "srgb.png", icc_profile=srgb.tobytes())
    [frame] = read_frames(tmp_path / "srgb.png")
    assert np.abs(frame.image.astype(int) - picture(3)).max() <= 2
    Image.fromarray(picture(3)).save(tmp_path / "broken.png", icc_profile=b"no profile")
    [frame] = read_frames(tmp_path / "broken.png")
    np.testing.assert_array_equal(frame.image, picture(3))


@needs_field
def test_a_wide_colour_space_is_converted_to_srgb() -> None:
    stored = Image.open(FIELD / "display_p3.jpg")
    [frame] = read_frames(FIELD / "display_p3.jpg")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(stored.info["icc_profile"]))
    back = ImageCms.profileToProfile(Image.fromarray(frame.image), ImageCms.createProfile("sRGB"), profile)
    assert back is not None
    assert np.abs(np.asarray(back).astype(int) - np.asarray(stored)).mean() < 2
    assert np.abs(frame.image.astype(int) - np.asarray(stored)).mean() > 1


def test_transparency_of_a_still_is_kept(tmp_path: Path) -> None:
    image = Image.fromarray(picture(3)).convert("RGBA")
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "in.png")
    written, notes = restore(tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Image.open(written))[..., 3], alpha)
    assert notes == []


def test_transparency_of_a_video_is_said(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mov"), "w") as container:
        stream = container.add_stream("qtrle", rate=25, width=64, height=48, pix_fmt="argb")
        frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24")
        container.mux(stream.encode(VideoReformatter().reformat(frame, format="argb")))
        container.mux(stream.encode(None))
    _, notes = restore(tmp_path / "in.mov", tmp_path / "out.mp4")
    assert notes == ["its transparency is dropped"]


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1), (np.float32, 255), (np.int32, 65535), (np.int32, 2**30)])
def test_deep_stills_are_scaled_by_their_range(tmp_path: Path, dtype: type, scale: int) -> None:
    ramp = np.tile(np.linspace(0, 1, 64), (48, 1))
    Image.fromarray((ramp * scale).astype(dtype)).save(tmp_path / "in.tif")
    [frame] = read_frames(tmp_path / "in.tif")
    assert np.abs(frame.image[..., 0] - ramp * 255).max() <= 1


@needs_field
def test_hidden_frames_are_said(tmp_path: Path) -> None:
    _, notes = restore(FIELD / "fuzz/mov_editlist_1_of_30_frames_done.mov", tmp_path / "out.mp4")
    assert "its edit list hides 29 of 30 frames" in notes
