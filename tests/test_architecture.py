"""Imports point one way, the core stays light, and every public function keeps the conventions."""

import ast
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import jaxdd

ROOT = pathlib.Path(jaxdd.__file__).parent
LAYERS = [
    {"mixture", "microbatch", "bias", "corruptions", "augment", "formation", "networks", "sampling"},
    {"kde", "reweight", "matching", "contrastive", "training"},
    {"draws", "evaluate", "trajectories"},
    {"distill", "posthoc"},
    {"parallel"},
    {"archives", "folders", "page", "processes", "store"},
    {"buffers", "checkpoint", "datasets", "plot"},
    {"benchmarks"},
    {"builders", "options"},
    {"jobs"},
    {"weighing", "results"},
    {"auto"},
    {"pipeline"},
    {"report", "transfer"},
    {"cli"},
    {"__main__"},
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
TOUCHING = {"os", "pathlib", "io", "tempfile", "shutil", "socket", "matplotlib", "subprocess"}


def imports(name):
    """Every module imported anywhere in the file, as dotted names."""
    for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer():
    assert {path.stem for path in ROOT.glob("*.py")} - {"__init__"} == set(LAYER)


@pytest.mark.parametrize("name", sorted(LAYER))
def test_imports_point_down(name):
    ours = {found.split(".")[1] for found in imports(name) if found.startswith("jaxdd.")}
    for other in ours & set(LAYER):
        assert LAYER[other] < LAYER[name], f"{name} imports {other}"


@pytest.mark.parametrize("name", sorted(set.union(*LAYERS[:5])))
def test_the_core_touches_neither_disk_nor_screen(name):
    assert not TOUCHING & {found.split(".")[0] for found in imports(name)}


def test_importing_everything_loads_no_heavy_package():
    light = sorted(LAYER.keys() - {"__main__", "builders"})  # builders are for tensorflow-datasets
    modules = ", ".join(f"jaxdd.{name}" for name in light)
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"tensorflow_datasets", "tensorflow", "matplotlib", "sklearn", "torch", "pandas"}
    assert not heavy & set(loaded.stdout.split())


def public_functions():
    for name in sorted(LAYER):
        module = importlib.import_module(f"jaxdd.{name}") if name != "__main__" else None
        for label, function in vars(module or object).items():
            own = getattr(function, "__module__", None) == f"jaxdd.{name}"
            if own and not label.startswith("_") and not isinstance(function, type):
                if callable(function):
                    yield pytest.param(inspect.unwrap(function), id=f"{name}.{label}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_conventions(function):
    parameters = inspect.signature(function).parameters
    assert inspect.getdoc(function), "has no docstring"
    if "key" in parameters:
        assert next(iter(parameters)) == "key", "key comes first"
    keyed = inspect.Parameter.KEYWORD_ONLY
    positional = [p for p in parameters.values() if p.kind != keyed and p.default is not p.empty]
    may_be_positional = {"data_dir", "attributes", "weights", "aligned", "report", "arguments",
                         "title", "conflicting", "titles"}
    assert {p.name for p in positional} <= may_be_positional, "options are keyword-only"


@pytest.mark.parametrize(
    "name", [path.stem for path in ROOT.glob("*.py") if not path.stem.startswith("__")]
)
def test_modules_and_classes_are_documented(name):
    module = importlib.import_module(f"jaxdd.{name}")
    assert module.__doc__
    for label, kind in vars(module).items():
        if isinstance(kind, type) and kind.__module__ == module.__name__ and label[0] != "_":
            assert kind.__doc__ and not kind.__doc__.startswith(f"{label}("), f"{label} is not"
