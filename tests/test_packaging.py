"""Metadata, package data and the steps of the continuous integration agree with each other."""

import configparser
import importlib.util
import pathlib
import re
import zipfile

import pytest
import yaml

import jaxdd

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(text):
    return [line for line in text.splitlines() if line and line[0] != "#"]


def package_files():
    files = [path for path in (ROOT / "jaxdd").rglob("*") if path.is_file()]
    return {path for path in files if "__pycache__" not in path.parts}


def module(path):
    """Import a file that is not in a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# --- metadata ----------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere(config):
    assert config["metadata"]["version"] == "attr: jaxdd.__version__"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == jaxdd.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, *_ = re.findall(r"^## (\S+)", changes, re.M)
    assert newest == jaxdd.__version__


def test_everything_but_modules_is_package_data(config):
    listed = {
        path
        for package, globs in config["options.package_data"].items()
        for glob in globs.split()
        for path in ROOT.joinpath(*package.split(".")).glob(glob)
    }
    assert {path for path in package_files() if path.suffix != ".py"} == listed


def test_each_requirement_has_a_lower_bound_and_a_reason():
    requirements = lines((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    names = [re.fullmatch(r"([\w-]+)>=[\d.]+", line)[1] for line in requirements]
    (table,) = re.findall(r"^\| requirement .*\n\|.*\n((?:\|.*\n)+)", CONTRIBUTING, re.M)
    documented = re.findall(r"`([\w-]+)`", "".join(row.split("|")[1] for row in table.splitlines()))
    assert sorted(documented) == sorted(names)


def test_extras_agree_on_versions(config):
    bounds = [line for extra in config["options.extras_require"].values() for line in lines(extra)]
    names = [re.split("[<>=]", line)[0] for line in bounds]
    assert len(set(bounds)) == len(set(names))


def test_links_of_the_long_description_are_absolute():
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    setup = module(ROOT / "setup.py")
    text = "![A\npicture](a/b.png) [page](docs/c.md#d) [here](#e) [site](https://f.org)"
    assert setup.readme(text, "https://g.org/h") == (
        "![A\npicture](https://g.org/h/raw/main/a/b.png) "
        "[page](https://g.org/h/blob/main/docs/c.md#d) [here](#e) [site](https://f.org)"
    )


# --- continuous integration --------------------------------------------------------------------


def test_the_workflow_runs_the_documented_checks(config):
    """Its steps are `.ci/run PART` for all parts, on the classified versions of Python."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (parts,) = re.findall(r"set -- (.+)", script)
    assert {f"{part}()" for part in parts.split()} <= set(re.findall(r"^\w+\(\)", script, re.M))
    documented = re.findall(r"^\.ci/run (\w+) ", CONTRIBUTING, re.M)
    assert documented == parts.split()

    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    steps = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert sorted(steps) == sorted(f".ci/run {part}" for part in documented)
    versions = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    assert jobs["tests"]["strategy"]["matrix"]["python"] == versions


@pytest.mark.parametrize("fault", [None, "tests/test_kde.py", "jaxdd/py.typed"])
def test_a_wheel_must_consist_of_the_package(tmp_path, fault):
    """Wheels with a file of the tests, or without a file of the package, are rejected."""
    names = {path.relative_to(ROOT).as_posix() for path in package_files()}
    names.add("jaxdd-0.1.0.dist-info/WHEEL")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name in names ^ ({fault} - {None}):
            wheel.writestr(name, "")
    check = module(ROOT / ".ci" / "wheel.py").check_content
    if fault is None:
        check(tmp_path / "a.whl")
    else:
        with pytest.raises(ValueError, match=fault):
            check(tmp_path / "a.whl")


def test_the_quickstart_installs_the_wheel_first():
    code = module(ROOT / ".ci" / "wheel.py").quickstart("/a/b.whl")
    assert lines(code)[0] == "SOURCE = '/a/b.whl'" and code.count("SOURCE = ") == 1
    compile(code, "quickstart", "exec")
