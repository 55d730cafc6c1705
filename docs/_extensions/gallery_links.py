"""A Sphinx extension: leads links to `examples/` to the gallery.

On GitHub, the pages link to the folder `examples/`. The site has the gallery in its place.
"""

import re

LINK = re.compile(r"\]\((?:\.\./)+examples/(README\.md|\w+\.py)\)")


def lead_to_the_gallery(app, docname, source):
    up = "../" * docname.count("/")

    def page(found):
        name = found[1].removesuffix(".py")
        return f"]({up}gallery/{'index' if name == 'README.md' else name})"

    source[0] = LINK.sub(page, source[0])


def setup(app):
    app.connect("source-read", lead_to_the_gallery)
    return {"parallel_read_safe": True}
