"""A Sphinx extension: docstrings of the package are Markdown, and autodoc expects reStructuredText.

It converts what the docstrings use: code fences, `code`, tables and links. Napoleon then reads the
sections (`Args`, `Returns`, `Raises`, `Attributes`).
"""

import re
from itertools import groupby

CODE = re.compile(r"(?<![:`\w])`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[([^\]]+)\]\((https?://[^)]+)\)")


def convert(lines):
    """Returns the lines of a docstring as reStructuredText."""
    out, kind = [], None
    for kind, group in groupby(with_kinds(lines), key=lambda pair: pair[0]):
        part = [line for _, line in group]
        out += CONVERTERS[kind](part)
    return out


def with_kinds(lines):
    """Yields `("code", "table" or "text", line)` for each line."""
    in_code = False
    for line in lines:
        is_fence = line.lstrip().startswith("```")
        is_table = line.lstrip().startswith("|") and not in_code
        yield "code" if in_code or is_fence else "table" if is_table else "text", line
        in_code ^= is_fence


def code(lines):
    """Converts fenced blocks. Two of them may follow each other."""
    out = []
    for line in lines:
        indent, text = re.match(r"( *)(.*)", line).groups()
        if text.startswith("```"):
            language = text.strip("`")
            out += ["", f"{indent}.. code-block:: {language}", ""] if language else [""]
        else:
            out.append(f"   {line}" if text else "")
    return out


def table(lines):
    """Converts a table with a heading."""
    indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    out = ["", f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        for number, cell in enumerate(row):
            out.append(f"{indent}   {'*' if number == 0 else ' '} - {inline(cell)}")
    return [*out, ""]


def inline(line):
    """Converts `code` and links."""
    return LINK.sub(r"`\1 <\2>`__", CODE.sub(r"``\1``", line))


def text(lines):
    """Converts paragraphs and lists. A list needs an empty line before it."""
    out = []
    for line in map(inline, lines):
        starts = re.match(r" *[-*] ", line)
        if starts and out and out[-1].strip() and not re.match(r" *([-*] |  )", out[-1]):
            out.append("")
        out.append(line)
    return out


CONVERTERS = {"code": code, "table": table, "text": text}


def on_docstring(app, what, name, obj, options, lines):
    if name.startswith("mlsystem"):
        lines[:] = convert(lines)


def setup(app):
    app.connect("autodoc-process-docstring", on_docstring, priority=100)  # before napoleon
    return {"parallel_read_safe": True}
