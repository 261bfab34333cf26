"""The picture of a training run: its losses and the PSNR of its validation clips."""

import json
from pathlib import Path

SMOOTHING = 0.9  # of the losses, an exponential mean


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw a run's metrics.jsonl as a PNG.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ValueError("matplotlib is not installed: pip install 'svfr[eval]'") from error
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    for name in ("loss_noise", "loss_ulr", "loss_prior"):
        steps = [line["step"] for line in lines if name in line]
        if steps:
            left.plot(steps, smooth([line[name] for line in lines if name in line]), label=name)
    left.set(xlabel="step", yscale="log", title="losses")
    left.legend()
    tasks = sorted({key.split("/")[1] for line in lines for key in line if key.startswith("val_psnr/")})
    for number, name in enumerate(tasks):
        for kind, style in (("val_psnr", "o-"), ("val_psnr_degraded", "x:")):
            points = [(line["step"], line[f"{kind}/{name}"]) for line in lines if f"{kind}/{name}" in line]
            label = name if kind == "val_psnr" else None
            right.plot([s for s, _ in points], [v for _, v in points], style, color=f"C{number}", label=label)
    right.set(xlabel="step", title="PSNR of validation clips [dB] (crosses: degraded)")
    if tasks:
        right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
    pyplot.close(figure)


def smooth(values: list[float]) -> list[float]:
    """Exponential mean of what came before and a value."""
    smoothed: list[float] = []
    for value in values:
        smoothed.append(SMOOTHING * smoothed[-1] + (1 - SMOOTHING) * value if smoothed else value)
    return smoothed
