"""The rules of the house: which room may know which, and what no file may hold."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "plugins" / "balance_bridge"
CORE = (
    "money",
    "clock",
    "transport",
    "private",
    "store",
    "days",
    "points",
    "localtime",
    "daily",
    "extract",
    "transform",
    "load",
    "facts",
    "states",
    "index",
    "daybook",
    "decisions",
)
HEAVY = {"pandas", "pyarrow", "numpy", "requests", "fastapi", "uvicorn", "msgspec"}
MAX_PARAMETERS, MAX_FUNCTION_LINES = 6, 70
# Names that only Airflow and pydantic use (a field of a JSON object).
USED_ELSEWHERE = {
    *("pre_execute", "model_config", "conn_name_attr", "equivalent_value"),
    *("deserialize", "fastapi_apps", "external_views"),
}
FUNCTION_OR_CLASS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# A function under any other decorator is called by whoever made that.
OWN = {"property", "staticmethod", "classmethod", "abstractmethod", "dataclass(frozen=True)"}


def modules(*rooms: str) -> list[Path]:
    found = []
    for room in rooms:
        place = PACKAGE / room
        found += sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert found
    return found


def imports(path: Path, *, at_the_top: bool = False) -> Iterator[str]:
    """The modules that a file imports, in full; without those behind TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        or (at_the_top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def knows(path: Path, *names: str) -> list[str]:
    return [found for found in imports(path) if any(found == name or found.startswith(f"{name}.") for name in names)]


@pytest.mark.parametrize("path", modules(*CORE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_core_imports_no_airflow(path: Path) -> None:
    assert not knows(path, "airflow")


@pytest.mark.parametrize("path", modules("transform"), ids=lambda path: path.name)
def test_the_transformation_knows_neither_network_nor_store(path: Path) -> None:
    ours = [f"balance_bridge.{room}" for room in ("transport", "store", "extract", "load", "hooks", "operators")]
    assert not knows(path, "requests", "urllib3", *ours)


@pytest.mark.parametrize("path", modules("extract"), ids=lambda path: path.name)
def test_a_source_knows_no_destination(path: Path) -> None:
    assert not knows(path, "balance_bridge.load", "balance_bridge.sandbox")


@pytest.mark.parametrize("path", modules("load"), ids=lambda path: path.name)
def test_a_destination_knows_no_source(path: Path) -> None:
    assert not knows(path, "balance_bridge.extract", "balance_bridge.transform", "balance_bridge.sandbox")


@pytest.mark.parametrize("path", modules("sandbox"), ids=lambda path: path.name)
def test_the_sandbox_shares_no_code_with_what_it_judges(path: Path) -> None:
    allowed = ("balance_bridge.sandbox", "balance_bridge.clock")
    assert not [found for found in knows(path, "balance_bridge") if not found.startswith(allowed)]


@pytest.mark.parametrize(
    "path",
    [*modules("accounts", "operators", "settings", "provider", "errors", "points", "dag_docs"),
     PROJECT / "dags" / "account_balances.py"],
    ids=lambda path: path.name,
)  # fmt: skip
def test_what_a_dag_file_pulls_in_is_light(path: Path) -> None:
    assert not [found for found in imports(path, at_the_top=True) if found.split(".")[0] in HEAVY]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [each.arg for each in every if each is not None and each.arg not in ("self", "cls")]


def test_no_function_has_more_than_six_parameters_or_seventy_lines() -> None:
    longer = {
        f"{path.relative_to(PACKAGE)}: {function.name}"
        for path in PACKAGE.rglob("*.py")
        for function in functions(path)
        if len(parameters(function)) > MAX_PARAMETERS
        or (function.end_lineno or 0) - function.lineno >= MAX_FUNCTION_LINES
    }
    assert longer == set()


def test_whatever_the_package_defines_it_uses() -> None:
    texts = [path.read_text() for path in (*PACKAGE.rglob("*.py"), PROJECT / "dags" / "account_balances.py")]
    others = [path.read_text() for path in (*PACKAGE.rglob("*.html"), PROJECT / "pyproject.toml")]
    used = Counter(re.findall(r"\w+", "\n".join([*texts, *others])))
    defined = {
        node.name if isinstance(node, FUNCTION_OR_CLASS) else node.id
        for text in texts
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, FUNCTION_OR_CLASS) and not {ast.unparse(each) for each in node.decorator_list} - OWN)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    unused = {name for name in defined if used[name] == 1 and not name.startswith("__") and name != "_"}
    assert unused <= USED_ELSEWHERE


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-bootstrap.lock"])
def test_a_lock_has_hashes_and_no_address(name: str) -> None:
    text = (PROJECT / name).read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    assert pins
    assert all(line.endswith("\\") for line in pins), "a pin without a hash"
    assert "://" not in text
    assert "--index" not in text


def test_every_declared_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[\[>=;]", text)[0].strip().lower() for text in declared}
    pinned = {line.split("==")[0] for line in (PROJECT / "requirements.lock").read_text().splitlines() if "==" in line}
    assert names <= pinned
