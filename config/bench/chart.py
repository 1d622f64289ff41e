"""The chart of the README: throughput against the number of device queues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from config.bench.results import Line

# Readable on white and on the near-black of a dark page; the background stays light under both.
COLOURS = {"Flotilla": "#0b6e4f", "stock Celery": "#b3541e", "procrastinate": "#3d5a98", "dramatiq": "#7a4988",
           "huey": "#6b6b6b"}  # fmt: skip
BACKGROUND = "#fbfaf7"
INK = "#22262b"


def draw(lines: Sequence[Line], *, path: Path) -> None:
    """Write ``path`` (SVG) from the lines that have a point in the chart."""
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this command needs it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in lines:
        if line.point and line.our_median is not None:
            name, queues = line.point
            series[name].append((queues, line.our_median))
    # A fixed salt and no date: the same figures draw the same file.
    mpl.rcParams.update({"svg.hashsalt": "flotilla", "svg.fonttype": "none", "font.family": "sans-serif"})
    mpl.rcParams.update(dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK))
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    figure.patch.set_facecolor(BACKGROUND)
    axes.set_facecolor(BACKGROUND)
    for name in sorted(series, key=lambda each: list(COLOURS).index(each)):
        points = sorted(series[name])
        ours = name == "Flotilla"
        axes.plot(
            *zip(*points, strict=True), marker="o", label=name, color=COLOURS[name], linewidth=2.5 if ours else 1.5,
            markersize=6 if ours else 5, zorder=3 if ours else 2,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("device queues (procrastinate: locks)")
    axes.set_ylabel("no-op tasks per second")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color="#dcd8d0", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None}, facecolor=BACKGROUND)
    plt.close(figure)
