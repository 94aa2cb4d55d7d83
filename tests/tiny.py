"""Small models that tests build: `tiny` decoders and random model directories, never a download."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from slmrec_core.models.backbone import open_backbone
from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.seeding import seed_torch
from slmrec_core.structures import SequenceBatch

LLAMA: dict[str, object] = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
QWEN2: dict[str, object] = {**LLAMA, "model_type": "qwen2", "num_hidden_layers": 4}
GPT2: dict[str, object] = {
    "model_type": "gpt2",
    "vocab_size": 256,
    "n_embd": 16,
    "n_layer": 4,
    "n_head": 2,
    "n_positions": 128,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
}


def tiny_model(
    item_table: Tensor, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: object
) -> RecommenderModel:
    """A recommender on the `tiny` backbone, without dropout unless asked for, in eval mode."""
    config = RecommenderConfig.model_validate({"num_layers": 2, "lora_dropout": 0.0, **settings})
    seed_torch(seed, "test")
    return RecommenderModel.from_backbone(config, open_backbone("tiny"), item_table, dtype).eval()


def jolted(model: RecommenderModel, seed: int = 1) -> RecommenderModel:
    """The same model with noise on every trained weight: fresh LoRA updates are zero and would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def write_model_directory(folder: Path, config: dict[str, object], shards: int = 1, seed: int = 0) -> nn.Module:
    """A directory as the hub serves it, with random weights and a byte tokenizer; the whole decoder is returned."""
    torch.manual_seed(seed)
    decoder = empty_decoder(config).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(sorted(alphabet))}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Written"], "dtype": "float32"}))
    names = sorted(decoder.state_dict())
    tensors = {f"{decoder.base_model_prefix}.{name}": decoder.state_dict()[name].contiguous() for name in names}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return decoder
    placed = {name: f"model-{index % shards:05d}.safetensors" for index, name in enumerate(tensors)}
    for file in set(placed.values()):
        save_file({name: tensors[name] for name in tensors if placed[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return decoder


def row_of(batch: SequenceBatch, row: int) -> SequenceBatch:
    """One row, still padded as in the batch."""
    return SequenceBatch(*(column[row : row + 1] for column in (batch.user_index, batch.item_ids, batch.target_items)))


def some_batch(num_users: int = 3, seq: int = 5, num_items: int = 12, seed: int = 0) -> SequenceBatch:
    """Random histories of unequal length with a target at each of their positions."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(1, num_items + 1, (num_users, seq), generator=generator)
    targets = torch.randint(1, num_items + 1, (num_users, seq), generator=generator)
    lengths = seq - torch.arange(num_users) % seq
    is_item = torch.arange(seq) < lengths[:, None]
    return SequenceBatch(torch.arange(num_users), items * is_item, targets * is_item)


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """A config.json whose hash of itself fits, as a faulty writer would leave it."""
    content = {name: value for name, value in config.items() if name != "files"}
    if isinstance(config.get("files"), dict):
        own = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        config = {**config, "files": {**config["files"], "config.json": own}}
    (folder / "config.json").write_text(json.dumps(config))
