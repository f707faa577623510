"""Diagnostics of any model: state leakage, recoverability, invertibility, anomalies, audits.

They take a Keras model, a loaded SavedModel or a function, and know no model of the zoo. State
leakage is the history dependence of the output: the share of its variance that is due to inputs
before the present one (total Sobol index of the past); nothing to do with train/test data leakage.
"""

from keras_seqzoo.diagnostics.anomaly.anomaly import anomaly, anomaly_score
from keras_seqzoo.diagnostics.anomaly.report import AnomalyReport
from keras_seqzoo.diagnostics.audit.audit import audit
from keras_seqzoo.diagnostics.audit.report import AuditFailure, AuditReport, Finding
from keras_seqzoo.diagnostics.invertibility.injectivity import InjectivityReport, injectivity
from keras_seqzoo.diagnostics.invertibility.inversion import Inversion, invert
from keras_seqzoo.diagnostics.invertibility.lipschitz import LipschitzBound, lipschitz_bound
from keras_seqzoo.diagnostics.leakage.leakage import leakage
from keras_seqzoo.diagnostics.leakage.report import LeakageReport
from keras_seqzoo.diagnostics.recoverability.recoverability import recoverability
from keras_seqzoo.diagnostics.recoverability.report import RecoverabilityReport

__all__ = [
    "AnomalyReport",
    "AuditFailure",
    "AuditReport",
    "Finding",
    "InjectivityReport",
    "Inversion",
    "LeakageReport",
    "LipschitzBound",
    "RecoverabilityReport",
    "anomaly",
    "anomaly_score",
    "audit",
    "injectivity",
    "invert",
    "leakage",
    "lipschitz_bound",
    "recoverability",
]
