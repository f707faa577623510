"""Any model in, a report out. Nothing here knows the zoo's own models."""

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
    "LipschitzBound",
    "Finding",
    "InjectivityReport",
    "Inversion",
    "LeakageReport",
    "RecoverabilityReport",
    "anomaly",
    "anomaly_score",
    "audit",
    "lipschitz_bound",
    "injectivity",
    "invert",
    "leakage",
    "recoverability",
]
