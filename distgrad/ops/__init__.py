"""Operations: one file a family, each with its forwards, its VJPs and the public functions that check and promote.

Within a file the order is always the same: the primitives (forward, VJPs), then the public functions over them. A
primitive computes and differentiates; a public function says what is wrong with its arguments. Three lists at the top
of a file say where its functions are to be found: ``__all__`` (in ``distgrad``), ``METHODS`` (on a tensor),
``IN_PLACE`` (on a tensor, with an underscore, writing into it).
"""

from __future__ import annotations

from . import (
    convolution,
    creation,
    elementwise,
    indexing,
    linalg,
    promotion,
    random,
    rearrange,
    reduction,
    shape,
    transcendental,
)
from .convolution import *
from .creation import *
from .elementwise import *
from .indexing import *
from .linalg import *
from .methods import install
from .promotion import *
from .random import *
from .rearrange import *
from .reduction import *
from .shape import *
from .transcendental import *

install()

__all__: list[str] = []
__all__ += convolution.__all__
__all__ += creation.__all__
__all__ += elementwise.__all__
__all__ += indexing.__all__
__all__ += linalg.__all__
__all__ += promotion.__all__
__all__ += random.__all__
__all__ += rearrange.__all__
__all__ += reduction.__all__
__all__ += shape.__all__
__all__ += transcendental.__all__
