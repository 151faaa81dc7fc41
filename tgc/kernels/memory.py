"""The part of the builder of kernels that reads and writes memory."""

from __future__ import annotations

from tgc.dtypes import bool_
from tgc.kernels.ir import Buffer, Value
from tgc.kernels.scopes import Operand, ScopedBuilder, fault


class MemoryBuilder(ScopedBuilder):
    """Loads and stores of :class:`tgc.kernels.builder.KernelBuilder`; see there."""

    def _guard(self, count: Operand | None, mask: Value | None, lanes: int) -> tuple[str, tuple[Value, ...]]:
        if count is not None and mask is not None:
            raise fault("an access has a count or a mask, not both")
        if mask is not None:
            if mask.dtype is not bool_ or mask.lanes != lanes:
                raise fault(f"the mask {mask} for {lanes} lanes")
            return "mask", (mask,)
        if count is None:
            return "", ()
        number = self.index(count)
        return ("", ()) if number.constant is not None and number.constant >= lanes else ("count", (number,))

    def load(
        self,
        buffer: Buffer,
        offset: Operand,
        lanes: int = 1,
        *,
        count: Operand | None = None,
        mask: Value | None = None,
    ) -> Value:
        """``lanes`` elements from ``offset`` (in elements) on.

        With ``count`` only the leading ones are read, with ``mask`` only those where it holds; the other lanes are 0.
        """
        if buffer.access == "write":
            raise fault(f"load from {buffer.name}, which is for writing")
        guard, operands = self._guard(count, mask, lanes)
        return self._append(self._block, "load", (self.index(offset), *operands), buffer.dtype, lanes, (buffer, guard))

    def store(
        self,
        buffer: Buffer,
        offset: Operand,
        value: Value,
        *,
        count: Operand | None = None,
        mask: Value | None = None,
    ) -> None:
        """The lanes of ``value`` to ``offset`` (in elements) and on; ``count`` and ``mask`` as in :meth:`load`."""
        self._check_store(buffer, value)
        guard, operands = self._guard(count, mask, value.lanes)
        self._effect("store", (self.index(offset), value, *operands), (buffer, guard))

    def _check_store(self, buffer: Buffer, value: Value) -> None:
        if buffer.access == "read":
            raise fault(f"store to {buffer.name}, which is for reading")
        if value.dtype is not buffer.dtype:
            raise fault(f"store of {value} to {buffer.name} of {buffer.dtype}")

    def gather(self, buffer: Buffer, offsets: Value, *, mask: Value | None = None) -> Value:
        """One element per lane of ``offsets`` (i64 or i32); 0 where ``mask`` does not hold."""
        if buffer.access == "write":
            raise fault(f"gather from {buffer.name}, which is for writing")
        self._check_offsets(offsets)
        guard, operands = self._guard(None, mask, offsets.lanes)
        return self._append(self._block, "gather", (offsets, *operands), buffer.dtype, offsets.lanes, (buffer, guard))

    def scatter(self, buffer: Buffer, offsets: Value, value: Value, *, mask: Value | None = None) -> None:
        """One element per lane; of lanes with the same offset the last one stays."""
        self._check_store(buffer, value)
        self._check_offsets(offsets)
        if offsets.lanes != value.lanes:
            raise fault(f"scatter of {value} to {offsets}")
        guard, operands = self._guard(None, mask, offsets.lanes)
        self._effect("scatter", (offsets, value, *operands), (buffer, guard))

    def _check_offsets(self, offsets: Value) -> None:
        if offsets.dtype.kind != "int" or offsets.dtype.bits < 32:
            raise fault(f"offsets are i64 or i32, not {offsets}")

    def prefetch(self, buffer: Buffer, offset: Operand, *, write: bool = False) -> None:
        """A hint that the line at ``offset`` will be used soon; the offset may lie outside of the buffer."""
        self._effect("prefetch", (self.index(offset),), (buffer, write))
