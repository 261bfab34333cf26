"""Videos, images and folders of images as streams of frames: probe, read, write. The room's public names."""

from svfr.data.video_reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Frame, VideoError, VideoInfo, probe, read_frames
from svfr.data.video_writer import VideoWriter, write_lossless

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "VideoError",
    "VideoInfo",
    "VideoWriter",
    "probe",
    "read_frames",
    "write_lossless",
]
