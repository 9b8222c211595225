"""Collaborative filtering: item neighbours, EASE and implicit matrix factorization, on sparse arrays.

All three score products for customers from who bought what; none knows time or prices (see `features`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class ItemNeighbours:
    """Item-based neighbours: a customer's score of a product is the sum of similarities to what was bought.

    Attributes:
        similarity: Products x products, `k` most similar per column, zero diagonal.
    """

    similarity: sparse.csr_matrix

    def scores(self, bought: sparse.csr_matrix) -> Matrix:
        """Scores of all products for the customers of the rows, dense (rows, products)."""
        return np.asarray((bought @ self.similarity).todense(), np.float32)


def item_neighbours(bought: sparse.csr_matrix, k: int = 100, shrink: float = 10.0, block: int = 2000) -> ItemNeighbours:
    """Cosine similarity of products by the customers who bought both, shrunk towards 0 where few did.

    s_ij = c_ij / (sqrt(c_ii c_jj) + shrink) (Deshpande and Karypis 2004, with the shrinkage of Koren 2008).

    Args:
        bought: Customers x products; values weigh a purchase.
        k: Neighbours kept per product.
        shrink: Co-purchases that a similarity must outweigh.
        block: Products handled at once; bounds memory.
    """
    matrix = bought.tocsc().astype(np.float32)
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    transposed = matrix.T.tocsr()
    rows, columns, values = [], [], []
    for start in range(0, matrix.shape[1], block):
        stop = min(start + block, matrix.shape[1])
        together = (transposed @ matrix[:, start:stop]).tocsc()
        for j in range(stop - start):
            low, high = together.indptr[j], together.indptr[j + 1]
            index = together.indices[low:high]
            value = together.data[low:high] / (norm[index] * norm[start + j] + shrink)
            value[index == start + j] = 0.0
            if len(index) > k:
                best = np.argpartition(-value, k)[:k]
                index, value = index[best], value[best]
            rows.append(index)
            values.append(value)
            columns.append(np.full(len(index), start + j))
    shape = (matrix.shape[1], matrix.shape[1])
    if not rows:
        return ItemNeighbours(sparse.csr_matrix(np.zeros(shape, np.float32)))
    found = sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
    found.eliminate_zeros()
    return ItemNeighbours(found)


@dataclass(frozen=True)
class Ease:
    """A linear autoencoder without self-similarity.

    Attributes:
        weights: Products x products over `known` (dense).
        known: Positions of the products that it covers.
        size: Number of all products.
    """

    weights: Matrix
    known: NDArray[np.int64]
    size: int

    def scores(self, bought: sparse.csr_matrix) -> Matrix:
        """Scores of all products for the customers of the rows; products not covered score 0."""
        out = np.zeros((bought.shape[0], self.size), np.float32)
        out[:, self.known] = bought[:, self.known] @ self.weights
        return out


def ease(bought: sparse.csr_matrix, regularization: float = 200.0, most: int = 6000) -> Ease:
    """EASE: argmin_B |X - X B|^2 + lambda |B|^2 with diag B = 0, in closed form (Steck 2019, eq. 8).

    Args:
        bought: Customers x products.
        regularization: lambda.
        most: The most bought products covered (the inverse is dense and cubic in this).
    """
    count = np.asarray((bought > 0).sum(axis=0)).ravel()
    known = np.sort(np.argsort(-count, kind="stable")[:most])
    known = known[count[known] > 0].astype(np.int64)
    x = bought[:, known].astype(np.float64)
    gram = np.asarray((x.T @ x).todense())
    gram[np.diag_indices(len(known))] += regularization
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)[None, :]
    weights[np.diag_indices(len(known))] = 0.0
    return Ease(weights.astype(np.float32), known, bought.shape[1])


@dataclass(frozen=True)
class Factors:
    """Implicit factors of customers and products: the score is their product.

    Attributes:
        user: (customers, factors).
        item: (products, factors).
    """

    user: Matrix
    item: Matrix

    def scores(self, rows: NDArray[np.int64] | slice) -> Matrix:
        """Scores of all products for the customers chosen."""
        return np.asarray(self.user[rows] @ self.item.T, np.float32)


def implicit_factors(
    bought: sparse.csr_matrix,
    factors: int = 64,
    regularization: float = 10.0,
    confidence: float = 10.0,
    sweeps: int = 8,
    seed: int = 0,
) -> Factors:
    """Alternating least squares for implicit feedback (Hu, Koren and Volinsky 2008, eqs. 4 and 5).

    Minimizes sum_ui c_ui (p_ui - x_u y_i)^2 + lambda (|x|^2 + |y|^2) with p = [r > 0] and c = 1 + alpha r.

    Args:
        bought: Customers x products, strength r of a pair.
        factors: Length of the vectors.
        regularization: lambda.
        confidence: alpha.
        sweeps: Times that both sides are solved.
        seed: Of the first product vectors.
    """
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    item = (0.01 * rng.standard_normal((bought.shape[1], factors))).astype(np.float32)
    by_user = bought.tocsr().astype(np.float32)
    by_item = bought.T.tocsr().astype(np.float32)
    user = np.zeros((bought.shape[0], factors), np.float32)
    # The systems are small: more than one BLAS thread only waits.
    with threadpool_limits(1):
        for _ in range(sweeps):
            user = _solve_side(by_user, item, regularization, confidence)
            item = _solve_side(by_item, user, regularization, confidence)
    return Factors(user, item)


def _solve_side(rows: sparse.csr_matrix, other: Matrix, regularization: float, confidence: float) -> Matrix:
    """Solves all vectors of one side: the normal equations row by row, their solution many rows at once."""
    factors = other.shape[1]
    base = other.T @ other + regularization * np.eye(factors, dtype=np.float32)
    out = np.zeros((rows.shape[0], factors), np.float32)
    filled = np.flatnonzero(np.diff(rows.indptr))
    for start in range(0, len(filled), 2048):
        chosen = filled[start : start + 2048]
        left = np.empty((len(chosen), factors, factors), np.float32)
        right = np.empty((len(chosen), factors, 1), np.float32)
        for k, row in enumerate(chosen):
            low, high = rows.indptr[row], rows.indptr[row + 1]
            vectors = other[rows.indices[low:high]]
            weight = confidence * rows.data[low:high]
            left[k] = base + vectors.T @ (vectors * weight[:, None])
            right[k, :, 0] = (1.0 + weight) @ vectors
        out[chosen] = np.linalg.solve(left, right)[:, :, 0]
    return out
