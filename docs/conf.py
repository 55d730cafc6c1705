"""Sphinx builds the documentation site from this folder: `python -m tox -e docs`."""

import sys
from pathlib import Path

import mlsystem

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
from gallery_sources import write_gallery_sources

project = "mlsystem"
author = "the mlsystem contributors"
copyright = author
version = release = mlsystem.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "gallery_links",
    "markdown_docstrings",
]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py"]

# Markdown
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The API reference
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
nitpicky = False
add_module_names = False
toc_object_entries_show_parents = "hide"

# The gallery: the scripts are shown and not run, because training takes minutes.
sphinx_gallery_conf = {
    "examples_dirs": write_gallery_sources(Path(__file__).parents[1] / "examples"),
    "gallery_dirs": "gallery",
    "plot_gallery": False,
    "filename_pattern": "$^",
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": float("inf"),
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
    "nested_sections": False,
}
suppress_warnings = ["config.cache"]  # the settings of the gallery hold a function

# The look
html_theme = "furo"
html_title = "mlsystem"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["llms.txt"]
html_copy_source = True
html_show_sphinx = False
pygments_style = "tango"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#2f6fb5",
        "color-brand-content": "#2f6fb5",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7fb3e6",
        "color-brand-content": "#7fb3e6",
    },
}
