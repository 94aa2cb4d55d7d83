"""The text around the items."""

from pathlib import Path

import pytest

from slmrec_core.errors import ConfigError
from slmrec_core.models.prompt import tokenize_prompt
from tests.tiny import GPT2, LLAMA, write_model_directory


def test_without_a_tokenizer_bytes_are_tokens() -> None:
    prompt = tokenize_prompt("question", None)
    assert bytes(prompt.before).decode() == "What is the top recommended item for user who interacted with"
    assert bytes(prompt.after).decode() == "?"


@pytest.mark.parametrize("template", ["question", "alpaca"])
def test_every_template_has_text_on_both_sides_for_response_pooling(template: str) -> None:
    prompt = tokenize_prompt(template, None)  # type: ignore[arg-type]
    assert prompt.before
    assert prompt.after
    assert max(prompt.before + prompt.after) < 256


def test_the_alpaca_text_ends_with_the_response_header_as_in_the_authors_code() -> None:
    prompt = tokenize_prompt("alpaca", None)
    assert bytes(prompt.before).decode().endswith("### Input:\n")
    assert bytes(prompt.after).decode() == "\n\n### Response:\n"


def test_a_tokenizer_of_bytes_gives_a_token_for_each(tmp_path: Path) -> None:
    write_model_directory(tmp_path, LLAMA)
    for template in ("question", "alpaca"):
        bytewise, read = (tokenize_prompt(template, folder) for folder in (None, tmp_path))  # type: ignore[arg-type]
        assert [len(read.before), len(read.after)] == [len(bytewise.before), len(bytewise.after)]


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("content", [None, "{}", "not JSON"])
def test_a_directory_without_a_tokenizer_that_can_be_read_is_a_config_error(
    tmp_path: Path, config: dict[str, object], content: str | None
) -> None:
    # A bug of ours: without its files GPT-2 gets an empty tokenizer, and the template was empty.
    write_model_directory(tmp_path, config)
    (tmp_path / "tokenizer.json").unlink()
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match="Copy the model's own tokenizer files"):
        tokenize_prompt("question", tmp_path)
