"""From a trained recommender to a smaller one that loads, saves and answers like any other."""

from collections.abc import Sequence

from slmrec_core.compression.config import CompressionConfig
from slmrec_core.compression.layers import block_influence, with_most_influence
from slmrec_core.compression.pruning import prune_linear
from slmrec_core.errors import ConfigError, DataError
from slmrec_core.models.description import with_layers
from slmrec_core.models.recommender import RecommenderModel
from slmrec_core.recommender import Recommender


def compress(
    recommender: Recommender, config: CompressionConfig, histories: Sequence[Sequence[str | int]] = ()
) -> Recommender:
    """A smaller copy; the recommender itself stays as it is.

    Args:
        recommender: Trained, not quantised, with a language model.
        config: What is left of it.
        histories: Raw item ids, oldest first, of training users; read where layers are kept by influence alone.

    Raises:
        ConfigError: The model is SASRec or quantised, is asked to keep more layers than it has, or its decoder cannot
            be pruned or rounded so.
        DataError: Layers are to be kept by influence and no history holds a known item.
    """
    network = recommender.network
    if not isinstance(network, RecommenderModel) or network.weight_format != "float":
        got = "SASRec" if not isinstance(network, RecommenderModel) else f"one of {network.weight_format} weights"
        raise ConfigError(f"compression: takes a language model with weights in floating point, got {got}.")
    kept = config.keep_layers or network.num_layers
    if kept > network.num_layers:
        raise ConfigError(
            f"compression.keep_layers: must be at most the model's {network.num_layers} layers, got {kept}."
        )
    if kept == network.num_layers or config.keep == "first":
        smaller = with_layers(network, range(kept))
    else:
        read = [
            recommender.catalogue.known(history, f"row {row} of the histories")[0]
            for row, history in enumerate(histories)
        ]
        known = [columns for columns in read if columns]
        if not known:
            raise DataError(
                "compression.keep: 'influence' reads histories, got none with an item of the catalogue."
                " Give some of the training users, or use compression.keep=first."
            )
        smaller = with_most_influence(network, block_influence(network, known, recommender.max_seq_len), kept)
    smaller.merge_lora()
    prune_linear(smaller.decoder, config.pruning, config.sparsity)
    smaller.quantize(config.weights)
    return Recommender(
        smaller,
        recommender.item_ids,
        recommender.max_seq_len,
        recommender.metadata | {"compression": config.model_dump(mode="json")},
        recommender.catalogue.titles,
        recommender.catalogue.counts,
    )
