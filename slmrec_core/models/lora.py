"""Low-rank updates of the MLPs (LoRA, arXiv:2106.09685), by PEFT."""

from torch import nn

from slmrec_core.errors import ConfigError
from slmrec_core.models.architecture import mlps
from slmrec_core.models.dropout import Dropout


def add_lora(decoder: nn.Module, num_layers: int, rank: int, alpha: int, dropout: float) -> nn.Module:
    """The decoder with trained updates on its MLPs and everything else frozen.

    Args:
        decoder: Changed in place.
        num_layers: Its layers.
        rank: Of the updates.
        alpha: Their scale is alpha / rank.
        dropout: On their input, probability.

    Raises:
        ConfigError: A layer has no MLP that could be adapted.
    """
    # Slow to import, and processes that only read settings never get here.
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415

    decoder.requires_grad_(False)
    targets = mlp_projections(decoder, num_layers)
    if not targets:
        # No layers: nothing to adapt but the projections, which are always trained.
        return decoder
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        # GPT-2's Conv1D keeps its matrix the other way round.
        fan_in_fan_out=not isinstance(decoder.get_submodule(targets[0]), nn.Linear),
        bias="none",
    )
    adapted = inject_adapter_in_model(lora, decoder)
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            # Autocast sees to precision: PEFT would take each input to float32 for dropout, and back.
            layer.cast_input_dtype_enabled = False
            layer.lora_dropout["default"] = Dropout(dropout)
    return adapted  # type: ignore[no-any-return]


def merge_lora(decoder: nn.Module) -> None:
    """Adds every update to the weights that it updates, in place, and takes it out: what is left is a plain decoder."""
    from peft.tuners.lora import LoraLayer  # noqa: PLC0415  # slow to import

    for name, layer in list(decoder.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            decoder.set_submodule(name, layer.get_base_layer())


def mlp_projections(decoder: nn.Module, num_layers: int) -> list[str]:
    """Full names of the linear maps inside the MLPs: where the paper puts LoRA.

    Raises:
        ConfigError: Not every one of the `num_layers` layers has one; experts of a mixture are no linear maps.
    """
    # GPT-2 keeps its linear maps in a class of its own, named Conv1D.
    by_layer = [
        [
            f"{mlp}.{name}"
            for name, module in decoder.get_submodule(mlp).named_modules()
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        ]
        for mlp in mlps(decoder).values()
    ]
    adapted = sum(map(bool, by_layer))
    if adapted != num_layers:
        raise ConfigError(
            f"tuning: 'lora' adapts the linear maps of every layer's MLP, got {adapted} of {num_layers} layers"
            f" with one in a {type(decoder).__name__}. Set tuning=full."
        )
    return [name for names in by_layer for name in names]
