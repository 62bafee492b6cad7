"""Operations: one file a family, each with its forwards, its VJPs and the public functions that check and promote.

Within a file the order is always the same: the primitives (forward, VJPs), then the public functions over them. A
primitive computes and differentiates; a public function says what is wrong with its arguments.
"""

from __future__ import annotations

from .methods import install

install()
