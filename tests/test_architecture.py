"""Core imports neither wing, data imports core, runs imports all; what every module keeps to."""

import ast
import graphlib
import importlib
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import jaxdd

ROOT = pathlib.Path(jaxdd.__file__).parent
NAMES = sorted(found.name for found in pkgutil.walk_packages([ROOT], "jaxdd."))
MODULES = [name for name in NAMES if name not in ("jaxdd.data", "jaxdd.runs", "jaxdd.__main__")]
ALLOWED = {"core": {"core"}, "data": {"core", "data"}, "runs": {"core", "data", "runs"}}
TOUCHING = {"os", "pathlib", "io", "tempfile", "shutil", "socket", "matplotlib", "subprocess"}


def room(name):
    return name.split(".")[1] if name.count(".") > 1 else "core"


def imports(name):
    """Every module imported anywhere in the file, as dotted names."""
    path = ROOT.parent / f"{name.replace('.', '/')}.py"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in NAMES else node.module for name in names)


GRAPH = {name: set(imports(name)) & set(MODULES) for name in MODULES}


def test_core_imports_neither_wing_data_imports_core_runs_imports_all():
    for name, found in GRAPH.items():
        assert {room(other) for other in found} <= ALLOWED[room(name)], name
        if room(name) == "core":
            assert not TOUCHING & {other.split(".")[0] for other in imports(name)}, name


def test_no_chain_of_imports_is_longer_than_seven():
    depth = {}
    for name in graphlib.TopologicalSorter(GRAPH).static_order():  # which raises for a cycle
        depth[name] = 1 + max((depth[other] for other in GRAPH[name]), default=0)
    assert max(depth.values()) <= 7, sorted(depth.items(), key=lambda entry: -entry[1])[:3]


def test_importing_everything_loads_no_heavy_package():
    written_for = {"jaxdd.data.builders", "jaxdd.svr"}  # for a heavy package
    light = [name for name in MODULES if name not in written_for]
    code = f"import sys, {', '.join(light)}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"tensorflow_datasets", "tensorflow", "matplotlib", "sklearn", "torch", "pandas"}
    assert not heavy & set(loaded.stdout.split())


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented_keys_first_and_options_keyword_only(name):
    module = importlib.import_module(name)
    assert module.__doc__
    own = {
        label: found
        for label, found in vars(module).items()
        if label[0] != "_" and getattr(found, "__module__", None) == name and callable(found)
    }
    for label, found in own.items():
        doc = inspect.getdoc(found)
        assert doc and not doc.startswith(f"{label}("), f"{label} has no docstring"
        if isinstance(found, type):
            continue
        parameters = inspect.signature(inspect.unwrap(found)).parameters
        assert "key" not in list(parameters)[1:], f"{label}: key comes first"
        positional = {
            p.name
            for p in parameters.values()
            if p.kind != p.KEYWORD_ONLY and p.default is not p.empty
        }
        may_be = set(
            "data_dir attributes weights aligned report arguments title conflicting titles options "
            "method".split()
        )
        assert positional <= may_be, f"{label}: options are keyword-only"
