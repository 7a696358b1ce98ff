"""What the demo trains. What is finished is used again, what is not goes on."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import tomli_w

import ovseg_cli
from ovseg_cli.core.clip.model import RUN_FILE
from ovseg_cli.core.demo import plan
from ovseg_cli.core.demo.plan import DATA, DemoRequest, Job
from ovseg_cli.core.errors import OvsegError
from ovseg_cli.core.files import write_text
from ovseg_cli.core.reporter import Reporter
from ovseg_cli.core.runs import HOST, Run, list_runs


def trained_clip(seed: int, request: DemoRequest, reporter: Reporter) -> Path:
    """A toy CLIP of one seed: a finished one is used again, an unfinished one continued."""
    from ovseg_cli.core.training.session import TrainRequest, train

    earlier = [
        r for r in list_runs(request.folders.runs) if r.kind == "toy-clip" and r.config["method"].get("seed") == seed
    ]
    if earlier and (earlier[0].path / RUN_FILE).exists():
        return earlier[0].path
    asked = TrainRequest(
        "toy-clip",
        {} if earlier else {**plan.TRAINING, "seed": seed},
        resume=bool(earlier),
        run=earlier[0].path if earlier else None,
        gpus=request.gpus,
    )
    return Path(train(asked, request.folders, reporter)["run"])


def trained_runs(clips: Sequence[str], request: DemoRequest, reporter: Reporter) -> list[dict[str, Path]]:
    """Train all that the demo's rows come from, for each CLIP; several at a time where there are several cores.

    Returns:
        For each CLIP: name of the training → finished run.
    """
    wanted = [(seed, job) for seed in range(len(clips)) for job in plan.jobs_of(request)]
    missing = [pair for pair in wanted if _finished(*pair, clips, request) is None]
    if missing:
        for _ in reporter.track(_train_all(missing, clips, request), "training", len(missing)):
            pass
    found: list[dict[str, Path]] = [{} for _ in clips]
    for seed, job in wanted:
        run = _finished(seed, job, clips, request)
        assert run is not None, "a training that ends without an error leaves a finished run"
        found[seed][job.name] = run.path
    return found


def _finished(seed: int, job: Job, clips: Sequence[str], request: DemoRequest) -> Run | None:
    return next((run for run in _runs(seed, job, clips, request) if run.is_finished), None)


def _runs(seed: int, job: Job, clips: Sequence[str], request: DemoRequest) -> Iterator[Run]:
    """Runs of a training with the very settings of the demo."""
    for run in list_runs(request.folders.runs):
        if run.method != job.method or run.kind != "segmentation":
            continue
        of_run = {**run.config["method"], **run.config.get("training", {})}
        same = of_run.get("seed") == seed and run.config["clip"]["name"] == clips[seed]
        same = same and (job.host is None or of_run.get("host") == job.host)
        same = same and all(of_run.get(key) == value for key, value in job.settings.items() if key != HOST)
        if same and run.config.get(HOST, {}) == job.settings.get(HOST, {}):
            yield run


def _train_all(
    missing: Sequence[tuple[int, Job]], clips: Sequence[str], request: DemoRequest
) -> Iterator[tuple[int, Job]]:
    """Train in processes of their own, one thread each: small networks gain nothing from more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    running: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(max_workers=max(1, min(cores, len(missing)))) as pool:
        jobs = {pool.submit(_train_one, *pair, clips, request, running): pair for pair in missing}
        try:
            for job in as_completed(jobs):
                job.result()
                yield jobs[job]
        except BaseException:  # whatever ends the demo ends what it started; each saves where it stands
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _train_one(
    seed: int, job: Job, clips: Sequence[str], request: DemoRequest, running: list[subprocess.Popen[str]]
) -> None:
    begun = next(_runs(seed, job, clips, request), None)
    words = ["train", job.method, *_places(request)]
    if begun is not None:
        words += ["--resume", "--run", str(begun.path)]
    else:
        config = request.out / f"{job.method}-{job.name}.toml"
        write_text(config, tomli_w.dumps(dict(job.settings)))
        host = ["--host", job.host] if job.host else []
        words += ["--data", DATA, *host, "--clip", clips[seed], "--seed", str(seed), "--config", str(config)]
    here = str(Path(ovseg_cli.__file__).resolve().parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _joined(here, os.environ.get("PYTHONPATH"))}
    command = [sys.executable, "-m", "ovseg_cli.app", *words]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        running.append(process)
        told = process.communicate()[1]
    if process.returncode in (-2, 130):
        raise KeyboardInterrupt
    if process.returncode:
        what = f"{job.method} on {job.host}" if job.host else job.method
        raise OvsegError(f"training {what} failed: {_last_words(told)}", f"Try: ovseg {shlex.join(words)}")


def _places(request: DemoRequest) -> list[str]:
    gpus = [] if request.gpus is None else ["--gpus", str(min(1, request.gpus))]
    return ["--data-root", str(request.folders.data), "--runs", str(request.folders.runs), *gpus]


def _joined(first: str, rest: str | None) -> str:
    return first if not rest else f"{first}{os.pathsep}{rest}"


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error")]
    return (errors or lines or ["no reason was given"])[-1].removeprefix("error: ")
