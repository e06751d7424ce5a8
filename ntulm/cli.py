"""The command line: one command per stage, and a few for people. Heavy imports wait until a command needs them.

A `UserError` is shown as one line, exit code 1; so are a full disk and memory that does not suffice, and a package that
is missing: `pip install ntulm` only reads models.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.printable import printable
from ntulm.resources import require_addresses, told
from ntulm.serving.address import KEY, key_for
from ntulm.serving.limits import USUAL

if TYPE_CHECKING:
    from ntulm.params import Params

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

app = typer.Typer(
    help="NTULM: post embeddings that know who wrote the post and which hashtags it carries.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Variant = Annotated[str, typer.Option(help="One of run.variants in params.yaml.")]
Seed = Annotated[int, typer.Option(help="One of run.seeds in params.yaml.")]
Task = Annotated[str, typer.Option(help="A key of the section `tasks` in params.yaml.")]
HERE = Layout()
TORCH_ADDRESSES = 1_100_000_000  # bytes that importing torch 2.13 and transformers takes
WITHOUT_TORCH = {  # commands that do not import it
    *("corpus", "graph", "tasks", "evaluate", "model", "report", "check", "--help"),
    *("configure", "init", "params", "inspect", "forget", "results"),
}
STAGE = "Stages (run by `dvc repro`)"
USE = "Use a model"
PRODUCTION = "A model in production (run by the flows `retrain`, `embed` and `monitor`)"
IN_PRODUCTION = "A folder laid out like this one, with data/corpus and data/model of the model in production."
Source = Annotated[
    str,
    typer.Argument(
        metavar="POSTS",
        help="A table (CSV, JSON lines, Parquet), any export that `ntulm inspect` knows, or -: JSON lines.",
    ),
]
ModelName = Annotated[
    str, typer.Option("--model", help="A model directory, production, a version like v3.0.0, or hf://owner/name.")
]
Output = Annotated[
    Path | None, typer.Option(help="A .parquet, .csv or .jsonl file; without it, JSON lines on standard output.")
]
MODEL = str(HERE.model)
Project = Annotated[Path | None, typer.Argument(help=IN_PRODUCTION)]
Exports = Annotated[Path | None, typer.Option(help="Raw exports, instead of the posts of data/corpus.")]


def _params() -> "Params":
    from ntulm.params import load_params

    return load_params(HERE.params)


def _known(params: "Params", variant: str | None = None, task: str | None = None) -> None:
    if variant is not None and variant not in params.run.variants:
        variants = ", ".join(params.run.variants)
        raise UserError(f"--variant {variant}: unknown; run.variants in params.yaml has {variants}")
    if task is not None and task not in params.tasks:
        raise UserError(f"--task {task}: unknown; `tasks` in params.yaml has {', '.join(params.tasks)}")


@app.command(rich_help_panel=STAGE)
def corpus() -> None:
    """Raw exports to posts, engagements, labels, splits and rejects."""
    params = _params()
    from ntulm.corpus import stage
    from ntulm.params import check_model
    from ntulm.tasks.check import check_tasks

    check_model(params)
    check_tasks(params, HERE)  # here, because all that takes long comes after this stage
    stage.run(params.corpus, HERE)


@app.command(rich_help_panel=STAGE)
def graph() -> None:
    """Posts and engagements to the graph of their NTUs."""
    params = _params()
    from ntulm.graph import stage

    stage.run(params.graph, params.ntus.scheme, HERE)


@app.command(rich_help_panel=STAGE)
def embeddings() -> None:
    """The graph to the embedding table."""
    params = _params()
    from ntulm.embeddings import stage

    stage.run(params.embeddings, HERE)


@app.command(rich_help_panel=STAGE)
def adapt() -> None:
    """Fine-tune the backbone on text alone: where every variant starts."""
    params = _params()
    from ntulm.language_model.launch import launched

    if launched():  # in several processes, which are done
        return
    from ntulm import adapt as stage

    stage.run(params.adapt, params.batches, HERE)


@app.command(rich_help_panel=STAGE)
def pretrain(variant: Variant, seed: Seed) -> None:
    """Fine-tune one variant with its NTU slots."""
    params = _params()
    _known(params, variant)
    from ntulm.language_model.launch import launched

    if launched():
        return
    from ntulm import pretrain as stage

    stage.run(params.pretrain, params.batches, params.ntus.scheme, params.adapt.backbone, variant, seed, HERE)


@app.command(rich_help_panel=STAGE)
def tasks(task: Task) -> None:
    """Build the labelled data sets of one task."""
    params = _params()
    _known(params, task=task)
    from ntulm.tasks import stage

    if task in params.run.tasks:
        stage.run(task, params.tasks[task], params.ntus.scheme, HERE)
    else:
        stage.leave_out(task, HERE)


@app.command(rich_help_panel=STAGE)
def encode(variant: Variant, seed: Seed, task: Task) -> None:
    """Turn the posts of a task into frozen vectors."""
    params = _params()
    _known(params, variant, task)
    from ntulm import encode as stage

    stage.run(params.encode, params.batches, params.ntus.scheme, variant, seed, task, HERE)


@app.command(rich_help_panel=STAGE)
def probe(variant: Variant, seed: Seed, task: Task) -> None:
    """Tune and train the probes of a task on frozen vectors."""
    params = _params()
    _known(params, variant, task)
    from ntulm.probe import stage

    stage.run(params.probe, variant, seed, task, HERE)


@app.command(rich_help_panel=STAGE)
def evaluate() -> None:
    """Compare every system with `text`, by slice, with intervals."""
    params = _params()
    from ntulm.evaluate import stage

    stage.run(params.evaluate, params.run, params.ntus.scheme, HERE)


@app.command(rich_help_panel=STAGE)
def model() -> None:
    """Put the model directory together: what is loaded, promoted and served."""
    params = _params()
    from ntulm import model as stage
    from ntulm.params import check_model

    check_model(params)
    fold_in = stage.folding(params.fold_in, params.graph)
    sections = (params.model, params.batches, params.ntus.scheme, params.adapt.backbone, params.run.tasks)
    stage.run(*sections, HERE, fold_in=fold_in)


@app.command(rich_help_panel=STAGE)
def report() -> None:
    """Write the tables, figures and the coverage report."""
    params = _params()
    from ntulm.report import stage

    stage.run(params.report, params.run, params.ntus.scheme, HERE)


@app.command(rich_help_panel=USE)
def embed(
    posts: Source,
    out: Annotated[Path, typer.Option(help="The store of vectors, a Parquet file; what is in it stays.")],
    model: ModelName = MODEL,
) -> None:
    """Turn posts into vectors; only posts that are new for this version of the model are computed."""
    from ntulm.use.embed import run

    run(posts, model, out)


@app.command(rich_help_panel=USE)
def predict(
    posts: Source,
    task: Annotated[str, typer.Option(help="A task of the model; a wrong one names those that there are.")],
    model: ModelName = MODEL,
    threshold: Annotated[float | None, typer.Option(help="The probability from which on a class is a label.")] = None,
    top: Annotated[int | None, typer.Option(help="Show the probabilities of so many classes, the likeliest.")] = None,
    out: Output = None,
) -> None:
    """Label posts: labels, probabilities, and whether the posts' NTUs were known."""
    from ntulm.use.predict import run

    run(posts, task, model, threshold, top, out)


@app.command(rich_help_panel=USE)
def train_classifier(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="CSV, JSON lines or Parquet: text, author, label.")],
    name: Annotated[str, typer.Option(help="Of the task; then `ntulm predict POSTS --task NAME`.")],
    model: ModelName = MODEL,
    text: Annotated[str | None, typer.Option(help="The column of the texts; guessed where it is not named.")] = None,
    author: Annotated[str | None, typer.Option(help="The column of the authors.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the labels.")] = None,
    settings: Annotated[Path | None, typer.Option(help="A file like ntulm/use/classifier.yaml, in its place.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a copy of the model directory with the classifier.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Train a classifier of that name anew.")] = False,
) -> None:
    """Train a classifier on some hundred labelled posts, and say how good it is, with and without NTUs."""
    from ntulm.use.train import run

    run(labels, name, model, {"text": text, "author": author, "label": label}, settings, out, replace)


@app.command(rich_help_panel=USE)
def suggest(
    posts: Source,
    model: ModelName = MODEL,
    task: Annotated[
        str | None, typer.Option(help="A task whose classes are hashtags; `hashtag`, if there is one.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many hashtags a post.")] = 5,
    out: Output = None,
) -> None:
    """Suggest hashtags for posts: by the hashtag classifier, or else by the embedding table."""
    from ntulm.use.suggest import run

    run(posts, model, task, top, out)


@app.command(rich_help_panel=USE)
def similar(
    query: Annotated[str, typer.Argument(metavar="POST|#HASHTAG|@AUTHOR", help="What others are to be near to.")],
    model: Annotated[str | None, typer.Option(help="As for `embed`; data/model where it is not named.")] = None,
    store: Annotated[Path | None, typer.Option(help="A file of `ntulm embed`: posts of it are looked for.")] = None,
    id: Annotated[bool, typer.Option("--id", help="POST is the id of a post of the store.")] = False,
    author: Annotated[str | None, typer.Option(help="Of the post.")] = None,
    top: Annotated[int, typer.Option(help="How many.")] = 10,
) -> None:
    """The nearest posts of a store, or the nearest hashtags or users of the embedding table."""
    from ntulm.use.similar import run

    run(query, model, MODEL, store, id, author, top)


@app.command(rich_help_panel=USE)
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `--model` of `embed`.")],
    out: Annotated[Path, typer.Option(help="A new directory, which all commands take as --model.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights of one byte: smaller; measured on --posts.")] = False,
    posts: Annotated[
        str | None, typer.Option(help="POSTS like those to come, or data/tasks/TASK/DATASET.parquet.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="A task of the model, of which --posts has labels.")] = None,
) -> None:
    """Write a model with its encoder and slots as an ONNX graph."""
    from ntulm.use.export import run

    run(model, out, int8, posts, task)


@app.command(rich_help_panel=USE)
def refresh(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `--model` of `embed`.")],
    table: Annotated[Path, typer.Option(help="The folder of the newer table: data/embeddings, or a model directory.")],
    out: Annotated[Path, typer.Option(help="A new directory, which all commands take as --model.")],
    posts: Annotated[str | None, typer.Option(help="POSTS to measure on, or data/tasks/TASK/DATASET.parquet.")] = None,
    task: Annotated[str | None, typer.Option(help="A task of the model, of which --posts has labels.")] = None,
) -> None:
    """Give a model the embedding table of a newer graph; nothing is trained."""
    from ntulm.use.refresh import run

    run(model, table, out, posts, task)


@app.command(rich_help_panel=PRODUCTION)
def check(
    project: Project = None,
    exports: Exports = None,
) -> None:
    """Test the arriving posts against the training window: number, rejects, coverage, drift."""
    params = _params()
    from ntulm.production.check import run

    run(params, project, exports, HERE)


@app.command(rich_help_panel=PRODUCTION)
def challenge(project: Annotated[Path, typer.Argument(help=IN_PRODUCTION)]) -> None:
    """Compare the model just built with the one in production on the newest labelled posts."""
    params = _params()
    from ntulm.production.challenge import run

    run(params, project, HERE)


@app.command(rich_help_panel=PRODUCTION)
def arrivals(
    project: Annotated[Path, typer.Argument(help=IN_PRODUCTION)],
    exports: Exports = None,
) -> None:
    """Embed and label the posts that arrive; after a promotion, some of the earlier ones in each run."""
    params = _params()
    from ntulm.use.arrivals import run

    run(params, project, exports, HERE)


@app.command(rich_help_panel=PRODUCTION)
def drift(project: Annotated[Path, typer.Argument(help=IN_PRODUCTION)]) -> None:
    """Test the vectors and labels of arriving posts against those of the posts that the model was measured on."""
    params = _params()
    from ntulm.production.drift import run

    run(params, project, HERE)


@app.command()
def serve(
    model: Annotated[
        str, typer.Option(help="A directory, `production`, a version, or hf://owner/name.")
    ] = "production",
    name: Annotated[str | None, typer.Option(help="What clients call it; by default the last part of --model.")] = None,
    host: Annotated[str, typer.Option(help="Beyond loopback a key is needed: NTULM_API_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    body: Annotated[int, typer.Option(help="Most bytes of a request.")] = USUAL.body,
    posts: Annotated[int, typer.Option(help="Most posts of a request.")] = USUAL.posts,
    characters: Annotated[int, typer.Option(help="Most characters of a text.")] = USUAL.characters,
    batch: Annotated[int, typer.Option(help="Most posts encoded together.")] = USUAL.batch,
    waiting: Annotated[int, typer.Option(help="Most posts that wait.")] = USUAL.waiting,
    requests: Annotated[int, typer.Option(help="Most requests answered at once.")] = USUAL.requests,
) -> None:
    """Serve a model over HTTP: embeddings, labels, nearest NTUs (docs/how-to/serve.md)."""
    sizes = {"body": body, "posts": posts, "characters": characters, "batch": batch}
    limits = replace(USUAL, **sizes, waiting=waiting, requests=requests)
    key = key_for(host, os.environ.get(KEY))
    from ntulm.inference.directory import find

    find(model)  # said before torch is imported
    from ntulm.serving.run import run

    run(model, name, host, port, key, limits)


@app.command()
def tune() -> None:
    """Search on validation posts for settings at which NTUs help most; resumes where it stopped."""
    params = _params()
    from ntulm.tune import run

    run(params, HERE)


@app.command()
def configure(
    recipe: Annotated[str, typer.Argument(help="own, quickstart, stocknet, ira or paper; `.`: params.yaml as it is.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[key=value]...", show_default=False)] = None,
) -> None:
    """Write params.yaml from a recipe, e.g. `ntulm configure own data=exports pretrain.epochs=2`."""
    from ntulm.configure import run

    run(recipe, changes or [])


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder without a project, or one that `ntulm init` made.")] = Path(),
) -> None:
    """Make a folder in which `dvc repro` runs the installed package; again: bring it up to the installed version."""
    from ntulm.project.folder import run

    run(folder)


@app.command()
def params(
    path: Annotated[Path, typer.Argument(help="A parameter file.")] = HERE.params,
) -> None:
    """Check a parameter file: every key and value, and, for params.yaml itself, the files that its tasks name."""
    from ntulm.params import check_model, load_params
    from ntulm.tasks.check import check_tasks, corpus_notes

    loaded = load_params(path)
    check_model(loaded)
    own = path.resolve() == HERE.params.resolve()  # those of another machine may be there alone
    if own:
        check_tasks(loaded, HERE)
    typer.echo(f"{path}: valid")
    for note in corpus_notes(loaded, HERE) if own else []:
        typer.echo(f"with data/corpus as it is now: {note}")


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A file or a folder of raw exports.")],
    format: Annotated[str, typer.Option(help="auto, or a format of docs/sources.md.")] = "auto",
    sample: Annotated[bool, typer.Option(help="Show ten posts.")] = True,
) -> None:
    """Say how an export is read, what is left out and why, and how its graph would look; writes nothing."""
    from ntulm.inspect.command import run

    run(path, format, _params().corpus.table if HERE.params.is_file() else None, sample)


@app.command()
def forget(
    author: Annotated[str | None, typer.Option(help="A user, by id or handle.")] = None,
    post: Annotated[str | None, typer.Option(help="The id of a post.")] = None,
) -> None:
    """Never read an author or a post again, and say which outputs still hold something of it."""
    params = _params()
    from ntulm.production.forget import run

    run(params, author, post, HERE)


@app.command()
def verify() -> None:
    """Check the packaged MiniLM weights against their known sha256."""
    from ntulm.language_model.backbone import packaged_directory

    typer.echo(f"minilm: sha256 of all files as expected, {packaged_directory()}")


@app.command()
def results() -> None:
    """Print the results of the last run again."""
    from ntulm.report.terminal import run

    run(HERE)


def main() -> None:
    """Entry point: user errors, faults of the machine and packages that are missing become one line and exit code 1."""
    try:
        if not set(sys.argv[1:2]) <= WITHOUT_TORCH:
            require_addresses(TORCH_ADDRESSES, "torch")
        app()
    except UserError as error:
        typer.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        package = (error.name or "ntulm").partition(".")[0]
        if package == "ntulm":  # a mistake of our own
            raise
        extra = "onnx" if package.startswith("onnx") else "serve" if "serve" in sys.argv[1:2] else "pipeline"
        message = f"the package {package} is not installed; `pip install 'ntulm[{extra}]'` installs all that is needed"
        typer.echo(f"error: {message}", err=True)
        sys.exit(1)
    except Exception as error:  # a disk that is full, memory that does not suffice: nothing of ours to be mended
        line = told(error)
        if line is None:
            raise
        typer.echo(f"error: {printable(line)}", err=True)
        sys.exit(1)
