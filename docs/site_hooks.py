"""What MkDocs does besides mkdocs.yml: pages that stand outside docs/, and terms explained where they occur.

The pages are read in the repository as well: links in them lead to files as they lie there. Here the files that stand
outside docs/ get a place in the site, and links to them are turned to it.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "examples/quickstart.ipynb": "notebook.md",
    "examples/any_module.md": "any_module.md",
    "examples/own_model.md": "own_model.md",
    "checkpoints/demo/README.md": "demo.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "jaxsae/features/concepts.toml": "files/concepts.toml",
    "jaxsae/features/questions.toml": "files/questions.toml",
}
"""File of the repository -> its place in the site."""
EXPLAINED = ("AUROC", "AuxK", "CE recovered", "FVU", "KL", "PW-MCC", "run score")
"""Terms of the glossary whose first sentence is shown when the pointer rests on them."""


def on_files(files: Any, config: Any) -> Any:
    """Add the files that stand outside docs/."""
    for source, place in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=as_page(text) if source.endswith(".ipynb") else text))
    return files


def as_page(notebook: str) -> str:
    """A notebook's cells and what they print, as Markdown."""
    return "\n\n".join(part for cell in json.loads(notebook)["cells"] for part in parts(cell))


def parts(cell: dict[str, Any]) -> Iterator[str]:
    """The text or code of a cell, then its printed outputs and pictures."""
    source = "".join(cell["source"])
    yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![What the cell draws](data:image/png;base64,{''.join(data['image/png']).strip()})"
        elif text := "".join(output.get("text", data.get("text/plain", []))).rstrip():
            yield f"```text\n{text}\n```"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository to their places in the site; append the terms that are explained."""
    here = page.file.src_uri
    source = {place: file for file, place in ELSEWHERE.items()}.get(here, f"docs/{here}")

    def turned(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        place = ELSEWHERE.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(place, posixpath.dirname(here) or '.')}{link[2] or ''})"

    markdown = re.sub(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)", turned, markdown)
    return markdown if here == "glossary.md" else markdown + explanations()


def explanations() -> str:
    """Abbreviations in the form of Markdown's `abbr`, of the glossary."""
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    first = dict(re.findall(r"^### ([^\n]+)\n\n(.+?[.])(?:\s|$)", glossary, flags=re.MULTILINE | re.DOTALL))
    said = {term: " ".join(first[term if term in first else term.capitalize()].split()) for term in EXPLAINED}
    plain = {term: re.sub(r"\[([^]]+)\]\([^)]*\)|[`*]", r"\1", text) for term, text in said.items()}
    return "\n\n" + "\n".join(f"*[{term}]: {text}" for term, text in plain.items()) + "\n"
