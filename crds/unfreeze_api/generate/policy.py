"""The ValidatingAdmissionPolicy by which the API server itself warns of former names, so that kubectl prints it.

It refuses nothing. `python -m unfreeze_api.generate.policy` prints it, `python -m unfreeze_api.generate.policy --write` writes the committed
file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from unfreeze_api.contracts.names import GROUP, PLURAL
from unfreeze_api.grammar import former
from unfreeze_api.spec.job import FineTuneJobSpec

FILE = Path(__file__).parents[2] / "unfreeze.dev_finetunejobs.warnings.yaml"
"""The committed text; a test proves that it is up to date."""

NAME = f"deprecated.{PLURAL}.{GROUP}"
_VERSION = "admissionregistration.k8s.io/v1"


def manifests() -> list[dict[str, Any]]:
    """Return the policy and its binding; nothing while no field has a former name."""
    validations = [
        {"expression": f"!({expression})", "message": message} for expression, message in former.checks(FineTuneJobSpec)
    ]
    if not validations:
        return []
    policy = {
        "failurePolicy": "Ignore",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [GROUP],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": [PLURAL],
                }
            ]
        },
        "validations": validations,
    }
    return [
        {"apiVersion": _VERSION, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": NAME}, "spec": policy},
        {
            "apiVersion": _VERSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": NAME},
            "spec": {"policyName": NAME, "validationActions": ["Warn"]},
        },
    ]


def to_yaml() -> str:
    """Return policy and binding as the text of the committed file."""
    head = "# Generated from crds/unfreeze_api by `make crds`: edit the models, not this file.\n"
    return head + yaml.safe_dump_all(manifests(), sort_keys=False, width=120)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(to_yaml(), encoding="utf-8")
    else:
        sys.stdout.write(to_yaml())
