"""Laws of the linear map for one row, with `nn.Linear` as the plain path."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.linear import Linear, replace_linear
from tests.tiny import LLAMA

ROWS = st.sampled_from([(), (1,), (1, 1), (3,)])


@given(inputs=st.integers(1, 40), outputs=st.integers(1, 40), rows=ROWS, bias=st.booleans())
def test_any_shape_gives_what_the_plain_map_gives(inputs: int, outputs: int, rows: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    ours = Linear(inputs, outputs, bias=bias)
    values = torch.randn(*rows, inputs)
    with torch.no_grad():
        assert_close(ours(values), nn.functional.linear(values, ours.weight, ours.bias), rtol=1e-5, atol=1e-5)


def test_gradients_and_other_precisions_are_the_plain_maps() -> None:
    ours = Linear(8, 4)
    values = torch.randn(1, 8, requires_grad=True)
    ours(values).sum().backward()
    assert_close(values.grad, ours.weight.sum(dim=0, keepdim=True))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert ours(values).dtype == torch.bfloat16
    half = Linear(8, 4, dtype=torch.bfloat16)
    with torch.no_grad():
        assert half(values.to(torch.bfloat16)).dtype == torch.bfloat16


def test_replacing_changes_neither_weights_nor_names_nor_states() -> None:
    decoder = empty_decoder(LLAMA).eval()
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    inputs = torch.randn(1, 1, 16)
    with torch.no_grad():
        plain = decoder(inputs_embeds=inputs).last_hidden_state
        replace_linear(decoder)
        assert_close(decoder(inputs_embeds=inputs).last_hidden_state, plain)
    assert_close(decoder.state_dict(), before)
    assert not any(type(module) is nn.Linear for module in decoder.modules())
