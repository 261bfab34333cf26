"""The figures of the paper's Tables 1 to 3, quoted as they are printed, and the layout of its columns."""

SOURCE = "Wang et al., SVFR: A Unified Framework for Generalized Video Face Restoration, arXiv 2501.01235"
NOTE = (
    "Its protocol is not published. It does not say which variant of VIDD it prints (0.48 to 0.79 is neither 1 - cos "
    "nor normalized at stride 1): compare ours with the ground truth's own, not with these."
)
COLUMNS = ("psnr", "ssim", "lpips", "ids", "vidd", "fvd")  # of Tables 2 and 3, in their order
TASKS = ("bfr", "colorization", "inpainting")  # each cell of Tables 2 and 3 holds one figure a task


Quoted = dict[str, dict[str, dict[str, float]]]  # figures by method, task and column


def _quote(text: str) -> Quoted:
    """A table from lines of a method, a task, and its figures in the order of `COLUMNS`."""
    table: Quoted = {}
    for line in text.strip().splitlines():
        method, task, *figures = line.split()
        table.setdefault(method, {})[task] = dict(zip(COLUMNS, map(float, figures), strict=True))
    return table


TABLE_1 = (  # FID of GPEN, trained without and with another task's weights to start from
    ("BFR", 30.023, 28.014),
    ("Color", 12.677, 11.941),
    ("Inpaint", 9.907, 9.089),
)

TABLE_2 = _quote("""
    GPEN       bfr          26.237 0.795 0.320 0.786 0.575 412.81
    GPEN       colorization 22.012 0.887 0.294 0.959 0.499 366.2481
    GPEN       inpainting   23.596 0.886 0.228 0.757 0.671 286.763
    CodeFormer bfr          26.528 0.762 0.361 0.784 0.700 379.53
    CodeFormer colorization 17.927 0.663 0.508 0.624 0.895 551.448
    CodeFormer inpainting   28.672 0.896 0.156 0.846 0.727 170.631
    PGDiff     bfr          23.638 0.765 0.399 0.489 0.649 445.36
    PGDiff     colorization 21.550 0.825 0.481 0.794 0.558 370.150
    PGDiff     inpainting   20.551 0.794 0.360 0.615 0.595 354.615
    PGTFormer  bfr          28.996 0.843 0.248 0.845 0.577 154.857
    KEEP       bfr          27.335 0.813 0.259 0.790 0.787 399.239
    SVFR       bfr          29.563 0.862 0.223 0.902 0.479 89.316
    SVFR       colorization 23.079 0.896 0.272 0.980 0.497 204.260
    SVFR       inpainting   29.119 0.904 0.153 0.888 0.504 88.354
""")

ROW_OF_BOTH = "multi+ULR+FPL"  # of Table 3, SVFR's of Table 2
TABLE_3 = _quote("""
    single    bfr          28.323 0.845 0.260 0.854 0.495 167.313
    single    colorization 22.233 0.831 0.279 0.978 0.503 233.389
    single    inpainting   27.765 0.896 0.162 0.861 0.517 106.522
    multi     bfr          28.936 0.854 0.242 0.881 0.489 98.781
    multi     colorization 22.921 0.870 0.274 0.979 0.501 223.168
    multi     inpainting   28.303 0.898 0.156 0.875 0.511 101.146
    multi+ULR bfr          29.296 0.859 0.225 0.884 0.486 90.353
    multi+ULR colorization 22.987 0.886 0.270 0.978 0.498 214.846
    multi+ULR inpainting   28.337 0.900 0.155 0.879 0.508 93.615
""") | {ROW_OF_BOTH: TABLE_2["SVFR"]}
