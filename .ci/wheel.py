"""Use a wheel as a newcomer does: `python .ci/wheel.py WHEEL`, in an environment without jaxdd.

In an empty folder, the quickstart notebook installs the wheel and runs. Then the Python example of
the README and the demo run.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def check_content(wheel: pathlib.Path) -> None:
    """Raise ValueError if the wheel does not consist of the package and its metadata."""
    package = [path for path in (ROOT / "jaxdd").rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in package}
    expected = {name for name in names if "__pycache__" not in name}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if names != expected:
        raise ValueError(f"{wheel} differs from jaxdd/ in {sorted(names ^ expected)}")


def quickstart(source: str) -> str:
    """Return the code of the notebook, which installs jaxdd from a path or a URL."""
    text = (ROOT / "docs" / "tutorials" / "quickstart.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    return re.sub("^SOURCE = .*", f"SOURCE = {source!r}", code, count=1, flags=re.M)


def example() -> str:
    """Return the Python code of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    return code


def main(wheel: pathlib.Path) -> None:
    """Check a wheel."""
    check_content(wheel)
    where = "import jaxdd, sys; assert jaxdd.__file__.startswith(sys.prefix), jaxdd.__file__"
    command = str(pathlib.Path(sys.executable).with_name("jaxdd"))
    with tempfile.TemporaryDirectory() as folder:
        run = lambda *words: subprocess.run(
            words, cwd=folder, env=os.environ | {"MPLBACKEND": "agg"}, check=True
        )
        run(sys.executable, "-c", quickstart(str(wheel)))
        run(sys.executable, "-c", where)
        run(sys.executable, "-c", example())
        run(command, "--version")
        run(command, "sets", "list")
        run(command, "demo", "--out", "demo")
        run(command, "report", "demo")
        assert (pathlib.Path(folder) / "demo" / "report.html").is_file()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
