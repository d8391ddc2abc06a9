"""Sweeps: jobs that run one after another, with a summary table."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from genlab.cli import help
from genlab.cli.composing import Job
from genlab.errors import ConfigError, DivergedError, Interrupted, storage_errors


def sweep(verb: str, jobs: list[Job], perform: Callable[[Job, str], tuple[int, str]]) -> int:
    """Runs jobs one after another and prints a table; a failing job does not stop the others.

    Args:
        perform: runs a job in a folder, and returns its exit code and its one-line message.

    Returns:
        the exit code of the first failed job; 0 if none failed.
    """
    from genlab.runs.folder import create_folder

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("--multirun: a sweep runs in one process; start torchrun separately for each job")
    if len({job.run_dir for job in jobs}) > 1:
        raise ConfigError("run_dir: one folder for a whole sweep; job 0 goes to run_dir/0, and so on")
    folder = create_folder(verb, jobs[0].run_dir, "sweep")
    codes, rows, runs = [], [("job", "overrides", "run folder", "status")], []
    for number, job in enumerate(jobs):
        overrides = [word for word in job.overrides if not word.startswith("run_dir=")]
        print(f"job {number} ({len(jobs)} in all): {' '.join(overrides)}", file=sys.stderr, flush=True)
        path = folder / str(number)
        code, line = perform(job, str(path))
        gc.collect()  # otherwise a model in a reference cycle would keep its GPU memory during the next job
        status = {0: "done", DivergedError.exit_code: "diverged", Interrupted.exit_code: "interrupted"}
        rows.append((str(number), " ".join(overrides), str(path), status.get(code, f"failed: {line}")))
        codes.append(code)
        runs.append((overrides, path))
        if code in (Interrupted.exit_code, 130):
            rest = [str(k) for k in range(number + 1, len(jobs))]
            rows += [(k, " ".join(jobs[int(k)].overrides), "", "not started") for k in rest]
            break
    print(help.table(rows))
    if verb == "train":
        from genlab import registry  # all import torch
        from genlab.commands.base import finish
        from genlab.commands.next import to_show
        from genlab.report.summary import write_summary

        with storage_errors(folder):
            write_summary(folder / "summary.csv", runs)
        done = [k for k, code in enumerate(codes) if code == 0 and jobs[k].plain["dataset"]["name"] != "none"]
        then = []
        if done:  # and has data: a game without data has no samples
            family = registry.look_up(registry.FAMILIES, jobs[done[0]].plain["model"]["name"], "model")
            then.append(to_show(family, folder / str(done[0])))
        finish(folder, "summary.csv, and a folder for each job", *then)
    if any(code in (Interrupted.exit_code, 130) for code in codes):
        return codes[-1]
    return next((code for code in codes if code), 0)
