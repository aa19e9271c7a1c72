"""The documentation's site builds without a warning, and its pages ask no other host for anything.

What a broken link, anchor or forgotten page does is tried on a site of one page under the same
settings.
"""

import hashlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docblocks import DOCS, PROJECT

# What a browser fetches by itself when it shows a page; a link that is followed by hand is none.
FETCHED = {"src", "srcset", "poster", "data", "background"}
# The theme's scripts hold these addresses: names, comments, and what a part of a page would ask
# that no page here has. A new release of the theme may bring others: look, before one goes in here.
DORMANT = {
    "http://www.w3.org/2000/svg": None,  # a name, never fetched
    "https://clipboardjs.com/": None,  # in comments, as are the next three
    "http://lunrjs.com": None,
    "http://tartarus.org/": None,
    "https://bit.ly/2s3ChXG": None,
    "https://api.github.com/repos/": 'data-md-component="source"',
    "https://api.github.com/users/": 'data-md-component="source"',
    "https://unpkg.com/mermaid@11/dist/mermaid.min.js": "mermaid",
    "https://unpkg.com/resize-observer-polyfill": None,  # for browsers from before 2020
}
ADDRESS = re.compile(r"(?:https?:)?//[\w.-]+\.\w+[\w./@-]*")


def build(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Without --quiet, which hides warnings from --strict too."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(out),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = build(PROJECT, out)
    assert (built.returncode, "WARNING" in built.stderr) == (0, False), built.stderr
    return out


class Fetches(HTMLParser):
    """What a page makes its browser fetch, and the text of its own scripts and styles."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline = ""
        self._within = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        named = FETCHED | ({"href"} if tag in ("link", "use", "image", "base") else set())
        self.addresses += [value for name, value in attrs if name in named and value]
        self.inline += "".join(value or "" for name, value in attrs if name == "style")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style"):
            self.inline += data


def test_the_search_of_pages_opened_from_a_folder_is_the_published_one(site: Path) -> None:
    published = "e8e412dbcfea9b7e31b5ffa288d7b6035915e714c542f4176a0cdbe262fc9609"
    shim = (site / "assets/iframe-worker.js").read_bytes()
    assert hashlib.sha256(shim).hexdigest() == published
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "search/search_index.js").is_file()


def test_every_page_is_built(site: Path) -> None:
    pages = {f.relative_to(DOCS).with_suffix(".html") for f in DOCS.rglob("*.md")}
    assert {f.relative_to(site) for f in site.rglob("*.html")} == pages | {Path("404.html")}


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        found = Fetches(page)
        assert any(a.endswith(".css") for a in found.addresses), page
        assert [a for a in found.addresses if re.match(r"(?:[a-z]+:)?//", a)] == [], page
        assert ADDRESS.findall(found.inline) == [], page


def test_styles_bring_their_own_fonts_and_pictures(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        text = re.sub(r"/\*.*?\*/", "", style.read_text(encoding="utf-8"), flags=re.DOTALL)
        fetched = re.findall(r"url\(\s*['\"]?([^)'\"]+)", text)
        assert [a for a in fetched if not a.startswith(("data:", "#"))] == []
        assert "@import" not in text


def test_addresses_in_scripts_are_known_and_belong_to_parts_that_no_page_has(site: Path) -> None:
    loaded = [f for f in site.rglob("*.js") if "lunr" not in f.parts]  # those are other languages'
    assert len(loaded) == 4  # the theme's two, the shim, and the index
    scripts = "".join(f.read_text(encoding="utf-8") for f in loaded)
    assert {a for a in ADDRESS.findall(scripts) if a.startswith("http")} <= set(DORMANT)
    pages = "".join(f.read_text(encoding="utf-8") for f in site.rglob("*.html"))
    for part in filter(None, DORMANT.values()):
        assert f'class="{part}"' not in pages
        assert not part.startswith("data-") or part not in pages


def test_broken_links_and_anchors_and_forgotten_pages_fail(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# One\n\n[a](gone.md) [b](#gone) [c](/gone.md)\n")
    (tmp_path / "docs/forgotten.md").write_text("# Two\n")
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {PROJECT / 'mkdocs.yml'}\ndocs_dir: docs\nnav:\n- index.md\n- missing.md\n"
    )
    built = build(tmp_path, tmp_path / "out")
    assert built.returncode != 0
    for said in ("'gone.md'", "'#gone'", "'/gone.md'", "forgotten.md", "'missing.md'"):
        assert said in built.stderr
