"""Building, printing and verifying kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tgc.dtypes import bf16, bool_, f32, f64, i32, i64, u8, u32
from tgc.errors import CompilerBug, VerificationError
from tgc.ir.dims import symbol
from tgc.kernels.builder import KernelBuilder
from tgc.kernels.ir import Block, Buffer, Kernel, Operation, Value
from tgc.kernels.printer import digest, print_kernel
from tgc.kernels.verify import verify

N = symbol("n")


def softmax_sum(name: str = "row_sum", *, scale: float = 2.0) -> Kernel:
    b = KernelBuilder(name, count=N)
    a = b.buffer("a", f32, N * 1024, "read")
    out, row = b.buffer("out", f32, N, "write"), b.scratch("row", f32, 1024)
    with b.loop(0, 1024, 16, carried=[b.constant(0.0, f32, 16)]) as loop:
        value = b.load(a, b.add(b.mul(b.iteration, 1024), loop.index), 16)
        b.store(row, loop.index, value)
        loop.yield_(b.fma(value, scale, loop.carried[0]))
    total = b.reduce("add", loop.results[0])
    with b.if_(b.compare("gt", total, 0.0)) as branch:
        branch.yield_(total)
    with branch.otherwise():
        with b.while_loop([total]) as search:
            search.condition(b.compare("lt", search.carried[0], 5.0))
            search.yield_(b.add(search.carried[0], 1.0))
        branch.yield_(search.results[0])
    b.store(out, b.iteration, branch.results[0], count=b.sub(N, b.iteration))
    return b.finish()


TEXT = """\
kernel @row_sum(%a: f32[1024*n] read, %out: f32[n] write) symbols(n) scratch(%row: f32[1024]) prelude {
  %1 = symbol n : i64
} parallel %i in 0..n {
  %8 = for %k in 0..1024 step 16 carry(%3 = 0.0 : f32x16) : f32x16 {
    %4 = mul %i, 1024 : i64
    %5 = add %4, %k : i64
    %6 = load %a[%5] : f32x16
    store %row[%k], %6
    %7 = fma %6, 2.0, %3 : f32x16
    yield %7
  }
  %9 = reduce add %8 : f32
  %10 = compare gt %9, 0.0 : bool
  %15 = if %10 : f32 {
    yield %9
  } else {
    %14 = while carry(%11 = %9 : f32) : f32 {
      %12 = compare lt %11, 5.0 : bool
      condition %12
    } do {
      %13 = add %11, 1.0 : f32
      yield %13
    }
    yield %14
  }
  %16 = sub %1, %i : i64
  store %out[%i] count %16, %15
}"""


def test_text_shows_the_whole_kernel() -> None:
    assert print_kernel(softmax_sum()) == TEXT
    verify(softmax_sum())


def test_a_digest_is_of_what_a_kernel_does() -> None:
    assert digest(softmax_sum("one")) == digest(softmax_sum("other"))
    assert digest(softmax_sum()) != digest(softmax_sum(scale=3.0))


def test_literals_of_different_types_print_differently() -> None:
    def text(value: Callable[[KernelBuilder], Value]) -> str:
        b = KernelBuilder("literal", count=1)
        b.store(b.buffer("x", f32, 1, "write"), 0, value(b))
        return print_kernel(b.finish())

    assert text(lambda b: b.convert(b.constant(1, i32), f32)) != text(lambda b: b.convert(b.constant(1, u8), f32))
    assert text(lambda b: b.constant(0.0, f32)) != text(lambda b: b.constant(-0.0, f32))


def test_equal_operations_in_scope_are_one() -> None:
    b = KernelBuilder("shared", count=4)
    x = b.buffer("x", f32, 64, "read")
    value = b.load(x, b.mul(b.iteration, 16), 16)
    assert b.add(value, 1.0) is b.add(value, 1.0)
    assert b.load(x, 0) is not b.load(x, 0)
    with b.loop(0, 4) as first:
        inside = b.add(first.index, b.iteration)
        assert b.mul(value, 2.0) is b.mul(value, 2.0)
    with b.loop(0, 4):
        assert b.mul(value, 2.0).operation is not inside.operation
    verify(b.finish())


def test_what_no_iteration_changes_is_computed_once_per_call() -> None:
    b = KernelBuilder("hoisted", count=4)
    with b.loop(0, 4):
        rows = b.mul(b.index(N), 16)
        assert rows.invariant
        assert not b.add(rows, b.iteration).invariant
    assert rows.operation in b.finish().prelude.operations


def test_constants_of_offsets_gather_in_one_immediate() -> None:
    b = KernelBuilder("offsets", count=4)
    base = b.mul(b.iteration, 16)
    offset = b.sub(b.add(b.add(base, 3), 4), 2)
    assert offset.operation is not None
    assert [v.constant for v in offset.operation.operands] == [None, 5]
    assert b.add(b.add(base, 3), -3) is base
    assert b.mul(b.constant(6, i64), 7).constant == 42


def test_scalars_and_numbers_spread_over_the_lanes_of_the_other_operand() -> None:
    b = KernelBuilder("spread", count=1)
    x = b.buffer("x", f32, 8, "read")
    vector, scalar = b.load(x, 0, 8), b.load(x, 0)
    assert b.add(scalar, vector).type == b.fma(2, vector, scalar).type == "f32x8"
    assert b.select(b.compare("lt", vector, 0), scalar, 1.0).type == "f32x8"
    assert b.constant(300, u8).constant == 44
    assert b.constant(200, i32).constant == 200


MISUSES: dict[str, Callable[[KernelBuilder, Buffer, Value], object]] = {
    "operands of dtypes f32 and f64": lambda b, x, v: b.add(v, b.constant(1.0, f64)),
    "operands of 8 and 4 lanes": lambda b, x, v: b.add(v, b.constant(1.0, f32, 4)),
    "add of bf16; convert first": lambda b, x, v: b.add(b.convert(v, bf16), 1.0),
    "rem is for integers": lambda b, x, v: b.rem(v, v),
    "which is for reading": lambda b, x, v: b.store(x, 0, v),
    "there is no predicate 'ult'": lambda b, x, v: b.compare("ult", v, v),
    "is no condition": lambda b, x, v: b.if_(v),
    "power of two of lanes, not 3": lambda b, x, v: b.load(x, 0, 3),
    "1.5 is no i32": lambda b, x, v: b.constant(1.5, i32),
    "nan is no i32": lambda b, x, v: b.constant(float("nan"), i32),
    "lane 8 of": lambda b, x, v: b.extract(v, 8),
    "is no index": lambda b, x, v: b.load(x, v),
    "a count or a mask, not both": lambda b, x, v: b.load(x, 0, 8, count=3, mask=b.compare("lt", v, v)),
    "steps by 0": lambda b, x, v: b.loop(0, 4, 0),
    "shuffle of": lambda b, x, v: b.shuffle(v, v, [16]),
    "reduce by bit_and of": lambda b, x, v: b.reduce("bit_and", v),
    "two buffers 'x'": lambda b, x, v: b.scratch("x", f32, 1),
    "there is no function 'frobnicate'": lambda b, x, v: b.math("frobnicate", v),
    "bitcast of": lambda b, x, v: b.bitcast(b.compare("lt", v, v), u8),
    "multiply_high of i32": lambda b, x, v: b.multiply_high(b.bitcast(v, i32), 3),
}


@pytest.mark.parametrize("message", MISUSES)
def test_the_builder_refuses_misuse_at_once(message: str) -> None:
    b = KernelBuilder("misuse", count=1)
    x = b.buffer("x", f32, 8, "read")
    with pytest.raises(CompilerBug, match="kernel builder") as caught:
        MISUSES[message](b, x, b.load(x, 0, 8))
    assert message in str(caught.value)


def test_a_loop_must_yield_what_it_carries() -> None:
    b = KernelBuilder("loop", count=1)
    with pytest.raises(CompilerBug, match="carries"), b.loop(0, 4, carried=[b.constant(1, i64)]):
        pass
    with pytest.raises(CompilerBug, match="needs a condition"), b.while_loop([b.constant(1, i64)]):
        pass


def test_an_exception_inside_a_block_is_not_hidden() -> None:
    b = KernelBuilder("loop", count=1)
    with pytest.raises(ZeroDivisionError), b.loop(0, 4, carried=[b.constant(1, i64)]):
        raise ZeroDivisionError


def damaged(damage: Callable[[Kernel, Block], None]) -> Kernel:
    kernel = softmax_sum()
    damage(kernel, kernel.body.operations[0].blocks[0])
    return kernel


def _undefined(kernel: Kernel, inner: Block) -> None:
    kernel.body.operations.insert(0, kernel.body.operations.pop())


def _escaping(kernel: Kernel, inner: Block) -> None:
    reduction = kernel.body.operations[1]
    reduction.operands = (inner.operations[2].results[0],)


def _mistyped(kernel: Kernel, inner: Block) -> None:
    inner.operations[0].results[0].dtype = i32


def _mistyped_yield(kernel: Kernel, inner: Block) -> None:
    inner.yields = (kernel.iteration,)


def _unknown(kernel: Kernel, inner: Block) -> None:
    inner.operations[-1].name = "frobnicate"


def _foreign(kernel: Kernel, inner: Block) -> None:
    inner.operations[2].attributes = (Buffer("a", f32, N * 1024, "read"), "")


def _written(kernel: Kernel, inner: Block) -> None:
    load = inner.operations[2]
    load.attributes = (kernel.buffers[1], "")


def _twice(kernel: Kernel, inner: Block) -> None:
    inner.operations.append(inner.operations[0])


def _odd(kernel: Kernel, inner: Block) -> None:
    inner.operations[2].results[0].lanes = 3


def _too_few(kernel: Kernel, inner: Block) -> None:
    inner.operations[-1].operands = inner.operations[-1].operands[:2]


def _prelude(kernel: Kernel, inner: Block) -> None:
    (size,) = next(o for o in kernel.prelude.operations if o.name == "symbol").results
    kernel.prelude.operations.append(Operation("prefetch", (size,), (kernel.buffers[0], False)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_undefined, "is not defined here"),
        (_escaping, "is not defined here"),
        (_mistyped, "wrong types"),
        (_mistyped_yield, "do not fit together"),
        (_unknown, "there is no such operation"),
        (_foreign, "is no buffer of kernel"),
        (_written, "is for write only"),
        (_twice, "is defined once"),
        (_odd, "a power of two"),
        (_too_few, "it has 3 operands"),
        (_prelude, "the prelude holds values"),
    ],
)
def test_the_verifier_names_the_broken_invariant(damage: Callable[[Kernel, Block], None], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify(damaged(damage))


def test_the_verifier_checks_names_and_symbols() -> None:
    kernel = softmax_sum()
    with pytest.raises(VerificationError, match="is no identifier"):
        verify(replace(kernel, name='f"()'))
    with pytest.raises(VerificationError, match="uses the dimensions"):
        verify(replace(kernel, symbols=()))
    with pytest.raises(VerificationError, match="share a name"):
        verify(replace(kernel, buffers=kernel.buffers * 2))


def test_bools_and_integers_reduce_by_bits() -> None:
    b = KernelBuilder("bits", count=1)
    x, y = b.buffer("x", u32, 8, "read"), b.buffer("y", bool_, 1, "write")
    value = b.load(x, 0, 8)
    assert b.reduce("bit_xor", value).type == "u32"
    b.store(y, 0, b.reduce("bit_or", b.compare("eq", value, 0)))
    verify(b.finish())
