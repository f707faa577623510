"""A linear RNN in NumPy: its leakage and recoverability follow from its weights."""

from __future__ import annotations

import numpy as np


class LinearRNN:
    """`h_t = x_t W + h_{t-1} R`, `y_t = h_t C`."""

    def __init__(self, seed, features, units, outputs):
        rng = np.random.default_rng(seed)
        self.kernel = rng.normal(size=(features, units))
        recurrent = rng.normal(size=(units, units))
        radius = np.abs(np.linalg.eigvals(recurrent)).max()
        self.recurrent = recurrent * rng.uniform(0.2, 0.95) / radius
        self.head = rng.normal(size=(units, outputs))

    def __call__(self, x):
        h, outputs = np.zeros((len(x), len(self.recurrent))), []
        for step in range(x.shape[1]):
            h = x[:, step] @ self.kernel + h @ self.recurrent
            outputs.append(h @ self.head)
        return np.stack(outputs, axis=1)
