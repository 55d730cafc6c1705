"""`Picture`: a system as SVG, Mermaid, text or PNG."""

import functools
from pathlib import Path
from typing import Any

from mlsystem.diagnostics.describe import describe
from mlsystem.diagnostics.description import Description
from mlsystem.diagnostics.routes import Norms
from mlsystem.plot import png
from mlsystem.plot.drawing import draw
from mlsystem.plot.mermaid import mermaid
from mlsystem.plot.plain_text import text
from mlsystem.plot.svg import svg

SUFFIXES = (".svg", ".md", ".txt", ".png")


def system(system: Any, report: Norms | None = None) -> "Picture":
    """Draw a system: its models, its losses, and which model follows which loss.

    ```python
    ml.plot.system(gan).save("gan.svg")
    ml.plot.system(gan, report=gan.gradient_report(images[:64]))
    ```

    `system.picture()` is the same.

    Args:
        system: an `MLSystem` or `MLModel` that is set up.
        report: the result of `system.gradient_report(data)`. Then the width of an arrow is the norm
            of the gradient, and a red cross marks a route on which no gradient arrives.

    Returns:
        The picture. A notebook shows it, `print` prints it as text, and `save` writes a file.

    Raises:
        TypeError: if it is no model of this library, or the report is not one.
        ValueError: if the system is not set up, or the report is empty.
    """
    return Picture(describe(system, report))


class Picture:
    """A picture of a system. A notebook shows it, `print` prints it as text.

    Models stand in the order of `forward`, with their number of weights, optimizer and learning
    rate. Frozen models are hatched. A dotted line leads from a model to its moving average. Grey
    arrows are the forward pass. A colored arrow from a loss to a model means that the model follows
    the loss, with the weight in the label: red for a negative weight, dashed for a weight that
    moves. With several phases, each phase has a column of labels. Nested systems are frames.

    Args:
        facts: the facts to draw.
    """

    def __init__(self, facts: Description) -> None:
        self.facts = facts

    def __str__(self) -> str:
        return text(self.facts)

    def __repr__(self) -> str:
        return f"<Picture of {self.facts.title}: print it, or save it as .svg, .md, .txt or .png>"

    @functools.cached_property
    def svg(self) -> str:
        """The picture as SVG. Its colors follow the reader's light or dark mode."""
        return svg(draw(self.facts))

    @property
    def mermaid(self) -> str:
        """The picture as a Mermaid flowchart, which GitHub renders in a Markdown file."""
        return mermaid(self.facts)

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: Any, dark: bool = False) -> Path:
        """Write the picture to a file, and return its path.

        Args:
            path: the ending, in small or capital letters, chooses the format: `.svg`, `.png`
                (needs matplotlib), `.md` (a Mermaid flowchart for GitHub) or `.txt`.
            dark: whether a PNG has dark colors. An SVG follows the reader's mode.

        Raises:
            ValueError: the path has another ending.
            FileNotFoundError: the folder does not exist.
            ImportError: matplotlib is needed and not installed.
        """
        path = Path(path)
        _check(path)
        if (ending := path.suffix.lower()) == ".png":
            png.write(draw(self.facts), path, dark)
            return path
        content = {".svg": lambda: self.svg, ".md": lambda: f"```mermaid\n{self.mermaid}```\n"}
        written = content.get(ending, lambda: f"{self}\n")()
        path.write_text(written, encoding="utf-8")
        return path


def _check(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"A picture cannot be saved as '{path}'. End the path in {', '.join(SUFFIXES)}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"A picture cannot be saved as '{path}': there is no folder '{path.parent}'. Make it "
            "first."
        )
