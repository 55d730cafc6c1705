"""Every block of Python in the documentation and in docstrings runs as it is printed.

The blocks of a page run in order and share their names. A page that uses a class of another page
has a hidden block in a comment, which imports that class from `documented.py`. A page runs on one
backend, in turn, and on all of them with `--everywhere`.
"""

import ast
import inspect
import re
from pathlib import Path

import documented
import keras
import pytest
from sybil import Document
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

import mlsystem

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    page.relative_to(DOCS).with_suffix("").as_posix(): page
    for page in sorted(DOCS.rglob("*.md"))
    if not {"_build", "gallery"} & set(page.relative_to(DOCS).parts)
}
# The train steps of plain Keras on this page are written for one backend.
OF_ONE_BACKEND = {"coming_from/keras": "tensorflow"}
MODULES = (mlsystem, mlsystem.balance, mlsystem.callbacks, mlsystem.plot, mlsystem.tune)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(document):
    """Runs the blocks of a document in order, in one namespace."""
    parsers = (PythonCodeBlockParser(), SkipParser())
    for region in (region for parser in parsers for region in parser(document)):
        document.add(region)
    count = 0
    for example in document.examples():
        example.evaluate()
        count += 1
    return count


def turns(name):
    backend = OF_ONE_BACKEND.get(name)
    if backend is None:
        return pytest.param(name)
    reason = f"the page shows code for {backend}"
    return pytest.param(
        name, marks=pytest.mark.skipif(keras.backend.backend() != backend, reason=reason)
    )


with_code = [name for name, page in PAGES.items() if "```python" in page.read_text()]


@pytest.mark.parametrize("name", [turns(name) for name in with_code])
def test_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(Document(PAGES[name].read_text(), str(PAGES[name])))


@pytest.mark.each_backend
def test_the_front_page_runs():
    page = ROOT / "README.md"
    assert run(Document(page.read_text(), str(page)))
    assert len(page.read_text().splitlines()) <= 150


def test_the_front_pages_and_the_hidden_blocks_have_the_same_gan():
    readme, index = ((ROOT / name).read_text() for name in ("README.md", "docs/index.md"))
    code = next(code for language, code in FENCE.findall(readme) if language == "python")
    assert code in index
    classes = code[code.index("class Generator") : code.index("images = ")].strip()
    assert classes in Path(documented.__file__).read_text()


def test_the_links_of_the_front_page_exist():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r'(?:\]\(|src="|href=")([^)"#]+)', text)
    assert len(targets) > 30
    assert not [path for path in targets if not (ROOT / path).exists()]


@pytest.mark.parametrize("name", with_code)
def test_all_python_of_a_page_is_python(name):
    """Also where a block is not run, because it needs what the tests do not install."""
    for language, code in FENCE.findall(PAGES[name].read_text()):
        if language == "python":
            ast.parse(code)


# Docstrings ---------------------------------------------------------------------------------


def public():
    """The public classes and functions by name, and the methods that they document."""
    for module in MODULES:
        yield module.__name__, module
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.ismodule(found):
                continue
            yield f"{module.__name__}.{name}", found
            for key, method in inspect.getmembers(found, inspect.isfunction):
                if not key.startswith("_") and method.__module__.startswith("mlsystem"):
                    yield f"{method.__module__}.{method.__qualname__}", method


DOCSTRINGS = {
    name: text for name, found in public() if "```python" in (text := inspect.getdoc(found) or "")
}


@pytest.mark.parametrize("name", list(DOCSTRINGS))
def test_a_docstring_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = Document(DOCSTRINGS[name], name)
    document.namespace.update(documented.names(name))
    assert run(document)


# Figures and names on pages -------------------------------------------------------------------


def test_the_reference_has_every_public_name():
    reference = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    for module in MODULES:
        for name in module.__all__:
            full = f"{module.__name__}.{name}"
            assert re.search(rf"^\.\. auto\w+:: {full}$", reference, re.MULTILINE), full


COUNT = re.compile(r"^\| ([\w-]+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("coming_from/")])
def test_the_line_counts_hold(name):
    text = PAGES[name].read_text()
    blocks = [code for _, code in FENCE.findall(text)]
    lines = [sum(bool(line.strip()) for line in code.splitlines()) for code in blocks]
    theirs, ours = lines[2::2], lines[3::2]  # after the networks of both
    counted = zip(("GAN", "VAE", "WGAN-GP"), theirs, ours, strict=True)
    assert COUNT.findall(text) == [(name, str(a), str(b)) for name, a, b in counted]


def test_every_page_is_in_the_list_for_language_models():
    listed = (DOCS / "llms.txt").read_text()
    pages = [name for name in PAGES if not name.startswith("api/") and name != "index"]
    assert [name for name in pages if f"(_sources/{name}.md.txt)" not in listed] == []
