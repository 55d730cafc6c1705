"""A Sphinx extension: draws the pictures of systems that pages show."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def draw(app):
    sys.path.insert(0, str(ROOT / "tests"))
    import documented

    gan = documented.GAN(documented.net(784), latent=64)
    folder = ROOT / "docs" / "guides" / "pictures"
    folder.mkdir(exist_ok=True)
    gan.setup(documented.array(2, 784)).picture().save(folder / "gan.svg")


def setup(app):
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True}
