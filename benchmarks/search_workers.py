"""Coordination overhead of a search with many workers on one study.

    python -m benchmarks.search_workers --storage postgresql://user@host/base [--workers 64]

Workers are processes that ask for populations, sleep for the duration of training, and report
results with curves of twenty epochs. Coordination is the time without the sleep. All workers, and a
local database server, share the cores of this machine; those of a cluster do not. Writes
results/search_workers.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import statistics
import time
import uuid

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import common

EPOCHS = 20


def work(url: str, study: str, population: int, seconds: float, until: float, results) -> None:
    """Run a worker: seconds of coordination and mean CPU seconds per population, into a queue."""
    import optuna
    from optuna.trial import TrialState

    from keras_seqzoo.tasks.vectorized_metrics import IdentityMetrics

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    time.sleep(random.Random(os.getpid()).uniform(0, seconds))  # workers start at different times
    oracle = make_oracle(url, study)
    costs = []
    start = resource.getrusage(resource.RUSAGE_SELF)
    with oracle.trial_store.heartbeat():
        while time.time() < until:
            started = time.perf_counter()
            trials = oracle.ask(population, 0)
            asked = time.perf_counter() - started
            time.sleep(seconds)
            started = time.perf_counter()
            for trial in trials:
                curve = [1 / (epoch + int(trial.trial_id) + 1) for epoch in range(EPOCHS)]
                history = {name: curve for name in IdentityMetrics.logs}
                metrics = {name: curve[-1] for name in IdentityMetrics.logs}
                oracle.tell(
                    trial, TrialState.COMPLETE, metrics=metrics, epoch=0, seconds=0.0,
                    history=history,
                )  # fmt: skip
            costs.append(asked + time.perf_counter() - started)
    end = resource.getrusage(resource.RUSAGE_SELF)
    cpu = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    results.put((costs, cpu / max(len(costs), 1)))


def make_oracle(url: str, study: str):
    """The oracle of a search of `simple_rnn_identity` with random sampling."""
    import keras_tuner

    import keras_seqzoo as zoo
    from keras_seqzoo.tuning.study.oracle import StudyOracle
    from keras_seqzoo.tuning.study.storage import TrialStore

    hypermodel = zoo.hypermodel("simple_rnn_identity", features=3)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    oracle = StudyOracle(
        TrialStore(url, study, ["minimize"], {}, shared=True),
        objective=hypermodel.objective,
        max_trials=10**9,
        seed=0,
        sampler="random",
    )
    oracle.update_space(hp)
    return oracle


def main() -> None:
    """Run the workers, print and write the seconds of coordination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="of training a population")
    parser.add_argument("--minutes", type=float, default=2.0)
    arguments = parser.parse_args()
    study = f"workers-{uuid.uuid4().hex[:8]}"
    make_oracle(arguments.storage, study).trial_store.close()  # imports everything before the fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    until = time.time() + 60 * arguments.minutes
    options = (arguments.storage, study, arguments.population, arguments.seconds, until, queue)
    workers = [context.Process(target=work, args=options) for _ in range(arguments.workers)]
    for worker in workers:
        worker.start()
    results = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    oracle = make_oracle(arguments.storage, study)
    states = [trial.state.name for trial in oracle.trial_store.trials()]
    oracle.trial_store.close()
    costs = sorted(cost for worker_costs, _ in results for cost in worker_costs)
    summary = {
        "workers": arguments.workers,
        "population": arguments.population,
        "seconds of training": arguments.seconds,
        "populations": len(costs),
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "coordination, median seconds": round(statistics.median(costs), 3),
        "coordination, 95th percentile": round(costs[int(0.95 * len(costs))], 3),
        "share of training": round(statistics.median(costs) / arguments.seconds, 4),
        "CPU seconds of a worker": round(statistics.median(cpu for _, cpu in results), 3),
    }
    print(summary)
    common.write("search_workers", summary)


if __name__ == "__main__":
    main()
