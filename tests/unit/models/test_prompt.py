"""The text around the items."""

import pytest

from slmrec_core.models.prompt import tokenize_prompt


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
