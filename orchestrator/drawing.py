"""Points of a search as Optuna draws them: at random, or where points turned out well."""

from typing import Any

from orchestrator.space.search_space import SearchSpace


class Sampler:
    """Draws points, and is told what they were worth.

    Args:
        space: Algorithm, seed, and one group with distributions.
        num_known: Points that earlier starts of the search drew: this one must not draw the same again.
    """

    def __init__(self, space: SearchSpace, num_known: int = 0) -> None:
        # Slow to import, and only a search needs it.
        import optuna  # noqa: PLC0415

        self._optuna = optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._axes = space.sampled_axes()
        self._distributions = {name: self._distribution(value) for name, value in self._axes.items()}
        kind = {"random": optuna.samplers.RandomSampler, "optuna": optuna.samplers.TPESampler}[space.search.algorithm]
        self._study = optuna.create_study(direction="maximize", sampler=kind(seed=space.search.seed + num_known))

    def draw(self) -> dict[str, Any]:
        """Drawn settings by dotted name."""
        trial = self._study.ask(self._distributions)
        # `learn` adds what a point was worth under its settings, whichever start drew it; this entry says nothing.
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return {name: self._value(name, drawn) for name, drawn in trial.params.items()}

    def learn(self, point: dict[str, Any], value: float) -> None:
        """Takes in what a point was worth; more is better."""
        params = {name: self._drawn(name, setting) for name, setting in point.items()}
        trial = self._optuna.trial.create_trial(params=params, distributions=self._distributions, value=value)
        self._study.add_trial(trial)

    def _distribution(self, axis: dict[str, list[Any]]) -> Any:
        distributions = self._optuna.distributions
        ((kind, arguments),) = axis.items()
        if kind == "choice":
            # By position: Optuna takes no lists for values, and holds 1 and True for the same.
            return distributions.CategoricalDistribution(range(len(arguments)))
        if kind == "randint":
            return distributions.IntDistribution(arguments[0], arguments[1] - 1)
        return distributions.FloatDistribution(*arguments, log=kind == "loguniform")

    def _value(self, name: str, drawn: Any) -> Any:
        return self._axes[name]["choice"][drawn] if "choice" in self._axes[name] else drawn

    def _drawn(self, name: str, setting: Any) -> Any:
        return self._axes[name]["choice"].index(setting) if "choice" in self._axes[name] else setting
