"""The layering: each folder imports only what stands on its line, and stages meet only through files."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMON = {"numpy", "yaml", "workflow.common"}
SHOWN = {"evaluation.report", "evaluation.rank", "evaluation.price"} | {
    f"evaluation.{name}" for name in ("scores", "standings", "intervals")
}
PAGE = (
    *("page", "page_tables", "contents", "headline", "leaders", "cards", "published_cards", "charts"),
    "picture_sheets", "mark_names", "single_value",
)
BELOW = ("release", "rng", "partition", "optimisers", "speed", "accounting", "privacy")


def core(*names: str) -> set[str]:
    return {f"methods.core.{name}" for name in names}


# Longest match wins. Standard library and the listed names, with their submodules, are allowed; nothing else.
LAYERS: dict[str, set[str]] = {
    "workflow/common": COMMON,
    "workflow/common/torchvision_guard.py": {"torch"},
    "workflow/common/torch_threads.py": COMMON | {"torch"},
    "workflow/datasets": COMMON | {"workflow.datasets", "torchvision", "PIL", "sklearn", "tqdm"},
    "workflow": COMMON | {"workflow.progress", "packaging"},
    "workflow/progress.py": COMMON | {"workflow.schedule"},
    "workflow/dataset_entries.py": COMMON | {"workflow.overrides"},
    "workflow/merging.py": COMMON
    | {"workflow.overrides", "workflow.dataset_entries", "workflow.grid_values", "workflow.schema_words", "jsonschema"}
    | {"workflow.reproducible"},
    "workflow/reproducible.py": COMMON | {"workflow.overrides", "workflow.grid_values"},
    "workflow/own_content.py": COMMON | {"workflow.dataset_entries", "workflow.datasets.own"},
    "workflow/source_content.py": COMMON | {"workflow.datasets", "workflow.own_content"},
    "workflow/grid.py": COMMON | {"workflow.overrides"},
    "workflow/run_list.py": COMMON | {"workflow.grid"},
    "workflow/external_runs.py": COMMON | {"workflow.own_content", "workflow.grid"},
    "workflow/calls.py": COMMON | {"snakemake", "workflow.cluster", "workflow.fork_server"},
    "workflow/snakemake.py": COMMON | {"snakemake", "workflow.invocation"},
    "workflow/origins.py": COMMON | {"workflow.merging", "workflow.overrides"},
    "workflow/changed_settings.py": COMMON
    | {"workflow.grid", "workflow.merging", "workflow.origins", "workflow.overrides"},
    "workflow/presets.py": COMMON
    | {"workflow.changed_settings", "workflow.external_runs"}
    | {"workflow.grid", "workflow.merging", "workflow.overrides"},
    # Drives all stages by their commands, and asks for no more of them than what a method's settings may be and cost.
    "workflow/tune": COMMON
    | {"workflow.tune", "workflow.presets", "workflow.merging", "workflow.grid", "workflow.datasets.sources"}
    | core("registry"),
    "workflow/tune/choose.py": COMMON | {"workflow.tune", "workflow.merging", "workflow.grid"} | core("registry"),
    "workflow/tune/price.py": COMMON
    | {"workflow.tune", "workflow.grid"}
    | core("accounting.calibration", "release", "runs.plan"),
    # From the ground floor up: what stands higher imports what stands lower, never the other way round.
    **{f"methods/core/{name}.py": COMMON | {"torch"} for name in ("release", "rng", "partition")},
    "methods/core/speed": COMMON | core("speed") | {"torch", "opacus"},
    "methods/core/optimisers.py": COMMON | core("speed") | {"torch"},
    "methods/core/accounting": COMMON | core("release", "accounting") | {"torch", "dp_accounting", "scipy"},
    "methods/core/privacy": COMMON | core("release", "speed", "accounting", "privacy") | {"torch", "opacus"},
    "methods/core/method.py": COMMON | core("release", "accounting", "privacy") | {"torch"},
    "methods/core/matching.py": core("method", "speed") | {"torch"},
    "methods/core/registry.py": COMMON | core("method"),
    "methods/core/sharded": COMMON | core(*BELOW, "method", "gaussians", "sharded") | {"torch", "safetensors", "tqdm"},
    "methods/core/gaussians": COMMON | core("release", "speed", "privacy", "gaussians") | {"torch"},
    "methods/core/scattering": COMMON | core("release", "speed", "privacy", "scattering") | {"torch"},
    "methods/core/teachers": COMMON | core(*BELOW, "method", "teachers") | {"torch"},
    "methods/core/runs": COMMON | core(*BELOW, "method", "registry", "runs") | {"torch", "safetensors", "tqdm"},
    "methods/core/released": COMMON
    | core("release", "method", "registry", "runs", "released")
    | {"torch", "safetensors", "PIL", "pyarrow"},
    "methods/core/audit": COMMON | core(*BELOW, "runs", "audit") | {"torch", "scipy"},
    "methods/core/runs/configured.py": COMMON
    | {"methods.core", "workflow.presets", "workflow.merging", "workflow.grid", "workflow.overrides"}
    | {"workflow.datasets.sources"},
    "methods/commands": COMMON | {"methods.core", "methods.commands", "torch"},
    "methods": COMMON | {"methods.core", "torch", "dp_accounting", "safetensors", "opacus", "tqdm"},
    "evaluation": COMMON
    | {"evaluation", "torch", "torchvision", "torch_fidelity", "sklearn", "threadpoolctl", "safetensors", "tqdm"},
    "evaluation/comparison": COMMON | {"evaluation.comparison", "evaluation.scores"},
    "evaluation/comparison/seeds.py": COMMON | {"evaluation.comparison", "scipy"},
    "evaluation/compare.py": COMMON | {"evaluation.comparison"},
    "evaluation/merge.py": COMMON | {"evaluation.scores", "jsonschema"},
    "evaluation/standings.py": COMMON | {"evaluation.scores", "evaluation.intervals", "scipy"},
    "evaluation/intervals.py": {"scipy"},
    "evaluation/price.py": COMMON | {"evaluation.scores", "evaluation.standings"},
    "evaluation/rank.py": COMMON
    | {"evaluation.scores", "evaluation.standings", "evaluation.intervals", "evaluation.price"},
    "evaluation/report": COMMON | {"evaluation.report", "evaluation.scores", "evaluation.intervals", "matplotlib"},
    "evaluation/report/claims.py": COMMON | {"evaluation.standings"},
    **{f"evaluation/report/{name}.py": COMMON
       | {"evaluation.report", "evaluation.scores", "evaluation.standings", "evaluation.intervals", "matplotlib"}
       for name in ("plot_parts", "row_plots", "score_plots")},
    "evaluation/report/frontier.py": COMMON | {"evaluation.report", "evaluation.scores", "evaluation.standings"},
    **{f"evaluation/report/{name}.py": COMMON | SHOWN | {"scipy", "PIL", "jinja2", "markupsafe"} for name in PAGE},
    "docs/make": COMMON
    | {"docs.make", "methods.core.registry", "evaluation.scores", "evaluation.intervals", "evaluation.report"},
    "docs/make/site_links.py": {"mkdocs"},
    "docs/make/chosen_lines.py": {"methods.core.registry", "workflow.presets", "workflow.datasets.sources"},
    "docs/make/older_rows.py": {
        "methods.core.registry", "workflow.grid", "workflow.presets", "workflow.datasets.sources"
    },
    # The one command line: above all stages, which know nothing of it.
    "dpbench": COMMON | {"dpbench", "workflow", "methods", "evaluation", "torch", "shtab"},
    "benchmarks": COMMON | {"benchmarks", "methods", "torch", "matplotlib", "tqdm"},
    "benchmarks/distances.py": COMMON | {"evaluation", "torch"},
    "benchmarks/arithmetic.py": {"numpy", "scipy", "sklearn", "torch"},
    "benchmarks/bit_for_bit.py": COMMON | {"benchmarks", "evaluation.comparison"},
    "benchmarks/power.py": COMMON | {"evaluation.comparison", "evaluation.scores"},
    "benchmarks/peers.py": COMMON | {"benchmarks", "methods", "torch", "tqdm"},
    "benchmarks/clipped_sums.py": {"methods.core.speed", "torch", "opacus"},
    "benchmarks/opacus_layout.py": COMMON | {"methods.core.speed", "torch", "opacus"},
    "benchmarks/peer_fidelity.py": COMMON | {"evaluation", "torch", "torch_fidelity"},
    "benchmarks/time_to_quality.py": COMMON | {"benchmarks", "methods", "evaluation", "torch"},
    "benchmarks/evaluation_noise.py": COMMON | {"methods", "evaluation", "torch"},
    "benchmarks/gpu_rows.py": COMMON
    | {"methods.core.registry", "workflow.presets", "workflow.grid", "workflow.datasets.sources"},
    "benchmarks/hair_folders.py": COMMON | {"workflow.datasets.celeba", "PIL"},
    "benchmarks/textbook.py": {"torch", "benchmarks.textbook_nets"},
    "benchmarks/textbook_nets.py": {"torch"},
}
FOLDERS = ("workflow", "methods", "evaluation", "benchmarks", "dpbench", "docs")
FILES = sorted(path for top in FOLDERS for path in (ROOT / top).rglob("*.py"))


def layer(path: Path) -> set[str]:
    relative = path.relative_to(ROOT).as_posix()
    return LAYERS[max((key for key in LAYERS if relative == key or relative.startswith(key + "/")), key=len)]


def imported(path: Path) -> set[str]:
    """Returns the dotted names of all modules a file imports, also inside functions."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            # `from workflow import common` imports workflow.common: the alias decides.
            packages = (ROOT / module.replace(".", "/")).is_dir()
            names |= {f"{module}.{alias.name}" if packages else module for alias in node.names}
    return names


def forbidden(path: Path) -> set[str]:
    allowed = layer(path)
    standard = set(sys.stdlib_module_names)
    return {
        name for name in imported(path)
        if name.split(".")[0] not in standard and not any(name == ok or name.startswith(ok + ".") for ok in allowed)
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_stay_in_their_layer(path: Path) -> None:
    assert forbidden(path) == set()


def test_the_rooms_of_core_are_named_and_nothing_else_stands_in_the_corridor() -> None:
    """Files in methods/core itself are what every method sees; all else has a room."""
    files = {path.stem for path in (ROOT / "methods/core").glob("*.py")} - {"__init__"}
    assert files == {"matching", "method", "registry", "release", "optimisers", "rng", "partition"}
    rooms = {path.parent.name for path in (ROOT / "methods/core").glob("*/*.py")}
    assert rooms == {
        "privacy", "accounting", "runs", "sharded", "teachers", "gaussians", "scattering", "audit", "speed", "released",
    }  # fmt: skip
    assert {path.stem for path in (ROOT / "methods").glob("_*.py")} == {"__init__", "__main__"}


def test_modules_are_loaded_by_name_in_three_places_alone() -> None:
    """A method by the registry, a verb by the command line, and libraries ahead of the steps that need them.

    Elsewhere an import would pass the layers unseen.
    """
    users = {path.relative_to(ROOT).as_posix() for path in FILES if "import_module" in path.read_text()}
    assert users == {"workflow/common/verbs.py", "methods/core/registry.py", "workflow/fork_server.py"}


def test_no_file_is_long() -> None:
    assert [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) >= 350] == []


def test_no_two_files_have_names_that_differ_by_an_ending() -> None:
    tests = (path for path in (ROOT / "tests").rglob("*.py") if path.stem != "conftest")
    stems = {path.stem for path in (*FILES, *tests)}
    assert [(one, other) for one in stems for other in stems if re.fullmatch(f"{one}[a-z]{{1,6}}", other)] == []


def test_a_plan_passes_from_training_to_the_ledger_through_few_files_and_as_a_type() -> None:
    """The command reads it (arguments, plan), `train` opens the ledger with it; none takes its JSON but the class."""
    way = ["commands/train.py", "commands/arguments.py", "core/runs/plan.py", "core/runs/train.py"]
    texts = [(ROOT / "methods" / name).read_text(encoding="utf-8") for name in way]
    assert "read_plan(" in texts[0] and "Plan.from_dict(" in texts[1] and "train(" in texts[0]
    assert "Ledger.open(ledger_path, plan.releases, plan.budget" in texts[3]
    takers = [path for path in FILES if re.search(r"\w*plan\w*: (dict|Mapping)", path.read_text(encoding="utf-8"))]
    assert takers == []


def test_evaluation_does_not_reach_up_into_the_report() -> None:
    for path in (ROOT / "evaluation").glob("*.py"):
        assert not [name for name in imported(path) if name.startswith("evaluation.report")], path.name


@pytest.mark.parametrize(
    ("file", "line", "names"),
    [
        ("methods/x.py", "from methods.dpac import Dpac", {"methods.dpac"}),
        ("methods/core/runs/x.py", "from methods import dpac", {"methods.dpac"}),
        ("methods/core/privacy/x.py", "from methods.core.runs import train", {"methods.core.runs.train"}),
        ("methods/core/speed/x.py", "from methods.core.sharded.nets import Critic", {"methods.core.sharded.nets"}),
        ("methods/core/x.py", "from methods.commands import run", {"methods.commands.run"}),
        ("methods/x.py", "from methods.commands.run import slot", {"methods.commands.run"}),
        ("evaluation/report/x.py", "from evaluation.fidelity import metrics", {"evaluation.fidelity"}),
        ("methods/x.py", "def f():\n    import workflow.datasets.mnist", {"workflow.datasets.mnist"}),
        ("evaluation/x.py", "from methods.core import nets", {"methods.core.nets"}),
        ("evaluation/report/x.py", "import torch", {"torch"}),
        ("workflow/common/x.py", "from torch import nn", {"torch"}),
        ("methods/core/runs/x.py", "from benchmarks import textbook", {"benchmarks.textbook"}),
        ("benchmarks/textbook.py", "from methods.core import nets", {"methods.core.nets"}),
        ("workflow/datasets/x.py", "from workflow.common.errors import UserError", set()),
    ],
)
def test_the_check_sees_a_forbidden_import(tmp_path: Path, monkeypatch, file: str, line: str, names: set[str]) -> None:
    for folder in (key for key in LAYERS if not key.endswith(".py")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert forbidden(tmp_path / file) == names
