"""Networks: a decoder cut to some of its layers with an item table around it, and SASRec."""

from slmrec_core.models.backbone import SMOLLM2, TINY, Backbone, backbone_identity, open_backbone, pinned_backbone
from slmrec_core.models.decoder import LayerChoice, chosen_layers, load_decoder
from slmrec_core.models.prompt import Prompt, Template, tokenize_prompt
from slmrec_core.models.recommender import Pooling, RecommenderConfig, RecommenderModel, table_scores
from slmrec_core.models.sasrec import SASRec, SASRecConfig

__all__ = [
    "SMOLLM2",
    "TINY",
    "Backbone",
    "LayerChoice",
    "Pooling",
    "Prompt",
    "RecommenderConfig",
    "RecommenderModel",
    "SASRec",
    "SASRecConfig",
    "Template",
    "backbone_identity",
    "chosen_layers",
    "load_decoder",
    "open_backbone",
    "pinned_backbone",
    "table_scores",
    "tokenize_prompt",
]
