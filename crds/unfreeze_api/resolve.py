"""resolve(): a manifest's spec -> the resolved job that stands in job.json. Pure and total on valid specs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from unfreeze_api.contracts.progress import CLAIM_FOLDER, IMAGES_FOLDER, SOURCES_FOLDER
from unfreeze_api.contracts.resolved import (
    ResolvedBudget,
    ResolvedCache,
    ResolvedData,
    ResolvedDistribution,
    ResolvedGuard,
    ResolvedJob,
    ResolvedModel,
    ResolvedOutput,
    ResolvedStage,
    ResolvedStrategy,
    ResolvedTracking,
    schema_version,
)
from unfreeze_api.sources import needs
from unfreeze_api.sources.base import Places
from unfreeze_api.spec.job import FineTuneJobSpec


def claims(spec: FineTuneJobSpec) -> dict[str, bool]:
    """Return the volume claims that a job mounts, and for each whether it is written to."""
    read = [claim for source in _read(spec) for claim in needs(source).claims]
    written = [spec.output.destination, *([spec.feature_cache.destination] if spec.feature_cache else [])]
    return dict.fromkeys(read, False) | dict.fromkeys((claim for one in written for claim in needs(one).claims), True)


def schemes(spec: FineTuneJobSpec) -> list[str]:
    """Return the schemes of a job's sources whose content is brought over the network."""
    return list(dict.fromkeys(scheme for source in _read(spec) for scheme in needs(source).schemes))


def images(spec: FineTuneJobSpec) -> list[str]:
    """Return the references of the images that a job's sources name."""
    return list(dict.fromkeys(image for source in _read(spec) for image in needs(source).images))


def _read(spec: FineTuneJobSpec) -> list[str]:
    held_out = [part.source for part in (spec.data.validation, spec.data.test) if part and part.source]
    for stage in spec.stages or ():
        held_out += [part for part in (stage.data.train.source, stage.data.validation.source) if part]
        held_out += [stage.text_encoder] if stage.text_encoder else []
    return [*spec.model.sources, spec.data.train.source, *held_out, *([spec.anchor.source] if spec.anchor else [])]


def resolve(
    name: str,
    namespace: str,
    spec: FineTuneJobSpec,
    *,
    rendezvous_host: str,
    claim_folders: Mapping[str, str] | None = None,
    price: float | None = None,
    currency: str = "",
) -> ResolvedJob:
    """Fill in every default of a valid spec that depends on something else, and every path.

    Parameters
    ----------
    name, namespace
        Of the FineTuneJob.
    spec
        A spec that the schema and its rules accept.
    rendezvous_host
        Name under which all pods reach pod 0.
    claim_folders
        Folder of each volume claim. Without it each claim lies where the operator mounts it.
    price, currency
        What an accelerator of the job costs an hour; None where nobody knows.
    """
    places = Places(mounts=CLAIM_FOLDER, claims=claim_folders or {}, sources=SOURCES_FOLDER, images=IMAGES_FOLDER)
    place = ResolvedDistribution.resolve(
        spec.distribution, rendezvous_host=rendezvous_host, rendezvous_port=rendezvous_port(namespace, name)
    )
    job = ResolvedJob(
        name=name,
        namespace=namespace,
        model=ResolvedModel.of(spec.model, places),
        task=spec.task.completed(),
        data=ResolvedData.resolve(spec.data, places, spec.anchor),
        strategy=ResolvedStrategy.resolve(spec.strategy, spec.adapter),
        adapter=spec.adapter and spec.adapter.completed(),
        training=spec.training.model_copy(update={"metric": spec.metric.name}),
        distribution=place,
        output=ResolvedOutput.resolve(
            spec.output.destination, places, export=spec.exports, prediction_inputs=spec.prediction_inputs
        ),
        tracking=ResolvedTracking.resolve(spec.tracking, namespace),
        evidence=spec.evidence,
        guard=ResolvedGuard.of(spec.evidence, spec.task.type),
        stages=[ResolvedStage.of(stage, spec, places) for stage in spec.stages] if spec.stages else None,
        budget=ResolvedBudget.of(spec.run_policy.budget, place, price, currency),
        cache=spec.feature_cache
        and ResolvedCache.resolve(
            spec.feature_cache.destination,
            places,
            max_bytes=spec.feature_cache.max_bytes,
            scratch_bytes=spec.distribution.scratch_bytes,
        ),
        hang_timeout_seconds=spec.run_policy.hang_timeout_seconds,
    )
    return job.model_copy(update={"schema_version": schema_version(job)})


def rendezvous_port(namespace: str, name: str) -> int:
    """Return a port of the job's own, so that jobs that share a host network do not meet."""
    return 20000 + zlib.crc32(f"{namespace}/{name}".encode()) % 10000
