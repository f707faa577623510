"""Any model in, a report out. Nothing here knows the zoo's own models."""

from keras_seqzoo.diagnostics.anomaly import anomaly, anomaly_score
from keras_seqzoo.diagnostics.anomaly_report import AnomalyReport
from keras_seqzoo.diagnostics.audit import audit
from keras_seqzoo.diagnostics.audit_report import AuditFailure, AuditReport, Finding
from keras_seqzoo.diagnostics.callback import StateLeakage
from keras_seqzoo.diagnostics.certificate import Certificate, certify
from keras_seqzoo.diagnostics.identity import identity_error
from keras_seqzoo.diagnostics.injectivity import InjectivityReport, injectivity
from keras_seqzoo.diagnostics.inversion import Inversion, invert
from keras_seqzoo.diagnostics.leakage import leakage
from keras_seqzoo.diagnostics.recoverability import recoverability
from keras_seqzoo.diagnostics.recoverability_report import RecoverabilityReport
from keras_seqzoo.diagnostics.report import LeakageReport
from keras_seqzoo.diagnostics.scores import classification_scores, tagging_scores
from keras_seqzoo.diagnostics.scores_report import Scores
from keras_seqzoo.diagnostics.transduction import TransductionScores, transduction_scores

__all__ = [
    "AnomalyReport",
    "AuditFailure",
    "AuditReport",
    "Certificate",
    "Finding",
    "InjectivityReport",
    "Inversion",
    "LeakageReport",
    "RecoverabilityReport",
    "Scores",
    "StateLeakage",
    "TransductionScores",
    "anomaly",
    "anomaly_score",
    "audit",
    "certify",
    "classification_scores",
    "identity_error",
    "injectivity",
    "invert",
    "leakage",
    "recoverability",
    "tagging_scores",
    "transduction_scores",
]
