"""A trained model made smaller without training: layers left out, weights set to zero, weights of fewer bits."""

from slmrec_core.compression.compress import compress
from slmrec_core.compression.config import CompressionConfig
from slmrec_core.compression.layers import block_influence
from slmrec_core.compression.pruning import prune_linear

__all__ = ["CompressionConfig", "block_influence", "compress", "prune_linear"]
