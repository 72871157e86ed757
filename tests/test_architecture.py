"""The package graph is acyclic, the core touches no disk, and public names follow conventions."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import jaxdd

ROOT = pathlib.Path(jaxdd.__file__).parent
CORE = (
    *("_axes", "_checks", "kernel_sums", "kde", "matching", "augment", "networks", "sampling"),
    *("devices", "training", "evaluate", "weights", "methods", "audit", "svr"),
)
ORDER = (*CORE, "data", "runs", "commands")
"""Packages and modules of jaxdd; each may import itself and those before it."""

DISK = {"os", "pathlib", "io", "tempfile", "shutil", "socket", "matplotlib", "subprocess"}
HEAVY = {"tensorflow_datasets", "tensorflow", "matplotlib", "sklearn", "torch", "pandas"}
NEEDS_HEAVY = {"jaxdd.data.builders", "jaxdd.svr"}
"""Modules written for a heavy package."""

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "jaxdd.")
    if module.name != "jaxdd.__main__"
)


def imports(path):
    """Return the modules that a file imports anywhere, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_down(package):
    path = ROOT / package
    allowed = {*ORDER[: ORDER.index(package) + 1], "__version__"}
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        names = [name.split(".") for name in imports(file)]
        own = {parts[1] for parts in names if parts[0] == "jaxdd" and len(parts) > 1}
        assert own <= allowed, f"{file} imports {own - allowed}"
        if package in CORE:
            assert not DISK & {parts[0] for parts in names}, f"{file} touches the disk"


def test_every_module_has_a_place():
    assert {name.split(".")[1] for name in MODULES} == set(ORDER)


def test_importing_everything_loads_no_heavy_package():
    light = ", ".join(name for name in MODULES if name not in NEEDS_HEAVY)
    code = f"import sys, {light}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())


@pytest.mark.parametrize("name", MODULES)
def test_public_names_follow_conventions(name):
    """All are documented; `key` comes first; options are keyword-only."""
    module = importlib.import_module(name)
    assert module.__doc__
    for label in getattr(module, "__all__", ()):
        assert inspect.ismodule(value := getattr(module, label)) or value is not None
    for label, value in vars(module).items():
        if label[0] == "_" or getattr(value, "__module__", None) != name or not callable(value):
            continue
        doc = inspect.getdoc(value)
        assert doc and not doc.startswith(f"{label}("), f"{label} has no docstring"
        if not isinstance(value, type):
            check_signature(label, inspect.signature(inspect.unwrap(value)).parameters)


def test_no_function_of_a_package_shadows_a_module():
    for name in MODULES:
        package, label = name.rsplit(".", 1)
        value = getattr(importlib.import_module(package), label, None)
        assert value is None or inspect.ismodule(value), name


def check_signature(label, parameters):
    assert "key" not in list(parameters)[1:], f"{label}: key comes first"
    positional = [
        p.name for p in parameters.values() if p.kind != p.KEYWORD_ONLY and p.default is not p.empty
    ]
    assert len(positional) <= 2, f"{label}: options are keyword-only, got {positional}"
