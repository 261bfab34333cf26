"""Rendered talking heads: clips with exact landmarks for training and testing without data."""

from svfr.synthetic.motion import FPS
from svfr.synthetic.render import RenderedClip, render_clip

# Seeds, and identities, from here up are never used for training.
TEST_SEEDS = 1_000_000

__all__ = ["FPS", "TEST_SEEDS", "RenderedClip", "render_clip"]
