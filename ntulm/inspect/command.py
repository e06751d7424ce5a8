"""What an export holds, before a corpus is made of it: how it is read, ten posts, what is left out, the graph it gives.

Reads the export with the code of the stages corpus and graph, writes nothing: what it shows of posts is on the terminal
alone.

    ntulm inspect PATH
"""

from __future__ import annotations

from pathlib import Path

from ntulm.corpus.config import TableMapping
from ntulm.inspect import proposal
from ntulm.inspect.inspection import Inspection, Languages, Post, Reason, inspect
from ntulm.inspect.names import NAMES
from ntulm.inspect.preview import RECIPE, Preview
from ntulm.inspect.shown import NAME_LENGTH, TEXT_LENGTH, harmless

MOST_COLUMNS, MOST_NAMES, MOST_CODES = 100, 5, 8  # that are shown
SURE = 0.9  # of a format
MAIN = 0.9  # share of the posts in English from which nothing else is worth a word
ENGLISH_WORDS = 0.4  # share of the texts with a usual English word, where no post says its language
NO_LANGUAGE = {"und", "zxx", "qam", "qct", "qht", "qme", "qst", "art", "in-valid"}  # codes of Twitter and ISO 639


def run(path: str | Path, format: str, own: TableMapping | None, sample: bool = True) -> None:
    """Print what the file or folder holds.

    Args:
        path: of the export.
        format: a name, or `auto`.
        own: the mapping of params.yaml.
        sample: show ten posts.
    """
    print(format_inspection(inspect(path, format, own), sample))


def format_inspection(found: Inspection, sample: bool = True) -> str:
    """The lines to print; nothing in them that a terminal would obey."""
    lines = [*_what_it_is(found), *_mapping(found)]
    if found.counts:
        lines += _records(found)
        lines += _posts(found.sample) if sample else []
        lines += _languages(found.languages) if found.languages else []
        lines += _graph(found.graph) if found.graph else []
        lines += [f"  ! {warning}" for warning in (*_no_hashtag(found), *found.warnings)]
    shown = [harmless(line) for line in lines]
    return "\n".join([*shown, *_how_to_go_on(found)])


def _what_it_is(found: Inspection) -> list[str]:
    sure = "" if found.confidence >= SURE else " (likely; `--format` says another one)"
    lines = [f"{found.path}: format {found.format}{sure}, {len(found.files):,} file(s): {_names(found.files)}"]
    if found.alien:
        lines.append(f"  skipped, of another format: {len(found.alien):,} file(s): {_names(found.alien)}")
    if found.columns:
        # A file without a header has a post in its place.
        shown = ", ".join(column[:NAME_LENGTH] for column in found.columns[:MOST_COLUMNS])
        more = len(found.columns) - MOST_COLUMNS
        lines.append(f"  columns: {shown}" + (f" and {more:,} more" if more > 0 else ""))
    return lines + [f"  {note}" for note in found.notes]


def _names(files: tuple[str, ...]) -> str:
    shown = ", ".join(files[:MOST_NAMES])
    return shown + (f" and {len(files) - MOST_NAMES:,} more" if len(files) > MOST_NAMES else "")


def _mapping(found: Inspection) -> list[str]:
    if found.missing:
        usual = "; ".join(f"{name} is often {', '.join(NAMES[name][:3])}" for name in found.missing)
        return [
            f"  no column mapping could be guessed: no usual name for {', '.join(found.missing)} ({usual}); "
            "say which column is what in corpus.table of params.yaml, see docs/how-to/your-own-posts.md"
        ]
    if found.mapping is None:
        return []
    used = [
        f"{key}: {proposal.yaml(value)}" for key, value in proposal.used(found.mapping).items() if value is not None
    ]
    return [f"  read as, {found.origin}: {', '.join(used)}"]


def _records(found: Inspection) -> list[str]:
    names = ("read", "posts", "reposts", "duplicates", "left_out", "rejects", "recovered", "authors", "hashtags")
    said = {"read": "records", "recovered": "originals recovered from reposts", "left_out": "left out"}
    lines = [
        f"  {said.get(name, name)}: {found.counts[name]:,}" for name in (*names, "engagements") if name in found.counts
    ]
    if found.first and found.last:
        lines.append(f"  from {found.first} to {found.last}")
    for fate, reasons in (("left out", found.left_out), ("rejected", found.rejects)):
        lines += [_reason(fate, reason) for reason in reasons]
    return lines


def _reason(fate: str, reason: Reason) -> str:
    return f"  {fate}: {reason.reason}: {reason.records:,}, first at {reason.example}"


def _posts(posts: tuple[Post, ...]) -> list[str]:
    lines = [f"  {len(posts)} posts as read, from the first to the last:"] if posts else []
    for post in posts:
        lines.append(f"    {post.created_at:%Y-%m-%d %H:%M} {harmless(post.author or '', NAME_LENGTH)}: ")
        lines[-1] += harmless(post.text, TEXT_LENGTH)
        parts = (("hashtags", post.hashtags), ("mentions", post.mentions), ("links", post.urls))
        lines += [f"      {name}: {_listed(values)}" for name, values in parts if values]
    return lines


def _listed(values: list[str]) -> str:
    shown = ", ".join(harmless(value, NAME_LENGTH) for value in values[:MOST_NAMES])
    return shown + (f" and {len(values) - MOST_NAMES:,} more" if len(values) > MOST_NAMES else "")


def _languages(found: Languages) -> list[str]:
    known = {code: posts for code, posts in found.codes.items() if code.casefold() not in NO_LANGUAGE}
    told = sum(known.values())
    if told < found.posts / 2:  # what a few posts say of themselves is not said of the others
        english = 1 - found.other_script if found.english_words >= ENGLISH_WORDS else found.english_words
        said = (
            f"  languages: not given; {found.english_words:.0%} of the texts have one of the most usual English words, "
            f"{found.other_script:.0%} are in another script than Latin"
        )
        about = "the texts look like English" if english >= MAIN else "many texts do not look like English"
    else:
        shares = [f"{code} {posts / found.posts:.1%}" for code, posts in list(known.items())[:MOST_CODES]]
        more = [f"{len(known) - MOST_CODES} more"] if len(known) > MOST_CODES else []
        none = [f"not told {1 - told / found.posts:.1%}"] if told < found.posts else []
        said = f"  languages: {', '.join(shares + more + none)}"
        english = sum(posts for code, posts in known.items() if _is_english(code)) / told
        about = f"{english:.0%} of the posts that say their language are in English"
    if english >= MAIN:
        return [said, f"  {about}, which the packaged backbone (adapt.backbone: minilm) reads"]
    keep = ", or keep the English posts (corpus.languages=[en])" if told and english > 0 else ""
    return [
        said,
        f"  ! {about}, and the packaged backbone (adapt.backbone: minilm) reads English alone: set adapt.backbone to a "
        f"model that reads your languages (a directory, or a name on the Hugging Face hub, e.g. "
        f"FacebookAI/xlm-roberta-base){keep}",
    ]


def _is_english(code: str) -> bool:
    return code.casefold().replace("_", "-").split("-")[0] in ("en", "eng", "english")


def _graph(found: Preview) -> list[str]:
    relations = ", ".join(f"{name} {edges:,}" for name, edges in found.relations.items())
    nodes = ", ".join(f"{number:,} {name}s" for name, number in found.nodes.items())
    dropped = ", ".join(f"{number:,} {name}s" for name, number in found.dropped.items() if name != "edges")
    test = found.parts["test"]
    parts = ", ".join(f"{number:,} {part}" for part, number in found.parts.items())
    lines = [
        f"  with the settings of the recipe {RECIPE}, split by time: posts: {parts}",
        f"  graph: {nodes}; edges: {relations} (left out for too few edges: {dropped})",
    ]
    if test:
        roles = " or ".join(found.roles)
        lines.append(
            f"  of the test posts, {found.known / test:.1%} have an {roles} that the graph knows: on the others "
            "nothing can be gained"
        )
    return lines


def _no_hashtag(found: Inspection) -> list[str]:
    if found.mapping and found.counts["posts"] and not found.counts["hashtags"]:
        return ["no hashtag: are the texts HTML (corpus.table.html), or is there a column of hashtags?"]
    return []


def _how_to_go_on(found: Inspection) -> list[str]:
    """What can be pasted; it is harmless as it is, and must stay as it is."""
    if found.missing or not found.counts.get("posts"):
        return []
    lines = ["", "To read it so:", "", f"  {proposal.command(found.path, found.mapping)}"]
    if found.mapping is not None:
        lines += ["", "or, in params.yaml:", "", proposal.block(found.mapping)]
    return lines
