"""What each scheme of a source declares: a file of its own in this folder, under the scheme's name, with a `SOURCE`.

One that is written differently for models and for data has `SOURCES`, of one scheme.

A scheme whose content has to be brought to the trainer first has a file of the same name in the trainer, see
unfreeze_trainer/sources/schemes; what lies on a disk that the trainer sees needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Held = Literal["Model", "Data", "Output"]
"""What may lie at a source: a pretrained model, data, or the run's folder."""

# No path may step out of what it lies in by `..`.
SEGMENT = r"([^/.]|\.[^/.]|\.\.[^/])[^/]*"
"""Regular expression of a part of a path."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pod must have for a source.

    Parameters
    ----------
    claims
        Names of the volume claims to mount.
    schemes
        Schemes whose content the trainer brings over the network: a folder to keep it, and the platform's leave.
    images
        References of images to mount, for which the platform's leave is needed too.
    """

    claims: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the client of a scheme gets to its server, and what it shows there.

    Parameters
    ----------
    scheme
        Under which the platform opens it.
    endpoint
        Environment variable that says where the server is; the platform's to set, since credentials go there.
    elsewhere
        Other variables by which a library would be led elsewhere.
    needed, optional
        Credentials: keys of the Secret, and environment variables of the same names. No process that trains has them.
    """

    scheme: str
    endpoint: str
    elsewhere: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def credentials(self) -> tuple[str, ...]:
        """All credentials."""
        return (*self.needed, *self.optional)


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie for whoever reads a source.

    Parameters
    ----------
    mounts
        Below it the operator mounts each volume claim under its name.
    claims
        Folders of volume claims that lie elsewhere.
    sources
        Folder for what is brought over the network.
    images
        Folder below which images are mounted.
    """

    mounts: str
    claims: Mapping[str, str] = field(default_factory=dict)
    sources: str = ""
    images: str = ""

    def claim(self, name: str) -> str:
        """Return the folder of a volume claim."""
        return self.claims[name] if self.claims else f"{self.mounts}/{name}"


def _nothing(_: str) -> Needs:
    return Needs()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A scheme of sources.

    Parameters
    ----------
    scheme
        What stands before ://.
    form
        How it is written, for people: pvc://CLAIM/PATH.
    about
        What it stands for, as a part of a description: `a folder on a volume claim`.
    pattern
        Regular expression of what stands behind ://, in the syntax of RE2.
    excluded
        What it must not begin with, though the pattern takes it.
    holds
        What may lie there.
    locate
        Gives the path for the trainer, from what stands behind ://.
    needs
        Gives what a pod must have for it, from what stands behind ://.
    access
        How its content is brought over the network, None where it is not.
    order
        Place among the others in messages and descriptions; the most usual one comes first.
    """

    scheme: str
    form: str
    about: str
    pattern: str
    excluded: tuple[str, ...] = ()
    holds: tuple[Held, ...] = ("Model", "Data", "Output")
    locate: Callable[[str, Places], str]
    needs: Callable[[str], Needs] = _nothing
    access: Access | None = None
    order: int = 1
