"""The authors' procedure on the same shapes: what our figures are compared with.

As SLMRec's published code does it: 69 tokens of the Alpaca template around 30 item positions that are padded on the
left inside the prompt, one target per user, read at the last token; the template goes through the decoder again for
every row, LoRA on the MLPs, float32 weights under bfloat16 autocast, transformers' default attention with a mask of
padding. Where nothing computes bfloat16 fast, without the autocast: they lose nothing by the machine.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from benchmarks.shapes import DTYPE, PRECISION
from slmrec_core.data import SequenceDataset
from slmrec_core.models.attention import set_attention
from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.lora import mlp_projections

INSTRUCTION_TOKENS, RESPONSE_TOKENS = 60, 9
HISTORY = 30
BATCH_SIZE = 32


class AuthorsModel(nn.Module):
    """Frozen item table → projection → prompt around it → decoder → last token → projection → scores.

    Args:
        decoder: Of any depth, with its vocabulary.
        num_layers: Its layers.
        item_table: Frozen vectors, row 0 for padding.
    """

    template: Tensor
    item_table: Tensor

    def __init__(self, decoder: nn.Module, num_layers: int, item_table: Float[Tensor, "row item_dim"]) -> None:
        super().__init__()
        # Slow to import.
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415

        set_attention(decoder, "sdpa")
        decoder.requires_grad_(False)
        lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.05, target_modules=mlp_projections(decoder, num_layers))
        vocabulary = decoder.get_input_embeddings().weight  # type: ignore[operator]
        tokens = torch.arange(INSTRUCTION_TOKENS + RESPONSE_TOKENS) % len(vocabulary)
        self.register_buffer("template", vocabulary[tokens].detach().clone())
        self.decoder = inject_adapter_in_model(lora, decoder)
        item_dim, hidden = item_table.shape[1], vocabulary.shape[1]
        self.register_buffer("item_table", item_table.clone())
        self.input_projection = nn.Linear(item_dim, hidden)
        self.output_projection = nn.Linear(hidden, item_dim, bias=False)

    def forward(self, item_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch row"]:
        """Scores of all rows of the table; `item_ids` are padded on the left with 0."""
        rows = len(item_ids)
        template = self.template.expand(rows, -1, -1)
        is_item = item_ids > 0
        ones = is_item.new_ones(rows, 1)
        mask = torch.cat([ones.expand(-1, INSTRUCTION_TOKENS), is_item, ones.expand(-1, RESPONSE_TOKENS)], dim=1).long()
        with torch.autocast(item_ids.device.type, DTYPE, enabled=PRECISION != "fp32"):
            items = self.input_projection(self.item_table[item_ids])
            prompt = [template[:, :INSTRUCTION_TOKENS], items, template[:, INSTRUCTION_TOKENS:]]
            states = self.decoder(
                inputs_embeds=torch.cat(prompt, dim=1), attention_mask=mask, use_cache=False
            ).last_hidden_state
            vectors: Tensor = self.output_projection(states[:, -1])
            return vectors @ self.item_table.T


def authors_model(
    config: dict[str, object], num_layers: int, item_table: Float[Tensor, "row item_dim"]
) -> AuthorsModel:
    """The model on random weights of a configuration's shape."""
    torch.manual_seed(0)
    return AuthorsModel(empty_decoder({**config, "num_hidden_layers": num_layers}), num_layers, item_table)


def left_padded(
    dataset: SequenceDataset, users: Int[np.ndarray, " batch"], ends: Int[np.ndarray, " users"]
) -> Int[Tensor, "batch seq"]:
    """The last 30 events before `ends`, padded on the left."""
    positions = ends[users][:, None] - HISTORY + np.arange(HISTORY)
    inside = positions >= dataset.offsets[users][:, None]
    return torch.from_numpy(np.where(inside, dataset.events[np.where(inside, positions, 0)], 0).astype(np.int64))


def training_batches(
    dataset: SequenceDataset, generator: np.random.Generator
) -> Iterator[tuple[Int[Tensor, "batch seq"], Int[Tensor, " batch"]]]:
    """An epoch: every user once, the last item of the training part to be predicted from those before it."""
    order = generator.permutation(dataset.num_users)
    ends = dataset.history_ends("train") - 1
    for start in range(0, len(order), BATCH_SIZE):
        users = order[start : start + BATCH_SIZE]
        yield left_padded(dataset, users, ends), torch.from_numpy(dataset.events[ends[users]].astype(np.int64))


def training_step(
    model: AuthorsModel, optimizer: torch.optim.Optimizer, item_ids: Tensor, targets: Int[Tensor, " batch"]
) -> None:
    """Cross entropy over the whole catalogue, and one step."""
    loss = nn.functional.cross_entropy(model(item_ids).float(), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
