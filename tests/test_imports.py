"""Who may import whom (read from the sources, not by importing), and what no file of ldm/ may hold."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 20  # of a constructor; more are grouped, see ldm.flat_options
SOURCES = sorted((ROOT / "ldm").rglob("*.py"))

# part of ldm/ -> the parts that it may import, besides itself
MAY_IMPORT = {
    "targets": set(),
    "shipped": set(),
    "released": set(),
    "building": {"targets", "shipped"},
    "stopping": set(),
    "writing": {"building", "stopping"},
    "running": {"building", "stopping"},
    "util": {"targets", "shipped", "building", "running", "writing"},
    "arguments": {"util"},
    "flat_options": {"util"},
    "languages": {"util"},
    "texts": {"util"},
    "arrays": {"util"},
    "checkpoint": {"util", "shipped", "released", "runs"},
    "runs": {"util"},
    "run_metrics": set(),
    "lr_scheduler": {"util"},
    "seeds": {"util"},
    "finite": {"util"},
    "modules": {"util", "flat_options", "shipped", "released", "languages", "checkpoint", "arrays"},
    "additions": {"util", "runs", "languages", "checkpoint", "modules"},
    "control": {"util", "checkpoint", "modules"},
    "draws": set(),
    "moved": set(),
    "pictures": {"util", "draws", "arrays"},
    "world": {"util", "draws", "moved", "arrays", "languages", "pictures", "texts"},
    "data": {"util", "draws", "arrays", "languages", "pictures", "texts"},
    "models": {"util", "moved", "targets", "flat_options", "checkpoint", "modules", "additions", "control"},
    "metrics": {"util", "shipped", "released", "checkpoint", "modules", "models", "pictures", "world"},
    "training": {
        "util",
        "arguments",
        "shipped",
        "stopping",
        "seeds",
        "finite",
        "runs",
        "released",
        "run_metrics",
        "checkpoint",
        "data",
        "additions",
        "pictures",
    },
    "workflows": {
        "util",
        "draws",
        "moved",
        "seeds",
        "finite",
        "shipped",
        "released",
        "runs",
        "run_metrics",
        "languages",
        "texts",
        "checkpoint",
        "modules",
        "additions",
        "control",
        "models",
        "metrics",
        "data",
        "pictures",
        "world",
    },
    "web": {"util", "shipped", "languages", "pictures", "run_metrics", "workflows"},
    "commands": {"arguments", "running", "stopping", "util", "additions", "training", "workflows", "web"},
}
# pure re-exports under public names: imports and __all__, nothing else; who may import whom does not hold for them
RE_EXPORTS = {
    "models/diffusion/ddim.py",
    "models/diffusion/dpm_solver.py",
    "models/diffusion/plms.py",
    "modules/embedding_manager.py",
    "workflows/invert.py",
    "workflows/styleid.py",
    "workflows/styleid_plan.py",
    "workflows/stylise.py",
}
CONTROL_SEES = (  # of the modules, only the seams and the levels
    "ldm.modules.attention",
    "ldm.modules.diffusionmodules.levels",
    "ldm.modules.diffusionmodules.resblock",
)
TAMING = ("modules/losses/", "models/first_stage.py")
OLD_CONDITIONS = (".get_learned_conditioning", ".get_unconditional_conditioning", "cond_stage_model.encode")
LIGHTNING = ("models/", "training/")


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, wherever in the file, relative imports resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def inside(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def complaints(path: str, source: str) -> list[str]:
    """What is wrong in one file of ldm/, ``path`` counted from there."""
    part = path.split("/")[0].removesuffix(".py")
    package = ".".join(["ldm", *path.split("/")[:-1]])
    tree = ast.parse(source)
    found = []
    for line, name in imports(tree, package):
        where = f"ldm/{path}:{line} imports {name}"
        target = name.split(".")[1] if inside(name, "ldm") and "." in name else None
        known = MAY_IMPORT.get(part, set())
        below = {part, *known, *({"building"} if "util" in known else ())}
        if target is not None and target not in below and path not in RE_EXPORTS:
            found.append(f"{where}: {part} may import {', '.join(sorted(MAY_IMPORT[part])) or 'nothing of ldm'}")
        if part == "control" and target == "modules" and not any(inside(name, seen) for seen in CONTROL_SEES):
            found.append(f"{where}: control may import {', '.join(CONTROL_SEES)} of the modules")
        if inside(name, "taming") and not path.startswith(TAMING):
            found.append(f"{where}: taming is for {', '.join(TAMING)}")
        if any(inside(name, pl) for pl in ("pytorch_lightning", "lightning")) and not path.startswith(LIGHTNING):
            found.append(f"{where}: Lightning is for {', '.join(LIGHTNING)}")
        if name.split(".")[0] in ("pickle", "dill", "cloudpickle", "joblib") and part != "checkpoint":
            found.append(f"{where}: weight files are opened in ldm/checkpoint only")
        if inside(name, "torchvision"):
            found.append(f"{where}: torchvision is not a requirement")
        if inside(name, "main") or name.split(".")[0] in ("scripts", "benchmarks", "tests"):
            found.append(f"{where}: a library does not import its commands")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            where = f"ldm/{path}:{node.lineno} calls {call}"
            if call == "print" and part != "commands":
                found.append(f"{where}: use logging")
            if call in ("torch.load", "torch.save") and part != "checkpoint":
                found.append(f"{where}: weight files are opened and written in ldm/checkpoint only")
            if call.endswith(OLD_CONDITIONS) and not path.startswith("models/diffusion/"):
                found.append(f"{where}: a condition comes from model.condition and model.unconditional")
            if call.endswith(".cuda"):
                found.append(f"{where}: say .to(device)")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            given = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - 1
            if node.name == "__init__" and given > MOST_PARAMETERS:
                found.append(f"ldm/{path}:{node.lineno}: a constructor of {given} parameters")
            if lines > LONGEST_FUNCTION:
                found.append(f"ldm/{path}:{node.lineno}: {node.name} has {lines} lines, more than {LONGEST_FUNCTION}")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"ldm/{path}:{node.lineno}: a bare except hides every error")
    if source.count("\n") > LONGEST_FILE:
        found.append(f"ldm/{path}: {source.count(chr(10))} lines, more than {LONGEST_FILE}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_keeps_the_rules(path: Path) -> None:
    wrong = complaints(path.relative_to(ROOT / "ldm").as_posix(), path.read_text())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source", "what"),
    [
        ("modules/a.py", "from ldm.models.autoencoder import AutoencoderKL", "modules may import"),
        ("modules/a/b.py", "from ...control import style", "modules may import"),
        ("modules/a.py", "def f():\n    import ldm.workflows.txt2img", "modules may import"),
        ("modules/a.py", "from ldm import control", "modules may import"),
        ("control/a.py", "from ldm.modules.ema import LitEma", "control may import"),
        ("training/a.py", "from ldm.models.diffusion.ddpm import DDPM", "training may import"),
        ("data/a.py", "from ldm.checkpoint import read_state_dict", "data may import"),
        ("models/diffusion/ddpm.py", "import taming.modules.vqvae", "taming is for"),
        ("workflows/a.py", "import pytorch_lightning as pl", "Lightning is for"),
        ("models/a.py", "import pickle", "ldm/checkpoint only"),
        ("models/a.py", "x = torch.load('a.ckpt')", "ldm/checkpoint only"),
        ("models/a.py", "from main import ImageLogger", "commands"),
        ("util.py", "print('hello')", "use logging"),
        ("workflows/a.py", "c = model.get_learned_conditioning([''])", "model.condition"),
        ("modules/a.py", "x = model.cuda()", "say .to(device)"),
        ("modules/a.py", "try:\n    f()\nexcept:\n    pass", "bare except"),
        ("modules/a.py", "\n" * (LONGEST_FILE + 1), "lines, more than"),
        ("modules/a.py", f"def __init__(self, {', '.join('abcdefghijklmnopqrstu')}): pass", "a constructor of 21"),
        ("modules/a.py", "def f():\n" + "    pass\n" * LONGEST_FUNCTION, "f has 61 lines"),
    ],
)
def test_each_rule_is_seen_to_be_broken(path: str, source: str, what: str) -> None:
    assert any(what in complaint for complaint in complaints(path, source))


def test_what_is_allowed_is_not_complained_about() -> None:
    assert not complaints("models/first_stage.py", "import taming.modules.vqvae\nfrom ldm.modules import ema\n")
    assert not complaints("control/a.py", "from ldm.modules.attention import CrossAttention\n")
    assert not complaints("modules/a/b.py", "from . import c\nfrom ..d import e\n")


def modules_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """Module -> the modules of ``sources`` that it imports, anywhere in its file, for type checkers too."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        package = module.removesuffix(".__init__") if module.endswith(".__init__") else module.rpartition(".")[0]
        found = set()
        for _, name in imports(ast.parse(source), package):
            parts = name.split(".")
            prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
            known = next((p + end for p in prefixes for end in ("", ".__init__") if p + end in sources), None)
            found |= {known} if known not in (None, module) else set()
        graph[module] = {name for name in found if name is not None}
    return graph


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The modules that lead back to themselves, each with a way that does."""
    found = []
    for start in sorted(graph):
        ways = {name: f"{start} -> {name}" for name in graph[start]}
        waiting = list(ways)
        while waiting and start not in ways:
            here = waiting.pop()
            for there in graph[here] - set(ways):
                ways[there] = f"{ways[here]} -> {there}"
                waiting.append(there)
        found += [ways[start]] if start in ways else []
    return found


def test_no_circles() -> None:
    sources = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in SOURCES}
    found = circles(modules_of(sources))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "back",
    [
        "from ldm.a import x",
        "from . import a",
        "def f():\n    import ldm.a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ldm.a import x",
    ],
)
def test_a_circle_is_seen(back: str) -> None:
    sources = {"ldm.a": "from ldm.b import y", "ldm.b": "from ldm.c.d import z", "ldm.c.__init__": "", "ldm.c.d": ""}
    assert not circles(modules_of(sources))
    deeper = back.replace("from . ", "from .. ")
    for module in ("ldm.b", "ldm.c.d"):
        found = circles(modules_of({**sources, module: back if module == "ldm.b" else deeper}))
        assert any(way.startswith("ldm.a -> ") and way.endswith(" -> ldm.a") for way in found)


@pytest.mark.parametrize("path", sorted(RE_EXPORTS))
def test_a_re_export_is_nothing_else(path: str) -> None:
    assert not more_than_a_re_export((ROOT / "ldm" / path).read_text())


def more_than_a_re_export(source: str) -> list[str]:
    """The statements that are no imports, no ``__all__`` and no docstring."""
    body = ast.parse(source).body
    docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    statements = body[1:] if docstring else body
    plain = (ast.Import, ast.ImportFrom)
    return [
        text for text, node in ((ast.unparse(n), n) for n in statements)
        if not isinstance(node, plain) and not text.startswith("__all__ = ")
    ]  # fmt: skip


def test_more_than_a_re_export_is_seen() -> None:
    assert not more_than_a_re_export('"""A name."""\nfrom a import b\n\n__all__ = ["b"]\n')
    assert more_than_a_re_export('from a import b\n\ndef c():\n    return b\n')


def test_every_part_is_known() -> None:
    parts = {path.relative_to(ROOT / "ldm").parts[0].removesuffix(".py") for path in SOURCES}
    assert parts - {"__init__"} <= set(MAY_IMPORT)


def test_commands_ask_for_conditions_as_workflows_do() -> None:
    for path in [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        assert not [old for old in OLD_CONDITIONS if f"{old}(" in path.read_text()], path


VARIANTS = ("stable-diffusion/v2-inpainting-inference", "stable-diffusion/x4-upscaling")
# to import; no picture needs them
SLOW = ("pytorch_lightning", "scipy", "kornia", "torchmetrics", "skimage", "matplotlib", "torch._dynamo")
BUILT = f"""
import json, sys
from ldm.checkpoint.unfilled import without_values
from ldm.models.hooks import without_lightning
from ldm.util import instantiate_from_config, read_yaml
from omegaconf import OmegaConf
found = []
def note():
    found.append([name for name in {SLOW} if name in sys.modules])
for name in {VARIANTS}:
    node = without_lightning(OmegaConf.to_container(read_yaml(f"configs/{{name}}.yaml").model, resolve=True))
    with without_values():
        instantiate_from_config(node)
    note()
import ldm.workflows.txt2img, ldm.workflows.restyle.styleid
from ldm.workflows.models import open_model
open_model()
note()
print(json.dumps(found))
"""


def test_models_are_built_and_opened_without_what_only_training_and_measuring_need() -> None:
    """Importing Lightning, kornia or torch's compiler takes seconds that whoever makes one picture would wait for."""
    result = subprocess.run([sys.executable, "-c", BUILT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [[], [], []], (*VARIANTS, "open_model()")
