"""Asks a process of tests/hub/client.py, as a test's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from unfreeze_api.sources import needs
from unfreeze_trainer.errors import JobError, RetryError

WEIGHTS = bytes(range(256)) * 400
MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same as a pickle",
    "tokenizer.json": b"{}",
    "modeling_own.py": b"code",
    "onnx/model.onnx": b"another format",
}
"""Files of a repository: those that are read, and others."""
LEADING = ("HF_", "AWS_", "AZURE_", "GOOGLE_", "STORAGE_")


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def start(**environment):
    """Start a process that has no variables of hubs and stores but these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(LEADING)}
    command = [sys.executable, "-m", "tests.hub.client"]
    return subprocess.Popen(command, env=own | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Client:
    """Brings sources into a cache by a process."""

    def __init__(self, process, cache):
        self.cache, self._process = cache, process
        self.told = []

    def __call__(
        self, what, source, pin=None, *, offline=False, patience=0, model=None, weights=True, beside=False, pod=False
    ):
        is_model = not source.startswith("hf://datasets/") if model is None else model
        field = "spec.model.source" if is_model else "spec.data.train.source"
        wanted = {
            "field": field,
            "source": source,
            "path": "",
            "is_model": is_model,
            "weights": weights,
            "beside": beside,
        }
        scheme = needs(source).schemes[0]
        request = {"what": what, "scheme": scheme, "wanted": [wanted], "pins": {source: pin}, "cache": str(self.cache)}
        self._process.stdin.write(json.dumps(request | {"pod": pod, "offline": offline, "patience": patience}) + "\n")
        self._process.stdin.flush()
        *self.told, last = json.loads(self._process.stdout.readline())
        if "reason" in last:
            raise (RetryError if last["again"] else JobError)(last["reason"], last["message"])
        return last["result"][source]

    def pin(self, source, **options):
        return self("pin", source, **options)

    def fetch(self, source, pin=None, **options):
        return Path(self("fetch", source, pin or self.pin(source, **options), **options))
