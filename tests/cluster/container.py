"""One container of a pod over its restarts: starts it, probes it, records how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import pwd
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.cluster import probes
from tests.cluster.api import ApiError
from tests.cluster.config import Config, Image
from tests.cluster.environment import ConfigError, build_env, expand, user_of
from tests.cluster.process import Process, StartError

if TYPE_CHECKING:
    from tests.cluster.pod import PodRunner

Json = dict[str, Any]

TERMINATION_LOG = "/dev/termination-log"
TERMINATION_LOG_BYTES = 4096
RETRY_SECONDS = 1.0


class ImageError(Exception):
    """The node does not have the container's image."""


@dataclass(frozen=True)
class Exit:
    """How one run ended."""

    code: int
    reason: str
    message: str = ""
    signal: int = 0


LOST = Exit(137, "ContainerStatusUnknown", "The container could not be located after the node came back")


class Container:
    """State of one container; `run` returns when it will not be started again."""

    def __init__(self, pod: PodRunner, spec: Json, *, init: bool = False, previous: Json | None = None) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.init = init
        #: Whether it is an init container that runs beside the others until they have ended.
        self.sidecar = init and spec.get("restartPolicy") == "Always"
        self.state: Json = {"waiting": {"reason": "PodInitializing" if pod.has_init else "ContainerCreating"}}
        self.last_state: Json = {}
        self.restarts = 0
        self.started = False
        self.ready = False
        self.process: Process | None = None
        self._pod = pod
        #: Set once it has been started, or will not be.
        self.begun = asyncio.Event()
        self._stop = asyncio.Event()
        self._oom_killed = False
        self._kills: set[asyncio.Task[None]] = set()
        if previous:
            self._adopt(previous)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last run, None while waiting or running."""
        terminated = self.state.get("terminated")
        return terminated["exitCode"] if terminated else None

    def log_path(self, restarts: int) -> Path:
        return self._pod.folder / "logs" / self.name / f"{restarts}.log"

    async def run(self) -> None:
        """Start the container, and again as the pod's restart policy says, until it is stopped."""
        pause = 0.0
        while not self._stop.is_set():
            if self.exit_code is None:
                await self._run_once()
            if self.exit_code is None or self._stop.is_set() or not self._again(self.exit_code):
                return
            await self._back_off(pause)
            config = self._pod.node.config
            pause = min(max(pause * 2, config.restart_backoff), config.restart_backoff_max)

    def stop(self, grace: float) -> None:
        """End the container for good: SIGTERM, and SIGKILL after ``grace`` seconds."""
        self._stop.set()
        self.begun.set()
        self._terminate(grace)

    def kill(self) -> None:
        """End it now and for good, as when its node loses power."""
        self._stop.set()
        if self.process:
            self.process.send(signal.SIGKILL)

    def kill_out_of_memory(self) -> None:
        """End this run as the kernel does when the memory limit is exceeded."""
        if not self.process:
            raise ValueError(f'container "{self.name}" is not running')
        self._oom_killed = True
        self.process.send(signal.SIGKILL)

    def status(self) -> Json:
        """Return the entry of status.containerStatuses."""
        status: Json = {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }
        if self.process:
            status["containerID"] = f"process://{self.process.pid}"
        return status

    def _adopt(self, previous: Json) -> None:
        """Take over the status from before the node went away; what ran then is lost."""
        self.restarts = previous.get("restartCount", 0)
        self.last_state = previous.get("lastState", {})
        self.state = previous.get("state") or self.state
        if "running" in self.state:
            self._finished(LOST, self.state["running"].get("startedAt") or now())

    async def _run_once(self) -> None:
        """Start one run and wait for its end; return early when stopped before the start."""
        process = await self._start()
        if process is None:
            return
        started_at = now()
        self.process = process
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec and (self.sidecar or not self.init)
        self.state = {"running": {"startedAt": started_at}}
        self._pod.changed()
        self.begun.set()
        prober = asyncio.ensure_future(self._probe()) if _probed(self.spec) else None
        status = await process.wait()
        if prober:
            prober.cancel()
        self.process = None
        self._finished(self._exit(status), started_at)
        self._pod.changed()

    async def _start(self) -> Process | None:
        """Start the process; None if the container ended, or was stopped, without one."""
        while not self._stop.is_set():
            try:
                return await self._start_process()
            except ImageError as error:
                self._wait_with("ErrImagePull", str(error))
                self._pod.warn("Failed", f'Failed to pull image "{self.spec.get("image")}": {error}')
                await self._pause(RETRY_SECONDS)
                self._wait_with("ImagePullBackOff", str(error))
                await self._stop.wait()
            except ConfigError as error:
                self._wait_with("CreateContainerConfigError", str(error))
                self._pod.warn("Failed", f"Error: {error}")
                await self._pause(RETRY_SECONDS)
            except StartError as error:
                self._pod.warn("Failed", f"Error: {error}")
                self._finished(Exit(128, "StartError", str(error)), now())
                self._pod.changed()
                return None
            except (ApiError, TimeoutError, aiohttp.ClientError, OSError) as error:  # as a kubelet, not given up
                self._pod.node.log(f"{self._pod.full_name}: {error!r}; trying again")
                await self._pause(RETRY_SECONDS)
        return None

    async def _start_process(self) -> Process:
        pod, spec = self._pod, self.spec
        image = _image(pod.node.config, spec)
        user = user_of(pod.pod, spec, image)
        base = pod.base_env() | {"HOME": _home(user.uid)}
        env = await build_env(pod.pod, spec, image, base, pod.read_data)
        command = spec.get("command") or list(image.command)
        argv = [expand(argument, env) for argument in [*command, *spec.get("args", [])]]
        mounts = [*pod.volumes.mounts(spec, env), *pod.file_mounts(), self._termination_mount()]
        self._oom_killed = False
        log = self.log_path(self.restarts)
        log.parent.mkdir(parents=True, exist_ok=True)
        run = f"{pod.uid}/{self.name}/{self.restarts}"
        process_spec = {
            "stateDir": str(pod.node.folder),
            "hostname": pod.hostname,
            "mounts": [*mounts, *hidden_folders(image.folders, mounts)],
            "opened": closed_folders(image.path),
            "workingDir": spec.get("workingDir", "/"),
            "argv": argv,
            "env": env,
            "uid": user.uid,
            "gid": user.gid,
            "groups": user.groups,
            "noNewPrivileges": user.no_new_privileges,
            "readOnlyRoot": user.read_only_root,
        }
        folder = pod.folder / "containers" / self.name / str(self.restarts)
        process = await Process.start(process_spec, folder, pod.node.rootfs / run, log)
        self._env = env
        if self._stop.is_set():  # stopped while it was starting
            process.send(signal.SIGKILL)
        return process

    def _termination_mount(self) -> Json:
        path = self._termination_log()
        path.write_bytes(b"")
        path.chmod(0o666)
        target = self.spec.get("terminationMessagePath", TERMINATION_LOG)
        return {"source": str(path), "target": target, "readOnly": False}

    def _termination_log(self) -> Path:
        path = self._pod.folder / "termination" / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _exit(self, status: int) -> Exit:
        """Describe an exit status of `Process.wait` as a kubelet does."""
        code, number = (128 - status, -status) if status < 0 else (status, 0)
        reason = "OOMKilled" if self._oom_killed else "Completed" if code == 0 else "Error"
        message = self._termination_log().read_bytes()[-TERMINATION_LOG_BYTES:].decode(errors="replace")
        policy = self.spec.get("terminationMessagePolicy")
        if not message and code != 0 and policy == "FallbackToLogsOnError":
            lines = self.log_path(self.restarts).read_text(errors="replace")[-2048:].splitlines()
            message = "\n".join(lines[-80:])
        return Exit(code, reason, message, number)

    def _finished(self, end: Exit, started_at: str) -> None:
        self.ready = self.started = False
        terminated: Json = {
            "exitCode": end.code,
            "reason": end.reason,
            "startedAt": started_at,
            "finishedAt": now(),
        }
        if end.message:
            terminated["message"] = end.message
        if end.signal:
            terminated["signal"] = end.signal
        self.state = {"terminated": terminated}

    def _again(self, code: int) -> bool:
        policy = self._pod.restart_policy
        if self.sidecar:
            return True
        if self.init and policy == "Always":
            policy = "OnFailure"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _back_off(self, pause: float) -> None:
        ended = self.state
        self.last_state = ended
        if pause:
            message = f"back-off {pause:g}s restarting failed container={self.name} pod={self._pod.full_name}"
            self._wait_with("CrashLoopBackOff", message)
            self._pod.warn("BackOff", f"Back-off restarting failed container {self.name}")
            await self._pause(pause)
        if self._stop.is_set():
            self.state = ended
        else:
            self.restarts += 1
            self.state = {"waiting": {"reason": "ContainerCreating"}}

    def _terminate(self, grace: float) -> None:
        process = self.process
        if process is None:
            return
        task = asyncio.ensure_future(self._terminate_process(process, grace))
        self._kills.add(task)
        task.add_done_callback(self._kills.discard)

    async def _terminate_process(self, process: Process, grace: float) -> None:
        if grace > 0:
            hook = (self.spec.get("lifecycle") or {}).get("preStop", {}).get("exec")
            deadline = asyncio.get_running_loop().time() + grace
            if hook:
                await self._execute(hook["command"], grace)
            process.send(signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), max(0, deadline - asyncio.get_running_loop().time()))
        process.send(signal.SIGKILL)

    async def _execute(self, command: list[str], limit: float) -> tuple[int, str]:
        if self.process is None:
            return 1, "the container is not running"
        return await self.process.run_inside(command, self._env, limit)

    async def _probe(self) -> None:
        """Run the startup probe until it succeeds, then the other two for ever."""

        async def attempt(probe: Json) -> str:
            return await probes.check(probe, self.spec, self._pod.ip, self._execute)

        async def watch(kind: str) -> None:
            probe = self.spec[f"{kind.lower()}Probe"]

            def changed(success: bool, problem: str) -> None:
                self._probed(kind, success, problem)

            def period() -> float:
                seconds = probe.get("periodSeconds", 10)
                hurry = kind == "Readiness" and not self.ready
                return float(min(seconds, self._pod.node.config.readiness_period) if hurry else seconds)

            await probes.watch(probe, lambda: attempt(probe), changed, period)

        if "startupProbe" in self.spec:
            startup = asyncio.ensure_future(watch("Startup"))
            self._started_event = asyncio.Event()
            try:
                await self._started_event.wait()
            finally:
                startup.cancel()
        kinds = [kind for kind in ("Readiness", "Liveness") if f"{kind.lower()}Probe" in self.spec]
        await asyncio.gather(*(watch(kind) for kind in kinds))

    def _probed(self, kind: str, success: bool, problem: str) -> None:
        if not success:
            self._pod.warn("Unhealthy", f"{kind} probe failed: {problem}")
            if kind != "Readiness":
                self._terminate(self._pod.grace)  # the restart policy decides what comes then
                return
        if kind == "Startup":
            self.started = True
            self.ready = "readinessProbe" not in self.spec
            self._started_event.set()
        elif kind == "Readiness":
            self.ready = success
        self._pod.changed()

    def _wait_with(self, reason: str, message: str) -> None:
        self.state = {"waiting": {"reason": reason, "message": message}}
        self._pod.changed()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def hidden_folders(folders: tuple[str, ...], mounts: list[Json]) -> list[Json]:
    """Return mounts that bring an image's folders back into sight where a volume's mount hides them."""
    return [
        {"source": folder, "target": folder, "readOnly": True}
        for folder in folders
        if any(Path(folder).is_relative_to(mount["target"]) for mount in mounts)
    ]


@functools.cache
def closed_folders(path: tuple[str, ...]) -> list[str]:
    """Return the folders that only their owner may enter, but which a user of the image must pass.

    As a virtual environment's interpreter often lies below somebody's home, links are followed.
    """
    places = [Path(folder).resolve() for folder in path if Path(folder).is_dir()]
    places += [entry.resolve() for place in places for entry in place.iterdir() if entry.is_symlink()]
    parents = {parent for place in places for parent in [place, *place.parents] if parent.is_dir()}
    return sorted(str(parent) for parent in parents if not parent.stat().st_mode & stat.S_IXOTH)


def _probed(spec: Json) -> bool:
    return any(name in spec for name in ("startupProbe", "readinessProbe", "livenessProbe"))


def _home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def _image(config: Config, spec: Json) -> Image:
    name = spec.get("image", "")
    image = config.image(name)
    if image is None:
        raise ImageError(f'the node does not have the image "{name}", only {", ".join(config.images)}')
    if not (spec.get("command") or image.command):
        raise ImageError(f'image "{name}" has no command on this node: set the container\'s `command`')
    return image
