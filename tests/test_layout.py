"""The shape of the source: layers, sizes, a test for every module, documents that name what exists."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "proxy").rglob("*.py"))
DOCUMENTS = sorted(path.relative_to(ROOT) for where in ("*.md", "[a-z]*/**/*.md") for path in ROOT.glob(where))
NAMED = sorted(path.name for place in (ROOT, ROOT / "proxy") for path in place.glob("[a-z]*/"))
"""Directories in which a document may name a file."""
MOST_LINES = 475


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> set[str]:
    """Every module that a file imports, and every name it takes from one, dotted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_import_contracts_hold() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("import-linter is not installed beside this Python")
    checked = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_module_imports_itself_around_a_corner() -> None:
    paths = {dotted(path): ROOT / path for path in MODULES}
    imports = {name: imported_by(path) & paths.keys() for name, path in paths.items()}
    # Who takes a module from a package doesn't take what the package itself has.
    TopologicalSorter(
        {name: found - {each.rpartition(".")[0] for each in found} for name, found in imports.items()}
    ).prepare()


def test_every_module_is_reached_by_a_test() -> None:
    """Imported by one, started by one as a process, or imported by such a module."""
    paths = {dotted(path): ROOT / path for path in MODULES}
    reached: set[str] = set()
    waiting = {name for path in (ROOT / "tests").rglob("*.py") for name in imported_by(path)}
    waiting |= {"proxy.worker.__main__", "proxy.__main__", "proxy.lab.full_table"}
    while waiting:
        name = waiting.pop()
        if name in paths and name not in reached:
            reached.add(name)
            waiting |= imported_by(paths[name]) | {name.rpartition(".")[0]}
    assert set(paths) - reached == set()


@pytest.mark.parametrize("module", MODULES, ids=dotted)
def test_a_module_can_be_read_in_one_sitting(module: Path) -> None:
    assert len((ROOT / module).read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("module", [path for path in MODULES if (ROOT / path).read_text().strip()], ids=dotted)
def test_a_module_says_what_it_is(module: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / module).read_text()))


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert built["packages"] == ["proxy"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_a_document_names_exist(document: Path) -> None:
    """Between backticks, from the repository's root or from `proxy/`, with or without .py; `*` is for any of them."""
    named = set(re.findall(rf"`((?:{'|'.join(NAMED)})/[\w./*-]*)`", (ROOT / document).read_text()))
    places = [ROOT, ROOT / "proxy"]
    assert [
        name for name in sorted(named) if not any([*place.glob(name), *place.glob(f"{name}.py")] for place in places)
    ] == []


def anchors(text: str) -> set[str]:
    """Those that GitHub makes of its headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_in_a_document_lead_somewhere(document: Path) -> None:
    """To a file of the repository and, with an anchor, to a heading in it. What is elsewhere isn't looked up."""
    text = re.sub(r"(?s)^```.*?^```|`[^`]*`", "", (ROOT / document).read_text(), flags=re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target.read_text()))):
            broken.append(link)
    assert broken == []
