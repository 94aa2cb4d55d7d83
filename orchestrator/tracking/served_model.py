"""The student behind MLflow's pyfunc interface, logged as code: `mlflow.pyfunc.load_model` runs this file.

Nothing is pickled. Loading needs `slmrec_core`, which is logged beside it, but neither Ray nor DeepSpeed nor this
package.
"""

from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from slmrec_core.errors import UserError
from slmrec_core.recommender import Recommender

DEFAULT_TOP_K = 10


class ServedRecommender(PythonModel):
    """Takes a column `history` of raw item ids, oldest first; gives `item_ids` and `scores`, best first,
    the items that it does not know, and whether the answer is by popularity because it knows none."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the model directory."""
        self._recommender = Recommender.from_pretrained(context.artifacts["model"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per history.

        Args:
            context: MLflow's; everything was read by `load_context`.
            model_input: Data frame with a column `history`, each cell a list of raw item ids as text.
            params: `top_k`, default 10; `exclude_seen`, default true.

        Raises:
            MlflowException: What was asked cannot be answered; the message says why.
        """
        options: dict[str, Any] = {"top_k": DEFAULT_TOP_K, "exclude_seen": True, **(params or {})}
        histories = [list(history) for history in model_input["history"]]
        try:
            found = self._recommender.recommend(histories, k=options["top_k"], exclude_seen=options["exclude_seen"])
        except UserError as error:
            # The server answers with the message of this kind alone, and hides that of any other.
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        # Where fewer than k items may be recommended, the scores are longer than the ids: the rest is -inf.
        scores = [
            [float(score) for score in row[: len(ids)]] for ids, row in zip(found.item_ids, found.scores, strict=True)
        ]
        return pd.DataFrame(
            {
                "item_ids": found.item_ids,
                "scores": scores,
                "unknown_items": found.unknown_items,
                "by_popularity": found.by_popularity,
            }
        )


mlflow.models.set_model(ServedRecommender())
