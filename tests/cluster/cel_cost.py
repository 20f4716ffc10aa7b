"""What the API server estimates the rules of a CRD to cost: `python -m tests.cluster.cel_cost [FILE]` lists the dearest.

The API server refuses a CRD with a rule, or with rules in all, beyond its limits, and how it estimates differs between
releases. The estimate here is that of the oldest one that is supported, by its own code (build/celcost).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import cel_cost
from tests.cluster.cluster import REPOSITORY

CRD = REPOSITORY / "crds/unfreeze.dev_finetunejobs.yaml"
LISTED = 10


@dataclass(frozen=True)
class RuleCost:
    """A rule at its place, like spec.template.env[], and what it costs there: as often as the lists above allow."""

    path: str
    rule: str
    cost: int


@dataclass(frozen=True)
class Estimate:
    """What one version of a CRD costs, and the limits."""

    version: str
    rules: list[RuleCost]
    total: int
    rule_limit: int
    total_limit: int

    @property
    def dearest(self) -> list[RuleCost]:
        """The rules that cost most, by cost."""
        return sorted(self.rules, key=lambda rule: (-rule.cost, rule.path))[:LISTED]

    def __str__(self) -> str:
        lines = [f"{self.version}: {len(self.rules)} rules, {_share(self.total, self.total_limit)} of the CRD's limit"]
        lines += [f"{_share(rule.cost, self.rule_limit)}  {rule.path}: {rule.rule}" for rule in self.dearest]
        return "\n".join(lines)


def _share(cost: int, limit: int) -> str:
    return f"{cost:>11,} ({cost / limit:.1%})"


def estimate(crd: str, program: str = "celcost") -> tuple[list[Estimate], list[str]]:
    """Return what each version of a CRD costs, and what the API server of that release has against the CRD.

    Parameters
    ----------
    crd
        Its YAML or JSON.
    program
        One of binaries.CEL_COST.
    """
    done = subprocess.run([cel_cost(program)], input=crd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    answer = json.loads(done.stdout)
    versions = [
        Estimate(
            version["name"],
            [RuleCost(**rule) for rule in version["rules"]],
            version["total"],
            answer["ruleLimit"],
            answer["totalLimit"],
        )
        for version in answer["versions"]
    ]
    return versions, answer["errors"]


def main() -> int:
    """Print the estimates; return 1 when the API server would refuse the CRD."""
    file = Path(sys.argv[1]) if sys.argv[1:] else CRD
    versions, errors = estimate(file.read_text(encoding="utf-8"))
    for part in (*versions, *errors):
        print(part)
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
