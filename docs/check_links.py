"""Checks the links among the built pages: `python docs/check_links.py docs/_build/html`.

Each link to a page, an anchor or a file of the site must lead somewhere. Links to other sites are
not followed.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the names that links can lead to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = set(), {"", "top"}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links |= {given[name] for name in ("href", "src") if given.get(name)}


def broken(folder):
    """Yields each broken link with the file that has it."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    links = {path: page.links for path, page in pages.items()}
    text = (folder / "llms.txt").resolve()
    links[text] = set(re.findall(r"\]\(([^)]+)\)", text.read_text()))
    for path, found in links.items():
        for link in sorted(found):
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            page = pages.get(target / "index.html" if target.is_dir() else target)
            if not target.exists() or (page and unquote(url.fragment) not in page.anchors):
                yield path.relative_to(folder.resolve()), link


if __name__ == "__main__":
    found = list(broken(Path(sys.argv[1])))
    for path, link in found:
        print(f"{path}: broken link {link}")
    sys.exit(bool(found))
