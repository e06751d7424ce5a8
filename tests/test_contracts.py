"""Contracts between the code, dvc.yaml, params.yaml, the recipes and the README."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ntulm.configure import MASTER, configured, recipes
from ntulm.layout import Layout
from ntulm.params import Params, load_params

ROOT = Path(__file__).parent.parent
PIPELINE: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
STAGES = list(PIPELINE)
ORDER = (  # the parts of ntulm/, from what all may import to what imports all; `config` stands for every config.py
    *(
        "printable",
        "errors",
        "resources",
        "yaml_file",
        "files",
        "device",
        "tensors",
        "layout",
        "provenance",
        "text",
        "pseudonyms",
        "section",
        "variants",
    ),
    *("ntus", "config", "params", "posts", "corpus", "graph", "embeddings", "language_model", "adapt", "pretrain"),
    *("tasks", "encode", "probe", "evaluate", "onnx", "inference", "vectorizer", "serving", "model", "production"),
    *("report", "shared_study", "tune", "recipes", "configure", "inspect", "use", "project", "cli", "__main__"),
)
TRAINING = ("language_model", "inference", "embeddings", "adapt", "pretrain", "encode", "model")  # no data stack
LIGHT = {"torch", "transformers", "tokenizers", "numpy", "pyarrow", "safetensors", "huggingface_hub", "ntulm"}


def body(stage: str) -> dict[str, Any]:
    return PIPELINE[stage].get("do", PIPELINE[stage])


def module_file(module: str) -> Path | None:
    """The file of a dotted `ntulm…` module, or None where the name is not a module."""
    path = ROOT / module.replace(".", "/")
    if (path / "__init__.py").exists():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else None


def imported(path: Path) -> set[str]:
    """Every module that a file imports at run time, lazily too; what stands under TYPE_CHECKING does not count."""
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        nodes.extend(ast.iter_child_nodes(node))
    return names


def closure(module: str) -> set[Path]:
    """The project's files that importing and running `module` can import."""
    found: set[Path] = set()
    queue = [module]
    while queue:
        path = module_file(queue.pop())
        if path is None or path in found:
            continue
        found.add(path)
        queue += [name for name in imported(path) if name.startswith("ntulm.")]
    return found


def test_the_walk_over_imports_sees_lazy_imports_and_skips_type_checking(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\ndef f():\n    from b import c\n"
    )
    assert imported(source) == {"typing", "typing.TYPE_CHECKING", "b", "b.c"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_everywhere(stage):
    assert stage in Params.model_fields
    assert (ROOT / stage_file(stage)).is_file()
    assert (ROOT / f"tests/test_{stage}.py").exists()
    command = body(stage)["cmd"]
    words = (command if isinstance(command, str) else command[-1]).split()
    assert words[:4] == ["python", "-m", "ntulm", stage]
    assert any(out.startswith((f"data/{stage}", "reports")) for out in body(stage)["outs"])
    named = [out for out in body(stage)["outs"] + body(stage).get("metrics", []) if out.startswith("metrics/")]
    assert all(out.startswith(f"metrics/{stage}") for out in named)


def stage_file(stage: str) -> str:
    """The file with a stage's `run`: a module of its name, or `stage.py` in a folder of its name."""
    folder = f"ntulm/{stage}/stage.py"
    return folder if (ROOT / folder).exists() else f"ntulm/{stage}.py"


def files_of(stage: str) -> set[Path]:
    """The closure of a stage; the modules of a folder among its deps are imported by name, and count too."""
    folders = [ROOT / dep for dep in body(stage)["deps"] if dep.startswith("ntulm/") and (ROOT / dep).is_dir()]
    files = [ROOT / stage_file(stage), *(path for folder in folders for path in folder.rglob("*.py"))]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return set().union(*(closure(name.removesuffix(".__init__")) for name in names))


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_imports_is_among_its_deps(stage):
    deps = [ROOT / dep for dep in body(stage)["deps"] if dep.startswith("ntulm/")]
    covered = {path for path in files_of(stage) if any(path == dep or dep in path.parents for dep in deps)}
    names = {path for path in files_of(stage) if path.name == "__init__.py"}  # they hold no code
    assert files_of(stage) - covered - names == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_no_module_that_it_does_not_import(stage):
    files = files_of(stage)
    for dep in (ROOT / dep for dep in body(stage)["deps"] if dep.startswith("ntulm/") and dep.endswith(".py")):
        assert dep in files


@pytest.mark.parametrize("stage", STAGES)
def test_sql_and_data_files_beside_a_stage_are_among_its_deps(stage):
    deps = body(stage)["deps"]
    for path in files_of(stage):
        for name in re.findall(r"[\w/]+\.(?:sql|json)(?=\")", path.read_text(encoding="utf-8")):
            beside = path.parent / name
            if beside.exists() and beside.is_relative_to(ROOT / "ntulm"):
                own = str(beside.relative_to(ROOT))
                assert any(own == dep or own.startswith(dep + "/") for dep in deps), own


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_no_other_stage_and_depends_on_no_other_section(stage):
    others = {ROOT / stage_file(other) for other in STAGES if other != stage}
    assert files_of(stage) & others == set()
    assert ROOT / "ntulm/params.py" not in files_of(stage)
    sections = {path.parent.name for path in files_of(stage) if path.name == "config.py"}
    assert sections <= {stage}


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_among_the_deps_of_a_stage_is_its_own(stage):
    folders = [dep for dep in body(stage)["deps"] if dep.startswith("ntulm/") and (ROOT / dep).is_dir()]
    assert set(folders) <= {f"ntulm/{stage}"}


def part_of(path: Path) -> str:
    """The part of ntulm/ that a file belongs to."""
    return "config" if path.name == "config.py" else path.relative_to(ROOT / "ntulm").parts[0].removesuffix(".py")


MODULES = sorted(path for path in (ROOT / "ntulm").rglob("*.py") if path != ROOT / "ntulm/__init__.py")


def test_the_order_names_every_part():
    assert {part_of(path) for path in MODULES} <= set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "ntulm")))
def test_no_import_runs_upward(path):
    named = (module_file(name) for name in imported(path) if name.startswith("ntulm."))
    files = {file for file in named if file is not None}
    above = {file for file in files if ORDER.index(part_of(file)) > ORDER.index(part_of(path))}
    assert above == set()


@pytest.mark.parametrize("path", sorted((ROOT / "ntulm").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_an_init_hands_names_on_and_holds_no_code(path):
    first, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(first, ast.Expr)  # the docstring
    for node in rest:
        named = [node.name] if isinstance(node, ast.FunctionDef) else []
        named += [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
        hands_on = isinstance(node, ast.Import | ast.ImportFrom) or "TYPE_CHECKING" in ast.dump(node)
        assert hands_on or (named and all(re.fullmatch("__[a-z]+__", name) for name in named)), ast.unparse(node)


def test_ntulm_imports_neither_prefect_nor_dvc():
    for path in (ROOT / "ntulm").rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"prefect", "dvc"}, path


@pytest.mark.parametrize("part", TRAINING)
def test_training_and_encoding_run_without_the_data_and_report_stack(part):
    forbidden = {"duckdb", "optuna", "evidently", "pandas", "pydantic", "ruamel", "typer", "sklearn"}
    for module in (path for path in MODULES if part_of(path) == part):
        for path in closure(".".join(module.relative_to(ROOT).with_suffix("").parts)):
            assert not {name.split(".")[0] for name in imported(path)} & forbidden, f"{module}: {path}"


@pytest.mark.parametrize("part", ["language_model", "inference"])
def test_what_reads_a_model_needs_few_libraries(part):
    for path in (path for path in MODULES if part_of(path) == part):
        libraries = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names
        assert libraries <= LIGHT, path


def test_the_sections_of_params_are_the_fields_of_the_config():
    values = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    assert list(values) == list(Params.model_fields)


def test_each_params_key_of_the_pipeline_exists():
    for stage in STAGES:
        for key in body(stage)["params"]:
            node: Any = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
            for name in key.split("."):
                assert name.startswith("${") or name in node, key
                node = next(iter(node.values())) if name.startswith("${") else node[name]


def test_the_checked_in_params_are_the_quickstart_recipe():
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == configured("quickstart", [])
    assert load_params(ROOT / "params.yaml").run.tasks


@pytest.mark.parametrize("recipe", recipes())
def test_every_shipped_recipe_loads(recipe, tmp_path):
    assert "DATA/" not in configured(recipe, [] if recipe == MASTER else [f"data={tmp_path}"])


def test_layout_and_pipeline_name_the_same_paths():
    item = {"variant": "V", "seed": "7", "task": "T"}
    templates = [out for stage in STAGES for out in body(stage)["outs"] + body(stage).get("metrics", [])]
    outs = {re.sub(r"\$\{(?:item\.)?(\w+)\}", lambda match: item.get(match[1], "T"), out) for out in templates}
    paths = Layout()
    stage_paths = [paths.corpus, paths.graph, paths.embeddings, paths.adapt, paths.evaluate, paths.model, paths.reports]
    instances = [paths.pretrain("V", 7), paths.task("T"), paths.vectors("V", 7, "T"), paths.scores("V", 7, "T")]
    single = [paths.metrics(name) for name in ("corpus", "graph", "embeddings", "adapt", "evaluate", "report")]
    several = [paths.metrics(*names) for names in (("pretrain", "V", 7), ("tasks", "T"), ("probe", "V", 7, "T"))]
    assert outs == {str(path) for path in stage_paths + instances + single + several}


def test_the_metrics_of_dvc_are_the_headlines_alone():
    assert {stage: body(stage)["metrics"] for stage in STAGES if "metrics" in body(stage)} == {
        "report": ["metrics/report.json"]
    }


def stage_edges() -> set[tuple[str, str]]:
    """Edges between the stages of dvc.yaml, matrix collapsed: (maker, reader)."""
    made = [(out, stage) for stage in STAGES for out in body(stage)["outs"] + body(stage).get("metrics", [])]
    makers = {out.split("/${")[0]: stage for out, stage in made}
    edges = set()
    for stage in STAGES:
        for dep in body(stage)["deps"]:
            for out, maker in makers.items():
                dep_root = dep.split("/${")[0]
                nested = out.startswith(dep_root + "/") or dep_root.startswith(out + "/")
                if maker != stage and (dep_root == out or nested) and dep_root != "metrics":
                    edges.add((maker, stage))
    return edges


def test_the_readme_draws_the_pipeline_of_dvc_yaml():
    drawn = re.findall(r"^\s*(\w+)\s*-->\s*(\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert set(drawn) == stage_edges()


def test_the_readme_names_every_stage_and_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"@app\.command\(.*\)\ndef (\w+)", (ROOT / "ntulm/cli.py").read_text(encoding="utf-8"))
    assert set(STAGES) < set(commands)
    for name in (command.replace("_", "-") for command in commands):
        assert re.search(rf"\b{name}\b", readme), name


def test_help_starts_without_the_heavy_libraries():
    heavy = ("torch", "transformers", "duckdb", "pydantic")
    code = f"import sys, ntulm.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_line_knows_which_stages_import_torch(stage):
    from ntulm.cli import WITHOUT_TORCH

    libraries = {name.split(".")[0] for path in files_of(stage) for name in imported(path)}
    assert (stage in WITHOUT_TORCH) == (not libraries & {"torch", "transformers", "optuna"})


def test_dvc_accepts_the_pipeline():
    dvc = shutil.which("dvc", path=str(Path(sys.executable).parent))
    assert dvc is not None
    done = subprocess.run([dvc, "stage", "list"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0].split("@")[0] for line in done.stdout.splitlines()} == set(STAGES)
