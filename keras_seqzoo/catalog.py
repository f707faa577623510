"""Every built-in entry, as data."""

from __future__ import annotations

from keras_seqzoo.entry import Entry
from keras_seqzoo.space import Choice, Float, Int

_STRENGTH_KINDS = {"recurrent_regularizer": ("l1", "l2", "l1_l2")}

ENTRIES = (
    Entry(
        name="simple_rnn_identity",
        constructor="keras_seqzoo.models.identity:simple_rnn_identity",
        task="identity",
        summary=(
            "A SimpleRNN that gives every reading back, regularized so that it owes as little "
            "as possible to earlier readings."
        ),
        inputs="(batch, time, features), raw readings",
        outputs="(batch, time, features), or (batch, features) with return_sequences=False",
        causal=True,
        space={
            "units": Int(2, 32, log=True, default=8),
            "recurrent_regularizer": Choice(("none", "l1", "l2", "l1_l2"), default="l1"),
            "recurrent_strength": Float(1e-5, 1.0, log=True, default=1e-2, when=_STRENGTH_KINDS),
            "recurrent_initializer": Choice(
                ("orthogonal", "glorot_uniform", "zeros"), default="orthogonal"
            ),
            "learning_rate": Float(1e-3, 3e-2, log=True, default=1e-2),
        },
        references=(
            "Elman, Finding Structure in Time, Cognitive Science 14, 1990, "
            "https://doi.org/10.1207/s15516709cog1402_1",
            "Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, chapter 10",
        ),
    ),
)
