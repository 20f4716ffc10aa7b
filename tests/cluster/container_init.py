"""PID 1 of a container until it becomes the container's command: builds the container's view of the files.

Run by process.py with the path of a file that says how, and an open pipe for what goes wrong. Standard library only
and as few modules of it as can be, because every container start pays for them: json would make it half as slow
again, and marshal is built in; pathlib is left out for the same reason.
"""

# ruff: noqa: PTH101, PTH103, PTH108, PTH110, PTH112, PTH114, PTH116, PTH120, PTH123
import ctypes
import marshal
import os
import sys

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUTS = 0x20000, 0x4000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SIGKILL = 9
#: Not taken from the host: a container has its own.
PRIVATE = ("/proc", "/run")

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        spec = marshal.load(file)
    # Closes itself when the command is executed, which tells the node that the container has started.
    report = int(sys.argv[2])
    os.set_inheritable(report, False)
    command = spec["argv"][0]
    try:
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
        os.setsid()
        check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS), "make namespaces")
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        enter_root(spec)
        become_user(spec)
        execute(spec["argv"], spec["env"])
    except Exception as error:  # noqa: BLE001 - whatever it is, the pod's status tells it
        os.write(report, f'exec: "{command}": {error}'.encode())
    os._exit(128)


def enter_root(spec: dict) -> None:  # type: ignore[type-arg]
    """Make a copy-on-write view of the host's root the root, with the pod's volumes and files mounted in it."""
    root = spec["root"]
    layers = f"lowerdir=/,upperdir={root}/upper,workdir={root}/work"
    merged = f"{root}/merged"
    mount("overlay", merged, "overlay", 0, layers)
    for folder in spec["opened"]:  # in this layer only; before mounts of the host may cover it
        if os.path.isdir(merged + folder):
            os.chmod(merged + folder, os.stat(merged + folder).st_mode | 0o111)
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
    name = spec["hostname"].encode()
    check(libc.sethostname(name, len(name)), "set the host name")
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


def execute(argv: list[str], env: dict[str, str]) -> None:
    """Become the command. By hand, as `os.execvpe` imports modules, which the user may not be able to read."""
    folders = [""] if "/" in argv[0] else [folder + "/" for folder in env["PATH"].split(":")]
    for folder in folders:
        if os.access(folder + argv[0], os.X_OK) and not os.path.isdir(folder + argv[0]):
            os.execve(folder + argv[0], argv, env)
    raise OSError("no such executable file" if "/" in argv[0] else "executable file not found in $PATH")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    result = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    check(result, f"mount {source or 'again'} at {target}")


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")


main()
