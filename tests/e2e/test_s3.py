"""Results shared through an S3-compatible store: between workspaces, at once, and over connections that break."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from s3_store import BUCKET, CREDENTIALS, Connection, Store, breakable, s3_store
from test_end_to_end import ROOT, call

from flows import registry
from flows.champion import fetch
from flows.dispatch import restore
from flows.failure import CommandError
from flows.handover import pack
from flows.pipeline import read_pipeline
from flows.single_stage import run_handed_over
from flows.stage import Outcome
from flows.workspace import Workspace, dvc, open_workspace

STAGE = """\
import pathlib, random, sys
target, seed, *sizes = sys.argv[1:]
draw = random.Random(seed)
pathlib.Path(target).mkdir(parents=True)
for number, size in enumerate(sizes):
    (pathlib.Path(target) / str(number)).write_bytes(draw.randbytes(int(size)))
if target == "data/model":
    (pathlib.Path(target) / "reading.json").write_text("{}")
with open("ran", "a") as ran:
    print(target, file=ran)
"""
# Of a folder, DVC fetches the first file alone, and those after it at once; of two, the second alone as well.
PIPELINE = """\
stages:
  corpus:
    cmd: python stage.py data/corpus 1 300000 200000 100000
    deps: [stage.py]
    outs: [data/corpus]
  pretrain:
    cmd: python stage.py data/pretrain 2 450000 450000
    params: [pretrain]
    deps: [data/corpus, stage.py]
    outs: [data/pretrain]
  model:
    cmd: python stage.py data/model 3 900000 100000
    deps: [data/pretrain, stage.py]
    outs: [data/model]
artifacts:
  ntulm: {type: model, path: data/model}
"""
OWN, OF_BOTH = 900_000, 600_000 + 1_000_000  # bytes of what one workspace made alone, and of what both have
LARGE = 110_000_000  # bytes: goes up in parts of 50 MiB
REMOTE = """\
[core]
    no_scm = {no_scm}
    remote = store
['remote "store"']
    url = s3://{bucket}/{folder}
    endpointurl = {endpoint}
"""


def project(folder: Path) -> Path:
    """A workspace with the small pipeline and the real parameters."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "stage.py").write_text(STAGE)
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


def connect(folder: Path, connection: Connection, name: str, no_scm: bool = True) -> Path:
    """What `dvc remote add` and `dvc remote modify` of the how-to write."""
    settings = REMOTE.format(bucket=BUCKET, folder=name, endpoint=connection.endpoint, no_scm=str(no_scm).lower())
    (folder / ".dvc/config.local").write_text(settings)
    return folder


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch, s3_store() as running:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def connection(store) -> Iterator[Connection]:
    with breakable(store) as way:
        yield way


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A workspace with its results."""
    folder = project(tmp_path_factory.mktemp("built") / "here")
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    call("dvc", "repro", "--quiet", cwd=folder)
    return folder


@pytest.fixture
def here(built, connection, tmp_path) -> Iterator[Workspace]:
    """A workspace with results, and the store as its remote."""
    with opened(connect(shutil.copytree(built, tmp_path / "here"), connection, tmp_path.name)) as workspace:
        yield workspace


@pytest.fixture
def there(connection, tmp_path) -> Iterator[Workspace]:
    """Another one at the same commit, without results."""
    with opened(connect(project(tmp_path / "there"), connection, tmp_path.name)) as workspace:
        yield workspace


@contextmanager
def opened(folder: Path) -> Iterator[Workspace]:
    with open_workspace(folder, f"flow run {folder.name}", print) as workspace:
        yield workspace


def ran(workspace: Workspace) -> list[str]:
    path = workspace.root / "ran"
    return path.read_text().split() if path.exists() else []


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def half_here(workspace: Workspace) -> list[str]:
    """Objects of the cache whose content is not what their name says."""
    objects = [path for path in workspace.root.glob(".dvc/cache/files/md5/*/*") if path.suffix in ("", ".dir")]
    named = {path.parent.name + path.stem: path for path in objects}
    return [name for name, path in named.items() if hashlib.md5(path.read_bytes()).hexdigest() != name]


def take_over(here: Workspace, there: Workspace) -> None:
    """What git brings to another workspace."""
    shutil.copy(here.root / "dvc.lock", there.root)


def test_a_stage_and_its_results_go_through_the_store(connection, there, store, tmp_path):
    with opened(connect(project(tmp_path / "here"), connection, tmp_path.name)) as here:
        here.run(dvc("repro", "--single-item", "corpus"), print)
        assert restore("pretrain", here, print) is None
        here.run(dvc("push", "corpus"), print)
        handover = pack(here.root, "pretrain", read_pipeline(here.root).upstream["pretrain"])
        assert run_handed_over("pretrain", handover, there, print) is Outcome.RAN
        assert restore("pretrain", here, print, "--pull") is Outcome.RESTORED
        assert (ran(here), ran(there)) == (["data/corpus"], ["data/pretrain"])
        assert bytes_of(here.root / "data") == bytes_of(there.root / "data")
    assert len(bytes_of(there.root / "data")) == 3 + 2
    assert len(store.objects(tmp_path.name)) == 3 + 2 + 2  # a list of its files per folder
    assert store.half(tmp_path.name) == []


def test_a_promoted_model_is_fetched_in_another_clone(here, connection, store, tmp_path):
    (here.root / ".gitignore").write_text("/data/\n/ran\n")
    (here.root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (here.root / ".dvc/config").write_text("")
    connect(here.root, connection, tmp_path.name, no_scm=False)
    call("git", "init", "-q", "-b", "main", cwd=here.root)
    call("git", "add", "-A", cwd=here.root)
    call("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start", cwd=here.root)
    here.run(dvc("push"), print)
    registry.promote(here.root, "the first model")
    call("git", "clone", "-q", str(here.root), str(tmp_path / "clone"), cwd=tmp_path)
    with opened(connect(tmp_path / "clone", connection, tmp_path.name, no_scm=False)) as clone:
        version = registry.production(clone.root)
        assert version is not None
        connection.break_after(received=900_000)
        with pytest.raises(CommandError, match=f"{version.version}: data/.* cannot be fetched: .+"):
            fetch(clone, version, print)
        assert not (clone.root / "data/champion").exists()
        connection.mend()
        folder = clone.root / fetch(clone, version, print)
    for path in ("data/corpus", "data/model"):
        assert bytes_of(folder / path) == bytes_of(here.root / path)


def test_two_workspaces_push_at_once_and_both_can_be_pulled(here, connection, store, tmp_path):
    """What `pretrain` made is another one in each; the rest is the same in both, and both send it."""
    other = project(tmp_path / "other")
    (other / "dvc.yaml").write_text(PIPELINE.replace("pretrain 2 ", "pretrain 4 "))
    with breakable(store) as way, opened(connect(other, way, tmp_path.name)) as beside, ExitStack() as readers:
        beside.run(dvc("repro", "--quiet"), print)
        connection.meeting = way.meeting = threading.Barrier(2)
        failures: list[Exception] = []
        pushes = [threading.Thread(target=push, args=(workspace, failures)) for workspace in (here, beside)]
        for thread in pushes:
            thread.start()
        for thread in pushes:
            thread.join()
        assert failures == []
        # One that looks a moment later may find a file of the other there already; most of them both send.
        assert min(connection.passed["sent"], way.passed["sent"]) > OWN + OF_BOTH / 2
        assert store.half(tmp_path.name) == []
        assert len(store.objects(tmp_path.name)) == (3 + 1) + 2 * (2 + 1) + (3 + 1)
        for workspace in (here, beside):
            folder = connect(project(tmp_path / f"reader of {workspace.root.name}"), connection, tmp_path.name)
            reader = readers.enter_context(opened(folder))
            shutil.copy(workspace.root / "dvc.yaml", reader.root)
            take_over(workspace, reader)
            reader.run(dvc("pull"), print)
            assert bytes_of(reader.root / "data") == bytes_of(workspace.root / "data")


def push(workspace: Workspace, failures: list[Exception]) -> None:
    try:
        workspace.run(dvc("push", "--run-cache"), print)
    except CommandError as failure:
        failures.append(failure)


@pytest.mark.parametrize("sent", [1_000, 350_000, 2_200_000])
def test_a_push_whose_connection_breaks_leaves_nothing_half(here, there, connection, store, tmp_path, sent):
    before = bytes_of(here.root / "data")
    connection.break_after(sent=sent)
    with pytest.raises(CommandError, match=r"endpoint URL") as told:
        here.run(dvc("push"), print)
    assert "\n" not in str(told.value)
    assert connection.broken
    assert store.half(tmp_path.name) == []
    assert (bytes_of(here.root / "data"), half_here(here)) == (before, [])
    connection.mend()
    here.run(dvc("push"), print)
    take_over(here, there)
    there.run(dvc("pull"), print)
    assert bytes_of(there.root / "data") == before
    assert store.half(tmp_path.name) == []


def test_a_large_file_whose_connection_breaks_between_its_parts(connection, there, store, tmp_path):
    large = PIPELINE.replace("corpus 1 300000", f"corpus 1 {LARGE}")
    for folder in (project(tmp_path / "here"), there.root):
        (folder / "dvc.yaml").write_text(large)
    with opened(connect(tmp_path / "here", connection, tmp_path.name)) as here:
        here.run(dvc("repro", "--single-item", "corpus"), print)
        connection.break_after(sent=70_000_000)
        with pytest.raises(CommandError, match="endpoint URL"):
            here.run(dvc("push", "corpus"), print)
        assert (store.half(tmp_path.name), store.parts(tmp_path.name)) == ([], 1)
        connection.mend()
        here.run(dvc("push", "corpus"), print)
        take_over(here, there)
        connection.break_after(received=70_000_000)
        with pytest.raises(CommandError, match="endpoint URL"):
            there.run(dvc("pull", "corpus"), print)
        assert half_here(there) == []
        connection.mend()
        there.run(dvc("pull", "corpus"), print)
        assert bytes_of(there.root / "data") == bytes_of(here.root / "data")
        assert store.half(tmp_path.name) == []


@pytest.mark.parametrize(
    ("stages", "received"),
    [
        ([], 1_000),
        ([], 1_200_000),
        (["corpus"], 350_000),
        (["pretrain"], 650_000),  # in the second of two files: without `verify`, DVC keeps its half as the whole
    ],
)
def test_a_pull_whose_connection_breaks_leaves_nothing_half(here, there, connection, stages, received):
    here.run(dvc("push"), print)
    take_over(here, there)
    connection.break_after(received=received)
    with pytest.raises(CommandError, match="endpoint URL") as told:
        there.run(dvc("pull", *stages), print)
    assert "\n" not in str(told.value)
    assert connection.broken
    assert half_here(there) == []
    connection.mend()
    there.run(dvc("pull"), print)
    assert bytes_of(there.root / "data") == bytes_of(here.root / "data")
    assert half_here(there) == []


def test_a_result_that_could_not_be_fetched_is_not_called_missing(here, there, connection):
    here.run(dvc("push", "--run-cache"), print)
    there.run(dvc("repro", "--quiet", "--single-item", "corpus"), print)
    connection.break_after(received=500_000)
    with pytest.raises(CommandError, match=r"the DVC remote did not give its result: .+endpoint URL"):
        restore("pretrain", there, print, "--pull")
    assert half_here(there) == []
    connection.mend()
    assert restore("pretrain", there, print, "--pull") is Outcome.RESTORED
    assert bytes_of(there.root / "data/pretrain") == bytes_of(here.root / "data/pretrain")
    assert ran(there) == ["data/corpus"]


def test_without_credentials_or_bucket_the_reason_is_one_line(here, connection, tmp_path, monkeypatch):
    connect(here.root, connection, "x").joinpath(".dvc/config.local").write_text(
        (here.root / ".dvc/config.local").read_text().replace(f"s3://{BUCKET}/", "s3://nowhere/")
    )
    with pytest.raises(CommandError, match="bucket does not exist"):
        here.run(dvc("push"), print)
    (tmp_path / "none").touch()
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(CommandError, match="credentials"):
        here.run(dvc("push"), print)
