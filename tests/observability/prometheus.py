"""A real Prometheus as a process of the tests, and promtool."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

import yaml

from tests.debian import find
from tests.operator.process import free_port
from tests.operator.world import until

Json = dict[str, Any]


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool; the caller judges its exit code."""
    command = [str(find("promtool", "prometheus")), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


class Prometheus:
    """One server with its data in a folder; stopped at the end of the `with`.

    Parameters
    ----------
    folder
        Its configuration, data and log.
    config
        prometheus.yml.
    """

    def __init__(self, folder: Path, config: Json) -> None:
        self._folder, self._config = folder, config
        self._address = f"127.0.0.1:{free_port()}"

    def __enter__(self) -> Self:
        file, log = self._folder / "prometheus.yml", self._folder / "prometheus.log"
        file.write_text(yaml.safe_dump(self._config))
        checked = promtool("check", "config", file)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        command = [find("prometheus", "prometheus"), f"--config.file={file}", f"--web.listen-address={self._address}"]
        command += [f"--storage.tsdb.path={self._folder / 'data'}"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        until(lambda: self._ready(log), "Prometheus is ready", 60)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _ready(self, log: Path) -> bool:
        assert self._process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _get(self, path: str, **parameters: Any) -> Any:
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Json]:
        """Return the series of an instant query."""
        return self._get("query", query=expression)["result"]

    def query_range(self, expression: str, start: float, step: float = 1) -> list[Json]:
        """Return the series of a range query from a time, in seconds since the epoch, until now."""
        return self._get("query_range", query=expression, start=start, end=time.time(), step=step)["result"]

    def targets(self) -> list[Json]:
        """Return the targets that are scraped."""
        return self._get("targets", state="active")["activeTargets"]
