"""HTML: the visible text without scripts, styles and navigation, in sections by heading."""

from collections.abc import Iterator
from typing import Any

from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers.base import (
    Document,
    SkippedFileError,
    SourceFile,
    one_document,
)

DROPPED = {
    "head",
    "script",
    "style",
    "noscript",
    "template",
    "nav",
    "footer",
    "aside",
    "form",
    "button",
    "svg",
    "iframe",
    "object",
    "canvas",
}
ROLES = {"navigation", "banner", "contentinfo", "search", "complementary"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
BLOCKS = HEADINGS | {
    "p",
    "div",
    "li",
    "ul",
    "ol",
    "dl",
    "dt",
    "dd",
    "tr",
    "table",
    "section",
    "article",
    "main",
    "header",
    "pre",
    "blockquote",
    "figure",
    "hr",
}


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of a file; its title is from <title>, or its first heading."""
    from lxml import etree, html

    content = file.content()
    parser = html.HTMLParser(encoding="utf-8" if _is_utf8(content) else None, huge_tree=True)
    try:
        root = html.document_fromstring(content, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        raise SkippedFileError("damaged") from None
    sections = _sections(root)
    heading = next((section.heading for section in sections if section.heading), "")
    title = " ".join((root.findtext(".//title") or "").split())
    return one_document(title or heading or file.stem, sections)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _sections(root: Any) -> list[TextSection]:
    from lxml import etree

    sections: list[TextSection] = []
    heading, words, preformatted = "", [""], 0
    walk = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start":
            if tag in DROPPED or element.get("role") in ROLES:
                walk.skip_subtree()
                continue
            if tag in HEADINGS:
                sections.append(TextSection(heading, _tidy(words)))
                heading, words = "", []
            elif tag in BLOCKS:
                words.append("\n\n")
            elif tag == "br":
                words.append("\n")
            preformatted += tag == "pre"
            words.append(_spaced(element.text, preformatted))
            continue
        if event == "end":
            preformatted -= tag == "pre"
            if tag in HEADINGS and element.get("role") not in ROLES:
                heading, words = " ".join("".join(words).split()), []
            elif tag in BLOCKS:
                words.append("\n\n")
            elif tag in ("td", "th"):
                words.append(" ")
        words.append(_spaced(element.tail, preformatted))
    return [*sections, TextSection(heading, _tidy(words))]


def _spaced(text: str | None, preformatted: int) -> str:
    """Return a text with white space collapsed as browsers do, except within <pre>."""
    if not text or preformatted:
        return text or ""
    shown = " ".join(text.split())
    return f"{' ' * text[0].isspace()}{shown}{' ' * (text[-1].isspace() and bool(shown))}"


def _tidy(words: list[str]) -> str:
    paragraphs = "".join(words).split("\n\n")
    return "\n\n".join(text.strip(" ").strip("\n") for text in paragraphs if text.strip())
