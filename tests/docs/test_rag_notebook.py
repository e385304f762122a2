"""notebooks/rag.ipynb with a chat endpoint that makes documents up, and a random model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("openai", reason="the extra `llm` is not installed")

from fakes.llm_server import Reply, completion, serve

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
QUESTION = "Can I filter a search by year?"


def cells() -> list[str]:
    """Return the code of the notebook's cells."""
    notebook = json.loads((NOTEBOOKS / "rag.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_answers_rest_on_documents_that_were_found(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up citation that is shown as a source; weak hits that are sent off to be answered."""
    *steps, stop = cells()
    names: dict[str, Any] = {"__name__": "notebook"}

    def citing(rules: str) -> Reply:
        assert "not in the documents" in rules
        prompt = server.requests[-1].body["messages"][1]["content"]
        first = re.findall(r'<document id="(.+?)">', prompt)[0]
        return completion(f"It is so [{first}], and so [made-up.md#1], see [a link](there).")

    with serve(citing) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("CHAT_MODEL", "reader")
        monkeypatch.setattr("retrodistill.quickstart.packaged_model", lambda: str(tiny_model))
        monkeypatch.chdir(NOTEBOOKS)
        try:
            for step in steps:
                exec(compile(step, "rag.ipynb", "exec"), names)
            hits = names["retrieve"](QUESTION)
            _, cited, made_up = names["answer"](QUESTION)
            assert (cited, made_up) == ([hits[0]["id"]], ["made-up.md#1"])
            request = server.requests[-1].body
            assert request["model"] == "reader"
            question = request["messages"][1]["content"]
            assert question.endswith(QUESTION)
            assert all(hit["text"] in question for hit in hits)
            asked = len(server)
            assert names["answer"](QUESTION, least=2.0) == ("not in the documents", [], [])
            assert len(server) == asked
        finally:
            if "server" in names:
                exec(compile(stop, "rag.ipynb", "exec"), names)
    assert names["server"].returncode is not None
