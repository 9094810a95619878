"""Decisions compare rounded figures: which comparisons of floats the decision modules may hold."""

import ast
from collections.abc import Iterator
from pathlib import Path

APP = Path(__file__).resolve().parents[1] / "app"

# Modules that decide on members, weights, lots, verdicts, plans and alerts, or order boards.
DECISIONS = (
    "alerts/domain/models.py",
    "market/domain/data_quality.py",
    "market/domain/eligibility.py",
    "market/domain/price_quarantine.py",
    "operations/services/integrity.py",
    "performance/domain/replacement_outcomes.py",
    "performance/services/analytics.py",
    "portfolio/domain/candidate_selection.py",
    "portfolio/domain/lots.py",
    "portfolio/domain/proposals.py",
    "portfolio/domain/rebalance_plan.py",
    "portfolio/domain/replacement.py",
    "portfolio/domain/risk.py",
    "portfolio/domain/target_weights.py",
    "portfolio/domain/weighting.py",
    "portfolio/services/controls.py",
    "portfolio/services/decision_context.py",
    "portfolio/services/lot_plan.py",
    "portfolio/services/views.py",
    "portfolio/services/membership.py",
    "portfolio/services/queries.py",
    "portfolio/services/replacement.py",
    "portfolio/services/replacement_candidates.py",
    "scoring/domain/composite.py",
    "scoring/domain/engine.py",
    "scoring/domain/events.py",
    "scoring/domain/ranking.py",
    "scoring/domain/score_stability.py",
    "signals/domain/agents.py",
    "signals/domain/consensus.py",
    "signals/domain/outcomes.py",
    "signals/domain/sources.py",
    "signals/domain/technical_source.py",
    "signals/domain/track_record.py",
    "trading/domain/position_sizing.py",
    "trading/services/position_sizing.py",
    "trading/services/safety.py",
)
ROUNDERS = {"to_millionths", "all_to_millionths", "is_above", "to_significant"}
CHOOSERS = {"sorted", "min", "max", "argmin", "argmax", "argsort", "int", "floor", "ceil"}
SAFE = {*ROUNDERS, "round", "len", "bool", "isfinite", "rank"}  # their results are whole numbers
ALLOWED = {
    "market/domain/data_quality.py: 0.0 < low <= high": "prices as the exchange wrote them",
    "market/domain/data_quality.py: "
    "min(max(below, average / high - 1.0, 0.0), _MOST)": "limits a figure to its range",
    "market/domain/data_quality.py: age_s <= limit_s": "seconds of the clock",
    "market/domain/data_quality.py: "
    "np.maximum(series.open, series.close) <= series.high": "prices as the exchange wrote them",
    "market/domain/data_quality.py: "
    "np.minimum(series.open, series.close) >= series.low": "prices as the exchange wrote them",
    "portfolio/domain/weighting.py: "
    "max(raw_share(one.z, 1.0, one.tilt), _LEAST_BUDGET)": "limits a figure to its range",
    "portfolio/domain/weighting.py: min(noise, distance)": "limits a figure to its range",
    "signals/domain/agents.py: min(max(value, -bound), bound)": "limits a figure to its range",
    "signals/domain/agents.py: max(value, -bound)": "limits a figure to its range",
    "market/domain/data_quality.py: "
    "at - since >= rules.quote_divergence_after_s": "seconds of the clock",
    "portfolio/domain/weighting.py: exponent <= _MAX_EXPONENT": "keeps exp() from overflowing",
}


def _is_float(annotation: ast.expr | None) -> bool:
    if annotation is None:
        return False
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    return bool(names & {"float", "Floats"}) and not names & {"Callable", "Mapping", "dict"}


def _fields_by_kind() -> tuple[set[str], set[str]]:
    """Names of the float fields and properties of the domain's classes, and of all the others."""
    floats, others = set[str](), set[str]()
    for path in APP.glob("*/domain/**/*.py"):
        for owner in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for one in owner.body if isinstance(owner, ast.ClassDef) else []:
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                    (floats if _is_float(one.annotation) else others).add(one.target.id)
                if isinstance(one, ast.FunctionDef):
                    (floats if _is_float(one.returns) else others).add(one.name)
    return floats, others


FLOATS, _OTHERS = _fields_by_kind()
# A name that is also a count or an amount somewhere is judged only if it is listed here.
FIELDS = (FLOATS - _OTHERS) | {"score"}


def _floats(node: ast.AST, local: set[str]) -> Iterator[str]:
    """Names of floats in an expression that no rounding stands around."""
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called in SAFE:
            return
        if called in FIELDS:
            yield called
    if isinstance(node, ast.Compare):
        return  # is judged by itself
    if isinstance(node, ast.Attribute) and node.attr in FIELDS:
        yield node.attr
    if isinstance(node, ast.Name) and node.id in local:
        yield node.id
    for child in ast.iter_child_nodes(node):
        yield from _floats(child, local)


def _is_nil(node: ast.expr) -> bool:
    """Zero, which guards a division or asks whether a feature is on."""
    return isinstance(node, ast.Constant) and node.value == 0


def _locals(tree: ast.AST) -> dict[ast.AST, set[str]]:
    """By function: its parameters that are floats, and what they and float fields are put into."""
    found: dict[ast.AST, set[str]] = {}
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        every = [*owner.args.posonlyargs, *owner.args.args, *owner.args.kwonlyargs]
        names = {one.arg for one in every if _is_float(one.annotation)}
        for one in ast.walk(owner):
            if not isinstance(one, ast.Assign):
                continue
            target, value = one.targets[0], one.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            for name, said in pairs:
                is_value = isinstance(said, ast.Attribute | ast.BinOp | ast.Subscript)
                if isinstance(name, ast.Name) and is_value and any(_floats(said, names)):
                    names.add(name.id)
        found[owner] = names
    return found


def raw_comparisons(source: str) -> list[str]:
    """Comparisons and choices of a module that a float decides which nothing has rounded."""
    tree = ast.parse(source)
    wrong = list[str]()
    for owner, local in [(tree, set[str]()), *_locals(tree).items()]:
        for node in ast.walk(owner):
            parts: list[ast.expr] = []
            if isinstance(node, ast.Compare):
                pairs = zip(
                    node.ops, [node.left, *node.comparators], node.comparators, strict=False
                )
                for operator, left, right in pairs:
                    ordered = isinstance(
                        operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE | ast.Eq | ast.NotEq
                    )
                    if ordered and not (_is_nil(left) or _is_nil(right)):
                        parts += [left, right]
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                called = node.func.id if isinstance(node.func, ast.Name) else called
                values = [*node.args, *(keyword.value for keyword in node.keywords)]
                by = {ast.unparse(one.value) for one in node.keywords if one.arg == "key"}
                if (
                    called in CHOOSERS
                    and not by & ROUNDERS
                    and not any(_is_nil(one) for one in values)
                ):
                    parts += values
            if any(name for part in parts for name in _floats(part, local)):
                wrong.append(ast.unparse(node))
    return sorted(set(wrong))


def test_decisions_compare_and_order_only_what_is_rounded() -> None:
    found = [
        f"{name}: {one}"
        for name in DECISIONS
        for one in raw_comparisons((APP / name).read_text(encoding="utf-8"))
    ]
    assert [one for one in found if one not in ALLOWED] == []
    assert set(ALLOWED) <= set(found)


def test_a_raw_comparison_is_found_and_a_rounded_one_is_not() -> None:
    assert raw_comparisons("def f(rho: float, least: float):\n    return rho > least")
    assert raw_comparisons("def f(cards):\n    return sorted(cards, key=lambda c: -c.composite)")
    assert raw_comparisons("def f(a):\n    return a.improvement > a.threshold(1)")
    assert raw_comparisons("def f(share: float):\n    return int(share * 100)")
    rounded = (
        "def f(rho: float, least: float):\n    return to_millionths(rho) > to_millionths(least)"
    )
    assert raw_comparisons("def f(p):\n    a, b = p.close[-1], 1\n    return a > b")
    assert not raw_comparisons(rounded)
    assert raw_comparisons("def f(cards):\n    return min(one.composite for one in cards)")
    by_key = "def f(cards):\n    return min((one.composite for one in cards), key=to_millionths)"
    assert not raw_comparisons(by_key)
    assert not raw_comparisons("def f(total: float):\n    return 1.0 / total if total > 0.0 else 0")


def test_nothing_chooses_a_kernel_of_the_processor() -> None:
    root = APP.parent
    files = [root / "Makefile", root / "Dockerfile", root / "pyproject.toml"]
    for folder in (".ci", "tests", "benchmarks", "app"):
        files += [one for one in (root / folder).rglob("*") if one.suffix != ".nbc"]
    words = [f"{name}_{what}" for name, what in (("OPENBLAS", "CORETYPE"), ("NPY", "DISABLE_CPU"))]
    told = {one for one in files if one.is_file() and "__pycache__" not in one.parts}
    found = [one for one in told if any(w.encode() in one.read_bytes() for w in words)]
    assert found == []
