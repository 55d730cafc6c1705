"""`gradients`: a heat map of a gradient report."""

import math
from typing import Any

from mlsystem.diagnostics.gradient_report import GradientReport
from mlsystem.plot import colors
from mlsystem.plot.figures import new_figure

_TURN = math.pi / 6  # of long names below the columns
_STRAIGHT = 11  # letters that fit below a column
_LETTER = 0.1  # inches


def gradients(report: Any, ax: Any = None, figsize: tuple[float, float] | None = None) -> Any:
    """Draw a gradient report as a heat map: one row a model, one column a loss.

    ```python
    report = gan.gradient_report(images[:64])
    ml.plot.gradients(report).savefig("gradients.png", dpi=150)
    ```

    Each cell has the norm of the gradient of the loss in the model. The color is the norm on a
    logarithmic scale. Gradients in parentheses belong to losses that the model does not follow. A
    red frame marks a dead route: the model follows the loss and gets no gradient.

    Args:
        report: what `gradient_report` returns.
        ax: matplotlib axes to draw into. By default, those of a new figure.
        figsize: width and height in inches of a new figure. By default, all labels have room.

    Returns:
        The matplotlib `Figure`. Save it with `figure.savefig("gradients.png")`.

    Raises:
        ValueError: if `report` is of another kind or has no losses.
        ImportError: if matplotlib is not installed.
    """
    if not isinstance(report, GradientReport) or not report:
        raise ValueError(f"ml.plot.gradients got {report!r}; give what `gradient_report` returns.")
    losses, models = list(report), list(next(iter(report.values())))
    if ax is None:
        ax = new_figure(figsize or _size(report, losses, models)).subplots()
    _colored(ax, report, losses, models)
    for row, model in enumerate(models):
        for column, loss in enumerate(losses):
            _cell(ax, report, (loss, model), (column, row))
    _frame(ax, report, losses, models)
    _legend(ax, report)
    return ax.figure


def _size(report: Any, losses: list[str], models: list[str]) -> tuple[float, float]:
    """Return a width and height in inches that have room for all labels, and for the cells."""
    names = [*models, *report.frozen]
    long, longest = max(map(len, losses)), max(map(len, names))
    left = max(_LETTER * longest, _LETTER * long * math.cos(_TURN) - 0.5)
    width = max(1.6 + left + 1.15 * len(losses), 0.3 + 0.065 * len(_said(report)))
    below = _LETTER * long * math.sin(_TURN) if long > _STRAIGHT else 0
    return width, 1.5 + below + 0.5 * len(names)


def _colored(ax: Any, report: Any, losses: list[str], models: list[str]) -> None:
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import LogLocator

    norms = [[report[loss][model] for loss in losses] for model in models]
    above = [value for row in norms for value in row if 0 < value < float("inf")]
    scale = LogNorm(min(above) / 2, max(above) * 2, clip=True) if above else Normalize(0, 1)
    shown = [[value or float("nan") for value in row] for row in norms]  # a zero has no logarithm
    image = ax.imshow(shown, norm=scale, cmap="Blues", aspect="auto")
    if above:
        ticks = LogLocator(subs=(1, 2, 5))
        bar = ax.figure.colorbar(
            image, ax=ax, label="norm of the gradient", ticks=ticks, format="%g"
        )
        bar.minorticks_off()


def _cell(ax: Any, report: Any, route: tuple[str, str], place: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    (loss, model), (column, row) = route, place
    text = f"{report[loss][model]:.3g}"
    is_followed = route in report.followed
    shade = ax.images[0].norm(report[loss][model]) if report[loss][model] else 0
    style = {"color": "white" if shade > 0.6 else "#1f2933", "ha": "center", "va": "center"}
    if route in report.dead:
        frame: dict[str, Any] = {"fill": False, "edgecolor": colors.NEGATIVE, "linewidth": 2.5}
        ax.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, **frame))
        text, style["color"] = f"{text}\ndead", colors.NEGATIVE
    weight = "bold" if is_followed else "normal"
    ax.text(column, row, text if is_followed else f"({text})", fontweight=weight, **style)


def _frame(ax: Any, report: Any, losses: list[str], models: list[str]) -> None:
    names = [*models, *report.frozen]
    for row in range(len(models), len(names)):
        ax.text(
            (len(losses) - 1) / 2, row, "frozen", color=colors.NEUTRAL, ha="center", va="center"
        )
    turn = {"rotation": math.degrees(_TURN), "ha": "right", "rotation_mode": "anchor"}
    is_long = max(map(len, losses)) > _STRAIGHT
    ax.set_xticks(range(len(losses)), losses, **(turn if is_long else {}))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_facecolor("#f1f3f5")
    ax.set_xticks([place - 0.5 for place in range(len(losses) + 1)], minor=True)
    ax.set_yticks([place - 0.5 for place in range(len(names) + 1)], minor=True)
    ax.grid(which="minor", color="white", linewidth=2)
    own = colors.model_colors(models)
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set(color=own.get(name, colors.NEUTRAL), fontweight="bold")
    ax.set(xlabel="loss", ylabel="model")
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)


def _legend(ax: Any, report: Any) -> None:
    """Say below the map what its marks mean, where it has such marks."""
    if said := _said(report):
        ax.figure.supxlabel(said, fontsize="small", color="#52606d")


def _said(report: Any) -> str:
    count = sum(len(row) for row in report.values())
    said = ["(…) not followed by the model"] if len(report.followed) < count else []
    said += ["red frame: followed, and no gradient arrives"] if report.dead else []
    return "   ".join(said)
