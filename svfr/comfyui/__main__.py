"""Link the nodes into a ComfyUI: python -m svfr.comfyui COMFYUI_DIR."""

import sys
from pathlib import Path

NODES = Path(__file__).parent
EXAMPLE = NODES / "restore_video.json"


def main(arguments: list[str]) -> int:
    """Link this folder as `custom_nodes/svfr` of the ComfyUI that the arguments name; returns the exit code."""
    try:
        if len(arguments) != 1:
            raise ValueError("usage: python -m svfr.comfyui COMFYUI_DIR")
        target = Path(arguments[0]) / "custom_nodes" / "svfr"
        if not target.parent.is_dir():
            raise ValueError(f"{arguments[0]}: no ComfyUI, it has no folder custom_nodes")
        if target.is_symlink():
            target.unlink()  # of an earlier installation
        elif target.exists():
            raise ValueError(f"{target}: is there already, and no link; move it away")
        target.symlink_to(NODES, target_is_directory=True)
    except (ValueError, OSError) as error:
        print(f"svfr.comfyui: {error}", file=sys.stderr)
        return 2
    print(f"{target} -> {NODES}; restart ComfyUI, whose Python needs svfr, too, and open {EXAMPLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
