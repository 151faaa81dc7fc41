"""Random kernels do what the interpreter of kernel IR does, bit for bit: checked or not, whole or in pieces."""

import itertools

import numpy as np
import pytest

from tests.fuzz.checks import same_bits, targets
from tests.fuzz.kernel_interpreter import Array, Interpreter
from tests.fuzz.kernels import KernelSample, kernel_sample
from tgc.backend.codegen import compile_module
from tgc.backend.emit import emit_module
from tgc.backend.jit import KernelLibrary
from tgc.ir.dims import evaluate
from tgc.kernels.ir import Operation
from tgc.kernels.printer import print_kernel
from tgc.kernels.verify import MEMORY, RULES, verify
from tgc.target import Target

KERNELS = 30


def library(sample: KernelSample, target: Target, *, debug: bool) -> KernelLibrary:
    image = compile_module(emit_module([sample.kernel], target, debug=debug), target)
    return KernelLibrary(image, [sample.kernel], debug=debug)


def compiled(sample: KernelSample, code: KernelLibrary, sizes: dict[str, int], pieces: int) -> list[Array]:
    arrays = sample.arrays(sizes)
    count = evaluate(sample.kernel.count, sizes)
    cuts = [count * k // pieces for k in range(pieces + 1)]
    for begin, end in reversed(list(itertools.pairwise(cuts))):
        code.call(sample.kernel.name, arrays, sizes, begin=begin, end=end)
    return arrays


def check_kernel(sample: KernelSample, target: Target) -> None:
    verify(sample.kernel)
    checked, unchecked = (library(sample, target, debug=debug) for debug in (True, False))
    for sizes in sample.sizes:
        wanted = sample.arrays(sizes)
        Interpreter(sample.kernel, target, wanted, sizes).run(0, evaluate(sample.kernel.count, sizes))
        for code, pieces in ((checked, 1), (unchecked, 1), (unchecked, 3)):
            for buffer, a, b in zip(sample.kernel.buffers, compiled(sample, code, sizes, pieces), wanted, strict=True):
                if not same_bits(a, b):
                    where = np.flatnonzero([not same_bits(x, y) for x, y in zip(a[:, None], b[:, None], strict=True)])
                    text = print_kernel(sample.kernel)
                    raise AssertionError(
                        f"seed {sample.seed} for {target.cpu}, sizes {sizes}: {buffer.name} at {where} is {a[where]}, "
                        f"not {b[where]}\n{text}"
                    )


@pytest.mark.parametrize("seed", range(KERNELS))
def test_compiled_kernels_do_what_their_instructions_say(seed: int) -> None:
    check_kernel(kernel_sample(seed), targets()[seed % len(targets())])


def test_random_kernels_have_every_instruction() -> None:
    used: dict[str, Operation] = {}
    for seed in range(10 * KERNELS):
        used.update((operation.name, operation) for operation in kernel_sample(seed).kernel.walk())
    assert not {*RULES, *MEMORY, "for", "while", "if"} - used.keys()


def test_a_seed_gives_one_kernel() -> None:
    assert print_kernel(kernel_sample(3).kernel) == print_kernel(kernel_sample(3).kernel)
