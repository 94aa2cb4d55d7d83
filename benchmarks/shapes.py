"""What is measured: Amazon Beauty's sequence lengths, and SmolLM2-135M's shape, both without a download.

Time does not depend on which items a history holds or on what the weights are, so both are random: anyone can run the
benchmarks without the data set and without the model.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slmrec_core.data import SequenceDataset
from slmrec_core.hardware import fast_precision
from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel

PRECISION = fast_precision()
"""Of every candidate, the authors' too: bfloat16 without hardware for it takes seventy times as long as float32."""
DTYPE = torch.bfloat16 if PRECISION == "bf16" else torch.float32
BEAUTY_ITEMS = 12_101
ITEM_DIM = 64
QUESTION_TOKENS = 11
"""SmolLM2's tokens of the default template, `question`."""

# fmt: off
BEAUTY_LENGTHS = {
    5: 7162, 6: 4221, 7: 2680, 8: 1811, 9: 1366, 10: 881, 11: 695, 12: 558, 13: 439, 14: 361, 15: 262, 16: 207,
    17: 213, 18: 141, 19: 118, 20: 112, 21: 117, 22: 84, 23: 66, 24: 73, 25: 74, 26: 61, 27: 54, 28: 44, 29: 44,
    30: 38, 31: 30, 32: 38, 33: 20, 34: 19, 35: 21, 36: 19, 37: 23, 38: 24, 39: 22, 40: 15, 41: 17, 42: 7, 43: 10,
    44: 10, 45: 15, 46: 7, 47: 11, 48: 8, 49: 4, 50: 8, 51: 9, 52: 8, 53: 9, 54: 6, 55: 8, 56: 2, 57: 6, 58: 4,
    59: 7, 60: 3, 61: 1, 63: 4, 64: 2, 65: 2, 66: 4, 67: 1, 68: 3, 69: 4, 70: 2, 71: 2, 72: 2, 73: 4, 74: 3, 75: 3,
    76: 1, 77: 5, 78: 2, 79: 3, 80: 1, 81: 1, 82: 2, 83: 4, 84: 1, 85: 3, 87: 3, 93: 2, 94: 1, 96: 1, 97: 1, 99: 2,
    100: 4, 107: 1, 108: 1, 110: 1, 115: 2, 116: 1, 117: 1, 119: 1, 123: 1, 131: 1, 149: 2, 150: 1, 154: 1, 182: 1,
    192: 1, 204: 1,
}
# fmt: on
"""Users by number of events, 5-core, 22,363 users and 198,502 events (McAuley Lab's release of 2014)."""

SMOLLM2_135M: dict[str, object] = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    # Only the template's rows of the vocabulary are ever read.
    "vocab_size": 256,
    "bos_token_id": None,
    "eos_token_id": None,
}
"""HuggingFaceTB/SmolLM2-135M's config.json, but for the vocabulary."""


def beauty_shaped(num_users: int, num_items: int = BEAUTY_ITEMS, seed: int = 0) -> SequenceDataset:
    """Users whose histories are as long as Beauty's, with random items."""
    generator = np.random.default_rng(seed)
    lengths = np.repeat(list(BEAUTY_LENGTHS), list(BEAUTY_LENGTHS.values()))
    lengths = generator.permutation(lengths)[:num_users]
    return SequenceDataset(
        user_ids=np.array([str(user) for user in range(len(lengths))], dtype=object),
        item_ids=np.array(["", *map(str, range(1, num_items + 1))], dtype=object),
        titles=None,
        events=generator.integers(1, num_items + 1, lengths.sum(), dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def random_table(num_items: int = BEAUTY_ITEMS, item_dim: int = ITEM_DIM) -> Float[Tensor, "row item_dim"]:
    """Item vectors, row 0 for padding."""
    table = torch.randn(num_items + 1, item_dim, generator=torch.Generator().manual_seed(0))
    table[0] = 0.0
    return table


def smollm2_shaped(
    num_layers: int,
    item_table: Float[Tensor, "row item_dim"],
    dtype: torch.dtype = DTYPE,
    **settings: object,
) -> RecommenderModel:
    """Our model on a decoder of SmolLM2-135M's shape with random weights."""
    torch.manual_seed(0)
    decoder = empty_decoder({**SMOLLM2_135M, "num_hidden_layers": num_layers})
    config = RecommenderConfig.model_validate({"num_layers": num_layers, **settings})
    return RecommenderModel(config, decoder, Prompt(tuple(range(QUESTION_TOKENS)), (1,)), item_table, dtype)
