"""Operations: one file a family, each with its forwards, its VJPs and the public functions that check and promote.

Within a file the order is always the same: the primitives (forward, VJPs), then the public functions over them. A
primitive computes and differentiates; a public function says what is wrong with its arguments. Three lists at the top
of a file say where its functions are to be found: ``__all__`` (in ``distgrad``), ``METHODS`` (on a tensor),
``IN_PLACE`` (on a tensor, with an underscore, writing into it).
"""

from __future__ import annotations

from . import (
    added_products,
    comparison,
    contraction,
    convolution,
    correlation,
    counting,
    creation,
    decomposition,
    determinant,
    diagonals,
    differences,
    division,
    elementwise,
    exponentials,
    extremum,
    floating,
    folding,
    fused,
    grid,
    grid_sampling,
    indexing,
    interpolation,
    join,
    largest,
    linalg,
    lu_factorization,
    masked,
    matrix_function,
    matrix_norm,
    older_linalg,
    order_statistics,
    padding,
    pieces,
    pooling,
    positions,
    power,
    promotion,
    query,
    random,
    rearrange,
    rectifier,
    reduction,
    rescaling,
    return_types,
    rounding,
    sampling,
    scan,
    shape,
    slices,
    solver,
    sorting,
    special,
    strided,
    transcendental,
)
from .added_products import *
from .comparison import *
from .contraction import *
from .convolution import *
from .correlation import *
from .counting import *
from .creation import *
from .decomposition import *
from .determinant import *
from .diagonals import *
from .differences import *
from .division import *
from .elementwise import *
from .exponentials import *
from .extremum import *
from .floating import *
from .folding import *
from .fused import *
from .grid import *
from .grid_sampling import *
from .indexing import *
from .interpolation import *
from .join import *
from .largest import *
from .linalg import *
from .lu_factorization import *
from .masked import *
from .matrix_function import *
from .matrix_norm import *
from .methods import install
from .older_linalg import *
from .order_statistics import *
from .padding import *
from .pieces import *
from .pooling import *
from .positions import *
from .power import *
from .promotion import *
from .query import *
from .random import *
from .rearrange import *
from .rectifier import *
from .reduction import *
from .rescaling import *
from .rounding import *
from .sampling import *
from .scan import *
from .shape import *
from .slices import *
from .solver import *
from .sorting import *
from .special import *
from .strided import *
from .transcendental import *

install()

__all__: list[str] = []
__all__ += added_products.__all__
__all__ += comparison.__all__
__all__ += contraction.__all__
__all__ += convolution.__all__
__all__ += correlation.__all__
__all__ += counting.__all__
__all__ += creation.__all__
__all__ += decomposition.__all__
__all__ += determinant.__all__
__all__ += diagonals.__all__
__all__ += differences.__all__
__all__ += division.__all__
__all__ += elementwise.__all__
__all__ += exponentials.__all__
__all__ += extremum.__all__
__all__ += floating.__all__
__all__ += folding.__all__
__all__ += fused.__all__
__all__ += grid.__all__
__all__ += grid_sampling.__all__
__all__ += indexing.__all__
__all__ += interpolation.__all__
__all__ += join.__all__
__all__ += largest.__all__
__all__ += linalg.__all__
__all__ += lu_factorization.__all__
__all__ += masked.__all__
__all__ += matrix_function.__all__
__all__ += matrix_norm.__all__
__all__ += older_linalg.__all__
__all__ += order_statistics.__all__
__all__ += padding.__all__
__all__ += pieces.__all__
__all__ += pooling.__all__
__all__ += positions.__all__
__all__ += power.__all__
__all__ += promotion.__all__
__all__ += query.__all__
__all__ += random.__all__
__all__ += rearrange.__all__
__all__ += rectifier.__all__
__all__ += reduction.__all__
__all__ += ["return_types"]
__all__ += rescaling.__all__
__all__ += rounding.__all__
__all__ += sampling.__all__
__all__ += scan.__all__
__all__ += shape.__all__
__all__ += slices.__all__
__all__ += solver.__all__
__all__ += sorting.__all__
__all__ += special.__all__
__all__ += strided.__all__
__all__ += transcendental.__all__
