"""Whatever job the API server takes, it takes its children too: generated jobs with hostile texts, and their children."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from tests.crds.generate import manifests
from tests.operator.fakes import IMAGE
from unfreeze_api.job import parse_spec
from unfreeze_operator.manifests.children import config_map, indexed_job, network_policy, service
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.resources import (
    CONFIG_MAPS,
    FINE_TUNE_JOBS,
    JOBS,
    NETWORK_POLICIES,
    PODS,
    SERVICES,
    GangNames,
)
from unfreeze_operator.objects.views import fine_tune_job_view
from unfreeze_operator.settings.network import ISOLATED
from unfreeze_operator.settings.sources import PUBLIC, SourceAccess

pytestmark = pytest.mark.cluster

HOSTILE = st.text(max_size=16) | st.sampled_from(
    [
        "\x00",
        "\x1b[31mred",
        "$(reboot) `id` ${HOME} $(POD_IP)",
        "'; DROP TABLE jobs; --",
        '"}}], "privileged": true, {"',
        "a: b\n- c: !!python/object/apply:os.system [id]\n",
        "{{ .Values.secret }} {% raw %} %s %n",
        "../../etc/shadow",
        "\u202e\u0000\ufeff\u2028",
        "\U0001f9ca" * 200,
        "x" * 256,
    ]
)
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True) | st.just("n" * 52)
MANY = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(600)
def test_the_api_server_takes_every_child_of_every_job_that_it_takes(operator_cluster, world):
    def ask(resource, manifest):
        path = f"{resource.path(world.namespace)}?dryRun=All&fieldValidation=Strict"
        code, answer = operator_cluster.request("POST", path, manifest)
        assert code == 201, (answer["message"], json.dumps(manifest))
        return answer

    with ThreadPoolExecutor(5) as together:

        @MANY
        @given(manifests(texts=HOSTILE), NAMES)
        def judge(manifest, name):
            manifest["metadata"] = {"name": name, "namespace": world.namespace}
            stored = ask(FINE_TUNE_JOBS, manifest)
            event(stored["spec"]["strategy"]["type"])
            for one in [together.submit(ask, *child) for child in children(stored)]:
                one.result()

        judge()


def children(stored):
    """Return a job's children, and a pod as the Job controller would make it."""
    stored["metadata"] |= {"resourceVersion": "1"}
    view, spec = fine_tune_job_view(stored), parse_spec(stored["spec"])
    names = GangNames.of(view.name)
    job = indexed_job(view, spec, IMAGE, Carried(), names, sources={"hf": SourceAccess(endpoint="https://hub.example")})
    pod = copy.deepcopy(job["spec"]["template"])
    pod["metadata"] |= {"name": f"{job['metadata']['name']}-511-abcde"}
    pod["spec"].pop("priorityClassName", None)  # it, and the runtime's class, would have to exist
    pod["spec"].pop("runtimeClassName", None)
    return [
        (CONFIG_MAPS, config_map(view, spec, names)),
        (SERVICES, service(view, names.service)),
        (NETWORK_POLICIES, network_policy(view, ISOLATED, [PUBLIC])),
        (JOBS, job),
        (PODS, pod),
    ]
