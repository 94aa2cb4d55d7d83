"""The model of SLMRec: item table → input projection → decoder of n layers → pooling → output projection → scores.

Teacher and student are this one class; they differ by configuration alone (arXiv:2405.17890, framework figure).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from slmrec_core.errors import ConfigError
from slmrec_core.frozen_config import FrozenConfig
from slmrec_core.hardware import attention_kernel
from slmrec_core.models.architecture import final_norm, layer_name, num_positions
from slmrec_core.models.attention import (
    DecoderCache,
    can_pack,
    decoder_inputs,
    longest_packed_row,
    new_cache,
    set_attention,
)
from slmrec_core.models.backbone import Backbone
from slmrec_core.models.decoder import LayerChoice, load_decoder
from slmrec_core.models.dropout import Dropout
from slmrec_core.models.last_mlp import last_mlp, only_at
from slmrec_core.models.layout import Layout, packed_layout, padded_layout
from slmrec_core.models.linear import replace_linear, times_rows
from slmrec_core.models.lora import add_lora, merge_lora
from slmrec_core.models.prompt import Prompt, Template, tokenize_prompt
from slmrec_core.models.quantization import WeightFormat, quantize_linear
from slmrec_core.structures import PAD_ITEM, HiddenStates

Pooling = Literal["item", "response"]


class RecommenderConfig(FrozenConfig):
    """What the network is; equal settings and equal seeds give equal weights."""

    backbone: str | None = None
    """Alias, local directory, GGUF file or hub id, maybe with `@revision`; None = the experiment's `backbone`."""
    num_layers: NonNegativeInt = 4
    """Decoder layers that are kept; 0 = the projections and the final norm alone."""
    layer_choice: LayerChoice = "first"
    """`first` n layers (the paper), or `every` k-th with the last among them."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """Where the decoder starts: from the backbone's weights, or from random ones of the seed, a control that tells
    what pretraining brings."""
    item_vectors: Literal["frozen", "trained"] = "frozen"
    """SASRec's vectors as they are (the paper), or trained on with the rest."""
    pooling: Pooling = "item"
    """Where the user is read: at the `item` itself, so that every position can be a target, or at the last token of
    the closing template, the `response` (the paper)."""
    template: Template = "question"
    """Text around the items: the `question` of the paper's figure, or the `alpaca` text of the authors' code."""
    tuning: Literal["lora", "full"] = "lora"
    """`lora` trains low-rank updates of the MLPs (the paper), `full` every weight of the decoder."""
    lora_rank: PositiveInt = 16
    """Rank of the updates."""
    lora_alpha: PositiveInt = 16
    """Scale of the updates is alpha / rank."""
    lora_dropout: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Dropout on the input of the updates, probability."""
    input_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the item vectors that enter the decoder, probability."""


class RecommenderModel(nn.Module):
    """Scores every item after every position that is read.

    The decoder runs in `compute_dtype` under autocast; projections, scores and softmax stay in float32, because
    bfloat16 scores tie.

    Args:
        config: What the network is.
        decoder: As many layers as `config` says, with its vocabulary.
        prompt: Template in the backbone's tokens.
        item_table: Vectors to start from, row 0 for padding.
        compute_dtype: Precision of the decoder's arithmetic; frozen weights are stored in it.

    Raises:
        ConfigError: LoRA is asked for where a layer has no MLP that it could adapt.
    """

    item_table: Tensor
    """Item vectors, row 0 for padding; float32."""
    weight_format: WeightFormat = "float"
    """Of the decoder's linear maps."""

    def __init__(
        self,
        config: RecommenderConfig,
        decoder: nn.Module,
        prompt: Prompt,
        item_table: Float[Tensor, "row item_dim"],
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = compute_dtype
        self._kernel: str | None = None
        self._packs = False
        self.prompt = prompt if config.pooling == "response" else Prompt(prompt.before, ())
        vocabulary = decoder.get_input_embeddings()  # type: ignore[operator]
        self.vocab_size, self.hidden_size = vocabulary.weight.shape
        tokens = torch.tensor(self.prompt.before + self.prompt.after) % self.vocab_size
        # Called, not indexed: some architectures scale what they look up.
        self.prompt_vectors = nn.Embedding(len(tokens), self.hidden_size)
        self.prompt_vectors.weight = nn.Parameter(vocabulary(tokens).detach().clone())
        # Only the template's rows of the vocabulary are ever read; the rest need not be held by any worker.
        decoder.set_input_embeddings(nn.Identity())  # type: ignore[operator]
        self._num_positions = num_positions(decoder)
        self._can_pack = can_pack(decoder, self.hidden_size)
        self._last_mlp = last_mlp(decoder, config.num_layers, self.hidden_size)
        replace_linear(decoder)
        if config.tuning == "lora":
            decoder = add_lora(decoder, config.num_layers, config.lora_rank, config.lora_alpha, config.lora_dropout)
            self.prompt_vectors.requires_grad_(False)
        self.decoder = decoder
        self.input_projection = nn.Linear(item_table.shape[1], self.hidden_size)
        self.output_projection = nn.Linear(self.hidden_size, item_table.shape[1], bias=False)
        self.input_dropout = Dropout(config.input_dropout)
        table = item_table.detach().to(torch.float32).clone()
        if config.item_vectors == "trained":
            self.item_table = nn.Parameter(table)
        else:
            self.register_buffer("item_table", table)
        self._store_frozen_weights_in(compute_dtype)

    @classmethod
    def from_backbone(
        cls,
        config: RecommenderConfig,
        backbone: Backbone,
        item_table: Float[Tensor, "row item_dim"],
        compute_dtype: torch.dtype = torch.float32,
    ) -> "RecommenderModel":
        """The untrained model on a pretrained decoder; projections and adapters come from torch's global generator.

        Raises:
            ConfigError: The backbone cannot be cut as `config` says.
            CheckpointError: Its files are damaged.
        """
        decoder = load_decoder(backbone, config.num_layers, config.layer_choice, config.weights)
        return cls(config, decoder, tokenize_prompt(config.template, backbone.directory), item_table, compute_dtype)

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return self.config.num_layers

    def forward(
        self,
        item_ids: Int[Tensor, "batch seq"],
        read_mask: Bool[Tensor, "batch seq"],
        layers: Sequence[int] = (),
    ) -> HiddenStates:
        """States at the positions that are read, row by row.

        Args:
            item_ids: Histories, right-padded.
            read_mask: True = read the user there. With `response` pooling a row is read at most once, after its end.
            layers: Layers whose states are wanted beside the user vectors; 0 = the projected inputs.

        Raises:
            ConfigError: A history is longer than the positions that the decoder knows.
        """
        inner = [layer for layer in layers if layer < self.num_layers]
        layout = self._layout(item_ids)
        inputs, read = self._embed(item_ids, read_mask, layout)
        with self._autocast(inputs), self._last_layer_at(read, layout):
            output = self.decoder(
                inputs_embeds=inputs.to(self.compute_dtype),
                output_hidden_states=bool(inner),
                use_cache=False,
                **decoder_inputs(layout, self.compute_dtype),
            )
        # hidden_states[0] is the decoder's input, so layer n sits at index n.
        states = {layer: output.hidden_states[layer].flatten(0, 1)[read] for layer in inner}
        last = output.last_hidden_state.flatten(0, 1)[read]
        if self.num_layers in layers:
            states[self.num_layers] = last
        return HiddenStates(states, self.project(last))

    @torch.inference_mode()
    def continued(
        self, item_ids: Int[Tensor, "item"], cache: DecoderCache | None = None
    ) -> tuple[Float[Tensor, "1 item_dim"], DecoderCache]:
        """The user after some more items of one history: only these go through the decoder. For inference.

        Args:
            item_ids: At least one, the newest last.
            cache: What an earlier call returned, for the items before these; it is extended in place. None = these are
                the history's first.

        Raises:
            ConfigError: The decoder cannot go on from where it was; `can_continue` says so. Or it knows too few
                positions.
        """
        if not self.can_continue:
            raise ConfigError(
                f"model: to continue a history takes attention without a window, got a {type(self.decoder).__name__}."
                " Read the whole history again."
            )
        self._settle_attention(item_ids.device)
        opening = len(self.prompt.before)
        prompt = self.prompt_vectors.weight
        vectors = self.input_projection(self.item_table[item_ids]).to(self.compute_dtype)
        if cache is None:
            cache = new_cache(self.decoder)
            vectors = torch.cat([prompt[:opening].to(self.compute_dtype), vectors])
        last = self._extend(vectors, cache)
        if self.prompt.after:
            # The closing template is read behind the newest item, and forgotten before the next one comes.
            last = self._extend(prompt[opening:].to(self.compute_dtype), cache)
            cache.crop(-len(self.prompt.after))
        return self.project(last), cache

    @property
    def can_continue(self) -> bool:
        """True = keys and values of items that were read can be kept for the next request of the same user."""
        return self._can_pack and longest_packed_row(self.decoder) == float("inf")

    def merge_lora(self) -> None:
        """Adds the low-rank updates to the weights that they update, in place: the same model with fewer operations.

        For inference: nothing of the decoder is trained afterwards. Where the decoder's weights are bfloat16 the sums
        are rounded to it, and scores move a little. Without updates nothing changes.
        """
        merge_lora(self.decoder)

    def quantize(self, weights: WeightFormat) -> None:
        """Rounds the weights of the decoder's linear maps, updates merged, in place; for inference.

        Raises:
            ConfigError: The decoder's maps cannot be rounded so.
        """
        if weights == "float":
            return
        self.merge_lora()
        # Weights that were trained are stored in float32.
        self.decoder.requires_grad_(False)
        self._store_frozen_weights_in(self.compute_dtype)
        quantize_linear(self.decoder, weights)
        self.weight_format = weights

    def normed(self, state: Float[Tensor, "target hidden"]) -> Float[Tensor, "target hidden"]:
        """An inner state read through the final norm."""
        with self._autocast(state):
            return final_norm(self.decoder)(state)  # type: ignore[no-any-return]

    def project(self, state: Float[Tensor, "target hidden"]) -> Float[Tensor, "target item_dim"]:
        """Output projection of a state, in float32."""
        with _no_autocast(state.device):
            return self.output_projection(state.to(torch.float32))  # type: ignore[no-any-return]

    def score(self, user_vectors: Float[Tensor, "target item_dim"]) -> Float[Tensor, "target row"]:
        """Scores of all rows of the item table; row 0 is padding and gets −inf."""
        return table_scores(user_vectors, self.item_table)

    def parameter_counts(self, depth: int | None = None) -> dict[str, int]:
        """Trained weights, the decoder's weights, and all with the vocabulary and the item table.

        Args:
            depth: Layers that count, as a probe reads the model after one of them; None = all.
        """
        above = [
            parameter
            for name, parameter in self.decoder.named_parameters()
            if depth is not None and (part := layer_name(name)) is not None and part.layer >= depth
        ]
        unread = sum(p.numel() for p in above)
        held = {name: p.numel() for name, p in self.named_parameters() if name != "item_table"}
        own = sum(held.values()) - self.prompt_vectors.weight.numel() - unread
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return {
            "params_trainable": trainable - sum(p.numel() for p in above if p.requires_grad),
            "params_decoder": sum(p.numel() for p in self.decoder.parameters()) - unread,
            "params_total": own + self.vocab_size * self.hidden_size + self.item_table.numel(),
        }

    def _layout(self, item_ids: Int[Tensor, "batch seq"]) -> Layout:
        """Packed rows where the decoder and the kernel of this device allow them, else one history in each row."""
        self._settle_attention(item_ids.device)
        length, template = (item_ids != PAD_ITEM).sum(dim=1) + len(self.prompt.after), len(self.prompt.before)
        if self._num_positions < float("inf"):
            self._require_positions(template + int(length.max()))
        if self._packs:
            layout = packed_layout(length, template)
            if template + layout.width <= longest_packed_row(self.decoder):
                return layout
        return padded_layout(length, template)

    def _last_layer_at(self, read: Int[Tensor, "target"], layout: Layout) -> AbstractContextManager[None]:
        """What the decoder runs in: where most positions are not read, the last MLP is not run at them."""
        few = 2 * len(read) < layout.num_rows * layout.width
        return only_at(self.decoder.get_submodule(self._last_mlp), read) if few and self._last_mlp else nullcontext()

    def _settle_attention(self, device: torch.device) -> None:
        kernel = attention_kernel(device, self.compute_dtype)
        if kernel != self._kernel:
            # The model is new, or was moved.
            self._packs = set_attention(self.decoder, kernel, packed=self._can_pack)
            self._kernel = kernel

    def _extend(self, vectors: Float[Tensor, "token hidden"], cache: DecoderCache) -> Float[Tensor, "1 hidden"]:
        """The last state of tokens that follow what is in the cache, which then holds them too."""
        self._require_positions(cache.get_seq_length() + len(vectors))
        with self._autocast(vectors):
            output = self.decoder(inputs_embeds=vectors[None], past_key_values=cache, use_cache=True)
        return output.last_hidden_state[:, -1]  # type: ignore[no-any-return]

    def _embed(
        self, item_ids: Int[Tensor, "batch seq"], read_mask: Bool[Tensor, "batch seq"], layout: Layout
    ) -> tuple[Float[Tensor, "row token hidden"], Int[Tensor, "target"]]:
        """Template, items and closing template at their places, and the flat places where the states are read."""
        is_item = item_ids != PAD_ITEM
        with _no_autocast(item_ids.device):
            items = self.input_projection(self.input_dropout(self.item_table[item_ids[is_item]]))
        opening, closing = len(self.prompt.before), len(self.prompt.after)
        prompt = self.prompt_vectors(torch.arange(opening + closing, device=item_ids.device)).to(items.dtype)
        steps = torch.arange(max(item_ids.shape[1], closing), device=item_ids.device)
        item_slots = layout.slots(steps[: item_ids.shape[1]].expand_as(item_ids))
        # The closing template follows each history's last item directly: padding comes after everything, so that it
        # neither is attended to nor shifts a rotary position (the authors pad inside the prompt).
        closing_slots = layout.slots(is_item.sum(dim=1, keepdim=True) + steps[:closing])
        opening_slots = layout.template_slots()
        slots = [item_slots[is_item], opening_slots.flatten(), closing_slots.flatten()]
        vectors = [items, prompt[:opening].repeat(len(opening_slots), 1), prompt[opening:].repeat(len(item_ids), 1)]
        inputs = items.new_zeros(layout.num_rows * layout.width, self.hidden_size)
        inputs = inputs.index_copy(0, torch.cat(slots), torch.cat(vectors)).view(layout.num_rows, layout.width, -1)
        return inputs, closing_slots[read_mask.any(dim=1), -1] if closing else item_slots[read_mask]

    def _require_positions(self, num_tokens: int) -> None:
        """Said here, because a position that is not in the decoder's table would end the process on a GPU."""
        if num_tokens > self._num_positions:
            known, template = int(self._num_positions), len(self.prompt.before) + len(self.prompt.after)
            raise ConfigError(
                f"max_seq_len: a {type(self.decoder).__name__} with {known} positions has room for"
                f" {max(known - template, 0)} items beside the template, got a history of {num_tokens} tokens."
                " Lower max_seq_len, or name a backbone with more positions."
            )

    def _autocast(self, like: Tensor) -> AbstractContextManager[object]:
        if self.compute_dtype == torch.float32:
            return _no_autocast(like.device)
        return torch.autocast(like.device.type, self.compute_dtype)

    def _store_frozen_weights_in(self, dtype: torch.dtype) -> None:
        for parameter in self.decoder.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


def table_scores(
    user_vectors: Float[Tensor, "target item_dim"], item_table: Float[Tensor, "row item_dim"]
) -> Float[Tensor, "target row"]:
    """Inner products with every row of an item table; row 0 is padding and gets −inf."""
    with _no_autocast(user_vectors.device):
        scores = times_rows(user_vectors.to(torch.float32), item_table.to(torch.float32))
    scores[:, PAD_ITEM] = float("-inf")
    return scores


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Float32 inside the block; left out where nothing is cast, for entering it costs as much as a small product."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
