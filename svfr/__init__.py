"""SVFR: unified video face restoration (blind restoration, colorization, inpainting)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svfr.inference.pipeline import SVFRPipeline
    from svfr.models.svfr import SVFR

__version__ = "0.1.0"
__all__ = ["SVFR", "SVFRPipeline", "__version__"]


def __getattr__(name: str) -> type:
    """Import the models when they are asked for: diffusers takes seconds, which workers on data need not wait for."""
    if name == "SVFR":
        from svfr.models.svfr import SVFR

        return SVFR
    if name == "SVFRPipeline":
        from svfr.inference.pipeline import SVFRPipeline

        return SVFRPipeline
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
