"""What a job reads over the network: the platform says whether, where, and what that opens; of the Secret one key is taken."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from tests.operator.fakes import IMAGE, FakeCluster, job
from tests.operator.test_network import COREDNS, NETWORK, End, allows
from unfreeze_api.contracts.progress import CLAIM_FOLDER, SOURCES_FOLDER
from unfreeze_api.job import parse_spec
from unfreeze_api.sources import ACCESS
from unfreeze_operator.cluster.executor import _told
from unfreeze_operator.decisions.plan import plan
from unfreeze_operator.main import main
from unfreeze_operator.manifests.children import config_map, indexed_job, network_policy, spec_hash
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.packing import pack, unpack
from unfreeze_operator.objects.resources import JOBS, GangNames
from unfreeze_operator.objects.views import pod_view
from unfreeze_operator.settings.sources import SourceAccess, opened, parse_sources
from unfreeze_operator.status.build import condition

NAMES = GangNames.of("job")
MODEL = {"model": {"source": "hf://org/bert@v1"}}
DATA = {"data": {"train": {"source": "hf://datasets/org/words/train.parquet"}}}
OPEN = {"hf": SourceAccess()}
STORES = {
    "s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
    "gs": ["GOOGLE_SERVICE_ACCOUNT_KEY"],
    "az": ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"],
}
PUBLIC = End(ip="8.8.8.8")


def reading(**change):
    view = job()
    body = json.loads(unpack(view.spec))
    return replace(view, spec=pack({**body, **change}))


def spec_of(view):
    return parse_spec(json.loads(unpack(view.spec)))


def step(view, sources):
    cluster = FakeCluster()
    return plan(replace(cluster.context(view), sources=sources))


def pod_of(view, sources=OPEN):
    made = indexed_job(view, spec_of(view), IMAGE, Carried(), NAMES, sources=sources)
    return made["spec"]["template"]["spec"]


def env_of(view, sources=OPEN):
    return {variable["name"]: variable for variable in pod_of(view, sources)["containers"][0]["env"]}


@pytest.mark.parametrize("change", [MODEL, DATA])
def test_no_job_is_made_where_the_scheme_is_not_opened(change):
    made = step(reading(**change), {})
    assert JOBS not in [action.resource for action in made.actions]
    assert (made.status.phase, made.status.failure.reason) == ("Failed", "SourceNotAllowed")
    assert "trainer.sources.hf of the chart" in condition(made.status, "Running").message
    assert made.status.completion_time is None, "the platform may open it, or another spec mend it"
    assert JOBS in [action.resource for action in step(reading(**change), OPEN).actions]


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "HUGGINGFACE_CO_STAGING"])
def test_where_a_hub_is_no_job_says(name):
    variable = {"env": [{"name": name, "value": "https://evil.example"}]}
    made = step(reading(**MODEL, template=variable), OPEN)
    assert made.actions == ()
    assert f"template.env {name}: where hf:// leads is the platform's to say" in made.status.failure.message
    assert JOBS in [action.resource for action in step(reading(template=variable), {}).actions]


def test_pods_get_a_folder_and_the_platforms_endpoint():
    mirror = {"hf": SourceAccess(endpoint="https://hub.example")}
    pod = pod_of(reading(**MODEL), mirror)
    assert {"name": "sources", "mountPath": SOURCES_FOLDER} in pod["containers"][0]["volumeMounts"]
    assert [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "sources"] == [{"sizeLimit": "200Gi"}]
    assert env_of(reading(**MODEL), mirror)["HF_ENDPOINT"]["value"] == "https://hub.example"
    assert "HF_ENDPOINT" not in env_of(reading(**MODEL))


def test_what_is_fetched_is_kept_on_the_jobs_claim_or_the_platforms():
    def kept(view, sources):
        (found,) = [volume for volume in pod_of(view, sources)["volumes"] if volume["name"] == "sources"]
        return found.get("persistentVolumeClaim")

    platform = {"hf": SourceAccess(cache_claim="models")}
    own = reading(**MODEL, sources={"cacheClaim": "mine"})
    assert kept(reading(**MODEL), OPEN) is None
    assert kept(reading(**MODEL), platform) == {"claimName": "models"}
    assert kept(own, platform) == kept(own, OPEN) == {"claimName": "mine"}
    assert '"sources"' not in json.dumps(pod_of(reading(sources={"cacheClaim": "mine"}), OPEN)), "nothing is fetched"
    both = reading(**MODEL, data={"train": {"source": "s3://bucket/words.csv"}})
    assert kept(both, {"s3": SourceAccess(), **platform}) == {"claimName": "models"}, "the first that has one"
    assert kept(both, {"hf": SourceAccess(), "s3": SourceAccess(cache_claim="models")}) == {"claimName": "models"}
    told = config_map(own, spec_of(own), NAMES)["data"]["job.json"]
    assert told == config_map(reading(**MODEL), spec_of(reading(**MODEL)), NAMES)["data"]["job.json"]


def test_a_claim_that_the_job_reads_too_is_one_volume():
    data = {"data": {"train": {"source": "pvc://cache/words.csv"}}}
    pod = pod_of(reading(**MODEL, **data, sources={"cacheClaim": "cache"}))
    (volume,) = [one for one in pod["volumes"] if one.get("persistentVolumeClaim", {}).get("claimName") == "cache"]
    assert not volume["persistentVolumeClaim"]["readOnly"]
    for container, read_only in ((pod["containers"][0], True), (pod["initContainers"][0], False)):
        mounts = [one for one in container["volumeMounts"] if one["name"] == volume["name"]]
        assert {one["mountPath"]: one.get("readOnly", False) for one in mounts} == {
            f"{CLAIM_FOLDER}/cache": True,
            SOURCES_FOLDER: read_only,
        }
    assert not [one for one in pod["volumes"] if one["name"] == "sources"]


CACHED = MODEL | {"sources": {"cacheClaim": "cache", "secretRef": {"name": "hub"}}}


def writers(pod):
    """Return the containers of a pod that can write to each of its claims."""
    claims = {one["name"]: one["persistentVolumeClaim"] for one in pod["volumes"] if "persistentVolumeClaim" in one}
    found = {claim["claimName"]: [] for claim in claims.values()}
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        for mount in container["volumeMounts"]:
            if mount["name"] in claims and not (mount.get("readOnly") or claims[mount["name"]].get("readOnly")):
                found[claims[mount["name"]]["claimName"]].append(container["name"])
    return found


def test_a_claim_that_jobs_share_is_written_by_a_container_that_runs_no_model():
    env = [
        {"name": "HTTPS_PROXY", "value": "http://proxy"},
        {"name": "LD_PRELOAD", "value": "/mnt/claims/data/own.so"},
        {"name": "PYTHONPATH", "value": "/mnt/claims/data"},
        {"name": "AWS_CONFIG_FILE", "value": "/mnt/claims/data/config"},
    ]
    view = reading(**CACHED, template={"image": "own/image:1", "env": env})
    pod = pod_of(view, {"hf": SourceAccess(endpoint="https://hub.example")})
    assert writers(pod) == {"cache": ["fetcher"], "shared": ["trainer"]}
    (fetcher,), (trainer,) = pod["initContainers"], pod["containers"]
    assert (fetcher["image"], trainer["image"]) == (IMAGE.name, "own/image:1")
    assert (fetcher["command"][1:], fetcher["restartPolicy"]) == (["-m", "unfreeze_trainer.sources"], "Always")
    assert fetcher["securityContext"] == trainer["securityContext"]
    names = {one["name"]: one for one in fetcher["env"]}
    assert names["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "HF_TOKEN"}
    assert names["HF_ENDPOINT"]["value"] == "https://hub.example"
    assert names["HTTPS_PROXY"]["value"] == "http://proxy"
    assert not {"LD_PRELOAD", "PYTHONPATH", "AWS_CONFIG_FILE"} & names.keys()
    assert names["UNFREEZE_FETCHER"] in trainer["env"]
    assert not {"HF_TOKEN", "HF_ENDPOINT"} & {one["name"] for one in trainer["env"]}
    shared = {one["name"] for one in fetcher["volumeMounts"]} & {one["name"] for one in trainer["volumeMounts"]}
    assert shared == {"job", "fetcher", "sources", "claim-0"}, "and not the folder /tmp"


def test_the_platforms_image_is_pulled_beside_a_jobs_own():
    image = replace(IMAGE, pull_secrets=("registry", "mine"))
    own = {"image": "own/image:1", "imagePullSecrets": [{"name": "mine"}]}

    def secrets(view):
        made = indexed_job(view, spec_of(view), image, Carried(), NAMES, sources=OPEN)
        return made["spec"]["template"]["spec"]["imagePullSecrets"]

    assert secrets(reading(**CACHED, template=own)) == [{"name": "mine"}, {"name": "registry"}]
    assert secrets(reading(**MODEL, template=own)) == [{"name": "mine"}], "nothing of the platform's is pulled"


def test_credentials_of_a_jobs_own_go_to_the_container_that_fetches():
    own = {"template": {"env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}]}}
    pod = pod_of(reading(**MODEL, **own, sources={"cacheClaim": "cache"}))
    assert "HF_TOKEN" in [one["name"] for one in pod["initContainers"][0]["env"]]
    assert "HF_TOKEN" not in [one["name"] for one in pod["containers"][0]["env"]]
    assert "HF_TOKEN" in env_of(reading(**MODEL, **own)), "where nothing is shared, the agent hands it on itself"
    assert "initContainers" not in pod_of(reading(**MODEL, **own))


def test_beside_a_trainer_with_limits_what_fetches_has_limits():
    def resources(**given):
        node = {"distribution": {"resourcesPerNode": given}}
        return pod_of(reading(**CACHED, **node))["initContainers"][0]["resources"]

    bounds = {"cpu": "1", "memory": "2Gi"}
    assert resources(limits={"cpu": "4", "memory": "8Gi"}) == {"requests": bounds, "limits": bounds}
    disk = {"ephemeral-storage": "2Gi"}
    asked = {"requests": {"cpu": "100m", "memory": "256Mi"} | disk, "limits": disk}
    assert resources(limits={"ephemeral-storage": "50Gi"}) == asked, (
        "a quota of such limits wants one of each container"
    )
    assert resources(limits={"nvidia.com/gpu": 1}) == {"requests": {"cpu": "100m", "memory": "256Mi"}}


@pytest.mark.parametrize("platform", [True, False])
def test_offline_takes_what_the_claim_has_and_opens_no_network(platform):
    place = {"hf": SourceAccess(offline=platform, cache_claim="cache" if platform else None)}
    view = reading(**(MODEL if platform else MODEL | {"sources": {"cacheClaim": "cache", "offline": True}}))
    pod = pod_of(view, place)
    assert writers(pod) == {"cache": [], "shared": ["trainer"]}
    assert "initContainers" not in pod
    assert env_of(view, place)["UNFREEZE_OFFLINE"]["value"] == "hf"
    assert not allows(policy_of(view, place), "egress", PUBLIC, 443)
    assert JOBS in [action.resource for action in step(view, place).actions]
    bare = step(reading(**MODEL, sources={"offline": True}), OPEN)
    assert bare.status.failure.reason == "SourceNotAllowed"
    assert "name the claim that has them in sources.cacheClaim" in bare.status.failure.message


def test_no_run_lies_on_a_claim_that_others_read_what_they_fetched_from():
    platform = {"hf": SourceAccess(cache_claim="shared")}
    for view, sources in ((reading(**MODEL, sources={"cacheClaim": "shared"}), OPEN), (reading(), platform)):
        made = step(view, sources)
        assert JOBS not in [action.resource for action in made.actions]
        assert made.status.failure.reason == "Refused"
        assert "output.destination lies on the claim shared" in made.status.failure.message


def test_no_cache_of_features_lies_on_a_claim_that_others_read_what_they_fetched_from():
    view = reading(**MODEL, sources={"cacheClaim": "models", "featureCache": {"destination": "pvc://models/features"}})
    made = step(view, OPEN)
    assert JOBS not in [action.resource for action in made.actions]
    assert made.status.failure.reason == "Refused"
    assert "sources.featureCache.destination lies on the claim models" in made.status.failure.message


def test_a_claim_with_a_cache_of_features_is_written_by_the_trainer():
    made = step(reading(sources={"featureCache": {"destination": "pvc://features/bert"}}), OPEN)
    [job] = [action.manifest for action in made.actions if action.resource is JOBS]
    pod = job["spec"]["template"]["spec"]
    [volume] = [one for one in pod["volumes"] if one.get("persistentVolumeClaim", {}).get("claimName") == "features"]
    [mount] = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
    assert (volume["persistentVolumeClaim"]["readOnly"], mount["readOnly"]) == (False, False)


def test_an_image_that_does_not_come_is_told_of_the_container_that_fetches_too():
    state = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    found = waiting_of({"name": "fetcher", "image": "x:1", "state": state})
    assert (found.reason, found.message) == ("ImagePull", "image x:1: no such image")


def waiting_of(fetcher):
    """Return what a pod waits for whose fetcher has this status."""
    own = {"name": "trainer", "image": "x:1", "state": {"waiting": {"reason": "PodInitializing"}}}
    scheduled = {"type": "PodScheduled", "status": "True"}
    status = {"phase": "Pending", "conditions": [scheduled]}
    status |= {"initContainerStatuses": [fetcher], "containerStatuses": [own]}
    meta = {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    return pod_view({"metadata": meta, "spec": {}, "status": status}).waiting


def test_a_container_that_ends_again_and_again_before_the_trainer_runs_is_told_of():
    """As that of a platform's image does which is older than the operator."""
    said = "Traceback\nNo module named unfreeze_trainer.sources.__main__\n"
    first = {
        "name": "fetcher",
        "image": "x:1",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": said}},
    }
    found = waiting_of(first)
    assert (found.reason, found.message) == (
        "StartError",
        "container fetcher of image x:1 ends with code 1 again and again: No module named unfreeze_trainer.sources.__main__",
    )
    killed = first | {"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    assert waiting_of(killed).message.endswith("ends with code 137 again and again: OOMKilled")


def test_pods_of_other_jobs_are_as_they_were():
    assert pod_of(job()) == pod_of(job(), {})
    assert '"sources"' not in json.dumps(pod_of(job()))
    secret = {"sources": {"secretRef": {"name": "hub"}}}
    assert "HF_TOKEN" not in env_of(reading(**secret))


def test_of_the_secret_one_key_is_taken_and_it_stands_nowhere_else():
    view = reading(**MODEL, sources={"secretRef": {"name": "hub"}})
    assert env_of(view)["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}
    told = config_map(view, spec_of(view), NAMES)
    assert "secretRef" not in told["data"]["job.json"]
    assert spec_hash(view, spec_of(view)) != spec_hash(reading(**MODEL), spec_of(reading(**MODEL)))


@pytest.mark.parametrize("scheme", STORES)
def test_each_store_is_opened_by_itself_and_takes_its_own_keys(scheme):
    view = reading(data={"train": {"source": f"{scheme}://bucket/words.csv"}}, sources={"secretRef": {"name": "store"}})
    made = step(view, OPEN)
    assert f"trainer.sources.{scheme} of the chart" in made.status.failure.message
    place = {scheme: SourceAccess(endpoint="https://store.example")}
    assert JOBS in [action.resource for action in step(view, place).actions]
    found = env_of(view, place)
    secret = {
        name: one["valueFrom"]["secretKeyRef"]
        for name, one in found.items()
        if "secretKeyRef" in one.get("valueFrom", {})
    }
    assert list(secret) == STORES[scheme]
    assert not secret[STORES[scheme][0]].get("optional")
    assert found[ACCESS[scheme].endpoint]["value"] == "https://store.example"
    assert {"name": "sources", "mountPath": SOURCES_FOLDER} in pod_of(view, place)["containers"][0]["volumeMounts"]
    for name in (ACCESS[scheme].endpoint, *ACCESS[scheme].elsewhere):
        led = step(
            replace(
                view, spec=pack(json.loads(unpack(view.spec)) | {"template": {"env": [{"name": name, "value": "x"}]}})
            ),
            place,
        )
        assert f"template.env {name}: where {scheme}:// leads is the platform's to say" in led.status.failure.message


def test_where_sources_are_of_two_schemes_each_may_do_without_credentials():
    view = reading(
        **MODEL, data={"train": {"source": "s3://bucket/words.csv"}}, sources={"secretRef": {"name": "both"}}
    )
    found = env_of(view, OPEN | {"s3": SourceAccess()})
    assert all(found[name]["valueFrom"]["secretKeyRef"]["optional"] for name in ("HF_TOKEN", *STORES["s3"]))


@pytest.mark.parametrize(
    ("scheme", "name"), [(scheme, name) for scheme, access in ACCESS.items() for name in access.credentials]
)
def test_keys_of_the_secret_are_not_mixed_with_others(scheme, name):
    """The name of an account says where Azure's keys are shown, and a job must not lead those of the Secret to another one."""
    data = {"data": {"train": {"source": "hf://datasets/o/n/t.csv" if scheme == "hf" else f"{scheme}://bucket/t.csv"}}}
    own = {"template": {"env": [{"name": name, "value": "x"}]}}
    place = {scheme: SourceAccess()}
    led = step(reading(**data, **own, sources={"secretRef": {"name": "store"}}), place)
    assert led.status.failure.reason == "SourceNotAllowed"
    assert f"template.env {name}: the keys of {scheme}:// are those of the Secret" in led.status.failure.message
    for view in (reading(**data, **own), reading(**data, sources={"secretRef": {"name": "store"}})):
        assert JOBS in [action.resource for action in step(view, place).actions]


def test_credentials_go_to_no_endpoint_without_tls_unless_the_platform_says_so():
    secret = reading(**MODEL, sources={"secretRef": {"name": "hub"}})
    plain = SourceAccess(endpoint="http://hub.example")
    made = step(secret, {"hf": plain})
    assert made.status.failure.reason == "SourceNotAllowed"
    assert "sources.secretRef: the endpoint of hf:// on this cluster has no TLS" in made.status.failure.message
    for view, place in (
        (secret, plain.model_copy(update={"insecure": True})),
        (secret, SourceAccess(endpoint="https://hub.example")),
        (reading(**MODEL), plain),
        (reading(**MODEL, sources={"secretRef": {"name": "hub"}, "cacheClaim": "cache", "offline": True}), plain),
    ):
        assert JOBS in [action.resource for action in step(view, {"hf": place}).actions]


IMAGE_MODEL = {"model": {"source": f"oci://registry.example/models/bert@sha256:{'0123456789abcdef' * 4}/models"}}


def test_a_model_in_an_image_is_mounted_where_the_platform_opens_it():
    view = reading(**IMAGE_MODEL)
    made = step(view, OPEN)
    assert made.status.failure.reason == "SourceNotAllowed"
    assert "trainer.sources.oci of the chart" in made.status.failure.message
    opened_here = parse_sources('{"oci": {}}')
    assert JOBS in [action.resource for action in step(view, opened_here).actions]
    pod = pod_of(view, opened_here)
    (volume,) = [volume for volume in pod["volumes"] if "image" in volume]
    reference = IMAGE_MODEL["model"]["source"].removeprefix("oci://").removesuffix("/models")
    assert volume["image"] == {"reference": reference, "pullPolicy": "IfNotPresent"}
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount == {"name": volume["name"], "mountPath": "/mnt/images/0123456789ab", "readOnly": True}
    told = json.loads(config_map(view, spec_of(view), NAMES)["data"]["job.json"])
    assert told["model"]["path"] == "/mnt/images/0123456789ab/models"
    assert not allows(policy_of(view, opened_here), "egress", PUBLIC, 443), "the node pulls it"


@pytest.mark.cluster
def test_the_api_server_takes_it_also_where_pods_are_restricted(operator_cluster, world):
    view = reading(**IMAGE_MODEL)
    pod = indexed_job(view, spec_of(view), IMAGE, Carried(), NAMES, sources=parse_sources('{"oci": {}}'))
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod["spec"]["template"]["spec"]}
    path = f"{world.path('pods')}?dryRun=All&fieldValidation=Strict"
    status, answer = operator_cluster.request("POST", path, manifest)
    assert status == 201, answer
    assert [volume for volume in answer["spec"]["volumes"] if "image" in volume]


def test_a_server_without_such_volumes_is_told_by_name():
    dropped = (
        'Job.batch "job-train" is invalid: spec.template.spec.volumes[5]: Required value: must specify a volume type'
    )
    assert _told(dropped).startswith("oci:// needs volumes of images, which this cluster's Kubernetes does not have")
    assert _told("spec.completions: Invalid value") == "spec.completions: Invalid value"


def policy_of(view, sources):
    return network_policy(view, NETWORK, opened(spec_of(view), sources))


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "10.0.0.1", "172.20.0.1", "192.168.1.1", "100.100.100.200", "127.0.0.1"]
)
def test_the_metadata_server_and_private_addresses_stay_out_of_reach(address):
    policy = policy_of(reading(**MODEL), OPEN)
    assert not within(policy, address)
    assert within(policy, "8.8.8.8")
    assert not within(policy, "fd00:ec2::254")
    assert within(policy, "2606:4700::1111")


def within(policy, address):
    """Return whether an address outside of the cluster can be reached on port 443, exceptions counted."""
    import ipaddress

    ip = ipaddress.ip_address(address)
    blocks = [
        peer["ipBlock"]
        for rule in policy["spec"]["egress"]
        if {"protocol": "TCP", "port": 443} in rule.get("ports", [])
        for peer in rule["to"]
    ]
    return any(
        ip in ipaddress.ip_network(block["cidr"])
        and not any(ip in ipaddress.ip_network(cidr) for cidr in block.get("except", ()))
        for block in blocks
    )


def test_only_jobs_that_read_from_a_hub_get_out_and_on_one_port():
    assert not allows(policy_of(job(), OPEN), "egress", PUBLIC, 443)
    assert not allows(policy_of(reading(**MODEL), {}), "egress", PUBLIC, 443)
    policy = policy_of(reading(**MODEL), OPEN)
    assert allows(policy, "egress", PUBLIC, 443)
    assert not allows(policy, "egress", PUBLIC, 80)
    assert not allows(policy, "egress", PUBLIC, 443, "UDP")
    assert allows(policy, "egress", COREDNS, 53, "UDP")


def test_the_platform_says_what_is_opened():
    proxy = '{"hf": {"egress": [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 3128}]}]}}'
    policy = policy_of(reading(**DATA), parse_sources(proxy))
    assert allows(policy, "egress", End(ip="10.1.2.3"), 3128)
    assert not allows(policy, "egress", PUBLIC, 443)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "value: Input should be"),
        ('{"ftp": {}}', "ftp: there is no such scheme; there are hf, s3, gs, az, oci"),
        ('{"hf": {"endpoint": "ftp://x"}}', "hf.endpoint"),
        ('{"hf": {"endpoint": "https://user:secret@x"}}', "hf.endpoint"),
        ('{"hf": {"hosts": []}}', "hf.hosts"),
        ('{"hf": {"egress": [{"to": [{"ipBlock": {"cidr": "x"}}]}]}}', "hf.egress.0"),
    ],
)
def test_what_is_no_list_of_sources_is_said(text, told):
    with pytest.raises(ValueError, match=told):
        parse_sources(text)
    answer = CliRunner().invoke(main, ["--trainer-image", "x", "--sources", text])
    assert answer.exit_code == 2
    assert told in answer.output
