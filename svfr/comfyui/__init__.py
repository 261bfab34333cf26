"""Nodes for ComfyUI; `python -m svfr.comfyui COMFYUI_DIR` links this folder into its `custom_nodes`."""

from svfr.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
