"""Copies of the examples, as sphinx-gallery wants them: a title in each docstring, and a thumbnail.

The scripts in examples/ read like a user's own and hold no directives. Their docstrings are plain
text: a sentence, the command, and what the script shows.
"""

import ast
import re
import shutil
import tempfile
from pathlib import Path

HEADER = """
Gallery
=======

Each example is one short script. It runs on JAX, PyTorch and TensorFlow from the same source.
Most train on real data that ships inside a package, and end in a figure beside a baseline.

Run one from a clone::

    python -m pip install '.[jax,examples]'
    KERAS_BACKEND=jax python examples/gan.py

"""


def write_gallery_sources(examples):
    """Returns a folder of scripts for sphinx-gallery, made from a folder of examples."""
    shutil.rmtree(examples.parent / "docs" / "gallery", ignore_errors=True)  # of an earlier build
    folder = Path(tempfile.mkdtemp(prefix="examples-")) / "gallery"
    folder.mkdir()
    (folder / "GALLERY_HEADER.rst").write_text(HEADER)
    for script in sorted(examples.glob("*.py")):
        picture = examples / "pictures" / f"{script.stem}.png"
        text = converted(script.read_text(), picture if picture.exists() else None)
        (folder / script.name).write_text(text)
    return str(folder)


def converted(source, picture):
    """Returns the source of a script with a docstring in reStructuredText."""
    docstring = ast.parse(source).body[0]
    first, _, rest = docstring.value.value.partition("\n")
    name = title(first)
    intro = "\n".join([name, "=" * len(name), "", first, *body(rest, picture)])
    code = "\n".join(source.splitlines()[docstring.end_lineno :])
    code = code.replace("# isort: split\n", "")
    thumbnail = f"\n# sphinx_gallery_thumbnail_path = {str(picture)!r}\n" if picture else ""
    return f'r"""\n{intro}\n"""\n{code}\n{thumbnail}'


def title(sentence):
    """Returns the subject of a docstring's first sentence.

    >>> title("A VAE whose KL divergence is annealed (Bowman et al. 2016): a loss that moves.")
    'A VAE whose KL divergence is annealed'
    """
    return re.split(r" \(|[:.]", sentence)[0]


def body(rest, picture):
    """Yields the other lines, with commands as literal blocks, and the picture of the example."""
    is_command = False
    for line in rest.splitlines():
        if line.startswith("    ") and not is_command:
            yield "::"
            yield ""
        is_command = line.startswith("    ") or (is_command and not line)
        yield re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)
    for image in (picture, picture and picture.with_suffix(".svg")):
        if image and image.exists():
            path = f"../../examples/pictures/{image.name}"
            yield from ("", f".. image:: {path}", f"   :alt: {image.stem}")
