"""Do the tests go red when the thing they test is broken? Breaks one thing at a time in a copy and runs its tests.

python -m tests.mutations            # all of them, two at a time
python -m tests.mutations 3 7        # some
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

REPOSITORY = Path(__file__).parents[1]
SOURCES = ("cli", "crds", "operator", "trainer")
OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "-m", "not cluster")
AT_ONCE = 2


@dataclass(frozen=True)
class Mutation:
    """One thing broken: `old`, which stands once in `file`, becomes `new`; `tests` must fail."""

    what: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "lower blocks learn faster than upper ones (layer decay with the wrong sign)",
        "trainer/unfreeze_trainer/phases/compile.py",
        "rate.layer_decay**i",
        "rate.layer_decay**-i",
        "tests/trainer/test_phases.py",
    ),
    Mutation(
        "frozen blocks train",
        "trainer/unfreeze_trainer/phases/freezer.py",
        "parameter.requires_grad_(name in trainable)",
        "parameter.requires_grad_(True)",
        "tests/trainer/test_freezer.py",
    ),
    Mutation(
        "BatchNorm statistics of frozen blocks drift",
        "trainer/unfreeze_trainer/phases/freezer.py",
        "                    module.eval()",
        "                    module.train()",
        "tests/trainer/test_freezer.py",
    ),
    Mutation(
        "a rollback leaves the rates as they are",
        "trainer/unfreeze_trainer/training/rollback.py",
        "FACTOR ** sum(",
        "1.0 + 0 * sum(",
        "tests/trainer/test_rates.py",
    ),
    Mutation(
        "biases and norms decay",
        "trainer/unfreeze_trainer/phases/freezer.py",
        "0.0 if small else weight_decay",
        "weight_decay",
        "tests/trainer/test_freezer.py",
    ),
    Mutation(
        "norms decay where they have more than one dimension",
        "trainer/unfreeze_trainer/phases/freezer.py",
        "self._dimensions[name] > 1 and name not in self._undecayed",
        "self._dimensions[name] > 1",
        "tests/trainer/test_freezer.py",
    ),
    Mutation(
        "a plateau does not end its phase",
        "trainer/unfreeze_trainer/training/milestones.py",
        "self._plan.phases[state.phase_index].plateau or self._early_stopping",
        "self._early_stopping",
        "tests/trainer/test_early_ends.py",
    ),
    Mutation(
        "an evaluation without a number stays the best one",
        "trainer/unfreeze_trainer/training/decide.py",
        "math.isnan(than) or metric",
        "metric",
        "tests/trainer/test_decide.py",
    ),
    Mutation(
        "a chain thaws from the top",
        "trainer/unfreeze_trainer/phases/compile.py",
        "for group in reversed(groups)]",
        "for group in groups]",
        "tests/trainer/test_phases.py",
    ),
    Mutation(
        "what embeds and is declared after the layers joins the next stack's first layer",
        "trainer/unfreeze_trainer/models/blocks.py",
        'elif owner in embeddings or "embed" in called:',
        "elif owner in embeddings:",
        "tests/trainer/test_architectures.py",
    ),
    Mutation(
        "the samples that do not fill a round of ranks are not evaluated",
        "trainer/unfreeze_trainer/data/order.py",
        "return range(rank, n, world_size)",
        "return range(rank, n - n % world_size, world_size)",
        "tests/trainer/test_order.py",
    ),
    Mutation(
        "the gradient depends on the number of workers",
        "trainer/unfreeze_trainer/feed.py",
        "scale = self._world_size / max(1, self._units_of(batch))",
        "scale = 1 / max(1, self._units_of(batch))",
        "tests/trainer/test_engines.py",
    ),
    Mutation(
        "macro F1 counts a class that does not occur",
        "trainer/unfreeze_trainer/objectives/classification.py",
        "either = (predicted + actual) > 0",
        "either = (predicted + actual) >= 0",
        "tests/trainer/test_metrics.py",
    ),
    Mutation(
        "moments are forgotten at a phase change",
        "trainer/unfreeze_trainer/training/trainable.py",
        "self._moments, self._phase = None, phase",
        "self._moments, self._phase = {}, phase",
        "tests/trainer/test_engines.py",
    ),
    Mutation(
        "FSDP divides tied weights in one of their places",
        "trainer/unfreeze_trainer/engines/parts.py",
        "frozenset(block.parameters) - tied",
        "frozenset(block.parameters)",
        "tests/trainer/test_memory_savers.py",
    ),
    Mutation(
        "gradient checkpointing computes frozen layers backwards",
        "trainer/unfreeze_trainer/models/activations.py",
        "            module.disable_input_require_grads()\n",
        "",
        "tests/trainer/test_memory_savers.py",
    ),
    Mutation(
        "a step whose gradients are not finite is taken",
        "trainer/unfreeze_trainer/engines/base.py",
        "skip = ~norm.isfinite()",
        "skip = torch.zeros_like(norm, dtype=torch.bool)",
        "tests/trainer/test_engines.py",
    ),
    Mutation(
        "opposite changes of two weights cancel out in the guard's sum",
        "trainer/unfreeze_trainer/engines/bits.py",
        "    return (mixed ^ mixed >> np.uint64(31) | np.uint64(1)).view(np.int64)",
        "    return np.ones_like(mixed).view(np.int64)",
        "tests/trainer/test_bits.py",
    ),
    Mutation(
        "a share's place in the whole tensor does not count in the guard's sum",
        "trainer/unfreeze_trainer/engines/bits.py",
        "divmod(first * max(1, tensor.element_size() // 4), _ROW)",
        "divmod(0, _ROW)",
        "tests/trainer/test_bits.py",
    ),
    Mutation(
        "weights without a gradient train",
        "trainer/unfreeze_trainer/training/unused.py",
        "        freezer.unused = frozenset(state.unused)",
        "        freezer.unused = frozenset()",
        "tests/trainer/test_unused.py",
    ),
    Mutation(
        "experts that a batch does not choose are taken for unused",
        "trainer/unfreeze_trainer/training/unused.py",
        "frozenset(names) - always, always == ever",
        "frozenset(names) - ever, True",
        "tests/trainer/test_unused.py",
    ),
    Mutation(
        "a gradient that comes later is not noticed",
        "trainer/unfreeze_trainer/training/unused.py",
        "            self._late.add(name)",
        "            pass",
        "tests/trainer/test_unused.py",
    ),
    Mutation(
        "a look at the gradients leaves its random draws behind",
        "trainer/unfreeze_trainer/training/dry_run.py",
        "        with torch.random.fork_rng(devices=devices):\n            yield",
        "        yield",
        "tests/trainer/test_unused.py",
    ),
    Mutation(
        "the longest samples are not tried before the training",
        "trainer/unfreeze_trainer/training/trials.py",
        "np.argsort(-lengths, ",
        "np.argsort(0 * lengths, ",
        "tests/trainer/test_trials.py",
    ),
    Mutation(
        "a checkpoint with changed bytes is taken for whole",
        "trainer/unfreeze_trainer/runs/checkpoints.py",
        "if digest != sealed.sha256:",
        "if False:",
        "tests/trainer/test_broken_checkpoints.py",
    ),
    Mutation(
        "children without an owner",
        "operator/unfreeze_operator/manifests/children.py",
        '        "ownerReferences": [owner],\n',
        "",
        "tests/operator/test_children.py",
    ),
    Mutation(
        "errors of the job itself are retried",
        "operator/unfreeze_operator/manifests/children.py",
        '        {"action": "FailJob", "onExitCodes": on_exit(ExitCode.JOB_ERROR)},\n',
        "",
        "tests/operator/test_children.py",
    ),
    Mutation(
        "pods that stop unasked are retried without end",
        "operator/unfreeze_operator/policies/backoff_limit.py",
        "stops = sum(stopped_unasked(pod) for pod in context.children.pods)",
        "stops = 0",
        "tests/operator/policies",
    ),
    Mutation(
        "time in suspension counts as time to start",
        "operator/unfreeze_operator/observed/gangs.py",
        "return max(started, changed)",
        "return min(started, changed)",
        "tests/operator/policies",
    ),
    Mutation(
        "a pod is given up while its node still has time",
        "operator/unfreeze_operator/policies/lost_pods.py",
        "timedelta(seconds=context.lost_pod_grace)",
        "timedelta(0)",
        "tests/operator/policies",
    ),
    Mutation(
        "a gang holds half of what it needs for ever",
        "operator/unfreeze_operator/policies/give_back.py",
        "    if left > 0:\n",
        "    if True:\n",
        "tests/operator/policies",
    ),
    Mutation(
        "gangs that block one another give way at the same time",
        "operator/unfreeze_operator/observed/gangs.py",
        "return 0.5 + digest[0] / 255",
        "return 1.0",
        "tests/operator/policies",
    ),
    Mutation(
        "a step that is tried again is told again",
        "operator/unfreeze_operator/decisions/events.py",
        "mark += f\" {job.uid} {job.started}{' ' + _mark(old, new) if job.pod_group else ''}\"",
        "mark = _mark(old, new)",
        "tests/operator/test_status.py",
    ),
    Mutation(
        "a child that is there already is taken for another's",
        "operator/unfreeze_operator/cluster/executor.py",
        "if owners != wanted:",
        "if True:",
        "tests/operator/test_executor.py",
    ),
    Mutation(
        "a lost pod's time counts as training",
        "operator/unfreeze_operator/status/times.py",
        'return "Starting" if known == "Starting" else "Recovering"',
        "return known",
        "tests/operator/test_times.py",
    ),
    Mutation(
        "a job of another owner with the same name is taken over",
        "operator/unfreeze_operator/observed/context.py",
        "own_job = next((job for job in jobs if job.owner == owner), None)",
        "own_job = next(iter(jobs), None)",
        "tests/operator/test_plan.py tests/operator/policies",
    ),
    Mutation(
        "a job's pods may reach anything",
        "operator/unfreeze_operator/settings/network.py",
        '"policyTypes": ["Ingress", "Egress"]',
        '"policyTypes": ["Ingress"]',
        "tests/operator/test_network.py",
    ),
    Mutation(
        "every pod of the operator's namespace reads the trainers' metrics",
        "operator/unfreeze_operator/settings/network.py",
        '        "podSelector": {"matchLabels": OPERATOR_LABELS},\n',
        "",
        "tests/operator/test_network.py",
    ),
    Mutation(
        "a template's labels win over those of the gang",
        "operator/unfreeze_operator/manifests/children.py",
        '{**template.get("labels", {}), **_gang_labels(job)}',
        '{**_gang_labels(job), **template.get("labels", {})}',
        "tests/operator/test_network.py",
    ),
    Mutation(
        "the phases of a status take more room than the rest leaves",
        "operator/unfreeze_operator/status/budget.py",
        "_fitting(phases, MAX_STATUS_BYTES - _rest(out))",
        "_fitting(phases, MAX_STATUS_BYTES)",
        "tests/operator/test_budget.py",
    ),
    Mutation(
        "a trainer has its status written whenever it likes",
        "operator/unfreeze_operator/reconcile.py",
        "if uid != job.uid or not children.live_pods:",
        "if True:",
        "tests/operator/test_budget.py",
    ),
    Mutation(
        "a trainer changes what it said of a phase that has ended",
        "operator/unfreeze_operator/status/training.py",
        "(new, old) if new is reported[-1] else (old, new)",
        "(new, old)",
        "tests/operator/test_budget.py",
    ),
    Mutation(
        "figures of each class are metrics",
        "crds/unfreeze_api/contracts/budget.py",
        '_METRIC = re.compile(r"[A-Za-z][A-Za-z0-9_]*")',
        '_METRIC = re.compile(r".*")',
        "tests/crds/test_budget_of_progress.py",
    ),
    Mutation(
        "steps of an attempt that was given up stay in the history",
        "operator/unfreeze_operator/status/history.py",
        "(point for point in old if point.step < now.step)",
        "old",
        "tests/operator/test_history.py",
    ),
    Mutation(
        "what pods write commands the terminal",
        "cli/unfreeze_cli/text.py",
        '_UNSEEN = {"Cc", "Cf", "Cs"',
        '_UNSEEN = {"Cs"',
        "tests/cli/test_page.py",
    ),
    Mutation(
        "a retry deletes a job that the server would not take again",
        "cli/unfreeze_cli/life.py",
        '    kubectl.run("create", "--dry-run=server", "--filename=-", stdin=json.dumps(trial))\n',
        "",
        "tests/cli/test_kubectl.py",
    ),
    Mutation(
        "a running job's model may be changed",
        "crds/unfreeze_api/spec/job.py",
        'FIXED = ("model", ',
        "FIXED = (",
        "tests/crds",
    ),
    Mutation(
        "rules do not see what stands under a field's former name",
        "crds/unfreeze_api/grammar/former.py",
        "        rule = _with_former(rule, ",
        "        _with_former(rule, ",
        "tests/crds/test_former.py",
    ),
    Mutation(
        "a termination message may be longer than Kubernetes keeps",
        "crds/unfreeze_api/contracts/progress.py",
        "TERMINATION_MESSAGE_BYTES = 4096",
        "TERMINATION_MESSAGE_BYTES = 8192",
        "tests/crds/test_contracts.py",
    ),
    Mutation(
        "a newer trainer is silent for this operator",
        "crds/unfreeze_api/grammar/model.py",
        'extra="ignore", context=READING',
        "context=READING",
        "tests/crds/test_contracts.py",
    ),
    Mutation(
        "a word that is not known hides a whole message",
        "crds/unfreeze_api/grammar/reading.py",
        "if info.context is READING and isinstance(value, str):",
        "if False:",
        "tests/crds/test_contracts.py",
    ),
    Mutation(
        "a job.json of another schemaVersion is trained",
        "crds/unfreeze_api/contracts/job_file.py",
        "if type(version) is not int or version not in VERSIONS:",
        "if False:",
        "tests/crds/test_job_file.py",
    ),
    Mutation(
        "a finished run whose report cannot be read is trained again",
        "trainer/unfreeze_trainer/exports/report.py",
        "    except FileNotFoundError:\n",
        "    except (FileNotFoundError, ValueError):\n",
        "tests/trainer/test_report.py",
    ),
    Mutation(
        "a series gets another name",
        "operator/unfreeze_operator/telemetry/metrics.py",
        '"unfreeze_status_writes"',
        '"unfreeze_statuses_written"',
        "tests/skew/test_names.py",
    ),
    Mutation(
        "a job that has begun is given up for a field that only a newer operator knows",
        "operator/unfreeze_operator/reconcile.py",
        "if known is None or not begun:",
        "if True:",
        "tests/operator/test_newer_crd.py",
    ),
    Mutation(
        "a diverged loss looks like a perfect one",
        "crds/unfreeze_api/contracts/series.py",
        "return math.nan if",
        "return 0.0 if",
        "tests/operator/test_job_metrics.py",
    ),
    Mutation(
        "an alert comes ten times too late",
        "charts/unfreeze/files/rules/alerts.yaml",
        "> 2 * 3600",
        "> 20 * 3600",
        "tests/observability/test_rules.py",
    ),
    Mutation(
        "a tracker that fails takes the others along",
        "trainer/unfreeze_trainer/training/tracking.py",
        "            self._silent_until = time.monotonic() + PAUSE_SECONDS\n",
        "            raise\n",
        "tests/trainer/test_tracking.py::test_a_tracker_that_fails_costs_neither_the_training_nor_the_others",
    ),
    Mutation(
        "credentials of trackers do not reach the pods",
        "operator/unfreeze_operator/manifests/children.py",
        "if mlflow and mlflow.secret_ref:",
        "if mlflow and not mlflow.secret_ref:",
        "tests/operator/test_tracking.py",
    ),
    Mutation(
        "a pod that failed and is gone is not counted as replaced",
        "operator/unfreeze_operator/objects/carried.py",
        "return max(at_hand, counted)",
        "return at_hand",
        "tests/operator/test_carried.py",
    ),
    Mutation(
        "the metrics page holds up the event loop",
        "operator/unfreeze_operator/telemetry/health.py",
        "await asyncio.to_thread(_page, self._metrics.registry)",
        "_page(self._metrics.registry)",
        "tests/operator/test_health.py",
    ),
    Mutation(
        "a policy's error lets the next ones make what it would have ruled out",
        "operator/unfreeze_operator/decisions/plan.py",
        "if problems and check not in RESTRAINING",
        "if False",
        "tests/operator/test_nonsense.py",
    ),
    Mutation(
        "numbers that are not finite reach the status",
        "crds/unfreeze_api/contracts/decoder.py",
        "isinstance(value, float) and not isfinite(value)",
        "False",
        "tests/operator/test_nonsense.py",
    ),
    Mutation(
        "slow leaders take the places of the others",
        "operator/unfreeze_operator/cluster/poller.py",
        "if target.failures or target.slow",
        "if target.failures",
        "tests/operator/test_progress.py",
    ),
    Mutation(
        "what the platform does not allow is made",
        "operator/unfreeze_operator/policies/not_allowed.py",
        "    if not found:\n",
        "    if found:\n",
        "tests/operator/policies/test_not_allowed.py",
    ),
    Mutation(
        "a Job that began under its own name gets another one when it is made again",
        "operator/unfreeze_operator/observed/context.py",
        "config_map.child_job or earlier",
        "names.job",
        "tests/operator/test_child_names.py",
    ),
    Mutation(
        "a Workload of Kueue wakes nobody, since it names the Job and not the FineTuneJob",
        "operator/unfreeze_operator/reconcile.py",
        "return child.key if child is not None else workload",
        "return workload",
        "tests/operator/test_child_names.py",
    ),
)


def main() -> None:
    """Try the mutations named by their numbers, or all; exit status 1 when one survives."""
    chosen = [int(number) for number in sys.argv[1:]] or range(1, len(MUTATIONS) + 1)
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder, ThreadPoolExecutor(AT_ONCE) as together:
        copies = SimpleQueue[Path]()
        for number in range(AT_ONCE):
            copies.put(_copied(Path(folder) / str(number)))
        tries = [(number, together.submit(_try, MUTATIONS[number - 1], copies)) for number in chosen]
        for number, tried in tries:
            red, seconds, said = tried.result()
            mutation = MUTATIONS[number - 1]
            survived += not red
            outcome = "red" if red else f"SURVIVED ({said})"
            print(f"{number:>2} {outcome}: {mutation.what} ({mutation.tests}; {seconds:.0f} s)", flush=True)
    sys.exit(1 if survived else 0)


def _copied(folder: Path) -> Path:
    ignored = shutil.ignore_patterns(".git", ".venv", ".demo", ".cluster", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(REPOSITORY, folder, ignore=ignored, symlinks=True)
    return folder


def _try(mutation: Mutation, copies: SimpleQueue[Path]) -> tuple[bool, float, str]:
    """Return whether the tests go red in a copy, the seconds that they took, and pytest's last line.

    A copy serves one mutation after the other, so that what is not mutated is compiled once.
    """
    copy, started = copies.get(), time.monotonic()
    file = copy / mutation.file
    whole, times = file.read_text(), file.stat()
    if whole.count(mutation.old) != 1:
        raise ValueError(f"{mutation.what}: {mutation.file} does not have this text once:\n{mutation.old}")
    try:
        file.write_text(whole.replace(mutation.old, mutation.new))
        path = os.pathsep.join(str(copy / source) for source in SOURCES)
        result = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *mutation.tests.split()],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(whole)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        copies.put(copy)
    said = (result.stdout.strip() or result.stderr.strip()).rpartition("\n")[2]
    return result.returncode == 1, time.monotonic() - started, said


if __name__ == "__main__":
    main()
