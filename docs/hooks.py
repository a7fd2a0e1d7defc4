"""MkDocs hooks: Markdown from outside ``docs`` becomes pages, and each package gets a page made from its docstrings.

Nothing is copied: README, ARCHITECTURE and the data's READMEs are read where they stand, and their links, which are
right in the repository, are turned into links of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "models/README.md": "models.md",
    **{f"data/{name}/README.md": f"data/{name}.md" for name in ("climate", "materials", "fluids", "language")},
}
LINK = re.compile(r"(\]\()([^)#\s]+)")
ROLE = re.compile(r":(?:class|func|meth|mod|attr):(?=<code>)")


def api_pages() -> dict[str, str]:
    """Return the Markdown of each package's page, by the page's path."""
    pages = {}
    for package in sorted({file.parent for top in ("sciml", "domains") for file in (ROOT / top).rglob("*.py")}):
        name = ".".join(package.relative_to(ROOT).parts)
        modules = sorted(file.stem for file in package.glob("*.py") if file.stem != "__init__")
        if modules:
            blocks = [f"::: {name}.{module}" for module in modules]
            pages[f"api/{name}.md"] = "\n\n".join([f"# `{name}`", *blocks]) + "\n"
    return pages


def api_order(path: str) -> tuple[bool, str]:
    """Sort the suite's own packages before those of the domains."""
    return "domains." in path, path


def decision_pages() -> list[str]:
    """Return the paths of the decision records in their order."""
    return [f"decisions/{file.name}" for file in sorted((ROOT / "docs" / "decisions").glob("*.md"))]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append decision records and the API reference to the navigation."""
    config.nav.append({"Decisions": decision_pages()})
    config.nav.append({"API": [{Path(path).stem: path} for path in sorted(api_pages(), key=api_order)]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in ``docs``."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for page, content in api_pages().items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    source = next((source for source, target in OUTSIDE.items() if target == here), f"docs/{here}")

    def relink(match: re.Match[str]) -> str:
        if ":" in match[2]:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        target = OUTSIDE.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(target, posixpath.dirname(here) or ".")

    return LINK.sub(relink, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Drop the names of reStructuredText roles, which docstrings use before code."""
    return ROLE.sub("", html)
