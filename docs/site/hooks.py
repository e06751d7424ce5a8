"""The repository's Markdown as a site: what `mkdocs build` asks of docs/site/mkdocs.yml.

Pages that lie outside docs/, the notebook and the commands become pages of the site; a link to a file that has no page
becomes its text. Needs mkdocs, and ntulm for the commands.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "docs/tutorial.ipynb"
# File of the repository -> its page.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "deploy/README.md": "deploy.md",
    NOTEBOOK: "notebook.md",
}
ADDED = ("CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")
FENCE = re.compile(r"(^ *(`{3,}).*?^ *\2 *$)", re.M | re.S)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
LIST = re.compile(r"^([^\s|#>*-][^\n]*)\n(?=[-*] )", re.M)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of docs/."""
    made = {PAGES[name]: (ROOT / name).read_text(encoding="utf-8") for name in ADDED}
    made |= {"notebook.md": notebook(ROOT / NOTEBOOK), "commands.md": commands()}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them, and an empty line before each list, as Python's Markdown wants it."""
    file = next((name for name, own in PAGES.items() if own == page.file.src_uri and name != "README.md"), None)
    folder = PurePosixPath(file or f"docs/{page.file.src_uri}").parent

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, hash, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        wanted = normpath(str(folder / path))
        own = PAGES.get(wanted) or (wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
        if own is None and (ROOT / wanted).exists():
            return text
        if own is None:
            return match[0]  # mkdocs says that it leads nowhere
        return f"[{text}]({relpath(own, str(PurePosixPath(page.file.src_uri).parent))}{hash}{anchor})"

    parts = FENCE.split(markdown)  # outside, whole fence, its ticks, outside, …
    for place in range(0, len(parts), 3):
        parts[place] = LIST.sub(r"\1\n\n", LINK.sub(link, parts[place]))
    return "".join(part for place, part in enumerate(parts) if place % 3 != 2)


def notebook(path: Path) -> str:
    """The cells of a notebook as Markdown, with the texts that they put out."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        texts = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell["outputs"]]
        if said := "".join("".join(text) for text in texts).rstrip():
            parts.append(f"```text\n{said}\n```")
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """What `--help` says of every command."""
    import click
    import typer

    from ntulm.cli import app

    group: Any = typer.main.get_command(app)
    parts = ["# Commands", "What `ntulm COMMAND --help` says."]
    for name, command in sorted(group.commands.items()):
        context = click.Context(command, info_name=f"ntulm {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        parts.append(f"## ntulm {name}\n\n{command.help}\n\n```console\n$ ntulm {name} {usage}\n```")
        rows = [param.get_help_record(context) for param in command.get_params(context) if param.name != "help"]
        parts.append("\n".join(f"- `{row[0]}`: {row[1]}" for row in rows if row is not None))
    return "\n\n".join(parts) + "\n"
