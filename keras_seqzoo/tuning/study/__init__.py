"""The Optuna study behind a search: oracle, trial store, successive halving."""
