"""The Optuna study of a search: oracle, trial store, successive halving."""
