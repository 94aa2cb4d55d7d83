"""The instruction text around the item sequence, tokenised once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slmrec_core.errors import ConfigError

Template = Literal["question", "alpaca"]

_TEMPLATES: dict[Template, tuple[str, str]] = {
    # The sentence of the paper's framework figure.
    "question": ("What is the top recommended item for user who interacted with", "?"),
    # The text of the authors' code (templates/alpaca.json).
    "alpaca": (
        "Below is an instruction that describes a task, paired with an input that provides further context."
        " Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Given the user's purchase history, predict next possible item to be purchased.\n\n### Input:\n",
        "\n\n### Response:\n",
    ),
}


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the items; neither holds a special token, as in the authors' code."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def tokenize_prompt(template: Template, tokenizer_directory: Path | None) -> Prompt:
    """The template in the backbone's tokens.

    Args:
        template: `question` (the paper's figure) or `alpaca` (the authors' code).
        tokenizer_directory: Where the backbone's tokenizer lies; None = bytes as tokens, for backbones without one.

    Raises:
        ConfigError: The directory holds no tokenizer that can be read.
    """
    before, after = _TEMPLATES[template]
    if tokenizer_directory is None:
        return Prompt(tuple(before.encode()), tuple(after.encode()))
    # Slow to import, and random backbones need no tokenizer.
    from transformers import AutoTokenizer  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(tokenizer_directory), local_files_only=True, trust_remote_code=False
        )
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after)]
    # A damaged tokenizer.json raises a bare Exception.
    except Exception as error:
        raise ConfigError(
            f"backbone: {tokenizer_directory} must hold a tokenizer that can be read, got {error!r}."
            " Copy the model's own tokenizer files into it."
        ) from error
    if not all(ids):
        # transformers makes an empty tokenizer for some architectures when its files are not there.
        raise ConfigError(
            f"backbone: the tokenizer in {tokenizer_directory} must know the template's words, got no token for it."
            " Copy the model's own tokenizer files into it."
        )
    return Prompt(tuple(ids[0]), tuple(ids[1]))
