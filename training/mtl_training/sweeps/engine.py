"""Trials on Ray Tune: several at once, poor ones given up, and resumed after a kill."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_training import TrainingError
from mtl_training.checkpoints.checkpoint import CheckpointError, read_checkpoint
from mtl_training.loop.train import train
from mtl_training.sweeps.space import Trial

STOPPED = 'stopped.json'  # in the folder of a trial that was given up


class SweepError(TrainingError):
    """Trials that cannot be run."""


@dataclass(frozen=True)
class Engine:
    """How trials are run.

    Attributes:
        processes: how many at once.
        gpus: share of a GPU that each has.
        grace: steps before a trial may be given up by ASHA (Li et al., MLSys 2020); 0: none is.
        reduction: of so many trials at a rung of ASHA one goes on.
        address: of a Ray cluster that sees the same folders; None: one of this machine's own.
    """

    processes: int = 1
    gpus: float = 0.0
    grace: int = 0
    reduction: int = 3
    address: str | None = None


def run_trials(trials: Sequence[Trial], data: Path, out: Path, engine: Engine) -> list[str]:
    """Run what is not done yet; each trial goes on where it was.

    Returns:
        What went wrong, a line for each trial that failed.

    Raises:
        SweepError: Ray is not installed, or no cluster can be reached.
    """
    left = {trial.name: trial for trial in trials if not done(trial, out)}
    if not left:
        return []
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    try:
        import ray
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
    except ImportError as error:
        raise SweepError(
            f"sweeps need Ray Tune: pip install -e 'training[sweeps]' ({error})"
        ) from error
    local = {'num_cpus': engine.processes, 'include_dashboard': False}
    cluster = {'address': engine.address} if engine.address else local
    try:
        ray.init(**cluster, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError) as error:
        raise SweepError(f'Ray does not start: {error}') from error

    class Notes(tune.Callback):
        """Writes down which trials were given up, so that they stay so."""

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            mine = left[trial.config['trial']]
            if not done(mine, out):
                (out / mine.name).mkdir(parents=True, exist_ok=True)
                told = json.dumps(trial.last_result.get('step'))
                (out / mine.name / STOPPED).write_text(told, encoding='utf-8')

    here = Path.cwd()

    def work(settings: Mapping[str, Any]) -> None:
        os.chdir(here)  # where configurations and teachers are, if their paths are relative
        trial = left[settings['trial']]

        def watch(row: Mapping[str, float]) -> None:
            tune.report({'step': int(row['step']), 'quality': float(row['quality'])})

        train(trial.config, data, out / trial.name, resume=True, watch=watch)

    scheduler = None
    if engine.grace:
        longest = max(trial.config.optim.max_steps for trial in left.values())
        scheduler = ASHAScheduler(
            time_attr='step',
            max_t=longest + 1,  # who gets there has yet to write its last checkpoint
            grace_period=engine.grace,
            reduction_factor=engine.reduction,
        )
    tuner = tune.Tuner(
        tune.with_resources(work, {'cpu': 1, 'gpu': engine.gpus}),
        param_space={'trial': tune.grid_search(list(left))},
        tune_config=tune.TuneConfig(
            metric='quality',
            mode='max',
            scheduler=scheduler,
            max_concurrent_trials=engine.processes,
        ),
        run_config=tune.RunConfig(
            name='ray', storage_path=str(out.resolve()), callbacks=[Notes()], verbose=0
        ),
    )
    try:
        with redirect_stdout(sys.stderr):
            results = tuner.fit()
    finally:
        ray.shutdown()
    failed = [result for result in (results[i] for i in range(len(results))) if result.error]
    return [
        f'{(result.config or {}).get("trial")}: {str(result.error).strip().splitlines()[-1]}'
        for result in failed
    ]


def done(trial: Trial, out: Path) -> bool:
    """Whether a trial has made all its steps, or was given up."""
    folder = out / trial.name
    if (folder / STOPPED).exists():
        return True
    try:
        _, meta = read_checkpoint(folder / 'last.safetensors')
    except CheckpointError:
        return False
    return bool(meta['step'] >= trial.config.optim.max_steps)
