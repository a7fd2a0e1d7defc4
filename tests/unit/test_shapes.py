"""Every tensor that a function takes or returns, and every field, says its shape."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [*ROOT.glob("sciml/**/*.py"), *ROOT.glob("domains/**/*.py")]


def is_bare(annotation: ast.expr | None) -> bool:
    """Returns whether an annotation is a tensor without a shape, alone or in a union.

    Containers are left out: the tensors in them may differ in shape.
    """
    if isinstance(annotation, ast.BinOp):
        return is_bare(annotation.left) or is_bare(annotation.right)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return is_bare(ast.parse(annotation.value, mode="eval").body)
    name = annotation.attr if isinstance(annotation, ast.Attribute) else getattr(annotation, "id", None)
    return name == "Tensor"


def bare_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            arguments = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
            yield from (f"{node.name}({a.arg})" for a in arguments if a is not None and is_bare(a.annotation))
            if is_bare(node.returns):
                yield f"{node.name} -> Tensor"
        elif isinstance(node, ast.ClassDef):
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and is_bare(f.annotation)]
            yield from (f"{node.name}.{ast.unparse(field.target)}" for field in fields)


def test_every_tensor_says_its_shape() -> None:
    bare = [
        f"{path.relative_to(ROOT)}: {name}" for path in FILES for name in bare_names(ast.parse(path.read_text("utf-8")))
    ]
    assert not bare, f'say the shape, as in Float[Tensor, "batch token"]; any: Shaped[Tensor, "..."]: {bare}'


@pytest.mark.parametrize(
    "code",
    [
        "def f(x: Tensor): ...",
        "def f(*, x: torch.Tensor | None = None): ...",
        "def f(*x: 'Tensor'): ...",
        "def f() -> Tensor: ...",
        "class A:\n    x: Tensor | None = None",
    ],
)
def test_a_tensor_without_a_shape_is_seen(code: str) -> None:
    assert list(bare_names(ast.parse(code)))
    shaped = code.replace("torch.Tensor", "Tensor").replace("'Tensor'", "Tensor")
    assert not list(bare_names(ast.parse(shaped.replace("Tensor", 'Float[Tensor, "..."]'))))
