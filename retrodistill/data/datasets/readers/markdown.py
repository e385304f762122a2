"""Markdown: a section for each heading."""

import re
from collections.abc import Iterator

from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers.base import Document, SourceFile, one_document

FRONT = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*\n", re.DOTALL)
TITLE = re.compile(r"^title:[ \t]*['\"]?(.+?)['\"]?[ \t]*$", re.MULTILINE)


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of a file; its title is from its front matter, or its first heading."""
    from markdown_it import MarkdownIt

    text = file.text().replace("\r\n", "\n")
    front = FRONT.match(text)
    text = text[front.end() :] if front else text
    front_title = TITLE.search(front[1]) if front else None
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").parse(text)
    sections, heading, start = [], "", 0
    for position, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            sections.append(TextSection(heading, "\n".join(lines[start : token.map[0]])))
            heading, start = tokens[position + 1].content, token.map[1]
    sections.append(TextSection(heading, "\n".join(lines[start:])))
    first_heading = next((section.heading for section in sections if section.heading), "")
    return one_document(front_title[1] if front_title else first_heading or file.stem, sections)
