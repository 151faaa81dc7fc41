from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from tgc.dtypes import f32, f64, i64
from tgc.errors import ShapeError, VerificationError
from tgc.ir.builder import Builder
from tgc.ir.dims import symbol
from tgc.ir.graph import (
    Attributes,
    Constant,
    Constraint,
    Function,
    Graph,
    Module,
    State,
    Value,
    intern,
    literal,
    parameter,
    state,
)
from tgc.ir.kinds import OpKind
from tgc.ir.opdef import AttributeSpec, OpDef
from tgc.ir.types import Layout, TensorType
from tgc.ir.verify import FUNCTION_CHECKS, GRAPH_CHECKS, MODULE_CHECKS, NODE_CHECKS, verify

n, h = symbol("n"), symbol("h")
T = TensorType(f32, (n,))
PAIR = TensorType(f32, (2,))


def _first(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    if types[0].dtype is f64:
        raise ShapeError("never f64")
    return (types[0],)


TABLE = {
    "copy": OpDef(name="copy", doc="", kind=OpKind.MAP, operands=1, infer=_first),
    "pick": OpDef(
        name="pick", doc="", kind=OpKind.MAP, operands=None, infer=_first, attributes={"axis": AttributeSpec("")}
    ),
    "group": OpDef(name="group", doc="", kind=OpKind.CONTROL, operands=None, infer=_first),
}
x = parameter(0, T)
SOUND = Module(
    "m",
    (
        Function(
            "f",
            Graph((x,), (Builder(TABLE).op("copy", x),)),
            (("w", Builder(TABLE).op("copy", state("w", PAIR))),),
            ("out",),
            (Constraint(n, 2 * n),),
        ),
    ),
    {"w": State(PAIR, Constant.of(np.float32([1, 2]), PAIR))},
    {"c": Constant.of(np.float32([1, 2]), PAIR)},
    {"n": (0, 8)},
)


def returning(value: Value, *parameters: Value) -> Module:
    """The sound module with one function that returns ``value``."""
    return replace(SOUND, functions=(Function("f", Graph(parameters or (x,), (value,))),))


def raw(
    op: str,
    *operands: Value,
    attributes: Attributes | None = None,
    regions: tuple[Graph, ...] = (),
    types: tuple[TensorType, ...] = (T,),
) -> Value:
    """A node that no rule has checked."""
    return Value(intern(op, operands, attributes or {}, regions, types), 0)


def stale() -> Module:
    """A module with a node that was not made by ``intern``."""
    node = raw("copy", raw("copy", raw("copy", x))).node
    other = type(node)()
    other.op, other.operands, other.attributes = node.op, node.operands, node.attributes
    other.regions, other.types = node.regions, node.types
    return returning(Value(other, 0))


def function(**changes: object) -> Module:
    return replace(SOUND, functions=(replace(SOUND.functions[0], **changes),))  # type: ignore[arg-type]


WRONG_LAYOUT = TensorType(f32, (2, 3), Layout((0, 2)))
BROKEN: dict[str, Callable[[], Module]] = {
    "function-names-differ": lambda: replace(SOUND, functions=SOUND.functions * 2),
    "ranges-are-not-empty": lambda: replace(SOUND, ranges={"n": (3, 2)}),
    "constants-fit-their-types": lambda: replace(SOUND, constants={"c": Constant(T, "sha256:")}),
    "initial-values-fit-their-state": lambda: replace(SOUND, state={"w": State(PAIR, Constant(T, "sha256:"))}),
    "state-is-assigned-once": lambda: function(assigns=SOUND.functions[0].assigns * 2),
    "assigned-values-fit-the-state": lambda: function(assigns=(("w", x),)),
    "every-result-has-a-name-or-none-has": lambda: function(result_names=("a", "b")),
    "dimensions-are-bound-by-what-enters": lambda: function(constraints=(Constraint(h, 2),)),
    "regions-read-no-state-and-no-literals": lambda: returning(
        raw("group", x, regions=(Graph((), (state("w", PAIR),)),))
    ),
    "parameters-are-numbered": lambda: returning(x, parameter(1, T), x),
    "graphs-are-closed": lambda: returning(raw("group", x, regions=(Graph((), (x,)),))),
    "operands-are-results": lambda: returning(raw("copy", Value(x.node, 1))),
    "attributes-can-be-compared": lambda: returning(_with_list()),
    "nodes-are-interned": stale,
    "ops-are-known": lambda: returning(raw("nothing", x)),
    "operands-are-as-many-as-the-op-takes": lambda: returning(raw("copy", x, x)),
    "attributes-are-those-of-the-op": lambda: returning(raw("pick", x)),
    "types-are-what-the-rule-gives": lambda: returning(raw("pick", x, attributes={"axis": 0}, types=(PAIR,))),
    "sizes-can-be-written": lambda: returning(
        raw("pick", x, attributes={"axis": 3}, types=(TensorType(f32, (n * 2**63,)),))
    ),
    "layouts-fit-their-shapes": lambda: returning(
        raw("copy", parameter(0, WRONG_LAYOUT), types=(WRONG_LAYOUT,)), parameter(0, WRONG_LAYOUT)
    ),
    "state-is-declared": lambda: returning(state("w", T)),
    "literals-are-declared": lambda: returning(literal("d", PAIR)),
}


def _with_list() -> Value:
    value = raw("pick", x, attributes={"axis": 7})
    broken = type(value.node)()
    broken.op, broken.operands, broken.regions, broken.types = "pick", (x,), (), (T,)
    broken.attributes = {"axis": [7]}  # type: ignore[dict-item]
    return Value(broken, 0)


def test_a_sound_module_passes() -> None:
    verify(SOUND, TABLE)


@pytest.mark.parametrize("invariant", BROKEN)
def test_a_broken_invariant_is_named(invariant: str) -> None:
    with pytest.raises(VerificationError, match=f"\n  {invariant}: "):
        verify(BROKEN[invariant](), TABLE)


def test_every_invariant_has_a_module_that_breaks_it() -> None:
    checks = (*MODULE_CHECKS, *FUNCTION_CHECKS, *GRAPH_CHECKS, *NODE_CHECKS)
    assert {check.__name__.strip("_").replace("_", "-") for check in checks} == BROKEN.keys()


def test_a_rule_that_refuses_is_a_broken_invariant() -> None:
    wide = TensorType(f64, ())
    with pytest.raises(VerificationError, match="the type rule refuses it: never f64"):
        verify(returning(raw("copy", parameter(0, wide), types=(wide,)), parameter(0, wide)), TABLE)


def test_the_message_shows_function_and_node() -> None:
    with pytest.raises(VerificationError, match=r"@f: pick\(f32\[n\]\) \{axis = 1\} : i64\[\]: the type rule gives"):
        verify(returning(raw("pick", x, attributes={"axis": 1}, types=(TensorType(i64, ()),))), TABLE)


def test_nodes_in_regions_are_checked() -> None:
    inner = Graph((x,), (raw("nothing", x),))
    outer = Graph((x,), (raw("group", x, regions=(inner,)),))
    with pytest.raises(VerificationError, match="no op 'nothing'"):
        verify(returning(raw("group", x, regions=(outer,))), TABLE)
