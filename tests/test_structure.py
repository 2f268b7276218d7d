"""The floor plan of CONTRIBUTING.md, held against the imports of the code."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from tests.conftest import ROOT

STOREYS = ("rod", "callbacks", "llm_modules", "datamodules")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for storey in STOREYS
    for path in sorted((ROOT / storey).rglob("*.py"))
}


def floor_plan() -> dict[str, set[str]]:
    """Room -> rooms that it may import, from CONTRIBUTING's table."""
    plan: dict[str, set[str]] = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            allowed = {name for name in cells[2].replace("`", "").replace(",", " ").split() if name != "nothing"}
            plan |= {name.strip("`,"): allowed for name in cells[0].split()}
    return plan


def room_of(module: str, rooms: set[str]) -> str:
    """The innermost room that a module is in: its folder, or itself if the table names the file."""
    path = module.replace(".", "/")
    found = max((room for room in rooms if f"{path}/".startswith(f"{room.removesuffix('.py')}/")), key=len, default="")
    assert found, f"{path}.py is in no room of CONTRIBUTING's table"
    return found


def imports(module: str) -> Iterator[str]:
    """Modules of the project that a module imports, lazily or for type checks too."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else node.module for name in names]
        yield from (name for name in names if name in FILES and name != module)


GRAPH = {module: set(imports(module)) for module in FILES}
EVERYONES = "datamodules.errors"


def between_rooms(rooms: set[str]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(room, imported room) -> imports of a module by a module; what every file may import is left out."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for module, others in GRAPH.items():
        for other in others - {EVERYONES}:
            pair = room_of(module, rooms), room_of(other, rooms)
            if pair[0] != pair[1]:
                found.setdefault(pair, []).append((module, other))
    return found


def test_every_import_is_one_that_the_table_allows() -> None:
    plan = floor_plan()
    broken = sorted(
        f"{module} -> {other}"
        for (here, there), pairs in between_rooms(set(plan)).items()
        for module, other in pairs
        if not plan[here] & {there, there.split("/")[0]}
    )
    assert not broken, "CONTRIBUTING's table does not allow: " + ", ".join(broken)


def test_the_table_allows_no_import_that_nobody_makes() -> None:
    plan = floor_plan()
    used = {(here, name) for here, there in between_rooms(set(plan)) for name in (there, there.split("/")[0])}
    unused = sorted(f"{here}: {name}" for here, names in plan.items() for name in names if (here, name) not in used)
    assert not unused, f"CONTRIBUTING's table allows imports that no file makes: {', '.join(unused)}"


def test_no_file_imports_itself_through_others() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def test_no_storey_imports_one_above_it() -> None:
    upward = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if STOREYS.index(other.split(".")[0]) < STOREYS.index(module.split(".")[0])
    ]
    assert not upward


def test_the_base_class_and_the_shared_rooms_know_no_method() -> None:
    methods = {path.parent.name for path in (ROOT / "llm_modules").glob("*/module.py")}
    assert {"s3cot", "mllr", "mogu", "crisp"} <= methods
    # Baselines reuse parts of methods, the miniature's world writes every method's data, and rod runs them all.
    free = ("llm_modules.baselines", "datamodules.world", "rod")
    known = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if not module.startswith(free) and not methods & set(module.split(".")) and methods & set(other.split("."))
    ]
    assert not known


def test_no_method_knows_another() -> None:
    methods = {path.parent.name for path in (ROOT / "llm_modules").glob("*/module.py")}
    known = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        for other in others
        if (mine := methods & set(module.split(".")))
        and methods & set(other.split(".")) - mine
        and not module.startswith("rod.")
    ]
    assert not known


def test_every_test_stands_where_its_subject_does() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder).is_dir()] == []
