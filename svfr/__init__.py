"""SVFR: unified video face restoration (blind restoration, colorization, inpainting)."""

from svfr.models.svfr import SVFR
from svfr.pipeline import SVFRPipeline

__version__ = "0.1.0"
__all__ = ["SVFR", "SVFRPipeline", "__version__"]
