r"""Manual pages in troff's macros `man` and `mdoc`: their text, without the typesetting.

Headings, paragraphs, fonts and named characters are interpreted; macros that a page defines
itself, tables and equations are not.
"""

import re
from collections.abc import Iterator

from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers import text as plain_text
from retrodistill.data.datasets.readers.base import (
    Document,
    SkippedFileError,
    SourceFile,
    one_document,
)

PAGE = re.compile(r"^[.'](TH|SH|Dd|Dt|Sh|so)\b", re.MULTILINE)
ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|(\S+)')
CHARACTERS = {
    "aq": "'",
    "dq": '"',
    "lq": '"',
    "rq": '"',
    "oq": "'",
    "cq": "'",
    "em": "-",
    "en": "-",
    "hy": "-",
    "bu": "•",
    "co": "©",
    "ha": "^",
    "ti": "~",
    "rs": "\\",
    "ga": "`",
    "at": "@",
    "sh": "#",
    "or": "|",
    "mu": "x",
    "de": "°",
}
ESCAPE = re.compile(
    r"\\(?:f(?:\[[^\]]*\]|\(..|.)|s[-+]?\d+|[hvwLlDoXZ]'[^']*'|k.|\*(?:\[([^\]]*)\]|\((..)|(.))"
    r"|\[([^\]]*)\]|\((..)|(.))"
)
SIGNS = {"-": "-", "e": "\\", "~": " ", " ": " ", "0": " ", "t": "\t", "'": "'", "`": "`", ".": "."}
PARAGRAPHS = {"PP", "P", "LP", "TP", "HP", "sp", "Pp", "It", "br", "TQ"}
FONTS = {"B", "I", "SM", "SB", "R"}
PAIRS = {"BR", "BI", "IR", "IB", "RB", "RI"}
MDOC = {
    "Nm",
    "Nd",
    "Fl",
    "Ar",
    "Op",
    "Pa",
    "Cm",
    "Xr",
    "Dq",
    "Sq",
    "Pq",
    "Qq",
    "Em",
    "Sy",
    "Li",
    "Ev",
    "Va",
    "Fn",
    "Fa",
    "Ft",
    "Dv",
    "Er",
    "Ic",
    "Ql",
    "Sx",
    "No",
    "Ns",
    "Ux",
    "Bx",
    "Oo",
    "Oc",
    "Ao",
    "Ac",
    "Bo",
    "Bc",
    "Po",
    "Pc",
    "Do",
    "Dc",
    "So",
    "Sc",
    "At",
    "Fx",
    "Nx",
    "Ox",
    "Tn",
    "In",
    "Ad",
    "An",
    "Aq",
    "Brq",
    "Bq",
    "Cd",
    "Lk",
    "Mt",
    "Ap",
    "Pf",
}


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the page, titled with name and section, as in ls(1). Other files are plain text.

    Raises:
        SkippedFileError: it only refers to another page, or has no text.

    """
    source = file.text()
    if not PAGE.search(source):
        return plain_text.read(file)
    if source.lstrip().startswith(".so "):
        raise SkippedFileError("reference to another page")
    title, sections = _page(source)
    return one_document(title or file.stem, sections)


def _page(source: str) -> tuple[str, list[TextSection]]:
    title, heading, words = "", "", [""]
    sections: list[TextSection] = []
    skipping = expecting = False
    for raw in source.splitlines():
        line = re.sub(r'\\".*', "", raw).rstrip()
        if skipping:
            skipping = "".join(line.split()) != ".."
            continue
        if not line.startswith((".", "'")):
            text = plain(line)
            if expecting and text.strip():
                heading, expecting = text.strip(), False
            else:
                words.append(text if text.strip() else "\n")
            continue
        macro, _, text_of_arguments = line[1:].lstrip().partition(" ")
        arguments = [plain(quoted or bare) for quoted, bare in ARGUMENT.findall(text_of_arguments)]
        if macro in ("de", "am", "ig"):
            skipping = True
        elif macro in ("TH", "Dt") and arguments:
            name, section = arguments[0], "".join(arguments[1:2])
            title = f"{name.lower() if name.isupper() else name}({section})"
        elif macro in ("SH", "SS", "Sh", "Ss"):
            sections.append(TextSection(heading, _joined(words)))
            heading, words = " ".join(arguments), []
            expecting = not heading
        else:
            words.append(_macro(macro, arguments))
    return title, [*sections, TextSection(heading, _joined(words))]


def _macro(macro: str, arguments: list[str]) -> str:
    """Return the text of a macro's line."""
    if macro in FONTS:
        return " ".join(arguments)
    if macro in PAIRS:
        return "".join(arguments)
    if macro == "IP":
        return "\n" + "".join(arguments[:1])
    if macro in PARAGRAPHS:
        return "\n" + (_mdoc([], arguments) if macro == "It" else "")
    if macro in MDOC:
        return _mdoc([macro], arguments)
    return ""


def _mdoc(macros: list[str], arguments: list[str]) -> str:
    """Return the text of a line of mdoc, whose arguments may be macros; flags get their hyphen."""
    words: list[str] = []
    flag = False
    for word in [*macros, *arguments]:
        if word in MDOC:
            flag = word == "Fl"
        else:
            words.append(f"-{word}" if flag else word)
    return " ".join(words)


def _joined(words: list[str]) -> str:
    """Return words as paragraphs, which start at line breaks."""
    text = " ".join(word for word in words if word)
    return "\n\n".join(
        " ".join(paragraph.split()) for paragraph in text.split("\n") if paragraph.strip()
    )


def plain(text: str) -> str:
    r"""Return a text without troff's escapes: `\fB\-\-all\fR` is `--all`."""

    def sign(match: re.Match[str]) -> str:
        string, name, single = match[1] or match[2], match[4] or match[5], match[6]
        if string or match[3]:
            return CHARACTERS.get(string or "", "")
        if name:
            return CHARACTERS.get(name, "")
        return SIGNS.get(single or "", "")

    return ESCAPE.sub(sign, text) if "\\" in text else text
