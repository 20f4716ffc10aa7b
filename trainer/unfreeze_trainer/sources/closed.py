"""A source is closed: what is read of it are regular files below it, wherever names and links in it point to.

Every reader of a source finds its files by `Closed`: weights that an index lists, pictures that a table names, a tokenizer's
files. What a model's config names as code is refused here too.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unfreeze_api.contracts.reasons import TrainerReason
from unfreeze_trainer.errors import JobError, quoted

_SHARED, _SHARED_MARK = "blobs", ".huggingface-shared-blobs"
"""Folder of a cache of huggingface_hub with the blobs that repositories share (since 2.4), and the file that says so."""
_IMPLEMENTATION = re.compile("_?(attn|experts)_implementation(_internal)?")
_BUILT_IN = frozenset({"eager", "sdpa", "flex_attention", "paged|eager", "paged|sdpa", "batched_mm", "grouped_mm"})
"""Implementations that transformers has itself; for others it imports a package, or loads a kernel from the hub."""
_KERNELS = frozenset({"use_kernels", "kernel_config", "kernels"})
_PLACES = frozenset({"pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"})
"""Arguments of timm's models that say where weights lie, or that are read from there."""


class Closed:
    """A folder that nothing leads out of.

    Parameters
    ----------
    root
        The folder; it may be a link itself.
    where
        What messages start with: field and source.
    reason
        Of the errors.

    Notes
    -----
    A snapshot of huggingface_hub's cache is made of links to the blobs of its repository, and these may be links to blobs that
    all repositories of the cache share: there the repository's folder counts, and that store.
    """

    def __init__(self, root: str | Path, where: str, reason: TrainerReason) -> None:
        self.root = str(root)
        self._where, self._reason = where, reason
        real = Path(os.path.realpath(root))
        repository = _repository(real)
        self._real = str(repository or real).rstrip(os.sep)
        self._also = (
            f"{repository.parent / _SHARED}{os.sep}" if repository and _has_shared_blobs(repository.parent) else ""
        )
        self._parents: dict[str, str] = {}

    def path(self, name: str, *, prefix: str = "") -> str:
        """Return the path of a regular file below the folder.

        Parameters
        ----------
        name
            Relative to the folder.
        prefix
            Where the name stands, for messages, if in a row of the data.

        Raises
        ------
        JobError
            It leads out of the folder, by its name or by links, or is no regular file.
        FileNotFoundError
            There is none.
        """
        path = os.path.join(self.root, name)  # noqa: PTH118 - of millions of files, as the calls below
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            real = os.path.realpath(path)
            mode = os.stat(real).st_mode  # noqa: PTH116
        else:
            parent = os.path.dirname(path)  # noqa: PTH120
            if parent not in self._parents:
                self._parents[parent] = os.path.realpath(parent)
            real = os.path.join(self._parents[parent], os.path.basename(path))  # noqa: PTH118, PTH119
        shown = f"{prefix}{quoted(name)}" if prefix else name
        self._require_below(real, shown, quoted(real) if prefix else real)
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "something else")
            raise self._refused(f"{shown} is {kind}, and no regular file: replace or remove it")
        return path

    def place(self, name: str, *, prefix: str = "") -> str:
        """Return where a file lies, or would lie where there is none; arguments and JobError as of `path`."""
        try:
            return self.path(name, prefix=prefix)
        except OSError:
            path = os.path.join(self.root, name)  # noqa: PTH118
            real = os.path.realpath(path)
            self._require_below(real, *((f"{prefix}{quoted(name)}", quoted(real)) if prefix else (name, real)))
            return path
        except ValueError:  # no file system takes this name
            return os.path.join(self.root, name)  # noqa: PTH118

    def entry(self, entry: os.DirEntry[str], *, gone: bool = False) -> str:
        """Return the path of what a walk through the folder has found, which followed no links; JobError as of `path`.

        A link to what is not there is an error, or is as good as another one if what is `gone` may be.
        """
        if entry.is_file(follow_symlinks=False):
            return entry.path
        name = os.path.relpath(entry.path, self.root)
        return self.place(name) if gone else self.path(name)

    def folder(self, name: str) -> None:
        """Raise JobError if a folder below this one leads out of it."""
        real = os.path.realpath(os.path.join(self.root, name))  # noqa: PTH118
        self._require_below(real, name, real)

    def exists(self, name: str) -> bool:
        """Return whether there is a file of a name; JobError as of `path`."""
        try:
            return bool(self.path(name))
        except ValueError:  # a name that no file system takes
            return False
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                raise
            return False

    def _require_below(self, real: str, what: str, shown: str) -> None:
        if not real.startswith(self._real + os.sep) and not (self._also and real.startswith(self._also)):
            raise self._refused(
                f"{what} leads to {shown}, which does not lie below {self._real}: copy it there; nothing is read from outside"
                " of a source"
            )

    def _refused(self, what: str) -> JobError:
        return JobError(self._reason, f"{self._where}: {what}")


def _has_shared_blobs(cache: Path) -> bool:
    """Return whether a cache has blobs that its repositories share: a folder of that name with huggingface_hub's mark."""
    store = cache / _SHARED
    return not store.is_symlink() and (store / _SHARED_MARK).is_file()


def _repository(real: Path) -> Path | None:
    """Return the folder of the repository whose snapshot, or what lies in it, a folder is."""
    for folder in (real, *real.parents):
        snapshots = folder.parent
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith(("models--", "datasets--")):
            return snapshots.parent
    return None


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_in_claim(field: str, source: str, path: str) -> None:
    """Raise JobError InvalidJob if a path on a volume claim leads out of that claim by links.

    Parameters
    ----------
    field, source
        Field of the spec, and what it says: pvc://CLAIM/PATH; others lie on no claim.
    path
        Where the source lies for this process; it ends in PATH.
    """
    scheme, _, rest = source.partition("://")
    inner = rest.partition("/")[2]
    if scheme != "pvc" or not inner or not path.endswith(f"/{inner}"):
        return
    claim, real = os.path.realpath(path.removesuffix(f"/{inner}")), os.path.realpath(path)
    if not Path(real).is_relative_to(claim):
        raise JobError(
            "InvalidJob",
            f"spec.{field} {source} leads out of its volume claim, to {real}: links within a claim are followed, others are"
            " not. Copy what they point to, or name it by its own claim",
        )


def refuse_code(config: dict[str, Any], file: str, where: str) -> None:
    """Raise JobError InvalidModel if a config names code: of its own, of a kernel, of an attention from elsewhere.

    Parameters
    ----------
    config, file
        What a JSON file of a model's folder holds, and its name.
    where
        What the message starts with.
    """
    try:
        found = next(_code_in(config, ""), None)
    except RecursionError as error:
        raise JobError("InvalidModel", f"{where}: {file} is nested too deeply; it is no config of a model") from error
    if found:
        raise JobError(
            "InvalidModel",
            f"{where}: {file} names code: {found[0]} is {found[1]}. Unfreeze runs the code of its libraries alone, none that a"
            f" model brings or names. If the installed library knows this architecture itself, remove {found[0]} from {file};"
            " else choose another model",
        )


def _code_in(config: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield field and value of everything in a config that would be executed, imported or loaded from elsewhere."""
    if isinstance(config, list):
        for number, item in enumerate(config):
            yield from _code_in(item, f"{place}[{number}]")
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        here = f"{place}.{key}" if place else key
        if _is_code(key, value) or (place == "model_args" and key in _PLACES):
            yield here, repr(value)[:120]
        else:
            yield from _code_in(value, here)


def _is_code(key: str, value: Any) -> bool:
    if not value or (isinstance(value, int | float) and value is not True):  # a label may be called like a field
        return False
    if _IMPLEMENTATION.fullmatch(key):
        chosen = value.values() if isinstance(value, dict) else [value]
        return any(name is not None and str(name) not in _BUILT_IN for name in chosen)
    names_kernel = "kernel" in key and isinstance(value, str) and "/" in value
    return key in {"auto_map", "custom_generate", *_KERNELS} or names_kernel
