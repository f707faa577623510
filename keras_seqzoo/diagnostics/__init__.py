"""Any model in, a report out. Nothing here knows the zoo's own models."""

from keras_seqzoo.diagnostics.anomaly import anomaly_score
from keras_seqzoo.diagnostics.callback import StateLeakage
from keras_seqzoo.diagnostics.identity import identity_error
from keras_seqzoo.diagnostics.leakage import leakage
from keras_seqzoo.diagnostics.report import LeakageReport

__all__ = ["LeakageReport", "StateLeakage", "anomaly_score", "identity_error", "leakage"]
