"""What users subclass, `MLModel`, `MLSystem` and `EMA`, and the learners behind them."""
