"""Link the nodes into a ComfyUI: python -m svfr.comfyui COMFYUI_DIR."""

import sys
from pathlib import Path

NODES = Path(__file__).parent
EXAMPLE = NODES / "restore_video.json"


def link(comfyui: Path) -> str:
    """Link this folder as `custom_nodes/svfr`; what it says.

    Raises:
        ValueError: no ComfyUI there, or something else has that name.
        OSError: no link can be made.
    """
    target = comfyui / "custom_nodes" / "svfr"
    if not target.parent.is_dir():
        raise ValueError(f"{comfyui}: no ComfyUI, it has no folder custom_nodes")
    if target.is_symlink():
        target.unlink()  # of an earlier installation
    elif target.exists():
        raise ValueError(f"{target}: is there already, and no link; move it away")
    target.symlink_to(NODES, target_is_directory=True)
    return f"{target} -> {NODES}; restart ComfyUI, whose Python needs svfr, too, and open {EXAMPLE}"


def main(arguments: list[str]) -> int:
    """Run, and turn a wrong call into one line; 0 or 2."""
    try:
        if len(arguments) != 1:
            raise ValueError("usage: python -m svfr.comfyui COMFYUI_DIR")
        print(link(Path(arguments[0])))
    except (ValueError, OSError) as error:
        print(f"svfr.comfyui: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
