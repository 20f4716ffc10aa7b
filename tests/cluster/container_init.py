"""PID 1 of a container until it becomes the container's command: builds the container's view of the files.

Run by process.py in new mount, PID and UTS namespaces with the path of a JSON file. Standard library only, and
few modules of it, because every container start pays for them.
"""

import ctypes
import json
import os
import sys

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 1, 32, 4096, 16384
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SIGKILL = 9
#: Not taken from the host: a container has its own.
PRIVATE = ("/proc", "/run")

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    # Closes itself when the command is executed, which tells the node that the container has started.
    report = os.open(spec["report"], os.O_WRONLY)
    # /proc is still the host's here, so that this is the PID by which the node can signal the container.
    os.write(report, f"pid {os.readlink('/proc/self')}\n".encode())
    try:
        os.setsid()
        enter_root(spec)
        become_user(spec)
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except FileNotFoundError as error:
        what = error.filename or spec["argv"][0]
        os.write(report, f'error exec: "{spec["argv"][0]}": no such file or directory: {what}'.encode())
    except Exception as error:
        os.write(report, f'error exec: "{spec["argv"][0]}": {error}'.encode())
    os._exit(128)


def enter_root(spec: dict) -> None:  # type: ignore[type-arg]
    """Make a copy-on-write view of the host's root the root, with the pod's volumes and files mounted in it."""
    root = spec["root"]
    layers = f"lowerdir=/,upperdir={root}/upper,workdir={root}/work"
    merged = f"{root}/merged"
    mount("overlay", merged, "overlay", 0, layers)
    for point in host_mounts(spec["stateDir"]):
        if os.path.exists(merged + point):
            mount(point, merged + point, None, MS_BIND | MS_REC)
    mount("proc", f"{merged}/proc", "proc", 0, None)
    mount("tmpfs", f"{merged}/run", "tmpfs", 0, "mode=755")
    # Opened before the root changes and mounted after it, so that targets resolve as the container sees them.
    sources = [(os.open(m["source"], os.O_PATH), m) for m in spec["mounts"]]
    os.chroot(merged)
    os.chdir("/")
    for source, entry in sources:
        bind(source, entry["target"], entry["readOnly"])
    sethostname(spec["hostname"])
    if spec["readOnlyRoot"]:
        mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    if not os.path.isdir(spec["workingDir"]):
        os.makedirs(spec["workingDir"])
    os.chdir(spec["workingDir"])


def host_mounts(state_dir: str) -> list[str]:
    """Return the host's mount points below /, outermost only, that a container shares."""
    with open("/proc/self/mountinfo") as file:
        points = sorted({line.split()[4].encode().decode("unicode_escape") for line in file} - {"/"})
    chosen: list[str] = []
    for point in points:
        hidden = (*PRIVATE, state_dir, *chosen)
        if not any(point == parent or point.startswith(parent + "/") for parent in hidden):
            chosen.append(point)
    return chosen


def bind(source: int, target: str, read_only: bool) -> None:
    """Mount an open file or folder at ``target``, which is made in the container's own layer if missing."""
    if os.path.isdir(f"/proc/self/fd/{source}"):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(target):
            os.unlink(target)
        if not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(f"/proc/self/fd/{source}", target, None, MS_BIND | MS_REC)
    if read_only:
        mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.close(source)


def become_user(spec: dict) -> None:  # type: ignore[type-arg]
    os.umask(0o022)
    os.setgroups(spec["groups"])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    # The change of user has cleared this: the container dies with the process that waits for it.
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
    if spec["noNewPrivileges"]:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def sethostname(name: str) -> None:
    if libc.sethostname(name.encode(), len(name.encode())) != 0:
        raise OSError(ctypes.get_errno(), "cannot set the host name")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot mount {source or 'again'} at {target}: {os.strerror(number)}")


main()
