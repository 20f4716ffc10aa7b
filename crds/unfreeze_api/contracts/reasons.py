"""Every reason that a person meets: of conditions, failures, Events and pods, each with what it means and what to do.

Code that gives a reason is checked against the types, and docs/operations.md has its tables from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

WaitingReason = Literal[
    "Unschedulable",
    "SchedulingGated",
    "PodGroupMissing",
    "PodGroupIncomplete",
    "ClaimNotFound",
    "ClaimPending",
    "ImagePull",
    "ConfigError",
    "StartError",
    "VolumesNotReady",
    "ContainerCreating",
]
"""What a pod that does not run waits for."""
RunningReason = Literal[
    "PodsRunning",
    "PodsPending",
    "PodsMissing",
    "NodesGivenBack",
    WaitingReason,
    "PodsRestarting",
    "NodeUnreachable",
    "LeaderSilent",
    "Queued",
    "Suspending",
    "Suspended",
    "Succeeded",
    "Failed",
    "WaitingForDeletion",
    "NameTaken",
    "Forbidden",
    "InvalidSpec",
    "Refused",
    "SourceNotAllowed",
]
SuspendedReason = Literal[
    "Suspended",
    "Suspending",
    "Resumed",
]
CompleteReason = Literal["Succeeded",]
FailedReason = Literal[
    "InvalidSpec",
    "Refused",
    "SourceNotAllowed",
    "StartupTimeout",
    "DeadlineExceeded",
    "BackoffLimitExceeded",
    "PodFailurePolicy",
    "OutOfMemory",
    "UnexpectedStop",
    "NodeLost",
    "Evicted",
    "ContainerCannotRun",
    "ContainerFailed",
    "Retrying",
]
"""The operator's own; besides there are those of the trainer, and of a trainer of somebody's own."""
CheckpointBrokenReason = Literal[
    "WentBack",
    "StartedOver",
]
UsefulReason = Literal[
    "BetterThanMajority",
    "NoBetterThanMajority",
]
TrainerReason = Literal[
    "UnsupportedJobFile",
    "InvalidJob",
    "InvalidModel",
    "UnsupportedModel",
    "InvalidStrategy",
    "InvalidAdapter",
    "InvalidData",
    "OutOfMemory",
    "DoesNotFit",
    "BudgetTooSmall",
    "PrecisionNotSupported",
    "CompilerMissing",
    "TrackerMissing",
    "QuantizationMissing",
    "QuantizationNotSupported",
    "OutputNotShared",
    "ForeignRunFolder",
    "DataChanged",
    "NotFound",
    "Gated",
    "Unauthorized",
    "RevisionNotFound",
    "HubUnreachable",
    "StoreUnreachable",
    "DiskFull",
    "NotCached",
    "Superseded",
    "RanksDiffer",
    "SilentFreeze",
    "FrozenWeightsMoved",
    "NonFiniteGradients",
    "LearningRateTooHigh",
    "WorkerFailed",
    "WorkerKilled",
    "Hang",
    "AgentFailed",
    "Stopped",
    "Completed",
]
"""What a trainer leaves behind as the reason of its end."""
EventReason = Literal[
    "Created",
    "Running",
    "Queued",
    "Suspended",
    "Resumed",
    "Succeeded",
    "Failed",
    "PodRestarted",
    "WorkersRestarted",
    "CheckpointBroken",
    "NoBetterThanMajority",
    "Decided",
    "NameTaken",
    "Forbidden",
    "NodesGivenBack",
    "DeprecatedField",
    "SharedDestination",
]
PodReason = Literal[
    "NeverScheduled",
    "NodeLost",
]
"""Why the operator gave a pod up, in the pod's status."""


class Explanation(NamedTuple):
    """What there is to say of a reason, in Markdown."""

    meaning: str
    """What is so."""
    remedy: str
    """What to do."""


RUNNING: dict[RunningReason, Explanation] = {
    "PodsRunning": Explanation("All pods run.", "Nothing."),
    "PodsPending": Explanation("The pods were created and start.", "Wait."),
    "PodsMissing": Explanation(
        "The Job controller has not created all pods after 10 s, or a lost one anew after a minute.",
        "`kubectl describe job NAME-train` says why: a ResourceQuota, an admission policy, or a pause after a failure.",
    ),
    "NodesGivenBack": Explanation(
        "For `--gang-patience` some of the pods held nodes while others found none; all gave them back, so that another job can use them, and try again later.",
        "As for Unschedulable; or use Kueue, which starts no job that there is no room for.",
    ),
    "Unschedulable": Explanation(
        "No node fits a pod; the message is the scheduler's.",
        "Free or add nodes, or suspend the job and change resources, nodeSelector or tolerations.",
    ),
    "SchedulingGated": Explanation(
        "Somebody put scheduling gates on the pods.", "Ask whoever gates pods in this cluster."
    ),
    "PodGroupMissing": Explanation(
        "The PodGroup that the pods are in does not exist, and the scheduler waits for it.",
        "Nothing: the operator makes it, or says what keeps it from that.",
    ),
    "PodGroupIncomplete": Explanation(
        "The scheduler waits until all pods of the gang are there.",
        "`kubectl describe job NAME-train` says why some are not made: a ResourceQuota, or a pause after a failure.",
    ),
    "ClaimNotFound": Explanation(
        "A volume claim that the job names does not exist in its namespace.", "Create the claim, or correct the source."
    ),
    "ClaimPending": Explanation(
        "A volume claim has no volume yet.",
        "`kubectl describe pvc`: the StorageClass, its provisioner, or the claim's size and access mode.",
    ),
    "ImagePull": Explanation(
        "The image cannot be pulled.", "Correct `template.image` while suspended, or give `template.imagePullSecrets`."
    ),
    "ConfigError": Explanation(
        "A Secret or ConfigMap that a variable refers to, or a key of it, is missing.",
        "Create it; the pod then starts by itself.",
    ),
    "StartError": Explanation(
        "The node could not start the container.", "The message says why: usually the image has no `unfreeze-trainer`."
    ),
    "VolumesNotReady": Explanation(
        "For a minute the node has been mounting volumes or setting up the network.",
        "`kubectl describe pod POD`: its events (FailedMount, FailedAttachVolume) say which.",
    ),
    "ContainerCreating": Explanation(
        "For a minute the node has been pulling the image or starting the container.",
        "Wait: large images take long. `kubectl describe pod POD` shows how far it is.",
    ),
    "PodsRestarting": Explanation(
        "A pod of a running job failed, or is taken away (evicted, drained, preempted), and is being replaced.",
        "`status.failure` has the cause of a failure.",
    ),
    "NodeUnreachable": Explanation(
        "The cluster has not heard of the node of a pod; the pod is given up when its tolerations and `--lost-pod-grace` are over.",
        "Nothing, or look at the node: if it comes back meanwhile, its pod continues.",
    ),
    "LeaderSilent": Explanation(
        "The first pod answered the operator before, and has left two questions in a row unanswered.",
        "Nothing, if it answers again. Else `kubectl logs` of that pod, and the network between it and the operator.",
    ),
    "Queued": Explanation("Kueue has not admitted the job.", "`kubectl describe workload`."),
    "Suspending": Explanation("The pods write a checkpoint and stop.", "Wait: up to two minutes."),
    "Suspended": Explanation("`runPolicy.suspend` is true.", "Set it to false to resume."),
    "Succeeded": Explanation("The job has succeeded.", "Nothing."),
    "Failed": Explanation("The job has failed.", "See condition Failed."),
    "WaitingForDeletion": Explanation(
        "Objects of an earlier job of this name are still being deleted.",
        "Wait; a pod on a dead node is given up in time.",
    ),
    "NameTaken": Explanation(
        "An object of the name that a child needs belongs to somebody else.", "Delete it, or name the job differently."
    ),
    "Forbidden": Explanation(
        "The API server forbids a child: a quota that is used up, a namespace that goes away, a missing right, a webhook that does not"
        " answer.",
        "The message says which.",
    ),
    "InvalidSpec": Explanation(
        "The stored job does not fit the CRD's present schema. Or, while the job has no phase: it has fields that this operator does not know, since the CRD is newer.",
        "Delete and recreate the job; or upgrade the operator, and the job begins.",
    ),
    "Refused": Explanation(
        "The platform does not allow what the job asks for (`--refused-annotations`, `--allowed-labels`, `--allowed-priority-classes`, `--allowed-runtime-classes` of the operator), or the API server does not accept a child, for instance by a policy of the cluster.",
        "Suspend the job and change what the message names.",
    ),
    "SourceNotAllowed": Explanation(
        "Model or data lie at a hub, and the platform has not opened its scheme for jobs, or the job says itself where that is.",
        "`trainer.sources` of the chart ([`sources.md`](sources.md)), or a copy on a claim.",
    ),
}
SUSPENDED: dict[SuspendedReason, Explanation] = {
    "Suspended": Explanation(
        "True: no pod runs, nothing is held.", "Change `distribution` and `template` now, if at all; resume."
    ),
    "Suspending": Explanation("False: the pods write a checkpoint and stop.", "Wait."),
    "Resumed": Explanation("False: the job has resumed.", "Nothing."),
}
COMPLETE: dict[CompleteReason, Explanation] = {
    "Succeeded": Explanation("The model is written, its metrics are in `status.results`.", "Load the model."),
}
FAILED: dict[FailedReason, Explanation] = {
    "InvalidSpec": Explanation("As in Running; not final.", "As there."),
    "Refused": Explanation("As in Running; not final.", "As there."),
    "SourceNotAllowed": Explanation("As in Running; not final.", "As there."),
    "StartupTimeout": Explanation(
        "Not all pods ran within `runPolicy.startupTimeoutSeconds`; the message has the first that waits.",
        "As for the reason that it names.",
    ),
    "DeadlineExceeded": Explanation(
        "The job ran longer than `runPolicy.activeDeadlineSeconds`; suspended time does not count.",
        "Raise it, or train for fewer epochs; the same job, created again, resumes from its checkpoint.",
    ),
    "BackoffLimitExceeded": Explanation(
        "More pods failed than `runPolicy.backoffLimit` allows, and none is left to say why.",
        "Look at the events, and at the logs that your cluster keeps.",
    ),
    "PodFailurePolicy": Explanation("A pod said that the job itself is wrong (exit code 2), and is gone.", "As above."),
    "OutOfMemory": Explanation(
        "A container exceeded its memory limit, or a worker its accelerator's memory.",
        "Raise `resourcesPerNode.limits.memory` or `gradientAccumulationSteps`, lower `batchSize`, or add nodes.",
    ),
    "UnexpectedStop": Explanation(
        "The trainer was sent SIGTERM though its pod was neither deleted nor evicted, more often than the backoff limit allows.",
        "Look for what sends signals in the container or on the node.",
    ),
    "NodeLost": Explanation(
        "A pod was deleted and its node did not end it.", "Nothing: such pods are free and are replaced."
    ),
    "Evicted": Explanation(
        "A node was short of memory, disk or processes; the message says of which.", "Request what the pods really use."
    ),
    "ContainerCannotRun": Explanation(
        "The node did not take the pod, or could not start its container.",
        "The message has the node's words, `status.failure.logTail` the runtime's.",
    ),
    "ContainerFailed": Explanation(
        "The container ended without a word.", "`status.failure.logTail`; then `kubectl logs`."
    ),
    "Retrying": Explanation("False: the job is tried again.", "Nothing."),
}
CHECKPOINT_BROKEN: dict[CheckpointBrokenReason, Explanation] = {
    "WentBack": Explanation(
        "Checkpoints were broken; the training resumed from an older one.",
        "Look after the volume: a disk, a quota, somebody who writes there.",
    ),
    "StartedOver": Explanation(
        "No checkpoint was whole; the training started from the beginning.",
        "As above. Suspend the job if it must not train again; [`checkpoints.md`](checkpoints.md) says what can be saved by hand.",
    ),
}
USEFUL: dict[UsefulReason, Explanation] = {
    "BetterThanMajority": Explanation("True: the model has learned something.", "Look whether it is enough."),
    "NoBetterThanMajority": Explanation(
        "False: it is not better, or there are too few validation samples to tell. The message has the figures.",
        "Look at the labels; lower the learning rate; train longer or more of the model; hold out more data.",
    ),
}
TRAINER: dict[TrainerReason, Explanation] = {
    "UnsupportedJobFile": Explanation(
        "Operator and trainer image do not belong together: the trainer cannot read this job.json.",
        "Use the image of the operator's version: [`upgrading.md`](upgrading.md).",
    ),
    "InvalidJob": Explanation(
        "Fields of the job do not fit one another, its data or the workers.",
        "Correct the field that the message names.",
    ),
    "InvalidModel": Explanation(
        "The model's folder is missing, damaged, or no model that can be trained.",
        "Correct the file or `model.source`.",
    ),
    "UnsupportedModel": Explanation(
        "The model cannot be trained in the way that was chosen.",
        "Choose what the message names, most often another `distribution.engine`.",
    ),
    "InvalidStrategy": Explanation(
        "`spec.strategy` names blocks that the model does not have, or leaves nothing to train.",
        "The message lists the model's blocks; `unfreeze phases` shows what would be trained.",
    ),
    "InvalidAdapter": Explanation(
        "`spec.adapter` does not fit the model.", "The message names modules that there are."
    ),
    "InvalidData": Explanation(
        "Data cannot be read, or a row or column is wrong.",
        "Correct the file, row or column; [`data.md`](data.md) says what is read.",
    ),
    "OutOfMemory": Explanation(
        "A worker's accelerator or machine has too little memory: ends the job. The pod's memory limit is too low: retried.",
        "Raise `gradientAccumulationSteps`, lower `batchSize`, train less of the model, or give the pods more memory.",
    ),
    "DoesNotFit": Explanation(
        "The job needs more memory than the pod or its accelerators have, for sure: found before the model is loaded.",
        "The message has the figures, and up to three changes of the spec with which it fits; `unfreeze estimate` tells more.",
    ),
    "BudgetTooSmall": Explanation(
        "`runPolicy.budget` has no room for a step, an evaluation and the export of a model: found before the first step.",
        "Create the job again with the budget that the message names: what earlier starts took counts.",
    ),
    "PrecisionNotSupported": Explanation(
        "The workers' hardware cannot compute in `training.precision`.",
        "Choose another one, or nodes with accelerators that can.",
    ),
    "CompilerMissing": Explanation(
        "`training.compile` needs a C++ compiler, and the image has none.",
        "Choose an image that has one, or set `compile` to false.",
    ),
    "TrackerMissing": Explanation(
        "A tracker is not installed in the image, or lacks its key.",
        "As the message says; [`tracking.md`](tracking.md).",
    ),
    "QuantizationMissing": Explanation(
        "`model.quantization` needs bitsandbytes, and the image has none.", "Choose an image that has it."
    ),
    "QuantizationNotSupported": Explanation(
        "bitsandbytes cannot compute with this type on the workers' hardware.", "Choose another type, or other nodes."
    ),
    "OutputNotShared": Explanation(
        "The pods do not see one another's files in `output.destination`.",
        "Use a claim that all of them can write to (ReadWriteMany).",
    ),
    "ForeignRunFolder": Explanation(
        "`output.destination` belongs to another job, to another version, or holds what no run has made.",
        "Choose another destination, or delete the folder that the message names.",
    ),
    "DataChanged": Explanation(
        "Files of model or data have changed since the run began, or a hub gives others than it lists.",
        "Restore them, or start another run in another destination.",
    ),
    "NotFound": Explanation(
        "The hub or store has no such repository, bucket or file.",
        "The message has the nearest names. A private repository needs a token: `sources.secretRef`.",
    ),
    "Gated": Explanation(
        "The repository is gated: its owner wants conditions accepted first.",
        "Accept them on its page, and give a token of that account by `sources.secretRef`.",
    ),
    "Unauthorized": Explanation(
        "The hub refuses the token or the store the credentials, or they may not read what is named.",
        "Put valid ones into the Secret of `sources.secretRef`: [`sources.md`](sources.md).",
    ),
    "RevisionNotFound": Explanation(
        "The repository has no such branch, tag or commit.",
        "The message has those that there are; a commit is written with all 40 digits.",
    ),
    "HubUnreachable": Explanation(
        "The hub does not answer, or breaks off. Tried again for ten minutes, then retried in another pod.",
        "Look at the network, at what the platform opens for jobs, at mirror and proxy: [`sources.md`](sources.md).",
    ),
    "StoreUnreachable": Explanation(
        "The object store does not answer, or breaks off. Tried again for ten minutes, then retried in another pod.",
        "Look at the network, at what the platform opens for jobs, at its endpoint: [`sources.md`](sources.md).",
    ),
    "DiskFull": Explanation(
        "What is to be fetched does not fit on the disk. Retried.",
        "Make room, or name a smaller model or less data.",
    ),
    "NotCached": Explanation(
        "Only the cache was asked, and it lacks the files that the message names.",
        "`unfreeze fetch FILE` where the hub can be reached.",
    ),
    "Superseded": Explanation(
        "A later start of the job has taken the run folder over.", "Nothing: the later one trains."
    ),
    "RanksDiffer": Explanation(
        "The workers no longer hold the same weights.",
        "Look at the nodes' hardware and at code of your own; the job, created again, resumes from its checkpoint.",
    ),
    "SilentFreeze": Explanation(
        "Weights that should be trained do not change.",
        "Look at the learning rate, and whether the model uses these weights.",
    ),
    "FrozenWeightsMoved": Explanation(
        "Weights that are frozen have changed.", "Look for code of the model that writes to them."
    ),
    "NonFiniteGradients": Explanation(
        "Too many steps in a row had gradients that were not finite.",
        "Lower `strategy.learningRate`, raise its `warmupRatio`, or set `maxGradNorm`.",
    ),
    "LearningRateTooHigh": Explanation(
        "The learning rates destroyed what the model had learned, and still did so after two rollbacks, each with rates times 0.3.",
        "Lower `strategy.learningRate`; the message has the course of loss and metric. [`strategies.md`](strategies.md) says what is usual.",
    ),
    "WorkerFailed": Explanation(
        "A worker ended with an error that another try may not meet. Retried.",
        "`status.failure.logTail` has the error.",
    ),
    "WorkerKilled": Explanation("A worker was killed by a signal. Retried.", "Look at the pod's log and at its node."),
    "Hang": Explanation(
        "The workers gave no news for `runPolicy.hangTimeoutSeconds`. Retried.",
        "The stacks of all workers are in the pods' logs: see Hangs.",
    ),
    "AgentFailed": Explanation(
        "The process that starts the workers failed. Retried.",
        "`status.failure.logTail` has the error; a pod's network is the usual cause.",
    ),
    "Stopped": Explanation("The trainer was asked to stop, and has written a checkpoint.", "Nothing."),
    "Completed": Explanation("The trainer has done all that it was to do.", "Nothing."),
}
EVENT: dict[EventReason, Explanation] = {
    "Created": Explanation(
        "ConfigMap, Service and Job are created. Of operators before 0.2.0 only: the status tells.", "Nothing."
    ),
    "Running": Explanation("All pods run.", "Nothing."),
    "Queued": Explanation("The job waits for Kueue to admit it.", "`kubectl describe workload`."),
    "Suspended": Explanation("No pod runs any more.", "Nothing."),
    "Resumed": Explanation("The job resumes from its newest checkpoint.", "Nothing."),
    "Succeeded": Explanation("The job has succeeded.", "Load the model."),
    "Failed": Explanation(
        "The job has failed; the message begins with the reason.", "As for that reason of condition Failed."
    ),
    "PodRestarted": Explanation("A pod failed and was replaced.", "`status.failure` has the cause."),
    "WorkersRestarted": Explanation(
        "The workers were started again within their pods.", "The pods' logs have the cause."
    ),
    "CheckpointBroken": Explanation(
        "The training had to do without its newest checkpoint.", "As for condition CheckpointBroken."
    ),
    "NoBetterThanMajority": Explanation(
        "The model is no better than always guessing one class.", "As for condition Useful."
    ),
    "Decided": Explanation(
        "The training has decided something by what it measured; a warning is worth acting on.",
        "`report.html` has what it rests on.",
    ),
    "NameTaken": Explanation("As in condition Running.", "As there."),
    "Forbidden": Explanation("As in condition Running.", "As there."),
    "NodesGivenBack": Explanation("As in condition Running.", "As there."),
    "DeprecatedField": Explanation(
        "The spec has a field under its former name, or with a former value.",
        "Write it as the message says; [`api-versions.md`](api-versions.md).",
    ),
    "SharedDestination": Explanation(
        "Another job that has not ended has the same destination.", "Give one of them another `output.destination`."
    ),
}
POD: dict[PodReason, Explanation] = {
    "NeverScheduled": Explanation("The pod was deleted before it had a node.", "Nothing."),
    "NodeLost": Explanation("The pod was deleted, and its node has not ended it in time.", "Look at the node."),
}
CONDITIONS: dict[str, Mapping[Any, Explanation]] = {
    "Running": RUNNING,
    "Suspended": SUSPENDED,
    "Complete": COMPLETE,
    "Failed": FAILED,
    "CheckpointBroken": CHECKPOINT_BROKEN,
    "Useful": USEFUL,
}
"""Of each condition the operator's own reasons. Stalled always says what Failed does, and Reconciling what Running does."""
