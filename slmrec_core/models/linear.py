"""Products with a matrix that are fast for a single row on a CPU, as the next item of one user is.

A product with one row only reads the matrix, and the library behind torch does it in one thread at 11 GB/s, where its
batched form reads 24 GB/s in one thread and 43 in two.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

_PARTS = 4
"""Pieces of the matrix, or what divides its rows; more are no faster."""


class Linear(nn.Linear):
    """`nn.Linear`; in inference a single float32 row on a CPU goes through a batched product over parts of the outputs.
    Everything else is `nn.Linear`'s.
    """

    _parts: Tensor | None = None
    """A view of the weights, kept because making one takes as long as a twentieth of the product."""

    def forward(self, input: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        """`input` times the weights, plus the bias if there is one."""
        if not _is_one_row(input, self.weight):
            return super().forward(input)
        if self._parts is None or self._parts.data_ptr() != self.weight.data_ptr():
            self._parts = _in_parts(self.weight.detach())
        output = _row_times(input, self._parts).view(*input.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias


def times_rows(vectors: Float[Tensor, "row in"], matrix: Float[Tensor, "out in"]) -> Float[Tensor, "row out"]:
    """Inner products of vectors with every row of a matrix; a single vector as in `Linear`."""
    if _is_one_row(vectors, matrix):
        return _row_times(vectors, _in_parts(matrix)).view(1, -1)
    return vectors @ matrix.T


def replace_linear(model: nn.Module) -> None:
    """Puts `Linear`, with the same weights, in the place of every `nn.Linear` of a model."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            faster = Linear(module.in_features, module.out_features, bias=False, device="meta")
            faster.weight, faster.bias = module.weight, module.bias
            model.set_submodule(name, faster)


def _is_one_row(vectors: Tensor, matrix: Tensor) -> bool:
    """True = a single row of inference on a CPU in float32."""
    if type(matrix) not in (Tensor, nn.Parameter):
        # A quantised weight is a class of its own.
        return False
    is_plain = vectors.dtype is matrix.dtype is torch.float32 and vectors.is_cpu and matrix.is_contiguous()
    is_inference = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return vectors.numel() == matrix.shape[1] and is_plain and is_inference


def _in_parts(matrix: Float[Tensor, "out in"]) -> Float[Tensor, "part rows in"]:
    return matrix.view(math.gcd(matrix.shape[0], _PARTS), -1, matrix.shape[1])


def _row_times(row: Tensor, parts: Float[Tensor, "part rows in"]) -> Float[Tensor, "part rows 1"]:
    # A column with a row's strides: laid out as a column of its own it would take torch's own, slow loop.
    count, _, width = parts.shape
    return torch.bmm(parts, row.reshape(-1).as_strided((count, width, 1), (0, 1, width)))
