"""A trainer without training, for tests of the operator: it keeps every contract and does what FAKE tells it.

FAKE is JSON: steps, stepSeconds; holdAt (a step to wait at until the file `go` lies in the run folder); fail
({"index": 0, "at": step, "times": n, "exitCode": 2, "reason": ..., "message": ..., "silent": true});
stopCode (what it exits with when asked to stop); say (a word for the log, at the start);
recovery (what it found broken, with `step` and `message`); decisions (what it has decided).
"""

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from unfreeze_api.contracts.job_file import read_job
from unfreeze_api.contracts.progress import (
    HTTP_PORT,
    JOB_FILE_ENV,
    CheckpointInfo,
    DecisionInfo,
    ExitCode,
    PhaseResult,
    Progress,
    Recovery,
    TerminationMessage,
)

JOB = read_job(Path(os.environ[JOB_FILE_ENV]).read_text())
RUN = Path(JOB.output.path)
INDEX = int(os.environ["JOB_COMPLETION_INDEX"])
FAKE = {"steps": 10, "stepSeconds": 0.02, **json.loads(os.environ.get("FAKE", "{}"))}
START = datetime.now(UTC)
TERMINATION_LOG = Path("/dev/termination-log")


class Trainer:
    def __init__(self):
        self.step = self.first = int(text) if (text := read(RUN / "checkpoint")) else 0
        self.checkpoint = None
        self.state = "Starting"

    def progress(self):
        steps = FAKE["steps"]
        ended = [PhaseResult(name="head", steps=2, seconds=0.1, trainable_parameters=7, metrics={"accuracy": 0.5})]
        return Progress(
            activity=self.state,
            percent=100 * self.step // steps,
            step=self.step,
            total_steps=steps,
            phase_index=int(self.step > 2),
            phase_count=2,
            phase_name="layer.1" if self.step > 2 else "head",
            loss=1 / (1 + self.step),
            metrics={"accuracy": self.step / steps},
            samples_per_second=100.0,
            eta_seconds=steps - self.step,
            learning_rates={"head": 1e-3},
            checkpoint=self.checkpoint,
            recovery=Recovery(time=START, **FAKE["recovery"]) if "recovery" in FAKE else None,
            world_size=JOB.distribution.world_size,
            phases=ended if self.step > 2 else [],
            decisions=[DecisionInfo(**one) for one in FAKE.get("decisions", ())] or None,
            results={"test.accuracy": 0.93} if self.state == "Done" else {},
        )

    def save(self):
        if INDEX == 0:
            (RUN / "checkpoint").write_text(str(self.step))
            self.checkpoint = CheckpointInfo(step=self.step, time=datetime.now(UTC).replace(microsecond=0))

    def end(self, outcome, reason, code, message=""):
        words = TerminationMessage(
            outcome=outcome,
            reason=reason,
            message=message,
            rank=INDEX if outcome == "Failed" else None,
            exit_code=code,
            checkpoint=self.checkpoint,
            log_tail="Traceback: fake" if outcome == "Failed" else "",
            progress=self.progress() if INDEX == 0 else None,
        )
        TERMINATION_LOG.write_text(words.to_termination_log())
        os._exit(code)

    def stop(self, *_):
        self.save()
        self.end("Stopped", "Stopped", FAKE.get("stopCode", ExitCode.STOPPED), "asked to stop")

    def train(self):
        self.state = "Training"
        while self.step < FAKE["steps"] if INDEX == 0 else not (RUN / "done").exists():
            fail(self, FAKE.get("fail", {}))
            while self.step >= FAKE.get("holdAt", FAKE["steps"] + 1) and not (RUN / "go").exists():
                time.sleep(0.02)
            time.sleep(FAKE["stepSeconds"])
            if INDEX == 0:
                self.step += 1
        if INDEX == 0:
            self.save()
            self.state = "Done"
            (RUN / "done").touch()
        self.end("Succeeded", "Completed", ExitCode.DONE)


def fail(trainer, plan):
    if not plan or plan.get("index", 0) != INDEX or trainer.step < plan.get("at", 0):
        return
    counter = RUN / f"failures-{INDEX}"
    failures = int(read(counter) or 0)
    if failures >= plan.get("times", 1):
        return
    counter.write_text(str(failures + 1))
    if plan.get("silent"):
        print("last line of the log", flush=True)
        os._exit(plan["exitCode"])
    trainer.end("Failed", plan.get("reason", "WorkerFailed"), plan["exitCode"], plan.get("message", "it broke"))


def read(path):
    return path.read_text() if path.exists() else ""


def serve(trainer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"/progress": trainer.progress().to_json(), "/healthz": "ok"}.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((os.environ["POD_IP"], HTTP_PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    if "say" in FAKE:
        print(f"{FAKE['say']} from {INDEX}", flush=True)
    RUN.mkdir(parents=True, exist_ok=True)
    TRAINER = Trainer()
    signal.signal(signal.SIGTERM, TRAINER.stop)
    serve(TRAINER)
    sys.exit(TRAINER.train())
