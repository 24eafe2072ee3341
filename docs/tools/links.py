"""A hook of mkdocs: links to files of the repository that are no page become plain text in the built site.

On a forge these links lead to the file. The site holds the pages alone, and no address of a repository is known here.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replaces each link that leads out of ``docs/`` by its text.

    Raises:
        FileNotFoundError: if the file is not in the repository.
    """

    def text_of(link: re.Match[str]) -> str:
        if not (DOCS / link[2]).exists():
            raise FileNotFoundError(f"a page links to {link[2]}, which is not in the repository")
        return link[1]

    return _LINK.sub(text_of, markdown)
