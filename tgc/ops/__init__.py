"""The ops: ``OPS`` is the one table of them all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tgc.ir.opdef import OpDef
from tgc.ops.composite import OPS_COMPOSITE
from tgc.ops.composite_activation import OPS_COMPOSITE_ACTIVATION
from tgc.ops.composite_attention import OPS_COMPOSITE_ATTENTION
from tgc.ops.composite_loss import OPS_COMPOSITE_LOSS
from tgc.ops.composite_norm import OPS_COMPOSITE_NORM
from tgc.ops.composite_recurrent import OPS_COMPOSITE_RECURRENT
from tgc.ops.contract import OPS_CONTRACT
from tgc.ops.control import OPS_CONTROL
from tgc.ops.convert import OPS_CONVERT
from tgc.ops.convolve import OPS_CONVOLVE
from tgc.ops.create import OPS_CREATE
from tgc.ops.cumulative import OPS_CUMULATIVE
from tgc.ops.elementwise import OPS_ELEMENTWISE
from tgc.ops.elementwise_math import OPS_ELEMENTWISE_MATH
from tgc.ops.index import OPS_INDEX
from tgc.ops.index_dynamic import OPS_INDEX_DYNAMIC
from tgc.ops.index_scatter import OPS_INDEX_SCATTER
from tgc.ops.movement import OPS_MOVEMENT
from tgc.ops.movement_border import OPS_MOVEMENT_BORDER
from tgc.ops.random import OPS_RANDOM
from tgc.ops.reduce import OPS_REDUCE
from tgc.ops.sort import OPS_SORT
from tgc.ops.window import OPS_WINDOW

OPS: Mapping[str, OpDef] = MappingProxyType(
    {
        definition.name: definition
        for definition in (
            *OPS_CREATE,
            *OPS_ELEMENTWISE,
            *OPS_ELEMENTWISE_MATH,
            *OPS_CONVERT,
            *OPS_REDUCE,
            *OPS_CUMULATIVE,
            *OPS_MOVEMENT,
            *OPS_MOVEMENT_BORDER,
            *OPS_CONTRACT,
            *OPS_CONVOLVE,
            *OPS_WINDOW,
            *OPS_INDEX,
            *OPS_INDEX_SCATTER,
            *OPS_INDEX_DYNAMIC,
            *OPS_SORT,
            *OPS_RANDOM,
            *OPS_CONTROL,
            *OPS_COMPOSITE,
            *OPS_COMPOSITE_ACTIVATION,
            *OPS_COMPOSITE_NORM,
            *OPS_COMPOSITE_LOSS,
            *OPS_COMPOSITE_ATTENTION,
            *OPS_COMPOSITE_RECURRENT,
        )
    }
)
