"""Folders of documents: what is read, what is counted instead, and where long texts are cut."""

import gzip
import json
import os
from pathlib import Path

import pytest

from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.datasets.passages import TextSection, count_tokens, cut_sections, cut_text

PAGE = r""".\" a comment
.TH TOOL 1
.SH NAME
tool \- does \fBsomething\fR
.de XX
not this
..
.SH OPTIONS
.TP
.BR \-\-all ", " \-a
Takes all.
"""

MDOC = """.Dd January 1, 2020
.Dt TOOL 8
.Sh SYNOPSIS
.Nm tool
.Op Fl q Ar name
"""

HTML = """<html><head><title>The  page</title><style>p {}</style></head><body>
<nav>Home | About</nav><div role="navigation">Menu</div><h1>First</h1><p>Red <b>app</b>les.</p>
<script>var hidden = 1;</script><h2>Second</h2><pre>a
  b</pre>tail<footer>Imprint</footer></body></html>"""

MARKDOWN = """---
title: "The manual"
---
Opening.

# Install

```sh
# no heading
```

Usage
-----
Run it.
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(spec: str | Path, options: str = "") -> dict[str, tuple[str, str]]:
    """Return title and text of each document by its id."""
    docs = load_collection(f"docs:{spec}{options}").docs
    return {doc.id: (doc.title, doc.text) for doc in docs}


def save_pdf(path: Path, text: str, *, title: str = "") -> Path:
    """Write a page with one line in PDF's own syntax."""
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Title (%s) >>" % title.encode(),
    ]
    content, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return write(
        path,
        content
        + b"xref\n0 7\n0000000000 65535 f \n"
        + table
        + b"trailer\n<< /Size 7 /Root 1 0 R /Info 6 0 R >>\nstartxref\n%d\n%%%%EOF" % len(content),
    )


def test_each_kind_of_file_is_read(tmp_path: Path) -> None:
    """Markup read as words, headings lost, or a file type that is skipped silently."""
    folder = tmp_path / "docs"
    write(folder / "a.txt", "\ufeffPlain text.")
    write(folder / "deep" / "README", "No suffix.")
    write(folder / "b.md", MARKDOWN)
    write(folder / "c.html", HTML)
    write(folder / "tool.1.gz", gzip.compress(PAGE.encode()))
    write(folder / "tool.8", MDOC)
    write(folder / "notes.2", "Version notes, not a manual page.")
    passages = texts(folder)
    assert passages["a.txt"] == ("a", "Plain text.")
    assert passages["deep/README"] == ("deep/README", "No suffix.")
    title, text = passages["b.md"]
    assert title == "The manual"
    assert text == "Opening.\n\nInstall\n\n```sh\n# no heading\n```\n\nUsage\n\nRun it."
    title, text = passages["c.html"]
    assert (title, text) == ("The page - First", "Red apples.\n\nSecond\n\na\n  b\n\ntail")
    title, text = passages["tool.1.gz"]
    assert title == "tool(1) - NAME"
    assert text == "tool - does something\n\nOPTIONS\n\n--all, -a Takes all."
    assert passages["tool.8"] == ("tool(8) - SYNOPSIS", "tool -q name")
    assert passages["notes.2"][1] == "Version notes, not a manual page."


def test_pdf_and_word_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes of an archive indexed as words, or one damaged file that stops all the others."""
    pytest.importorskip("pypdf")
    docx = pytest.importorskip("docx")
    folder = tmp_path / "docs"
    save_pdf(write(folder / "a.pdf", ""), "Red apples are ripe.", title="On apples")
    write(folder / "broken.pdf", b"%PDF-1.4\nnothing more")
    write(folder / "broken.docx", b"PK\x03\x04 nothing more")
    word = docx.Document()
    word.add_heading("Pears", level=1)
    word.add_paragraph("Green pears.")
    word.add_table(rows=1, cols=2).rows[0].cells[1].text = "cell"
    word.save(folder / "b.docx")
    passages = texts(folder)
    assert passages["a.pdf"] == ("On apples", "Red apples are ripe.")
    assert passages["b.docx"][0].endswith("Pears")
    assert "Green pears.\n\n | cell" in passages["b.docx"][1]
    assert "2 damaged (broken.docx, broken.pdf)" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"broken.pdf cannot be read: damaged"):
        load_collection(f"docs:{folder / 'broken.pdf'}")


def test_a_reader_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder whose PDF files are skipped without a reason."""
    monkeypatch.setitem(__import__("sys").modules, "pypdf", None)
    pdf = save_pdf(tmp_path / "docs" / "a.pdf", "Red apples.")
    write(tmp_path / "docs" / "b.txt", "Green pears.")
    assert list(texts(tmp_path / "docs")) == ["b.txt"]
    messages = capsys.readouterr().err
    assert "1 need a package (a.pdf)" in messages
    assert "pip install 'retrodistill[documents]'" in messages
    with pytest.raises(MissingExtra, match="pypdf"):
        load_collection(f"docs:{pdf}")


def test_what_cannot_be_read_is_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback at the first unreadable file of a folder, or a file that is skipped silently."""
    folder = tmp_path / "docs"
    write(folder / "good.txt", "Red apples.")
    write(folder / "latin.txt", "Grüne Äpfel".encode("cp1252"))
    write(folder / "wide.txt", "Gelbe Äpfel".encode("utf-16"))
    write(folder / "empty.txt", " \n")
    write(folder / "empty.html", "<html><script>x</script></html>")
    write(folder / "nothing.md", b"")
    write(folder / "binary.txt", bytes(range(256)))
    write(folder / "cut.txt.gz", gzip.compress(b"Red apples." * 99)[:-9])
    write(folder / "bad.jsonl", '{"text": "one"}\n{"text": \n')
    write(folder / "odd.csv", "a,b\n1,2\n")
    write(folder / "picture.png", b"\x89PNG")
    write(folder / ".hidden" / "a.txt", "Hidden.")
    (folder / "loop").symlink_to(folder)
    (folder / "again.txt").symlink_to(folder / "good.txt")
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    os.mkfifo(folder / "pipe.txt")
    write(folder / os.fsdecode(b"odd\xe9.txt"), "Odd name.")
    passages = texts(folder)
    assert set(passages) == {
        "good.txt",
        "latin.txt",
        "wide.txt",
        "bad.jsonl:1",
        "odd\ufffd.txt",
    }
    assert passages["latin.txt"][1] == "Grüne Äpfel"
    assert passages["wide.txt"][1] == "Gelbe Äpfel"
    messages = capsys.readouterr().err
    for phrase in (
        "5 documents in 5 files, 5 passages",
        "1 not UTF-8, read as Windows-1252 (latin.txt)",
        "2 empty (empty.txt, nothing.md)",
        "1 without text (empty.html)",
        "1 binary (binary.txt)",
        "3 damaged (bad.jsonl, cut.txt.gz, odd.csv)",
        "bad.jsonl:2: not JSON",
        "odd.csv has no column for the text",
        "1 broken links (gone.txt)",
        "1 linked folders (loop)",
        "1 of other kinds (.png 1)",
    ):
        assert phrase in messages


def test_columns_of_tables_are_guessed_or_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corpus with `contents` or `body` refused, or another column indexed than the text."""
    corpus = write(tmp_path / "c.jsonl", json.dumps({"id": 7, "contents": "red", "year": 1}) + "\n")
    assert texts(corpus) == {"7": ("", "red")}
    assert "columns: id from id, title from nothing, text from contents" in capsys.readouterr().err
    table = write(tmp_path / "t.csv", 'name,Body,note\nApples,"red\n\nripe",x\nNone,,y\n')
    assert texts(table) == {"1": ("Apples", "red\n\nripe")}
    assert "1 rows without a text skipped" in capsys.readouterr().err
    assert texts(table, ",text=note,title=Body,id=name") == {
        "Apples": ("red ripe", "x"),
        "None": ("", "y"),
    }
    with pytest.raises(DataError, match="no column 'Bod' for the text. Did you mean 'Body'"):
        load_collection(f"docs:{table},text=Bod")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"docid": ["a"], "passage": ["green"]}), tmp_path / "p.parquet")
    assert texts(tmp_path / "p.parquet") == {"a": ("", "green")}


def test_long_documents_are_cut_and_keep_their_parent(tmp_path: Path) -> None:
    """Text beyond a model's limit that is never read, and hits that belong to nothing."""
    words = " ".join(f"Sentence number {number} is here." for number in range(40))
    write(tmp_path / "docs" / "long.md", f"# Title\n\n{words}\n\n## Part\n\n{words}")
    write(tmp_path / "docs" / "short.txt", "One line.")
    collection = load_collection(f"docs:{tmp_path / 'docs'},tokens=50,overlap=10")
    ids = collection.docs.ids()
    assert ids[0] == "long.md#1"
    assert ids[-1] == "short.txt"
    assert all(count_tokens(doc.text) <= 50 for doc in collection.docs)
    joined = " ".join(doc.text for doc in collection.docs)
    assert all(joined.count(f"number {number} is") >= 2 for number in range(40))
    assert collection.docs.get(ids[-2]).title == "Title - Part"
    attributes = collection.docs.attributes(["parent", "path", "heading"]).to_pylist()
    assert attributes[0] == {"parent": "long.md", "path": "long.md", "heading": ""}
    assert attributes[-2]["heading"] == "Part"


def test_options_and_changes_are_noticed(tmp_path: Path) -> None:
    """Passages of other settings, or of an older version of a file, from the cache."""
    file = write(tmp_path / "docs" / "a.txt", "One sentence here. " * 40)

    def opened(options: str = "") -> Collection:
        return load_collection(f"docs:{tmp_path / 'docs'}{options}")

    original = opened()
    assert opened(",tokens=200").fingerprint == original.fingerprint
    assert len(opened(",tokens=20,overlap=0").docs) > len(opened(",tokens=40").docs)
    assert opened(",tokens=20,overlap=0").fingerprint != opened(",tokens=20").fingerprint
    write(file, "One sentence there. " * 40)
    os.utime(file, ns=(1, 1))
    assert opened().fingerprint != original.fingerprint


def test_an_unchanged_folder_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of PDF files that is read again at every stage."""
    write(tmp_path / "docs" / "a.txt", "Red apples.")
    original = load_collection(f"docs:{tmp_path / 'docs'}")
    monkeypatch.setattr("retrodistill.data.datasets.readers.text.read", None)
    assert load_collection(f"docs:{tmp_path / 'docs'}").fingerprint == original.fingerprint


def test_a_pdf_is_parsed_once_in_a_folder_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand PDF files parsed again for each one that is added, or an old one's text kept."""
    pytest.importorskip("pypdf")
    pdf = save_pdf(write(tmp_path / "docs" / "a.pdf", ""), "Red apples.")
    original = texts(tmp_path / "docs")
    write(tmp_path / "docs" / "b.txt", "Green pears.")
    with monkeypatch.context() as patch:
        patch.setattr("retrodistill.data.datasets.readers.pdf.read", None)
        assert texts(tmp_path / "docs") == {**original, "b.txt": ("b", "Green pears.")}
    save_pdf(pdf, "Yellow apples.")
    assert texts(tmp_path / "docs")["a.pdf"][1] == "Yellow apples."
    parsed = [*(tmp_path / "cache" / "parsed").rglob("*.json")]
    assert len(parsed) == 2
    for path in parsed:
        path.write_text("{")
    write(tmp_path / "docs" / "c.txt", "Plums.")
    assert texts(tmp_path / "docs")["a.pdf"][1] == "Yellow apples."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",tokens=many", "tokens must be a whole number"),
        (",tokens=3", "at least 8"),
        (",tokens=20,overlap=11", "at most half"),
        (",token=20", "Did you mean 'tokens'"),
        (",tokens=20,tokens=30", "given twice"),
        (",text=", "needs a value"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: str, message: str) -> None:
    """A misspelt option read as a part of the path, or ignored."""
    write(tmp_path / "a.txt", "Red apples.")
    with pytest.raises(ConfigError, match=message):
        load_collection(f"docs:{tmp_path}{options}")


def test_a_corpus_with_another_column_is_sent_to_docs(tmp_path: Path) -> None:
    """A corpus with `contents` that is refused, without naming the loader that reads it."""
    corpus = write(tmp_path / "b" / "corpus.jsonl", '{"_id": "d1", "contents": "red"}\n')
    with pytest.raises(DataError, match="docs:FILE,text=contents"):
        load_collection(f"beir:{corpus.parent}")
    assert texts(f"{corpus},text=contents") == {"d1": ("", "red")}
    with pytest.raises(ConfigError, match="Write beir:"):
        load_collection(f"docs:{corpus.parent}")


def test_paths_that_do_not_exist_are_explained(tmp_path: Path) -> None:
    """An empty collection of a folder whose name is misspelt."""
    write(tmp_path / "handbook" / "picture.png", b"\x89PNG")
    with pytest.raises(ConfigError, match="Did you mean 'handbook'"):
        load_collection(f"docs:{tmp_path / 'handbooks'}")
    with pytest.raises(DataError, match=r"holds no documents: 1 of other kinds \(.png 1\)"):
        load_collection(f"docs:{tmp_path / 'handbook'}")
    with pytest.raises(ConfigError, match="Write docs:"):
        load_collection(str(tmp_path / "handbook"))
    with pytest.raises(ConfigError, match="Write docs:"):
        load_collection(tmp_path / "handbook")  # type: ignore[arg-type]
    write(tmp_path / "odd,tokens=9.txt", "Red apples.")
    assert len(load_collection(f"docs:{tmp_path / 'odd,tokens=9.txt'}").docs) == 1


def test_texts_are_cut_between_sentences() -> None:
    """Sentences in halves, a sentence lost at a border, or an overlap that never ends."""
    text = "Aa bb cc. Dd ee ff. Gg hh ii. Jj kk ll."  # four tokens a sentence
    assert cut_text(text, tokens=8, overlap=0) == ["Aa bb cc. Dd ee ff.", "Gg hh ii. Jj kk ll."]
    assert cut_text(text, tokens=8, overlap=4) == [
        "Aa bb cc. Dd ee ff.",
        "Dd ee ff. Gg hh ii.",
        "Gg hh ii. Jj kk ll.",
    ]
    assert cut_text(text, tokens=4, overlap=2) == text.replace(". ", ".|").split("|")
    assert cut_text("a b c d e f g", tokens=3, overlap=0) == ["a b c", "d e f", "g"]
    assert cut_text("你好。世界。", tokens=3, overlap=0) == ["你好。", "世界。"]
    assert cut_text("See e.g. the note. Then 3.5 of it.", tokens=9, overlap=0) == [
        "See e.g. the note.",
        "Then 3.5 of it.",
    ]
    assert cut_text("", tokens=3, overlap=0) == []


@pytest.mark.parametrize("tokens", [8, 13, 50])
@pytest.mark.parametrize("overlap", [0, 3, 4])
def test_no_word_is_lost_by_cutting(tokens: int, overlap: int) -> None:
    """A text whose end is in no passage, or a passage above the size."""
    words = [f"w{number}{'.' * (number % 7 == 0)}" for number in range(300)]
    text = "\n\n".join(" ".join(words[start : start + 23]) for start in range(0, 300, 23))
    parts = cut_text(text, tokens=tokens, overlap=overlap)
    assert max(map(count_tokens, parts)) <= tokens
    assert set(" ".join(parts).split()) >= set(words)
    assert len(set(parts)) == len(parts)
    if overlap == 0:
        assert "".join(" ".join(parts).split()) == "".join(words)


def test_small_sections_are_joined() -> None:
    """A folder of README files as passages of five words each."""
    small = [TextSection(f"H{number}", "Two words.") for number in range(3)]
    joined = cut_sections(small, tokens=40, overlap=0)
    assert joined == [TextSection("H0", "Two words.\n\nH1\n\nTwo words.\n\nH2\n\nTwo words.")]
    large = [TextSection("A", "word " * 30), TextSection("B", "word " * 30)]
    assert [phrase.heading for phrase in cut_sections(large, tokens=40, overlap=0)] == ["A", "B"]
