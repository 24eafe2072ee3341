"""The pages of the documentation, and the parts of Markdown that tests look at."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*DOCS, *sorted((ROOT / "experiments").glob("*/README.md"))]


def blocks(page, language):
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def prose(page):
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def links(page):
    """The targets of a page's links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page):
    """The anchors of a page's headings, as a forge and mkdocs make them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def tables(page):
    """The rows of all tables of a page, each a list of cells, without their headers."""
    lines = [line for line in prose(page).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rules = [i for i, line in enumerate(lines) if set(line) <= set("|-: ")]
    return [row for i, row in enumerate(rows) if i not in rules and i + 1 not in rules]
