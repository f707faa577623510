"""State leakage: estimators, interventions and the report."""
