"""The web page with a tiny model, served for a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import app
import pytest
from app_sessions import Visitors

from svfr.inference.settings import VideoSettings
from tests import clips, tiny


@contextmanager
def served(folder: Path, most_seconds: float = 60, **options: Any) -> Iterator[app.Page]:
    """A page that keeps its files in a folder; options are of Gradio's `launch`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        pipe = tiny.pipeline()
        pipe.detector = clips.MarkDetector()
        page = app.Page(lambda memory: pipe, VideoSettings(), Visitors(folder), most_seconds)
        app.start(page, server_name="127.0.0.1", quiet=True, **options)
        yield page
        page.visitors.close()
        page.blocks.close()
