"""Mutation testing of weights and scores: one changed operator, bound or number at a time.

A mutant is killed when a test fails. `python -m benchmarks.mutation_testing [MODULE...]` prints the
survivors and ends with 1 below 85 % of a module; `MUTANTS_EVERY=5` takes every fifth. Mutants in
EQUAL change no answer, so that no test can kill them: they count as alive, marked as equal.
"""

import ast
import copy
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np  # noqa: F401  # here and once: every mutant is a fork of this process
import pytest
import scipy.special
import scipy.stats  # noqa: F401
from hypothesis import HealthCheck, Phase, settings

TESTS = {
    "weighting": ("test_weighting", "test_weighting_methods", "test_hierarchical_parity"),
    "composite": ("test_composite", "test_scoring", "test_moments"),
    "historical_moments": ("test_moments", "test_composite"),
    "engine": ("test_scoring", "test_back_scoring"),
}


def _path(module: str) -> Path:
    return next(Path("app").glob(f"*/domain/{module}.py"))


def _name(module: str) -> str:
    return ".".join(_path(module).with_suffix("").parts)


def _tests(name: str) -> str:
    return str(next(Path("tests").glob(f"*/domain/{name}.py")))


# By module, a part of the line, and change: why no answer is another one.
EQUAL = (
    ("weighting", "moved >= _EXACT", "GtE -> Gt", "a sweep more, where a dozen suffice"),
    ("weighting", "_SWEEPS: Final", "500 -> 501", "a sweep more, where a dozen suffice"),
    ("weighting", "np.ones(max(len(rows)", "0 -> 1", "of no bars at all nobody has any"),
    ("weighting", "shares / before", "Sub -> Add", "all sweeps, where a dozen suffice"),
    ("weighting", "shares / before", "Div -> Mult", "all sweeps, where a dozen suffice"),
    ("weighting", "shares / before", "1.0 -> 2.0", "all sweeps, where a dozen suffice"),
    ("weighting", "if q > 0.0 else", "Gt -> GtE", "both roots are the same at zero"),
    ("weighting", "raw_share(one.z, 1.0,", "1.0 -> 2.0", "all in proportion"),
    ("weighting", "raw_share(0.0, one.vol", "0.0 -> 1.0", "a score of 0 times any tilt"),
    (
        "weighting",
        "correlation) / 2.0",
        "Div -> Mult",
        "the same tree, all in proportion",
    ),
    ("weighting", "correlation) / 2.0", "2.0 -> 3.0", "the same tree, all in proportion"),
    ("weighting", "(2 * size, 2 * size)", "2 -> 3", "room that nothing stands in"),
    ("weighting", "1.0 - correlation", "1.0 -> 2.0", "every square grows by the same"),
    ("weighting", "/ shares.sum()", "Div -> Mult", "they add up to one before"),
    ("weighting", "1.0 / np.diag(inner)", "1.0 -> 2.0", "all in proportion"),
    ("weighting", "value > 0.0 else Fraction(0)", "Gt -> GtE", "zero is zero both ways"),
    (
        "weighting",
        "filled(breaks[middle])",
        "LtE -> Lt",
        "the same line from its other end",
    ),
    ("composite", "family_share > 0.0,", "Gt -> GtE", "zero is zero both ways"),
    (
        "composite",
        "np.isfinite(linear) &",
        "BitAnd -> BitOr",
        "an unranked family counts nowhere",
    ),
    ("composite", "coverage >= LEAST", "GtE -> Gt", "sums of weights do not end just there"),
    ("composite", "completeness >= LEAST", "GtE -> Gt", "sums of weights do not end just there"),
    ("composite", "totals > 0.0, totals", "1.0 -> 2.0", "no weight, divided by whatever"),
    ("composite", "(share > 0.0).any", "Gt -> GtE", "what has no weight covers nothing"),
    ("composite", "> 1e-9:", "Gt -> GtE", "sums of weights do not end just there"),
    ("composite", "(weight.sum() or 1.0)", "1.0 -> 2.0", "no weight, divided by whatever"),
)
LEAST = 0.85
PATIENCE_S = 120  # of the processor: a mutant that takes so much does not end, and is killed
AT_ONCE = 2
_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    line: int
    change: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of the source; names of types, texts and declarations stay."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    silent = {id(one) for node in nodes for one in _annotations(node)}
    for place, node in enumerate(nodes):
        if id(node) in silent:
            continue
        for change in _changes(node):
            other = copy.deepcopy(tree)
            twin = list(ast.walk(other))[place]
            said = change(twin)
            line = getattr(node, "lineno", 0)
            yield Mutant(line, said, ast.fix_missing_locations(other))


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    """Types and decorators, and `strict=` of a zip, which only checks lengths."""
    if isinstance(node, ast.keyword) and node.arg == "strict":
        yield node.value
    for name in ("annotation", "returns"):
        found = getattr(node, name, None)
        if isinstance(found, ast.AST):
            yield from ast.walk(found)
    for one in getattr(node, "decorator_list", ()):
        yield from ast.walk(one)


def _changes(node: ast.AST) -> list:
    found: list = []
    operator = getattr(node, "op", None)
    if type(operator) in _OPERATORS and not isinstance(node, ast.UnaryOp):
        found.append(_operator)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
        found.append(_comparison)
    if isinstance(node, ast.IfExp | ast.If | ast.While):
        found.append(_negation)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        found.append(_number)
    return found


def _operator(node: ast.AST) -> str:
    before, node.op = node.op, _OPERATORS[type(node.op)]()
    return f"{type(before).__name__} -> {type(node.op).__name__}"


def _comparison(node: ast.AST) -> str:
    before, node.ops[0] = node.ops[0], _OPERATORS[type(node.ops[0])]()
    return f"{type(before).__name__} -> {type(node.ops[0]).__name__}"


def _negation(node: ast.AST) -> str:
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return "the other way round"


def _number(node: ast.AST) -> str:
    before = node.value
    node.value = not before if isinstance(before, bool) else before + 1
    return f"{before} -> {node.value}"


class _Changed(MetaPathFinder, Loader):
    """Import loader that gives the mutant in place of the module."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.tree = name, tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, self.name, "exec"), module.__dict__)  # noqa: S102  # our own code


def _begin(module: str, mutant: Mutant | None) -> int:
    """Starts a process that ends with 0 if every test passes."""
    child = os.fork()
    if child:
        return child
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    if mutant is not None:  # the tests themselves may take longer than a mutant
        signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)
        sys.meta_path.insert(0, _Changed(_name(module), mutant.tree))
    # A mistake that was found need not be made small, and a slow example is none.
    settings.register_profile(
        "mutants",
        phases=(Phase.explicit, Phase.generate),
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")
    files = [_tests(name) for name in TESTS[module]]
    plain = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:schemathesis", "--noconftest"]
    plain += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is here already
    status = 3
    try:
        status = pytest.main(["-x", "-q", "-o", "addopts=", "-m", "not long", *plain, *files])
    finally:
        os._exit(int(status))


def survivors(module: str) -> tuple[int, list[Mutant]]:
    """Number of mutants, and those that no test killed."""
    source = _path(module).read_text(encoding="utf-8")
    _, status = os.waitpid(_begin(module, None), 0)
    if status:
        sys.exit(f"mutants: the tests of {module} fail without any change")
    running: dict[int, Mutant] = {}
    alive: list[Mutant] = []
    count = 0

    def end_one() -> None:
        child, status = os.wait()
        mutant = running.pop(child)
        if status == 0:
            alive.append(mutant)

    every = int(os.environ.get("MUTANTS_EVERY", "1"))
    for mutant in islice(mutants(source), 0, None, every):
        while len(running) >= AT_ONCE:
            end_one()
        running[_begin(module, mutant)] = mutant
        count += 1
    while running:
        end_one()
    return count, sorted(alive, key=lambda one: one.line)


def equal(module: str, line: str, change: str) -> str:
    """Reason why a mutant gives the same answers; empty for a real survivor."""
    for where, part, what, why in EQUAL:
        if where == module and part in line and what == change:
            return f"  (equal: {why})"
    return ""


def main() -> int:
    """0 if every module reaches its share."""
    short = everything = left = 0
    for module in sys.argv[1:] or TESTS:
        count, alive = survivors(module)
        share = 1.0 - len(alive) / count
        short += share < LEAST
        everything, left = everything + count, left + len(alive)
        sys.stdout.write(f"{module:20} {count:4} mutants, {share:6.1%} killed\n")
        lines = _path(module).read_text(encoding="utf-8").splitlines()
        for one in alive:
            said = equal(module, lines[one.line - 1], one.change)
            sys.stdout.write(f"    {_path(module)}:{one.line}: {one.change}{said}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{'all':20} {everything:4} mutants, {1.0 - left / everything:6.1%} killed\n")
    return int(short > 0)


if __name__ == "__main__":
    sys.exit(main())
