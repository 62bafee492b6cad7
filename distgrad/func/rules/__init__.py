"""Batching rules: how a primitive computes all samples of a vmap at once.

A rule gets the operands, with the batch in front where their flag is set, and the keywords for one sample; it calls the
primitive, or others, so that the batch comes out in front. The files are by kind: ``elementwise``; ``along`` (one
dimension or several, named by keywords); ``shapes``; ``positions`` (indexing); ``products`` (of matrices, and
convolutions); ``layers``. What has no rule is computed sample by sample: ``common.ONE_BY_ONE`` says why.
"""

from . import along as _along
from . import elementwise as _elementwise
from . import layers as _layers
from . import positions as _positions
from . import products as _products
from . import shapes as _shapes
from .common import ONE_BY_ONE, RULES

__all__ = ["ONE_BY_ONE", "RULES"]

FILES = (_along, _elementwise, _layers, _positions, _products, _shapes)  # which enter their rules
