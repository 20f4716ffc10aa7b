"""JSON in little room: thousands of jobs have specs, statuses and children that differ in few words."""

from __future__ import annotations

import json
import zlib
from typing import Any

# What most texts have in common, the most frequent last. Another one changes no result, only its size.
_COMMON = (
    b'{"egress":[{"ports":[{"port":53,"protocol":"UDP"},{"port":53,"protocol":"TCP"}],"to":[{"namespaceSelector":'
    b'{"matchLabels":{"kubernetes.io/metadata.name":"kube-system"}},"podSelector":{"matchLabels":{"k8s-app":"kube-dns"}}}]},'
    b'{"to":[{"podSelector":{"matchLabels":{"app.kubernetes.io/managed-by":"unfreeze-operator","unfreeze.dev/job-name":"job"}}}]}],'
    b'"ingress":[{"from":[{"podSelector":{"matchLabels":{"app.kubernetes.io/managed-by":"unfreeze-operator",'
    b'"unfreeze.dev/job-name":"job"}}}]},{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":'
    b'"unfreeze-system"}}}],"ports":[{"port":9470,"protocol":"TCP"}]}],"policyTypes":["Ingress","Egress"]}'
    b'["None",true,{"app.kubernetes.io/managed-by":"unfreeze-operator","unfreeze.dev/job-name":"job"},[["http",9470],["rendezvous",29'
    b'{"data":{"train":{"source":"pvc://data/train.csv","format":"csv"},"validation":{"source":"pvc://data/validation.csv"}},'
    b'"distribution":{"engine":"DDP","numNodes":2,"resourcesPerNode":{"limits":{"cpu":"8","memory":"64Gi","nvidia.com/gpu":"8"}}},'
    b'"model":{"source":"pvc://models/base"},"output":{"destination":"pvc://results/job"},"runPolicy":{"backoffLimit":3,'
    b'"cleanPodPolicy":"Running","suspend":false,"ttlSecondsAfterFinished":86400},"strategy":{"type":"GradualUnfreezing",'
    b'"gradualUnfreezing":{}},"task":{"type":"TextClassification","textColumn":"text","labelColumn":"label"},"template":{"env":'
    b'[{"name":"X","value":"1"}],"image":"registry/trainer:1"},"training":{"batchSize":32,"epochs":3,"learningRate":0.0001,'
    b'"metric":"accuracy","seed":0}}{"acceleratorSeconds":3600,"checkpoint":{"step":1000,"time":"2026-01-01T00:00:00Z"},'
    b'"completionTime":"2026-01-01T00:00:00Z","conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"waiting for '
    b'the pods to run","observedGeneration":1,"reason":"PodsRunning","status":"True","type":"Running"},{"lastTransitionTime":'
    b'"2026-01-01T00:00:00Z","message":"the job has succeeded","observedGeneration":1,"reason":"Succeeded","status":"False",'
    b'"type":"Complete"}],"nodes":{"desired":2,"ready":0},"observedGeneration":1,"phase":"Succeeded","phases":[{"metrics":'
    b'{"accuracy":0.9,"loss":0.3},"name":"head","seconds":100.0,"steps":1000,"trainableParameters":1000000}],"progress":{"epoch":3,'
    b'"loss":0.25,"metrics":{"accuracy":0.9},"percent":100,"phaseCount":3,"phaseIndex":2,"phaseName":"layer.10","step":1000,'
    b'"totalSteps":1000},"restarts":{"inPlace":0,"pods":0},"results":{"test.accuracy":0.9,"test.loss":0.3,"validation.accuracy":0.9},'
    b'"startTime":"2026-01-01T00:00:00Z","summary":{"checkpoint":"1000","eta":"","metric":"accuracy 0.900","progress":"100% (3/3)"}}'
)


_SMALL = {"wbits": 13, "memLevel": 5}
"""A window of two dictionaries, 50 KB in all: to clear the 260 KB of zlib's own sizes can take many times longer than to pack."""


def pack(value: Any) -> bytes:
    """Return a JSON value as compressed text; equal values give equal bytes."""
    packer = zlib.compressobj(zdict=_COMMON, **_SMALL)
    return packer.compress(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()) + packer.flush()


def unpack(data: bytes) -> bytes:
    """Return the text of a packed value."""
    return zlib.decompressobj(zdict=_COMMON).decompress(data)
