"""The mutants of a source file: one small change each, compiled."""

import ast
import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import CodeType
from typing import NamedTuple

SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
"""Each arithmetic or logical operator, and what it becomes."""

COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
"""Each comparison, and what it becomes: the other side of the boundary, and the opposite."""

NOT_MUTATED = {
    (ast.AnnAssign, "annotation"), (ast.arg, "annotation"), (ast.FunctionDef, "returns"), (ast.FunctionDef, "body"),
    (ast.FunctionDef, "decorator_list"), (ast.ClassDef, "body"), (ast.ClassDef, "bases"), (ast.For, "body"),
    (ast.While, "body"), (ast.If, "body"), (ast.With, "body"), (ast.If, "orelse"), (ast.For, "orelse"),
    (ast.Try, "body"), (ast.Try, "handlers"), (ast.Try, "finalbody"), (ast.Match, "cases"),
}  # fmt: skip
"""Fields of a statement that hold no expression of its own: types, and other statements."""

MESSAGES = ("_log.", "rank_zero_info", "logging.getLogger", "warnings.warn", "TypeVar", "cast")
"""Calls whose arguments are texts for people or types."""

KEPT_DECORATORS = ("abstractmethod", "property", "staticmethod", "classmethod")


class Mutant(NamedTuple):
    """One change of one file."""

    file: str
    """Relative to the repository."""
    function: str
    """The qualified name of the function or class that is changed; empty at the level of the module."""
    before: str
    """The changed statement, as ``ast.unparse`` writes it; of a compound statement only its head."""
    after: str
    line: int
    lines: range | None
    """The lines that a test must execute to see the change; ``None`` where the import of the module does."""
    code: CodeType
    """The whole module, changed."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells this mutant from others, and stays when other lines change."""
        return self.file, self.function, self.before, self.after


def mutants_of(root: Path, file: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines; two changes that read alike are one."""
    tree = ast.parse((root / file).read_text())
    found: dict[tuple[str, ...], Mutant] = {}
    for statement, owner, function, lines in _statements(tree, "", None):
        before = _head(statement)
        for _ in _changes(statement, owner):
            position = owner.index(statement) if statement in owner else None
            after = _head(statement) if position is not None else "pass"
            key = (function, before, after, str(statement.lineno))
            if after != before and key not in found:
                code = compile(ast.fix_missing_locations(tree), str(root / file), "exec")
                found[key] = Mutant(file, function, before, after, statement.lineno, lines, code)
    return list(found.values())


def _statements(
    node: ast.AST, function: str, lines: range | None
) -> Iterator[tuple[ast.stmt, list[ast.stmt], str, range | None]]:
    """Every statement, the list that it is in, the function around it, and its lines."""
    for _, value in ast.iter_fields(node):
        for item in value if isinstance(value, list) else []:
            if isinstance(item, ast.stmt):
                yield from _statement(item, value, function, lines)
            elif isinstance(item, ast.ExceptHandler | ast.match_case):
                yield from _statements(item, function, lines)


def _statement(
    item: ast.stmt, owner: list[ast.stmt], function: str, lines: range | None
) -> Iterator[tuple[ast.stmt, list[ast.stmt], str, range | None]]:
    body = getattr(item, "body", [])
    if isinstance(item, ast.FunctionDef | ast.ClassDef):
        name = f"{function}.{item.name}".lstrip(".")
        # Defaults and decorators of a function are seen by whatever runs its body; those of a class by any test.
        inside = range(body[0].lineno, item.end_lineno + 1) if isinstance(item, ast.FunctionDef) else None
        yield item, owner, name, inside
        yield from _statements(item, name, inside)
        return
    last = body[0].lineno - 1 if body else item.end_lineno
    yield item, owner, function, None if lines is None else range(item.lineno, max(last, item.lineno) + 1)
    yield from _statements(item, function, lines)


def _head(statement: ast.stmt) -> str:
    """The text of a statement without the statements inside it, on one line."""
    bare = copy.copy(statement)
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        if isinstance(getattr(bare, field, None), list):
            setattr(bare, field, [ast.Pass()] if field == "body" else [])
    if isinstance(bare, ast.FunctionDef):
        bare.args, bare.returns = copy.deepcopy(bare.args), None
        for argument in ast.walk(bare.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
    if isinstance(bare, ast.Try | ast.Match):
        return f"{type(bare).__name__.lower()}:"
    return " ".join(ast.unparse(bare).removesuffix("pass").split())


def _changes(statement: ast.stmt, owner: list[ast.stmt]) -> Iterator[None]:
    """Makes each change of a statement in its tree, and takes it back when asked for the next."""
    if isinstance(statement, ast.Raise | ast.Import | ast.ImportFrom | ast.Global | ast.Pass) or _is_text(statement):
        return
    is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    if is_call:
        yield from _replaced(owner, owner.index(statement), ast.copy_location(ast.Pass(), statement))
        if ast.unparse(statement).startswith(MESSAGES):
            return
    yield from _without_parts(statement)
    for holder, place, node in _expressions(statement):
        for new in [] if is_call and holder is statement else _replacements(node):
            yield from _replaced(holder, place, ast.copy_location(new, node))
        if isinstance(node, ast.comprehension):
            for i, test in enumerate(node.ifs):
                yield from _replaced(node.ifs, i, _opposite(test))
        if isinstance(node, ast.IfExp):
            yield from _negated(node)


def _without_parts(statement: ast.stmt) -> Iterator[None]:
    """Changes of a statement as a whole: without a decorator, without its context, with the opposite condition."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        for i, decorator in enumerate(statement.decorator_list):
            if ast.unparse(decorator).split("(")[0] not in KEPT_DECORATORS:
                rest = statement.decorator_list[:i] + statement.decorator_list[i + 1 :]
                yield from _replaced(statement, "decorator_list", rest)
    elif isinstance(statement, ast.With):
        for item in statement.items:
            if item.optional_vars is None:
                nothing = ast.parse("__import__('contextlib').nullcontext()", mode="eval").body
                yield from _replaced(item, "context_expr", nothing)
    elif isinstance(statement, ast.If | ast.While):
        yield from _negated(statement)
    elif isinstance(statement, ast.AugAssign) and type(statement.op) in SWAPPED:
        yield from _replaced(statement, "op", SWAPPED[type(statement.op)]())


def _is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring or ``__all__``."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"


def _replaced(holder: ast.AST | list, place: str | int, new: object) -> Iterator[None]:
    """Puts ``new`` in place while the caller looks."""
    if isinstance(holder, list):
        old, holder[place] = holder[place], new
        yield
        holder[place] = old
    else:
        old = getattr(holder, place)
        setattr(holder, place, new)
        yield
        setattr(holder, place, old)


def _expressions(node: ast.AST) -> Iterator[tuple[ast.AST | list, str | int, ast.AST]]:
    """Every expression below a node, and where it is held."""
    for field, value in ast.iter_fields(node):
        if (type(node), field) in NOT_MUTATED:
            continue
        holders = enumerate(value) if isinstance(value, list) else [(field, value)]
        for place, child in holders:
            if isinstance(child, ast.AST) and not (
                isinstance(child, ast.Call) and ast.unparse(child).startswith(MESSAGES)
            ):
                yield value if isinstance(value, list) else node, place, child
                yield from _expressions(child)


def _replacements(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPPED:
            yield _with(node, op=SWAPPED[type(op)]())
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in COMPARED[type(op)]:
                    yield _with(node, ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.Constant(value=value):
            yield from map(ast.Constant, _other_values(value))
        case ast.Call():
            yield from _called(node)


def _other_values(value: object) -> list[object]:
    match value:
        case bool():
            return [not value]
        case int():
            return [2, 0] if value == 1 else [value + 1]
        case float():
            return [2 * value if value else 1.0]
    return []


def _called(node: ast.Call) -> Iterator[ast.expr]:
    """A call that is left out, so that its object or first argument stays; and with two keyword arguments swapped."""
    function, arguments = node.func, node.args
    of_package = isinstance(function, ast.Name) or ast.unparse(function).startswith(("torch.", "math.", "np."))
    on_device = "device" in ast.unparse(node) or ast.unparse(function).endswith(".cpu")  # one device cannot tell
    if of_package and arguments and not isinstance(arguments[0], ast.Starred | ast.GeneratorExp | ast.Constant):
        yield arguments[0]
    elif not of_package and not on_device and isinstance(function, ast.Attribute):
        yield function.value
    words = node.keywords
    for i, (one, other) in enumerate(pairwise(words)):
        swapped = [ast.keyword(one.arg, other.value), ast.keyword(other.arg, one.value)]
        yield _with(node, keywords=[*words[:i], *swapped, *words[i + 2 :]])


def _negated(node: ast.If | ast.While | ast.IfExp) -> Iterator[None]:
    """The condition in its opposite, where no other operator makes that."""
    if not isinstance(node.test, ast.Compare) or len(node.test.ops) > 1:
        yield from _replaced(node, "test", _opposite(node.test))


def _opposite(test: ast.expr) -> ast.expr:
    inside = test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else None
    return inside or ast.copy_location(ast.UnaryOp(ast.Not(), test), test)


def _with(node: ast.AST, **fields: object) -> ast.expr:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new
