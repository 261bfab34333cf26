"""SVFR: unified video face restoration (blind restoration, colorization, inpainting).

>>> import svfr
>>> svfr.__version__.split(".")[0]
'0'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svfr.inference.pipeline import SVFRPipeline
    from svfr.inference.settings import Sampling
    from svfr.models.svfr import SVFR

__version__ = "0.2.0"
__all__ = ["SVFR", "SVFRPipeline", "Sampling", "__version__"]
_HOMES = {"SVFR": "svfr.models.svfr", "SVFRPipeline": "svfr.inference.pipeline", "Sampling": "svfr.inference.settings"}


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: diffusers takes seconds, which workers on data need not wait for."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
