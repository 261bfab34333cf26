"""The figures of the paper's Tables 1 to 3, quoted as they are printed, and the layout of its columns."""

from typing import NamedTuple

SOURCE = "Wang et al., SVFR: A Unified Framework for Generalized Video Face Restoration, arXiv 2501.01235"
COLUMNS = ("psnr", "ssim", "lpips", "ids", "vidd", "fvd")
"""Of Tables 2 and 3, in their order."""
TASKS = ("bfr", "colorization", "inpainting")
"""Each cell of Tables 2 and 3 holds one figure a task."""

Triple = tuple[float | None, float | None, float | None]  # BFR, colorization, inpainting; None where the paper has "-"


class QuotedRow(NamedTuple):
    """One row: six cells of up to three figures."""

    method: str
    cells: tuple[Triple, Triple, Triple, Triple, Triple, Triple]


OURS: tuple[Triple, Triple, Triple, Triple, Triple, Triple] = (
    (29.563, 23.079, 29.119),
    (0.862, 0.896, 0.904),
    (0.223, 0.272, 0.153),
    (0.902, 0.980, 0.888),
    (0.479, 0.497, 0.504),
    (89.316, 204.260, 88.354),
)

TABLE_1 = (  # FID of GPEN, trained without and with another task's weights to start from
    ("BFR", 30.023, 28.014),
    ("Color", 12.677, 11.941),
    ("Inpaint", 9.907, 9.089),
)

TABLE_2 = (
    QuotedRow(
        "GPEN",
        (
            (26.237, 22.012, 23.596),
            (0.795, 0.887, 0.886),
            (0.320, 0.294, 0.228),
            (0.786, 0.959, 0.757),
            (0.575, 0.499, 0.671),
            (412.81, 366.2481, 286.763),
        ),
    ),
    QuotedRow(
        "CodeFormer",
        (
            (26.528, 17.927, 28.672),
            (0.762, 0.663, 0.896),
            (0.361, 0.508, 0.156),
            (0.784, 0.624, 0.846),
            (0.700, 0.895, 0.727),
            (379.53, 551.448, 170.631),
        ),
    ),
    QuotedRow(
        "PGDiff",
        (
            (23.638, 21.550, 20.551),
            (0.765, 0.825, 0.794),
            (0.399, 0.481, 0.360),
            (0.489, 0.794, 0.615),
            (0.649, 0.558, 0.595),
            (445.36, 370.150, 354.615),
        ),
    ),
    QuotedRow(
        "PGTFormer",
        (
            (28.996, None, None),
            (0.843, None, None),
            (0.248, None, None),
            (0.845, None, None),
            (0.577, None, None),
            (154.857, None, None),
        ),
    ),
    QuotedRow(
        "KEEP",
        (
            (27.335, None, None),
            (0.813, None, None),
            (0.259, None, None),
            (0.790, None, None),
            (0.787, None, None),
            (399.239, None, None),
        ),
    ),
    QuotedRow("SVFR", OURS),
)

TABLE_3 = (
    QuotedRow(
        "single",
        (
            (28.323, 22.233, 27.765),
            (0.845, 0.831, 0.896),
            (0.260, 0.279, 0.162),
            (0.854, 0.978, 0.861),
            (0.495, 0.503, 0.517),
            (167.313, 233.389, 106.522),
        ),
    ),
    QuotedRow(
        "multi",
        (
            (28.936, 22.921, 28.303),
            (0.854, 0.870, 0.898),
            (0.242, 0.274, 0.156),
            (0.881, 0.979, 0.875),
            (0.489, 0.501, 0.511),
            (98.781, 223.168, 101.146),
        ),
    ),
    QuotedRow(
        "multi+ULR",
        (
            (29.296, 22.987, 28.337),
            (0.859, 0.886, 0.900),
            (0.225, 0.270, 0.155),
            (0.884, 0.978, 0.879),
            (0.486, 0.498, 0.508),
            (90.353, 214.846, 93.615),
        ),
    ),
    QuotedRow("multi+ULR+FPL", OURS),
)
