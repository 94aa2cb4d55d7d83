"""From a search space to rows and the stages behind them."""
