"""A student as MLflow's pyfunc model: a folder with its code, its requirements, a signature and an example."""

import json
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, DataType

_MODEL_REQUIREMENTS = (
    "mlflow",
    "beartype",
    "gguf",
    "isal",
    "jaxtyping",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "pydantic",
    "safetensors",
    "torch",
    "torchao",
    "tqdm",
    "transformers",
)
"""What `slmrec_core` imports; never Ray or DeepSpeed."""


def save_pyfunc(model_folder: Path, target: Path, mlflow_model: Model | None = None) -> None:
    """Writes what `mlflow models serve -m TARGET` and `mlflow.pyfunc.load_model` read.

    Args:
        model_folder: As `Recommender.save_pretrained` wrote it; it is copied.
        target: New folder.
        mlflow_model: Of a run, for a model that is logged to it.
    """
    library = find_spec("slmrec_core")
    assert library is not None
    assert library.submodule_search_locations is not None
    items = json.loads((model_folder / "items.json").read_text(encoding="utf-8"))["item_ids"]
    with warnings.catch_warnings():
        # About MLflow's own chat types.
        warnings.filterwarnings("ignore", ".*Any type hint is inferred", UserWarning)
        mlflow.pyfunc.save_model(
            path=target,
            # As code, so that nothing is pickled and no model is loaded here.
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"model": str(model_folder)},
            code_paths=[library.submodule_search_locations[0]],
            # A local build's suffix (2.9.0+cpu) is on no index.
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in _MODEL_REQUIREMENTS],
            # With the signature given, MLflow keeps the example and does not run it.
            input_example=pd.DataFrame({"history": [items[:2]]}),
            signature=ModelSignature(
                inputs=Schema([ColSpec(Array(DataType.string), "history")]),
                outputs=Schema(
                    [
                        ColSpec(Array(DataType.string), "item_ids"),
                        ColSpec(Array(DataType.double), "scores"),
                        ColSpec(Array(DataType.string), "unknown_items"),
                        ColSpec(DataType.boolean, "by_popularity"),
                    ]
                ),
                params=ParamSchema([ParamSpec("top_k", "long", 10), ParamSpec("exclude_seen", "boolean", True)]),
            ),
            mlflow_model=mlflow_model,
        )
