"""Videos, images and folders of images as streams of frames: probe, read, write. The room's public names."""

from svfr.data.errors import VideoError
from svfr.data.images import IMAGE_SUFFIXES
from svfr.data.video_reader import (
    DEEP,
    VIDEO_SUFFIXES,
    Frame,
    ReadOptions,
    VideoInfo,
    frames_at,
    image_files,
    is_media,
    kind_of,
    probe,
    read_frames,
)
from svfr.data.video_writer import VideoWriter, write_lossless

__all__ = [
    "DEEP",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "ReadOptions",
    "VideoError",
    "VideoInfo",
    "VideoWriter",
    "frames_at",
    "image_files",
    "is_media",
    "kind_of",
    "probe",
    "read_frames",
    "write_lossless",
]
