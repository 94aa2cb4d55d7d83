"""A trained network together with its catalogue: raw item ids in, ranked raw item ids out; saved without pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slmrec_core.errors import CheckpointError, ConfigError, DataError
from slmrec_core.hardware import rows_per_chunk
from slmrec_core.metrics import rank_targets
from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.session import Session
from slmrec_core.structures import PAD_ITEM

FORMAT_VERSION = 1
_ROWS_PER_PASS = 256
"""Histories in one forward pass: memory must not grow with how many are asked for."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Recommendations:
    """The best items of each history, best first."""

    item_ids: list[list[str]]
    """Raw ids; fewer than k where the catalogue has no more that may be recommended."""
    scores: Float[np.ndarray, "history k"]
    """Inner products; −inf where there is no item."""


class Recommender:
    """Answers with raw item ids.

    Args:
        network: Trained; put into eval mode.
        item_ids: Raw ids, index 0 standing for padding.
        max_seq_len: Longest history that the network reads; the newest items are kept.
        metadata: What the model is and how it was made, as JSON values.
    """

    def __init__(
        self,
        network: RecommenderModel | SASRec,
        item_ids: Sequence[str],
        max_seq_len: int,
        metadata: dict[str, object] | None = None,
    ) -> None:
        self.network = network.eval()
        self.item_ids = [str(item) for item in item_ids]
        self.max_seq_len = max_seq_len
        self.metadata = metadata or {}
        self._columns = {item: column for column, item in enumerate(self.item_ids) if column != PAD_ITEM}

    def merge_lora(self) -> "Recommender":
        """The same recommender with its low-rank updates merged into the weights, as `RecommenderModel.merge_lora`
        does it: faster, above all for sessions. Saved, it stays merged.
        """
        if isinstance(self.network, RecommenderModel):
            self.network.merge_lora()
        return self

    @torch.no_grad()
    def recommend(
        self, histories: Sequence[Sequence[str | int]], k: int = 10, exclude_seen: bool = True
    ) -> Recommendations:
        """The `k` best items for each history.

        Args:
            histories: Raw item ids, oldest first.
            k: How many, at least 1.
            exclude_seen: Leave the items of the history out.

        Raises:
            ConfigError: `k` is below 1.
            DataError: A history is empty or holds an item that the catalogue lacks.
        """
        columns = [self.to_columns(history, row) for row, history in enumerate(histories)]
        return self.best_items(self.user_vectors(columns), columns, k, exclude_seen)

    def session(self, history: Sequence[str | int]) -> Session:
        """One user whose next events will come one by one; each request then reads only what is new.

        Raises:
            DataError: The history is empty or holds an item that the catalogue lacks.
        """
        return Session(self, self.to_columns(history, row=0))

    @torch.no_grad()
    def best_items(
        self, user_vectors: Float[Tensor, "history item_dim"], columns: list[list[int]], k: int, exclude_seen: bool
    ) -> Recommendations:
        """The `k` best items for each user vector, with the scores of some users at a time.

        Args:
            user_vectors: As `user_vectors` gives them.
            columns: The histories behind them, as `to_columns` gives them.
            k: How many, at least 1.
            exclude_seen: Leave the items of the history out.

        Raises:
            ConfigError: `k` is below 1.
        """
        if k < 1:
            raise ConfigError(f"recommender: k must be at least 1, got {k}. The usual value is 10.")
        k, chunk = min(k, len(self._columns)), rows_per_chunk(len(self.item_ids))
        item_ids: list[list[str]] = []
        best_scores = [np.zeros((0, k), dtype=np.float32)]
        for start in range(0, len(columns), chunk):
            scores: Tensor = self.network.score(user_vectors[start : start + chunk])
            if exclude_seen:
                for row, history in enumerate(columns[start : start + chunk]):
                    scores[row].index_fill_(0, torch.tensor(history, device=scores.device), float("-inf"))
            values, best = (found.cpu().numpy() for found in scores.topk(k, dim=1))
            item_ids += [
                [self.item_ids[column] for column, score in zip(row, row_scores, strict=True) if score > float("-inf")]
                for row, row_scores in zip(best.tolist(), values.tolist(), strict=True)
            ]
            best_scores.append(values)
        return Recommendations(item_ids, np.concatenate(best_scores))

    @torch.no_grad()
    def rank(
        self, histories: Sequence[Sequence[str | int]], candidates: Sequence[Sequence[str | int]]
    ) -> list[Int[np.ndarray, "candidate"]]:
        """1-based rank of every candidate among the candidates of its history; ties count against an item.

        Raises:
            DataError: A history or candidate list is empty or holds an item that the catalogue lacks, or there is not
                one list for each history.
        """
        if len(histories) != len(candidates):
            raise DataError(
                f"recommender: each history needs its own list of candidates, got {len(histories)} histories and"
                f" {len(candidates)} lists. Give as many of each."
            )
        columns = [self.to_columns(history, row) for row, history in enumerate(histories)]
        scores = self.network.score(self.user_vectors(columns)).cpu()
        ranks = []
        for row, items in enumerate(candidates):
            own = scores[row, self.to_columns(items, row)]
            ranks.append(rank_targets(own.expand(len(own), -1), torch.arange(len(own))).numpy())
        return ranks

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes config.json, model.safetensors and items.json."""
        folder = Path(directory).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        (folder / "items.json").write_text(json.dumps(self.item_ids[1:], ensure_ascii=False), encoding="utf-8")
        config = {
            "format_version": FORMAT_VERSION,
            "max_seq_len": self.max_seq_len,
            "metadata": self.metadata,
            **_describe(self.network),
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "Recommender":
        """Reads what `save_pretrained` wrote; nothing is unpickled, no backbone is fetched.

        Raises:
            CheckpointError: A file is missing, damaged, or of a newer format.
        """
        folder = Path(directory).expanduser()
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config["format_version"] != FORMAT_VERSION:
                raise CheckpointError(
                    f"model {folder}: format_version must be {FORMAT_VERSION}, got {config['format_version']}."
                    " Use the version of slmrec that wrote it."
                )
            items = json.loads((folder / "items.json").read_text(encoding="utf-8"))
            state = load_file(folder / "model.safetensors")
            network = _rebuild(config, state)
            network.load_state_dict(state)
            if len(items) != len(network.item_table) - 1:
                raise ValueError(
                    f"{len(items)} items for {len(network.item_table)} rows of the table, padding included"
                )
            return cls(network, ["", *items], config["max_seq_len"], config["metadata"])
        # Whatever stands in these files must not surface as an error of the code that reads it.
        except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"model {folder}: cannot be read, got {error!r}. It needs config.json, items.json and model.safetensors"
                " as save_pretrained wrote them."
            ) from error

    def to_columns(self, items: Sequence[str | int], row: int) -> list[int]:
        """Columns of the scores that belong to raw item ids.

        Args:
            items: At least one.
            row: Which history they are, for the message.

        Raises:
            DataError: There is no item, or the catalogue lacks one.
        """
        unknown = [item for item in items if str(item) not in self._columns]
        if unknown or not len(items):
            raise DataError(
                f"recommender: row {row} must hold known items, got {unknown[:3] or 'no item'}."
                f" The catalogue has {len(self._columns)} items; leave out those that it lacks."
            )
        return [self._columns[str(item)] for item in items]

    @torch.no_grad()
    def user_vectors(self, histories: list[list[int]]) -> Float[Tensor, "history item_dim"]:
        """The user after each history.

        Args:
            histories: As `to_columns` gives them, oldest first; the newest `max_seq_len` are read.
        """
        device = self.network.item_table.device
        if not histories:
            return torch.zeros(0, self.network.item_table.shape[1], device=device)
        newest = [torch.tensor(history[-self.max_seq_len :]) for history in histories]
        item_ids = nn.utils.rnn.pad_sequence(newest, batch_first=True, padding_value=PAD_ITEM)
        lengths = torch.tensor([len(history) for history in newest])
        read_mask = torch.arange(item_ids.shape[1]) == lengths[:, None] - 1
        vectors = []
        for start in range(0, len(item_ids), _ROWS_PER_PASS):
            part = slice(start, start + _ROWS_PER_PASS)
            vectors.append(self.network(item_ids[part].to(device), read_mask[part].to(device)).user_vectors)
        return torch.cat(vectors)


def _describe(network: RecommenderModel | SASRec) -> dict[str, object]:
    if isinstance(network, SASRec):
        return {"kind": "sasrec", "network": network.config.model_dump(mode="json")}
    decoder = network.decoder.config.to_dict()  # type: ignore[union-attr, operator]
    return {
        "kind": "llm",
        "network": network.config.model_dump(mode="json"),
        "decoder": {key: value for key, value in decoder.items() if _is_architecture(key)},
        "vocab_size": network.vocab_size,
        "prompt": {"before": network.prompt.before, "after": network.prompt.after},
        "compute_dtype": str(network.compute_dtype).removeprefix("torch."),
    }


def _is_architecture(key: str) -> bool:
    return not key.startswith("_") and key not in ("dtype", "torch_dtype", "transformers_version", "architectures")


def _rebuild(config: dict[str, object], state: dict[str, Tensor]) -> RecommenderModel | SASRec:
    """The network with random weights, of the shapes that the saved state has."""
    described = dict(config)
    if described["kind"] == "sasrec":
        rows, _ = state["item_embedding.weight"].shape
        positions = state["position_embedding.weight"].shape[0]
        return SASRec(SASRecConfig.model_validate(described["network"]), rows - 1, positions)
    if described["kind"] != "llm":
        raise ConfigError(f"model: kind must be 'llm' or 'sasrec', got {described['kind']!r}.")
    prompt = described["prompt"]
    if not isinstance(prompt, dict):
        raise ConfigError(f"model: prompt must hold token ids before and after the items, got {prompt!r}.")
    # The vocabulary is not saved: only the template's rows of it are ever read, and these are in the state.
    # transformers would warn of special tokens outside it.
    no_vocabulary = {"vocab_size": 1, **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))}
    decoder = empty_decoder({**described["decoder"], **no_vocabulary})  # type: ignore[dict-item]
    network = RecommenderModel(
        RecommenderConfig.model_validate(described["network"]),
        decoder,
        Prompt(tuple(prompt["before"]), tuple(prompt["after"])),
        state["item_table"],
        _DTYPES[str(described["compute_dtype"])],
    )
    network.vocab_size = int(str(described["vocab_size"]))
    if not any("lora_" in name for name in state):
        network.merge_lora()
    return network
