"""Names that whoever speaks of FineTuneJobs to a cluster needs; without the models, which take longer to import."""

from __future__ import annotations

GROUP = "unfreeze.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
JOB_LABEL = f"{GROUP}/job-name"
"""Label of all that belongs to a job; its value is the job's name."""
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""Annotation of a pod of an Indexed Job: which of the gang it is."""
