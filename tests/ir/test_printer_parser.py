import math
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgc.dtypes import DTYPES, bf16, bool_, f16, f32, f64, i8, i64, u64
from tgc.errors import ParseError
from tgc.ir.builder import Builder
from tgc.ir.dims import Dim, dim_max, symbol
from tgc.ir.graph import (
    Attribute,
    Attributes,
    Constant,
    Constraint,
    Function,
    Graph,
    Module,
    Node,
    State,
    Value,
    literal,
    parameter,
    state,
)
from tgc.ir.kinds import OpKind
from tgc.ir.literals import parse_type
from tgc.ir.opdef import AttributeSpec, OpDef
from tgc.ir.parser import parse_module
from tgc.ir.printer import contents, print_function, print_graph, print_module
from tgc.ir.types import Layout, TensorType
from tgc.location import Location
from tgc.ops import OPS

n, h = symbol("n"), symbol("h")


def _stated(types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    stated = attributes["types"]
    assert isinstance(stated, tuple)
    return tuple(t for t in stated if isinstance(t, TensorType)) or (types[0],)


def _of_regions(
    types: Sequence[TensorType], attributes: Attributes, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    return tuple(v.type for region in regions for v in region.results)


# ops of every structure that a graph can have: any operands, attributes, results and regions
TABLE: Mapping[str, OpDef] = {
    op.name: op
    for op in (
        OpDef(
            name="mix",
            doc="",
            kind=OpKind.MAP,
            operands=None,
            infer=_stated,
            attributes={name: AttributeSpec("", required=False, default=()) for name in ("types", "a", "b", "c")},
        ),
        OpDef(name="group", doc="", kind=OpKind.CONTROL, operands=None, infer=_of_regions),
    )
}

dims = st.one_of(
    st.integers(0, 9),
    st.sampled_from([n, h, 2 * h + 1, n // 4, dim_max(n, h), 3 // n + h, -h % 3, symbol("f32") * 2, symbol("inf")]),
)


@st.composite
def tensor_types(draw: st.DrawFn) -> TensorType:
    shape: list[Dim] = draw(st.lists(dims, max_size=4))
    layout = None
    if shape and draw(st.booleans()):
        order = tuple(draw(st.permutations(range(len(shape)))))
        axis = st.integers(0, len(shape) - 1)
        tiles = tuple(draw(st.lists(st.tuples(axis, st.integers(1, 16)), max_size=2)))
        border = st.tuples(st.integers(0, 2), st.integers(0, 2))
        margins = tuple(draw(st.lists(border, min_size=len(shape), max_size=len(shape)))) if draw(st.booleans()) else ()
        layout = Layout(order, tiles, margins)
    return TensorType(draw(st.sampled_from(list(DTYPES.values()))), shape, layout)


attributes: st.SearchStrategy[Attribute] = st.recursive(
    st.one_of(
        st.booleans(),
        st.none(),
        st.integers(-(1 << 64), 1 << 64),
        st.floats(),
        st.text(),
        st.sampled_from(list(DTYPES.values())),
        tensor_types(),
        dims,
        st.sampled_from([symbol("true"), symbol("f32"), -symbol("inf"), -symbol("nan") + 1]),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
names = st.one_of(st.sampled_from(["x", "fc.weight", "layers.0.bias"]), st.text(max_size=5))


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2, outer: bool = True) -> tuple[Graph, tuple[Value, ...]]:
    """A graph and all its values."""
    builder = Builder(TABLE)
    values = [parameter(i, t) for i, t in enumerate(draw(st.lists(tensor_types(), min_size=1, max_size=3)))]
    parameters = tuple(values)
    labels = tuple(draw(st.lists(names, min_size=len(values), max_size=len(values))))
    for _ in range(draw(st.integers(0, 5))):
        choice = draw(st.integers(0, 3 if depth and outer else 2))
        if choice == 0 and outer:
            values.append(draw(st.sampled_from([state, literal]))(draw(names), draw(tensor_types())))
            continue
        operands = tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))
        if choice == 3:
            regions = tuple(g for g, _ in draw(st.lists(graphs(depth=depth - 1), min_size=1, max_size=2)))
            values += builder.node("group", operands, {}, regions).results
        else:
            chosen = {name: draw(attributes) for name in draw(st.sets(st.sampled_from(["a", "b", "c"])))}
            stated = tuple(draw(st.lists(tensor_types(), max_size=3)))
            values += builder.node("mix", operands, {**chosen, "types": stated}).results
    results = tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))
    return Graph(parameters, results, labels), tuple(values)


@st.composite
def constants(draw: st.DrawFn) -> Constant:
    of = TensorType(draw(st.sampled_from(list(DTYPES.values()))), draw(st.lists(st.integers(0, 5), max_size=2)))
    shape = tuple(d for d in of.shape if isinstance(d, int))
    count = math.prod(shape)
    bytes_ = draw(st.binary(min_size=count * of.dtype.itemsize, max_size=count * of.dtype.itemsize))
    array = np.frombuffer(bytes_, of.dtype.numpy).reshape(shape)
    return Constant.of(array != 0 if of.dtype is bool_ else array, of)


@st.composite
def modules(draw: st.DrawFn) -> Module:
    functions = []
    for i in range(draw(st.integers(0, 2))):
        graph, values = draw(graphs())
        assigns = tuple(draw(st.lists(st.tuples(names, st.sampled_from(values)), max_size=2)))
        result_names = tuple(draw(names) for _ in graph.results) if draw(st.booleans()) else ()
        constraints = tuple(draw(st.lists(st.builds(Constraint, dims, dims, st.text(max_size=5)), max_size=2)))
        workspace = draw(st.none() | dims)
        functions.append(Function(f"f{i}", graph, assigns, result_names, constraints, workspace))
    return Module(
        draw(names),
        tuple(functions),
        draw(st.dictionaries(names, st.builds(State, tensor_types(), st.one_of(st.none())), max_size=2)),
        draw(st.dictionaries(names, constants(), max_size=2)),
        draw(st.sampled_from([{}, {"n": (0, None), "h": (1, 64)}])),
    )


@settings(max_examples=120, deadline=None)
@given(modules())
def test_text_is_read_back_as_the_same_module(module: Module) -> None:
    text = print_module(module)
    again = parse_module(text, TABLE)
    assert again == module
    assert print_module(again) == text
    for old, new in zip(module.functions, again.functions, strict=True):
        assert all(a is b for a, b in zip(old.nodes(), new.nodes(), strict=True))
        assert [c.because for c in old.constraints] == [c.because for c in new.constraints]


def function(text: str) -> Function:
    return parse_module(f"module @m {{\n{text}\n}}", TABLE).functions[0]


def attribute_of(text: str) -> Attribute:
    return (
        function(f"func @f(%x: f32[]) -> (f32[]) {{ %0 = mix(%x) {{a = {text}}} return %0 }}")
        .results[0]
        .node.attributes["a"]
    )


def test_a_module_reads_as_it_is_meant() -> None:
    builder = Builder(TABLE)
    x = parameter(0, TensorType(f32, (n, 3, 8, 8), Layout((0, 2, 3, 1), ((1, 16),), ((0, 0), (0, 0), (1, 1), (1, 1)))))
    inner = parameter(0, TensorType(f32, (n,)))
    body = Graph((inner,), (builder.op("mix", inner, attributes={"a": (1, True, 1.0, -0.0)}),), ("a",))
    builder.place = Location("digits.py", 9, 13)
    pair = builder.results("mix", x, attributes={"types": (TensorType(f32, (n,)), TensorType(i64, ()))})
    builder.place = None
    grouped = builder.node("group", (pair[0],), {}, (body,)).result
    weight = state("fc.weight", TensorType(f32, (2,)))
    module = Module(
        "digits",
        (
            Function(
                "step",
                Graph((x,), (grouped, pair[1]), ("x",)),
                (("fc.weight", builder.op("mix", weight)),),
                ("out", "the count"),
                (Constraint(n, 2 * h, "halves"),),
            ),
        ),
        {"fc.weight": State(TensorType(f32, (2,)), Constant.of(np.float32([1, 2]), TensorType(f32, (2,))))},
        {"c0": Constant(TensorType(f32, (64, 64)), "sha256:00ff")},
        {"n": (1, 64)},
        builder.locations,
    )
    text = """\
module @digits {
  range n : 1..64
  state @fc.weight : f32[2] = [1.0, 2.0]
  constant @c0 : f32[64, 64] {digest = "sha256:00ff"}
  func @step(%x: f32[n, 3, 8, 8]{0,2,3,1; tiles 1:16; margins 0:0,0:0,1:1,1:1}) -> (%out: f32[n], %"the count": i64[]) {
    require n == 2*h : "halves"
    %0:2 = mix(%x) {a = [], b = [], c = [], types = [f32[n], i64[]]} : f32[n], i64[]  loc("digits.py":9:13)
    %1 = group(%0#0) (^(%a: f32[n]) {
      %0 = mix(%a) {a = [1, true, 1.0, -0.0], b = [], c = [], types = []} : f32[n]
      return %0
    }) : f32[n]
    %2 = state @fc.weight : f32[2]
    %3 = mix(%2) {a = [], b = [], c = [], types = []} : f32[2]
    assign @fc.weight = %3
    return %1, %0#1
  }
}
"""
    assert print_module(module, locations=True) == text
    again = parse_module(text, TABLE)
    assert again == module
    assert print_module(again, locations=True) == text
    assert "loc(" not in print_module(module)
    initial = again.state["fc.weight"].initial
    assert initial is not None
    assert initial.data is not None
    assert initial.data.tolist() == [1.0, 2.0]
    assert again.constants["c0"].data is None


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 5e-324, 1e300, 1e22, math.inf, -math.inf])
def test_floats_keep_their_bits(value: float) -> None:
    builder = Builder(TABLE)
    x = parameter(0, TensorType(f32, ()))
    graph = Graph((x,), (builder.op("mix", x, attributes={"a": value}),))
    text = print_function(Function("f", graph))
    read = function(text).results[0].node.attributes["a"]
    assert isinstance(read, float)
    assert struct.pack("<d", read) == struct.pack("<d", value)


def test_attributes_keep_their_kind() -> None:
    assert attribute_of("1") == 1
    assert attribute_of("true") is True
    assert type(attribute_of("1")) is int
    assert type(attribute_of("1.0")) is float
    assert attribute_of("f32") is f32
    assert attribute_of("(f32)") == symbol("f32")
    assert attribute_of("f32[n]{0}") == TensorType(f32, (n,))
    assert attribute_of("max(n, h) + 1") == dim_max(n, h) + 1
    assert attribute_of("none") is None
    assert attribute_of('"a\\n\\u00e9"') == "a\né"
    assert attribute_of("[[], [1]]") == ((), (1,))


def test_types_and_comments_may_be_left_to_the_reader() -> None:
    f = function(
        """
        func @f(%x: f32[n]) -> (f32[n]) {  // the function
          // nothing happens
          %unused = mix(%x)
          %y = mix(%x) {a = 1}   // something does
          return %y
        }"""
    )
    assert [node.op for node in f.nodes()] == ["parameter", "mix"]


def test_names_that_collide_are_told_apart() -> None:
    a, b, c = (parameter(i, TensorType(f32, ())) for i in range(3))
    text = print_function(Function("f", Graph((a, b, c), (c, a), ("x", "x", "arg1"))))
    assert text.startswith("func @f(%x: f32[], %arg1_: f32[], %arg1: f32[])")
    assert function(text).results == (c, a)


def test_a_graph_that_is_not_closed_still_prints() -> None:
    x = parameter(3, TensorType(f32, ()))
    assert print_graph(Graph((), (x,))) == "^() {\n  %0 = parameter() {index = 3, type = f32[]} : f32[]\n  return %0\n}"


@pytest.mark.parametrize(
    ("array", "dtype", "text"),
    [
        (np.array([1.5, -0.0, np.inf]), f64, " = [1.5, -0.0, inf]"),
        (np.array([np.nan], np.float32), f32, " = [nan]"),
        (np.array([0x7FC00001], np.uint32).view(np.float32), f32, " = [nan:0x7ff8000020000000]"),
        (np.array([0x7F800001], np.uint32).view(np.float32), f32, ' = "0100807f"'),
        (np.array([2], np.float32).astype(bf16.numpy), bf16, " = [2.0]"),
        (np.array([2], np.float16), f16, " = [2.0]"),
        (np.array(True), bool_, " = [true]"),
        (np.array([2**64 - 1], np.uint64), u64, " = [18446744073709551615]"),
        (np.array([], np.int8), i8, " = []"),
    ],
)  # fmt: skip
def test_few_elements_print_as_they_are(array: np.ndarray, dtype: object, text: str) -> None:
    assert contents(Constant.of(array, TensorType(dtype, array.shape))) == text  # type: ignore[arg-type]


def test_many_elements_print_as_their_digest() -> None:
    constant = Constant.of(np.zeros(17, np.float32), TensorType(f32, (17,)))
    assert contents(constant) == f' {{digest = "{constant.digest}"}}'


F = "func @f(%x: f32[n]) -> (f32[n]) { "
BAD = {
    "": "expected 'module'",
    "module @m {": "expected 'range'",
    "module @m { } }": "expected the end",
    "module @m { func @f() -> () { return } func @f() -> () { return } }": "f is defined twice",
    "module @m { range n : 3..1 }": "the range is empty",
    "module @m { constant @c : f32[2] = [1.0] }": "1 elements do not fill",
    "module @m { constant @c : f32[n] = [1.0] }": "1 elements do not fill",
    "module @m { constant @c : i8[1] = [300] }": "no elements of i8",
    "module @m { constant @c : i8[1] = [1.0] }": "1.0 is no int",
    "module @m { constant @c : f32[2] }": "expected the digest",
    'module @m { constant @c : f32[1] = "00" }': "no elements of f32",
    'module @m { constant @c : f32[1] = "zz" }': "no elements of f32",
    f"module @m {{ {F} %y = nothing(%x) return %y }} }}": "there is no op 'nothing'",
    f"module @m {{ {F} return %y }} }}": "%y is not defined",
    f"module @m {{ {F} return %x#1 }} }}": "%x has 1 results",
    f"module @m {{ {F} %x = mix(%x) return %x }} }}": "x is defined twice",
    f"module @m {{ {F} %y = mix(%x) : f32[2] return %y }} }}": "gives f32\\[n\\] here, not f32\\[2\\]",
    f"module @m {{ {F} %y = group() : f32[2] return %x }} }}": "gives nothing here",
    f"module @m {{ {F} %y = mix(%x) {{z = 1}} return %y }} }}": "attributes",
    f"module @m {{ {F} %y = mix() return %y }} }}": "IndexError",
    f"module @m {{ {F} %y:2 = mix(%x) return %y }} }}": "1 results are defined as 2",
    f"module @m {{ {F} %y = mix(%x) {{a = 1, a = 2}} return %y }} }}": "a is defined twice",
    f"module @m {{ {F} return }} }}": "says that it returns",
    f"module @m {{ {F} %y = mix(%x) {{a = [1, 2}} return %y }} }}": "expected",
    f'module @m {{ {F} %y = mix(%x) {{a = "\\q"}} return %y }} }}': "malformed string",
    f"module @m {{ {F} %y = mix(%x) {{a = {'9' * 200}}} return %y }} }}": "more than 100 digits",
    f"module @m {{ {F} %y = mix(%x) {{a = -true}} return %y }} }}": "not -true",
    f"module @m {{ {F} %y = mix(%x) {{a = n +}} return %y }} }}": "in a dimension",
    "module @m { func @f(%x: f33[2]) -> () { return } }": "no dtype 'f33'",
    "module @m { func @f(%x: f32[-2]) -> () { return } }": "negative",
    "module @m { func @f(%x: f32[2]{0,1}) -> () { return } }": "does not order 1",
    "module @m { func @f(%x: f32[2]{0; tiles 1:2}) -> () { return } }": "do not fit 1",
    "module @m { func @f(%x: f32[2]{0; tiles 0:0}) -> () { return } }": "do not fit 1",
    "module @m { func @f(%x: f32[2]{0; margins 1}) -> () { return } }": "malformed pair",
    "module @m { func @f(%x: f32[2, 3]{0,0}) -> () { return } }": "does not order 2",
    "module @m { func @f(%x: f32[n//0]) -> () { return } }": "positive divisor",
}  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_malformed_text_is_shown_with_its_place(text: str) -> None:
    with pytest.raises(ParseError, match=BAD[text]) as caught:
        parse_module(text, TABLE, source="bad.tgc")
    assert "--> bad.tgc:1:" in str(caught.value)


def test_the_place_is_right() -> None:
    with pytest.raises(ParseError) as caught:
        parse_module("module @m {\n  func @f(%x: f32[2]) -> (f32[2]) {\n    return %y\n  }\n}", TABLE)
    assert str(caught.value) == "%y is not defined here\n  --> <text>:3:12\n3 |     return %y\n  |            ^"


@pytest.mark.parametrize(
    "inside",
    [
        "%y = mix(%x) {a = " + "[" * 100_000,
        "%y = mix(%x) {a = " + "(" * 100_000,
        "%y = mix(%x) {a = " + "-" * 100_000 + "n}",
        "%y = group(%x) " + "(^() { %y = group() " * 10_000,
        '%y = mix(%x) {a = "' + "\\" * 99_999,
        "%y = mix(%x) {a = " + "9" * 100_000 + "//n}",
        "%y = mix(%x) {a = f32[" + "n*" * 50_000 + "n]}",
        "%y = mix(%x) {a = f32[" + "(n+h)*" * 5_000 + "n]}",
        "// " + "x" * 1_000_000,
        "\n" * 1_000_000,
    ],
)  # fmt: skip
def test_hostile_text_is_refused(inside: str) -> None:
    with pytest.raises(ParseError):
        function(F + inside)


@settings(max_examples=120, deadline=None)
@given(modules(), st.data())
def test_damaged_text_gives_a_module_or_a_parse_error(module: Module, data: st.DataObject) -> None:
    text = print_module(module)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    damaged = text[:start] + data.draw(st.text("%@{}[]()<>#:=,.\"'\\0129-+nfxée \n/", max_size=4)) + text[end:]
    try:
        read = parse_module(damaged, TABLE)
    except ParseError:
        pass
    else:
        assert parse_module(print_module(read), TABLE) == read


def test_types_are_read_alone() -> None:
    assert parse_type(" f32[batch, 2*h+1] ") == TensorType(f32, (symbol("batch"), 2 * h + 1))
    for text in ("f32", "f32[2", "f32[2]]", "f32[a b]", "x[2]", "f32[2]{1}", ""):
        with pytest.raises(ParseError):
            parse_type(text)


def test_the_reader_keeps_no_node_alive_twice() -> None:
    f = function(F + "%y = mix(%x) {a = 1} %z = mix(%x) {a = 1} return %y }")
    g = function(F + "%z = mix(%x) {a = 1} return %z }")
    assert f.results[0].node is g.results[0].node
    assert isinstance(f.results[0].node, Node)


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_read_back(name: str) -> None:
    for types, chosen in OPS[name].cases:
        parameters = tuple(parameter(i, t) for i, t in enumerate(types))
        node = Builder(OPS).node(name, parameters, chosen)
        text = print_module(Module("m", (Function("f", Graph(parameters, node.results)),)))
        read = parse_module(text, OPS).functions[0].results
        assert all(a.node is node for a in read)
        assert len(read) == len(node.types)


def test_no_tuple_is_taken_for_a_flag() -> None:
    assert (
        function(F + '%y = mix(%x) {a = ["bool", 1]} %z = mix(%x) {a = true} return %z }')
        .results[0]
        .node.attributes["a"]
        is True
    )


def test_a_location_that_is_no_file_is_not_read() -> None:
    assert Location("/dev/zero", 1, 1).excerpt() == "  --> /dev/zero:1:1"
