"""`report.html` of a search of encoder-decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import markupsafe
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from keras_seqzoo.metrics import Seq2SeqScores
from keras_seqzoo.tasks import evaluate
from keras_seqzoo.tuning.report import page
from keras_seqzoo.tuning.report.page import STYLE
from keras_seqzoo.tuning.report.sequence_page import plots_of_trials
from keras_seqzoo.wrapping import inner_model

if TYPE_CHECKING:
    from keras_seqzoo.tuning.tuner import Search

_SHOWN = 3  # pairs whose attention, or forecast, is drawn


def render_report(
    search: Search,
    *,
    measured: dict[str, Seq2SeqScores | float] | None = None,
    command: str | None = None,
    notes: tuple[str, ...] = (),
) -> str:
    """The page as a string.

    Args:
        search: a search on pairs that has run.
        measured: scores of the chosen model by the name of the pairs, such as "test".
        command: str that repeats the search.
        notes: sentences about the data.
    """
    model, results, rows = search.best_model, search.results, search.rows
    scores = evaluate(model, rows.validation)
    objective = search.oracle.objectives[0]
    with matplotlib.rc_context(STYLE):
        plots = plots_of_trials(search)
        plots["examples"] = [page.svg(one) for one in _examples(search, inner_model(model))]
        generates_tokens = isinstance(scores, Seq2SeqScores)
        if generates_tokens:
            plots["length"] = page.svg(scores.plot().figure)
    return page.render(
        "pair_report.html.j2",
        search,
        command or page.python_call(search),
        measured={"validation": scores, **(measured or {})},
        generates_tokens=generates_tokens,
        plots=plots,
        mistakes=_mistakes(scores, rows) if generates_tokens else "",
        table=page.trial_table(results, objective.name, best_last=objective.direction == "max"),
        trained=len(rows.examples),
        validated=len(rows.validation),
        notes=notes,
    )


def _mistakes(scores: Seq2SeqScores, rows: Any) -> markupsafe.Markup:
    """The first wrong answers beside what they should be."""
    table = pd.DataFrame(
        [
            {
                "source": _text(rows.validation.sources[index]),
                "true": " ".join(true),
                "predicted": " ".join(predicted),
            }
            for index, true, predicted in scores.mistakes
        ]
    )
    return markupsafe.Markup(table.to_html(border=0, index=False)) if len(table) else ""


def _text(sequence: Any) -> str:
    return " ".join(sequence) if isinstance(sequence, tuple) else f"{len(sequence)} readings"


def _examples(search: Search, network: Any) -> list[Figure]:
    """Attention of answers to tokens, or forecasts beside what came."""
    rows, found = search.rows, []
    pairs = list(zip(rows.validation.sources, rows.validation.targets, strict=True))[:_SHOWN]
    looks = network.get_layer("decoder").attention is not None
    for source, target in pairs:
        if rows.preprocessor.generates_tokens:
            if looks and isinstance(source, tuple) and source and target:
                numbers = rows.preprocessor.target.encode(target)
                ax = network.plot_attention(
                    rows.preprocessor.encode_sources([source])[0], numbers, source_names=source,
                    target_names=target,
                )  # fmt: skip
                found.append(ax.figure)
            continue
        said = network.generate(rows.preprocessor.encode_sources([source]), max_length=len(target))
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        ax = figure.add_subplot()
        steps = np.arange(len(target))
        if not isinstance(source, tuple):
            ax.plot(np.arange(-len(source), 0), source[:, 0], color="#888", label="read")
        ax.plot(steps, target[:, 0], color="#222", label="came")
        ax.plot(steps, said.sequences[0, :, 0], color=page.CHOSEN, label="said")
        ax.set(xlabel="steps from the end of what was read", ylabel="first feature")
        ax.legend(frameon=False, fontsize="small")
        found.append(figure)
    return found
