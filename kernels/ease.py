"""EASE: a linear item-item autoencoder with a zero diagonal, in closed form (Steck, WWW 2019, arXiv 1905.03375).

With the interactions X (users × items) and the item weights B (items × items):

    P = (XᵀX + λ·1)⁻¹,   B = 1 − P · diag(P)⁻¹,   scores(x) = x B.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels import tiles
from infrec.kernels.inner_products import inner_products
from infrec.kernels.tiles import ArrayTiles, FinishedTiles, Layout, Tiles


def item_gram(train: sp.csr_array, layout: Layout, out: Tiles) -> None:
    """Write the lower tiles of XᵀX (items × items, float32) to `out`, from X = `train` (CSR, users × items).

    For binary rows they are co-occurrence counts, exact up to 2²⁴.
    """
    by_item = train.T.tocsr()
    for i, j in layout.lower():
        out[i, j] = inner_products(by_item[layout.span(i)], by_item[layout.span(j)])


def item_weights(
    gram: FinishedTiles, layout: Layout, lam: float, inverse: ArrayTiles, out: Float[np.ndarray, "items items"]
) -> None:
    """Write B to `out`, from the lower tiles of XᵀX and λ. `inverse` is scratch memory for the tiles of P.

    P has the dtype of `inverse`. Raises `tiles.NotPositiveDefinite` where XᵀX + λ·1 has no Cholesky factor in it.
    """
    tiles.copy_with_ridge(gram, inverse, layout, lam)
    tiles.invert(inverse, layout)
    diagonal = np.concatenate([np.diag(inverse[i, i]) for i in range(layout.count)])
    for span in layout.spans():
        rows = np.arange(span.start, span.stop)
        out[rows] = tiles.columns(inverse, layout, rows).T
    out /= -diagonal
    np.fill_diagonal(out, 0.0)
