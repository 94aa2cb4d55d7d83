"""SASRec (arXiv:1808.09781) with full cross entropy: the baseline of every report, and the frozen item table."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from slmrec_core.frozen_config import FrozenConfig
from slmrec_core.models.dropout import Dropout
from slmrec_core.models.recommender import table_scores
from slmrec_core.structures import PAD_ITEM, HiddenStates


class SASRecConfig(FrozenConfig):
    """What the network is."""

    item_dim: PositiveInt = 64
    """Width of the item vectors, hence of the item table that the LLM reads."""
    num_layers: PositiveInt = 2
    """Self-attention blocks."""
    num_heads: PositiveInt = 1
    """Attention heads; divides `item_dim`."""
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Dropout on inputs, attention and feed-forward, probability."""
    block: Literal["masked", "padded"] = "masked"
    """`masked`: attention sees items alone. `padded`: that of the best published runs on Amazon (CE-SCE-LLMRec): it
    also sees the empty places in front of a history shorter than `max_seq_len`, so that it may look at nothing; its
    output has no dropout, the feed-forward layer is added to its normalised input, and biases begin at 0."""


class SASRec(nn.Module):
    """Item and position vectors, causal self-attention blocks, scores against the same item table.

    Departs from the paper: positions are counted from the end of the history, so that the newest item always has the
    same position vector; the residual goes around the un-normalised input; the loss is full cross entropy.

    Args:
        config: What the network is.
        num_items: Catalogue size without padding.
        max_seq_len: Longest history.
    """

    def __init__(self, config: SASRecConfig, num_items: int, max_seq_len: int) -> None:
        super().__init__()
        self.config = config
        self.item_embedding = nn.Embedding(num_items + 1, config.item_dim, padding_idx=PAD_ITEM)
        self.position_embedding = nn.Embedding(max_seq_len, config.item_dim)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.item_dim)
        self.dropout = Dropout(config.dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.item_embedding.weight[PAD_ITEM].zero_()
            if config.block == "padded":
                for module in self.modules():
                    if isinstance(module, nn.Linear):
                        module.bias.zero_()

    @property
    def item_table(self) -> Float[Tensor, "row item_dim"]:
        """Item vectors, row 0 for padding."""
        return self.item_embedding.weight

    def forward(
        self,
        item_ids: Int[Tensor, "batch seq"],
        read_mask: Bool[Tensor, "batch seq"],
        layers: Sequence[int] = (),
    ) -> HiddenStates:
        """User vectors at the positions that are read (True), row by row; `layers` must be empty."""
        if layers:
            raise ValueError(f"SASRec: it has no states to align, got layers {tuple(layers)}. Ask for none.")
        # Only attention needs rows: all else is done for the items alone, which are few where histories are short.
        is_item = item_ids != PAD_ITEM
        steps = torch.arange(item_ids.shape[1], device=item_ids.device)
        from_end = is_item.sum(dim=1, keepdim=True) - 1 - steps
        scale = self.item_embedding.embedding_dim**0.5
        items, positions = self.item_embedding(item_ids[is_item]), self.position_embedding(from_end[is_item])
        states = self.dropout(items * scale + positions)
        places = is_item if self.config.block == "masked" else self._places_at_the_end(is_item)
        for block in self.blocks:
            states = block(states, places)
        return HiddenStates({}, self.final_norm(states[read_mask[is_item]]))

    def _places_at_the_end(self, is_item: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch place"]:
        """True = an item, in rows of `max_seq_len` whose last place has the newest one, however wide the batch is."""
        num_places = self.position_embedding.num_embeddings
        return torch.arange(num_places, device=is_item.device) >= num_places - is_item.sum(dim=1, keepdim=True)

    def score(self, user_vectors: Float[Tensor, "target item_dim"]) -> Float[Tensor, "target row"]:
        """Scores of all rows of the item table; row 0 is padding and gets −inf."""
        return table_scores(user_vectors, self.item_table)

    def parameter_counts(self) -> dict[str, int]:
        """Trained weights, the blocks' weights, and all with the item table."""
        total = sum(p.numel() for p in self.parameters())
        blocks = sum(p.numel() for p in self.blocks.parameters())
        return {"params_trainable": total, "params_decoder": blocks, "params_total": total}


class _Block(nn.Module):
    """Attention whose queries alone are normalised, then a feed-forward layer. It is causal: empty places behind the
    items are never seen, those in front of them are, as zero vectors."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        width = config.item_dim
        self.num_heads, self.is_padded = config.num_heads, config.block == "padded"
        self.attention_dropout = config.dropout
        self.query_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), Dropout(config.dropout), nn.Linear(width, width)
        )
        self.dropout = Dropout(config.dropout)

    def forward(
        self, states: Float[Tensor, "item width"], places: Bool[Tensor, "batch place"]
    ) -> Float[Tensor, "item width"]:
        attended = nn.functional.scaled_dot_product_attention(
            self._heads(self.query(self.query_norm(states)), places, self.query.bias),
            self._heads(self.key(states), places, self.key.bias),
            self._heads(self.value(states), places, self.value.bias),
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=True,
        )
        seen = self.output(attended.transpose(1, 2).flatten(-2)[places])
        states = states + (seen if self.is_padded else self.dropout(seen))
        normed = self.feed_forward_norm(states)
        update: Tensor = self.dropout(self.feed_forward(normed))
        return (normed if self.is_padded else states) + update

    def _heads(
        self, states: Float[Tensor, "item width"], places: Bool[Tensor, "batch place"], bias: Float[Tensor, "width"]
    ) -> Float[Tensor, "batch head place part"]:
        """Items at their places in the rows; elsewhere what a map makes of a zero vector, its bias."""
        rows = bias.expand(*places.shape, -1).clone()
        rows[places] = states
        return rows.view(*places.shape, self.num_heads, -1).transpose(1, 2)
