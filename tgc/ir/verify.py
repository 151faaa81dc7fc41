"""The invariants of the graph IR, one small function each.

A check yields what is wrong, one sentence each; :func:`verify` names the check, the function and the node. The tuples
at the end list all invariants: of a module, a function, a graph (a function's or a region's) and a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeAlias

from tgc.errors import TgcError, VerificationError
from tgc.ir.dims import Expr, symbols
from tgc.ir.graph import (
    Attribute,
    Constant,
    Function,
    Graph,
    Module,
    Node,
    attribute_key,
    lookup,
    node_key,
    parameter,
    topological,
)
from tgc.ir.opdef import OpTable, own_attributes
from tgc.ir.printer import print_attribute, print_node
from tgc.ir.types import TensorType

Problems: TypeAlias = Iterator[str]
LEAVES = frozenset({"parameter", "state", "literal"})
_MOST_SHOWN = 10


def verify(module: Module, table: OpTable) -> None:
    """Raises :class:`VerificationError` with the invariants that ``module`` breaks; does nothing if it breaks none.

    >>> verify(Module("empty", ()), {})
    """
    problems = list(islice(_problems(module, table), _MOST_SHOWN))
    if problems:
        raise VerificationError(f"module @{module.name} breaks an invariant:\n" + "\n".join(f"  {p}" for p in problems))


def regions_of(nodes: Iterable[Node]) -> Iterator[Graph]:
    """The regions of ``nodes``, the regions inside them included, each once."""
    seen: set[Graph] = set()
    stack = [region for node in nodes for region in node.regions]
    while stack:
        graph = stack.pop()
        if graph not in seen:
            seen.add(graph)
            yield graph
            stack += [region for node in graph.nodes() for region in node.regions]


def _problems(module: Module, table: OpTable) -> Problems:
    for module_check in MODULE_CHECKS:
        yield from (f"{_named(module_check)}: {problem}" for problem in module_check(module))
    seen: set[Node] = set()
    for function in module.functions:
        where = f"@{function.name}"
        for function_check in FUNCTION_CHECKS:
            problems = function_check(function, module)
            yield from (f"{_named(function_check)}: {where}: {problem}" for problem in problems)
        regions = list(regions_of(function.nodes()))
        for graph in (function.graph, *regions):
            for graph_check in GRAPH_CHECKS:
                yield from (f"{_named(graph_check)}: {where}: {problem}" for problem in graph_check(graph))
        for node in (*function.nodes(), *(node for graph in regions for node in graph.nodes())):
            if node in seen:
                continue
            seen.add(node)
            for node_check in NODE_CHECKS:
                found = [f"{_named(node_check)}: {where}: {_shown(node)}: {p}" for p in node_check(node, module, table)]
                yield from found
                if found:
                    # what follows would take for granted what does not hold
                    break


def _named(check: Callable[..., Problems]) -> str:
    return check.__name__.strip("_").replace("_", "-")


def _shown(node: Node) -> str:
    """The node as text; a broken one may have none."""
    try:
        return print_node(node)
    except (TgcError, IndexError):
        return f"{node.op}(…)"


# -- of a module -------------------------------------------------------------------------------------------------


def _function_names_differ(module: Module) -> Problems:
    seen: set[str] = set()
    for function in module.functions:
        if function.name in seen:
            yield f"two functions are named @{function.name}"
        seen.add(function.name)


def _ranges_are_not_empty(module: Module) -> Problems:
    for name, (low, high) in module.ranges.items():
        if low < 0 or (high is not None and high < low):
            yield f"{name} ranges from {low} to {high}"


def _constants_fit_their_types(module: Module) -> Problems:
    for name, constant in module.constants.items():
        yield from (f"constant @{name} {problem}" for problem in _misfits(constant, constant.type))


def _initial_values_fit_their_state(module: Module) -> Problems:
    for name, state in module.state.items():
        if state.initial is not None:
            yield from (f"the initial value of @{name} {problem}" for problem in _misfits(state.initial, state.type))


def _misfits(constant: Constant, of: TensorType) -> Problems:
    if constant.type.dtype is not of.dtype or constant.type.shape != of.shape:
        yield f"has the type {constant.type}, not {of}"
    if not all(isinstance(d, int) for d in constant.type.shape):
        yield f"has the symbolic type {constant.type}"
    data = constant.data
    if data is not None and (data.dtype != constant.type.dtype.numpy or data.shape != constant.type.shape):
        yield f"has the type {constant.type}, but its data is {data.dtype}{list(data.shape)}"


# -- of a function -----------------------------------------------------------------------------------------------


def _state_is_assigned_once(function: Function, module: Module) -> Problems:
    seen: set[str] = set()
    for name, _ in function.assigns:
        if name in seen:
            yield f"state @{name} is assigned twice"
        seen.add(name)


def _assigned_values_fit_the_state(function: Function, module: Module) -> Problems:
    for name, value in function.assigns:
        state = module.state.get(name)
        if state is None:
            yield f"@{name} is assigned, but the module has no such state"
        elif state.type != value.type:
            yield f"state @{name} has the type {state.type}, but is assigned {value.type}"


def _every_result_has_a_name_or_none_has(function: Function, module: Module) -> Problems:
    if len(function.result_names) not in (0, len(function.results)):
        yield f"{len(function.results)} results have {len(function.result_names)} names"


def _dimensions_are_bound_by_what_enters(function: Function, module: Module) -> Problems:
    """At entry, every symbol must be known from a parameter's or a state's shape."""
    nodes = function.nodes()
    types = [v.type for v in function.parameters] + [state.type for state in module.state.values()]
    bound = {name for t in types for d in t.shape for name in symbols(d)}
    everything = [*nodes, *(node for graph in regions_of(nodes) for node in graph.nodes())]
    for node in everything:
        used = {name for t in node.types for d in t.shape for name in symbols(d)}
        used.update(*map(_symbols, node.attributes.values()))
        if used - bound:
            yield f"{_shown(node)}: no parameter and no state determines {', '.join(sorted(used - bound))}"
    for constraint in function.constraints:
        unknown = (symbols(constraint.left) | symbols(constraint.right)) - bound
        if unknown:
            yield f"a constraint is on {', '.join(sorted(unknown))}, which no parameter and no state determines"


def _symbols(value: Attribute) -> frozenset[str]:
    if isinstance(value, Expr):
        return symbols(value)
    if isinstance(value, TensorType):
        return frozenset().union(*map(symbols, value.shape))
    return frozenset().union(*map(_symbols, value)) if isinstance(value, tuple) else frozenset()


def _regions_read_no_state_and_no_literals(function: Function, module: Module) -> Problems:
    """Regions are closed: what they capture is an operand."""
    for graph in regions_of(function.nodes()):
        for node in graph.nodes():
            if node.op in ("state", "literal"):
                yield f"{_shown(node)} inside a region"


# -- of a graph --------------------------------------------------------------------------------------------------


def _parameters_are_numbered(graph: Graph) -> Problems:
    for i, value in enumerate(graph.parameters):
        if value != parameter(i, value.type):
            yield f"parameter {i} is {value!r}"


def _graphs_are_closed(graph: Graph) -> Problems:
    own = {value.node for value in graph.parameters}
    for node in topological(graph.results):
        if node.op == "parameter" and node not in own:
            yield f"{_shown(node)} is used, but is no parameter of the graph"


# -- of a node ---------------------------------------------------------------------------------------------------


def _operands_are_results(node: Node, module: Module, table: OpTable) -> Problems:
    for value in node.operands:
        if not 0 <= value.index < len(value.node.types):
            yield f"an operand is result {value.index} of {value.node.op}, which has {len(value.node.types)}"


def _attributes_can_be_compared(node: Node, module: Module, table: OpTable) -> Problems:
    for name, value in node.attributes.items():
        try:
            attribute_key(value)
        except TgcError as error:
            yield f"attribute {name}: {error}"


def _nodes_are_interned(node: Node, module: Module, table: OpTable) -> Problems:
    if lookup(node_key(node.op, node.operands, node.attributes, node.regions)) is not node:
        yield "the node is not the one of its structure"


def _ops_are_known(node: Node, module: Module, table: OpTable) -> Problems:
    if node.op not in LEAVES and node.op not in table:
        yield f"there is no op {node.op!r}"


def _operands_are_as_many_as_the_op_takes(node: Node, module: Module, table: OpTable) -> Problems:
    expected = 0 if node.op in LEAVES else table[node.op].operands
    if expected is not None and len(node.operands) != expected:
        yield f"{node.op} takes {expected} operands, not {len(node.operands)}"


def _attributes_are_those_of_the_op(node: Node, module: Module, table: OpTable) -> Problems:
    if node.op not in LEAVES and own_attributes(table[node.op], node.attributes) != table[node.op].attributes.keys():
        yield f"{node.op} has the attributes {', '.join(table[node.op].attributes) or 'none'}"


def _types_are_what_the_rule_gives(node: Node, module: Module, table: OpTable) -> Problems:
    if node.op in LEAVES:
        if node.types != (node.attributes["type"],):
            yield f"the attribute says {print_attribute(node.attributes['type'])}"
        return
    try:
        types = table[node.op].infer([v.type for v in node.operands], node.attributes, node.regions)
    except (TgcError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        yield f"the type rule refuses it: {error}"
        return
    if tuple(types) != node.types:
        yield f"the type rule gives {', '.join(map(str, types))}"


def _sizes_can_be_written(node: Node, module: Module, table: OpTable) -> Problems:
    for size in (size for t in node.types for size in t.shape):
        numbers = (size,) if isinstance(size, int) else (coefficient for _, coefficient in size.terms)
        if any(abs(number) >= 1 << 63 for number in numbers):
            yield f"the size {size} has numbers beyond 63 bits"


def _layouts_fit_their_shapes(node: Node, module: Module, table: OpTable) -> Problems:
    for t in node.types:
        layout = t.layout
        if layout is not None and (
            sorted(layout.order) != list(range(t.rank))
            or any(not 0 <= d < t.rank or size < 1 for d, size in layout.tiles)
            or len(layout.margins) not in (0, t.rank)
            or any(end < 0 for margin in layout.margins for end in margin)
        ):
            yield f"the layout {layout} does not fit {t.rank} dimensions"


def _state_is_declared(node: Node, module: Module, table: OpTable) -> Problems:
    name = node.attributes.get("name")
    if node.op == "state" and (name not in module.state or module.state[str(name)].type != node.types[0]):
        yield f"the module has no state @{name} of this type"


def _literals_are_declared(node: Node, module: Module, table: OpTable) -> Problems:
    name = node.attributes.get("name")
    if node.op == "literal" and (name not in module.constants or module.constants[str(name)].type != node.types[0]):
        yield f"the module has no constant @{name} of this type"


MODULE_CHECKS: tuple[Callable[[Module], Problems], ...] = (
    _function_names_differ,
    _ranges_are_not_empty,
    _constants_fit_their_types,
    _initial_values_fit_their_state,
)
FUNCTION_CHECKS: tuple[Callable[[Function, Module], Problems], ...] = (
    _state_is_assigned_once,
    _assigned_values_fit_the_state,
    _every_result_has_a_name_or_none_has,
    _dimensions_are_bound_by_what_enters,
    _regions_read_no_state_and_no_literals,
)
GRAPH_CHECKS: tuple[Callable[[Graph], Problems], ...] = (_parameters_are_numbered, _graphs_are_closed)
NODE_CHECKS: tuple[Callable[[Node, Module, OpTable], Problems], ...] = (
    _sizes_can_be_written,
    _operands_are_results,
    _attributes_can_be_compared,
    _nodes_are_interned,
    _ops_are_known,
    _operands_are_as_many_as_the_op_takes,
    _attributes_are_those_of_the_op,
    _types_are_what_the_rule_gives,
    _layouts_fit_their_shapes,
    _state_is_declared,
    _literals_are_declared,
)
