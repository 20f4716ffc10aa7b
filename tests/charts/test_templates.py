"""What values do to the manifests. Needs helm, which is built at first use."""

import json
import subprocess

import pytest
import yaml

from charts.generate import CHART, REPOSITORY
from tests.charts.render import HELMS, NAMESPACE, RenderError, kinds, only, parsed, render, render_text
from tests.cluster import binaries
from tests.operator.fakes import IMAGE, FakeCluster, job
from tests.support import first_build
from unfreeze_api.contracts.progress import HTTP_PORT
from unfreeze_operator.manifests.children import indexed_job
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.resources import OPERATOR_LABELS, GangNames

pytestmark = pytest.mark.cluster

PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
POLICIES = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
DEFAULTS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Deployment", "Service"}
DEFAULTS |= POLICIES | {"NetworkPolicy"}


def pod(values=None):
    return only(render(values), "Deployment")["spec"]["template"]["spec"]


def options(values=None):
    """Return the operator's options by the names of their variables."""
    env = pod(values)["containers"][0]["env"]
    return {variable["name"].removeprefix("UNFREEZE_OPERATOR_"): variable["value"] for variable in env}


@pytest.mark.parametrize("helm", HELMS)
def test_lint(helm):
    subprocess.run([binaries.tool(helm), "lint", "--strict", CHART], check=True, capture_output=True)


def test_what_the_defaults_make():
    made = render()
    assert kinds(made) == DEFAULTS
    for manifest in made:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "unfreeze"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crds": {"enabeld": True}}, "'enabeld' not allowed"),
        ({"replicsa": 2}, "'replicsa' not allowed"),
        ({"operator": {"workers": 0}}, "/operator/workers"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        ({"trainer": {"imagePullSecrets": ["name"]}}, "/trainer/imagePullSecrets/0"),
        ({"namespaces": "a"}, "/namespaces"),
        ({"podDisruptionBudget": {"enabled": True}}, "podDisruptionBudget needs replicas of 2 or more"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "/metrics/podMonitor/interval"),
        ({"priorityClass": {"value": 2000000000}}, "/priorityClass/value"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed when serviceAccount.create is false"),
        ({"namespaces": ["Team_A"]}, "/namespaces/0"),
        (
            {"namespaces": ["a", NAMESPACE]},
            "namespaces: admissionPolicy keeps .* from making jobs' pods in unfreeze-system",
        ),
        ({"namespaces": ["kube-system"]}, "jobs' pods in kube-system"),
        ({"fullnameOverride": "my.tuner"}, "no Service can be named my.tuner-operator: set fullnameOverride"),
        ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "commonLabels: app.kubernetes.io/name is the chart's own"),
        (
            {"podLabels": {"app.kubernetes.io/instance": "x"}},
            "podLabels: app.kubernetes.io/instance is the chart's own",
        ),
        ({"networkPolicy": {"enabled": True, "apiServerPorts": None}}, "needs networkPolicy.apiServerPorts"),
    ],
)
@pytest.mark.parametrize("helm", HELMS)
def test_what_makes_no_sense_is_refused_by_name(values, words, helm):
    with pytest.raises(RenderError, match=words):
        render(values, helm=helm)


def test_the_crd_is_the_generated_one_and_kept():
    crd = only(render(), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    crd["metadata"].pop("labels")
    assert crd == yaml.safe_load((REPOSITORY / "crds/unfreeze.dev_finetunejobs.yaml").read_text())
    assert "annotations" not in only(render({"crds": {"keep": False}}), "CustomResourceDefinition")["metadata"]
    assert "CustomResourceDefinition" not in kinds(render({"crds": {"enabled": False}}))


def test_the_policy_that_warns_comes_with_the_crd():
    committed = yaml.safe_load_all((REPOSITORY / "crds/unfreeze.dev_finetunejobs.warnings.yaml").read_text())
    for manifest in committed:
        made = only(render(), manifest["kind"], manifest["metadata"]["name"])
        made["metadata"].pop("labels")
        assert made == manifest
    alone = {"admissionPolicy": {"enabled": False}}
    assert POLICIES & kinds(render(alone | {"crds": {"warnings": False}})) == set()
    assert POLICIES & kinds(render(alone | {"crds": {"enabled": False}})) == set()
    # As in the values that --reuse-values takes from a release of before.
    assert kinds(render(alone | {"crds": {"warnings": None}})) >= POLICIES


def test_the_policy_of_the_operators_account_names_this_releases():
    name = "ml-unfreeze-operator"

    def policy(values=None):
        return only(render(values, release="ml"), "ValidatingAdmissionPolicy", name)["spec"]

    text = json.dumps(policy())
    assert f"system:serviceaccount:{NAMESPACE}:{name}" in text
    assert "'ml-unfreeze-test'" in text
    assert "unfreeze-test'" not in json.dumps(policy({"test": {"enabled": False}}))
    assert f"{NAMESPACE}:mine" in json.dumps(policy({"serviceAccount": {"create": False, "name": "mine"}}))
    made = render(release="ml")
    assert only(made, "ValidatingAdmissionPolicyBinding", name)["spec"] == {
        "policyName": name,
        "validationActions": ["Deny"],
    }
    without = render({"admissionPolicy": {"enabled": False}, "crds": {"warnings": False}})
    assert not POLICIES & kinds(without)
    # As in the values that --reuse-values takes from a release of before.
    assert kinds(render({"admissionPolicy": None, "crds": {"warnings": False}})) >= POLICIES


def test_names_follow_the_release():
    assert only(render(release="unfreeze"), "Deployment")["metadata"]["name"] == "unfreeze-operator"
    assert only(render(release="ml"), "Deployment")["metadata"]["name"] == "ml-unfreeze-operator"
    assert only(render({"nameOverride": "tune"}, release="ml"), "Deployment")["metadata"]["name"] == "ml-tune-operator"
    long = only(render({"fullnameOverride": "f" * 40}), "Deployment")["metadata"]["name"]
    assert long == "f" * 40 + "-operator"


def test_all_namespaces_or_some():
    rules = next(
        manifest["rules"]
        for manifest in yaml.safe_load_all((REPOSITORY / "operator/deploy/base/rbac.yaml").read_text())
        if manifest["kind"] == "ClusterRole"
    )
    made = render()
    assert only(made, "ClusterRole", "unfreeze-operator")["rules"] == rules
    assert "NAMESPACES" not in options()
    some = render({"namespaces": ["a", "b"], "rbac": {"aggregate": False}})
    assert not kinds(some) & {"ClusterRole", "ClusterRoleBinding"}
    roles = [manifest for manifest in some if manifest["kind"] == "Role"]
    assert {role["metadata"]["namespace"] for role in roles} == {"a", "b"}
    assert all(role["rules"] == rules for role in roles)
    bindings = [manifest for manifest in some if manifest["kind"] == "RoleBinding"]
    assert {binding["subjects"][0]["namespace"] for binding in bindings} == {NAMESPACE}
    assert options({"namespaces": ["a", "b"]})["NAMESPACES"] == "a b"
    less = only(render({"rbac": {"podGroups": False}}), "ClusterRole", "unfreeze-operator")["rules"]
    assert less == [rule for rule in rules if rule["resources"] != ["podgroups"]]
    assert len(less) == len(rules) - 1


def test_rights_for_people_add_up():
    roles = {name: only(render(), "ClusterRole", f"unfreeze-finetunejobs-{name}") for name in ("view", "edit", "admin")}

    def verbs_of(target):
        label = f"rbac.authorization.k8s.io/aggregate-to-{target}"
        rules = [rule for role in roles.values() if label in role["metadata"]["labels"] for rule in role["rules"]]
        assert all(rule["resources"] == ["finetunejobs"] for rule in rules)
        return {verb for rule in rules for verb in rule["verbs"]}

    read = {"get", "list", "watch"}
    write = {"create", "update", "patch", "delete"}
    assert verbs_of("view") == read
    assert verbs_of("edit") == read | write
    assert verbs_of("admin") == read | write | {"deletecollection"}


def test_nothing_is_made_that_others_bring():
    made = render({"rbac": {"create": False, "aggregate": False}, "serviceAccount": {"create": False, "name": "mine"}})
    assert kinds(made) == {"CustomResourceDefinition", *POLICIES, "Deployment", "Service", "NetworkPolicy"}
    assert only(made, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


def test_images_secrets_and_options_reach_the_operator():
    digest = "sha256:" + "a" * 64
    values = {
        "image": {"repository": "r/operator", "digest": digest},
        "imagePullSecrets": [{"name": "pull"}],
        "trainer": {
            "image": {"repository": "r/trainer", "tag": "2"},
            "imagePullSecrets": [{"name": "team"}, {"name": "other"}],
            "networkPolicy": {"metricsFrom": [PEER], "egress": []},
        },
        "operator": {"logLevel": "debug", "workers": 3, "progressInterval": 0.5, "lostPodGrace": 0, "gangPatience": 9},
    }
    made = pod(values)
    assert made["containers"][0]["image"] == f"r/operator@{digest}"
    assert made["imagePullSecrets"] == [{"name": "pull"}]
    assert options(values) == {
        "TRAINER_IMAGE": "r/trainer:2",
        "TRAINER_PULL_SECRETS": "team other",
        "METRICS_FROM": json.dumps([PEER], separators=(",", ":")),
        "EGRESS": "[]",
        "LOG_LEVEL": "debug",
        "WORKERS": "3",
        "PROGRESS_INTERVAL": "0.5",
        "LOST_POD_GRACE": "0",
        "GANG_PATIENCE": "9",
    }
    assert (
        pod()["containers"][0]["image"]
        == f"unfreeze-operator:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"
    )


def lacking(today, before):
    """Return null for each of today's values that a release of before does not know."""
    if not isinstance(today, dict) or not isinstance(before, dict):
        return {}
    inner = {name: lacking(today[name], before[name]) for name in today.keys() & before.keys()}
    return dict.fromkeys(today.keys() - before.keys()) | {name: found for name, found in inner.items() if found}


def test_the_values_that_reuse_values_takes_from_the_first_release_will_do():
    today = yaml.safe_load((CHART / "values.yaml").read_text())
    before = yaml.safe_load(first_build.text("charts/unfreeze/values.yaml"))
    values = lacking(today, before)
    assert "PRICES" not in options(values)
    assert only(render(values), "ClusterRole", "unfreeze-operator") == only(
        render(), "ClusterRole", "unfreeze-operator"
    )


def test_the_pods_are_placed_as_asked():
    values = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 2, "topologyKey": "host", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"a": "b"}}},
        ],
        "terminationGracePeriodSeconds": 5,
    }  # fmt: skip
    made = pod(values)
    for name in ("nodeSelector", "tolerations", "affinity", "terminationGracePeriodSeconds"):
        assert made[name] == values[name]
    selector = only(render(), "Deployment")["spec"]["selector"]
    assert made["topologySpreadConstraints"][0]["labelSelector"] == selector
    assert made["topologySpreadConstraints"][1]["labelSelector"]["matchLabels"]["a"] == "b"


def test_a_priority_class_of_ones_own_or_one_that_exists():
    assert "priorityClassName" not in pod()
    assert pod({"priorityClass": {"name": "system-cluster-critical"}})["priorityClassName"] == "system-cluster-critical"
    for values, name in (({}, "unfreeze-operator"), ({"name": "operators"}, "operators")):
        made = render({"priorityClass": {"create": True, "value": 7, **values}})
        assert only(made, "PriorityClass", name)["value"] == 7
        assert only(made, "Deployment")["spec"]["template"]["spec"]["priorityClassName"] == name


def test_each_release_elects_by_a_lease_of_its_own():
    for release, name in (("unfreeze", "unfreeze-operator"), ("ml", "ml-unfreeze-operator")):
        made = render({"replicas": 2}, release=release)
        env = only(made, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "UNFREEZE_OPERATOR_LEASE_NAME", "value": name} in env
        assert only(made, "Role")["rules"][1]["resourceNames"] == [name]


def test_labels_of_people_do_not_touch_selectors():
    values = {"commonLabels": {"team": "ml"}, "podLabels": {"tier": "control"}, "podAnnotations": {"note": "x"}}
    made = render(values)
    template = only(made, "Deployment")["spec"]["template"]["metadata"]
    assert template["labels"].items() >= {"team": "ml", "tier": "control"}.items()
    assert template["annotations"] == {"note": "x"}
    assert all(manifest["metadata"]["labels"]["team"] == "ml" for manifest in made)
    assert only(made, "Deployment")["spec"]["selector"] == only(render(), "Deployment")["spec"]["selector"]


def test_selectors_find_the_pods_that_the_operator_makes():
    made = render(
        {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}, "networkPolicy": {"enabled": True}}
    )  # fmt: skip
    view = job()
    trainer = indexed_job(view, FakeCluster().context(view).spec, IMAGE, Carried(), GangNames.of("job"))["spec"][
        "template"
    ]
    monitor = only(made, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= trainer["metadata"]["labels"].items()
    assert monitor["namespaceSelector"] == {"any": True}
    ports = {port["name"] for container in trainer["spec"]["containers"] for port in container["ports"]}
    assert monitor["podMetricsEndpoints"][0]["port"] in ports
    (progress,) = (rule for rule in only(made, "NetworkPolicy")["spec"]["egress"] if "to" in rule)
    assert progress["ports"][0]["port"] == HTTP_PORT
    assert progress["to"][0]["podSelector"]["matchLabels"].items() <= trainer["metadata"]["labels"].items()
    operator = only(made, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert OPERATOR_LABELS.items() <= operator.items()
    service = only(made, "Service")
    assert service["spec"]["selector"].items() <= operator.items()
    assert (
        only(made, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert only(made, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= operator.items()


def test_prometheus_takes_no_more_than_it_should():
    on = {"enabled": True}
    made = render({"metrics": {"podMonitor": on, "serviceMonitor": on}})
    limits = {"sampleLimit", "labelLimit", "labelNameLengthLimit", "labelValueLengthLimit", "bodySizeLimit"}
    for kind, samples in (("PodMonitor", 1000), ("ServiceMonitor", 1_000_000)):
        monitor = only(made, kind)["spec"]
        assert limits <= monitor.keys()
        assert monitor["sampleLimit"] == samples
    free = on | {"sampleLimit": 0, "labelLimit": 0, "bodySizeLimit": ""}
    assert not limits & only(render({"metrics": {"podMonitor": free}}), "PodMonitor")["spec"].keys()


def test_monitors_as_your_prometheus_wants_them():
    own = {"enabled": True, "labels": {"release": "prometheus"}, "interval": "15s"}
    rule = [{"action": "labeldrop", "regex": "pod"}]
    values = {
        "metrics": {"podMonitor": own | {"relabelings": rule}, "serviceMonitor": own | {"metricRelabelings": rule}}
    }
    made = render(values | {"namespaces": ["a"]})
    trainers, operator = only(made, "PodMonitor"), only(made, "ServiceMonitor")
    for monitor in (trainers, operator):
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert trainers["spec"]["namespaceSelector"] == {"matchNames": ["a"]}
    job = {"sourceLabels": ["__meta_kubernetes_pod_label_unfreeze_dev_job_name"], "targetLabel": "job_name"}
    assert trainers["spec"]["podMetricsEndpoints"] == [{"port": "http", "interval": "15s", "relabelings": [job, *rule]}]
    assert operator["spec"]["endpoints"] == [
        {"port": "http", "honorLabels": True, "interval": "15s", "metricRelabelings": rule}
    ]


def test_metrics_for_prometheus_alone():
    policy = only(
        render({"networkPolicy": {"enabled": True, "metricsFrom": [PEER], "apiServerPorts": [8443]}}), "NetworkPolicy"
    )
    assert policy["spec"]["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}], "from": [PEER]}]
    assert {"ports": [{"port": 8443, "protocol": "TCP"}]} in policy["spec"]["egress"]


def test_nobody_reads_the_operators_metrics_by_default():
    spec = only(render(), "NetworkPolicy")["spec"]
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress"], [])
    spec = only(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
    spec = only(render({"networkPolicy": {"metricsFrom": [PEER]}}), "NetworkPolicy")["spec"]
    assert (spec["policyTypes"], spec["ingress"][0]["from"]) == (["Ingress"], [PEER])
    # As in the values that --reuse-values takes from a release of before.
    assert "NetworkPolicy" in kinds(render({"networkPolicy": {"ingress": None}}))
    assert "NetworkPolicy" not in kinds(render({"networkPolicy": {"ingress": False}}))
    spec = only(render({"networkPolicy": {"ingress": False, "enabled": True}}), "NetworkPolicy")["spec"]
    assert (spec["policyTypes"], "ingress" in spec) == (["Egress"], False)


def test_who_reads_metrics_may_have_to_say_who_it_is():
    made = render()
    assert "METRICS_TOKEN_REVIEW" not in options()
    assert not [m for m in made if m.get("roleRef", {}).get("name") == "system:auth-delegator"]
    token = {"credentials": {"name": "prometheus", "key": "token"}}
    values = {"metrics": {"tokenReview": True, "serviceMonitor": {"enabled": True, "authorization": token}}}
    made = render(values)
    assert options(values)["METRICS_TOKEN_REVIEW"] == "true"
    assert only(made, "ClusterRoleBinding", "unfreeze-operator-reviews")["roleRef"]["name"] == "system:auth-delegator"
    rules = only(made, "ClusterRole", "unfreeze-operator-metrics-reader")["rules"]
    assert rules == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    assert only(made, "ServiceMonitor")["spec"]["endpoints"][0]["authorization"] == token


def test_the_operator_reads_every_variable(monkeypatch):
    from unfreeze_operator.main import main

    known = {parameter.name for parameter in main.params}
    everything = {
        "replicas": 2,
        "namespaces": ["a"],
        "trainer": {
            "imagePullSecrets": [{"name": "s"}],
            "networkPolicy": {"metricsFrom": [PEER], "egress": []},
            "sources": {"hf": {"endpoint": "https://hub.example"}},
        },
        "metrics": {"tokenReview": True},
        "prices": {"table": [{"resource": "nvidia.com/gpu", "perHour": 2.5}]},
        "allowed": {"refusedAnnotations": [], "labels": ["a"], "priorityClasses": ["b", "c-*"], "runtimeClasses": []},
    }
    given = options(everything)
    assert {name.lower() for name in given} <= known
    for name, value in given.items():
        monkeypatch.setenv(f"UNFREEZE_OPERATOR_{name}", value)
    parsed = main.make_context("unfreeze-operator", [], auto_envvar_prefix="UNFREEZE_OPERATOR").params
    assert parsed["namespaces"] == ("a",)
    assert parsed["trainer_pull_secrets"] == ("s",)
    assert parsed["egress"] == ()
    assert parsed["sources"]["hf"].endpoint == "https://hub.example"
    assert parsed["leader_election"] is True
    assert (parsed["prices"].currency, parsed["prices"].table[0].per_hour) == ("USD", 2.5)
    assert (parsed["refused_annotations"], parsed["allowed_labels"]) == ((), ("a",))
    assert (parsed["allowed_priority_classes"], parsed["allowed_runtime_classes"]) == (("b", "c-*"), ())
    assert not {"REFUSED_ANNOTATIONS", "SOURCES"} & options().keys()


def test_rules_are_the_files_less_the_alerts_that_are_not_wanted():
    groups = [
        group
        for path in sorted((CHART / "files/rules").iterdir())
        for group in yaml.safe_load(path.read_text())["groups"]
    ]  # fmt: skip
    on = {"metrics": {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}}
    made = only(render(on), "PrometheusRule")
    assert made["metadata"]["labels"]["release"] == "prometheus"
    assert made["spec"]["groups"] == groups
    on["metrics"]["prometheusRule"]["disabled"] = ["UnfreezeQueueGrowing"]
    less = only(render(on), "PrometheusRule")["spec"]["groups"]
    names = [rule.get("alert") for group in groups for rule in group["rules"]]
    left = [rule.get("alert") for group in less for rule in group["rules"]]
    assert left == [name for name in names if name != "UnfreezeQueueGrowing"]
    assert len(left) == len(names) - 1


def test_dashboards_are_the_files_as_grafanas_sidecar_wants_them():
    dashboards = {"enabled": True, "annotations": {"grafana_folder": "Training"}}
    made = only(render({"metrics": {"dashboards": dashboards}}), "ConfigMap")
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert made["metadata"]["annotations"] == {"grafana_folder": "Training"}
    files = {f"unfreeze-{path.name}": path.read_text() for path in (CHART / "files/dashboards").iterdir()}
    assert made["data"] == files


def test_what_helm_test_makes_is_a_hook_and_can_be_left_out():
    def hooks(values):
        return [
            m for m in parsed(render_text(values)) if m["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
        ]

    made = hooks({"namespaces": ["a", "b"], "test": {"storageClassName": "fast", "timeoutSeconds": 60}})
    assert {manifest["metadata"]["namespace"] for manifest in made} == {"a"}
    assert only(made, "PersistentVolumeClaim")["spec"]["storageClassName"] == "fast"
    follow = only(made, "Pod", "unfreeze-test")["spec"]["containers"][0]
    assert follow["command"][-1] == "--timeout=60"
    assert (
        OPERATOR_LABELS["app.kubernetes.io/name"]
        not in only(made, "Pod", "unfreeze-test")["metadata"]["labels"].values()
    )
    assert hooks({"test": {"enabled": False}}) == []


def test_helm_test_asks_the_network_from_a_pod_that_may_reach_dns_alone():
    def asked(values):
        made = [manifest for manifest in yaml.safe_load_all(render_text(values)) if manifest]
        return only(made, "NetworkPolicy", "unfreeze-test-network"), only(made, "Pod", "unfreeze-test-network")

    policy, pod = asked({"namespaces": ["a"]})
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["metadata"]["namespace"] == pod["metadata"]["namespace"] == "a"
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policy["spec"]
    assert [set(rule) for rule in policy["spec"]["egress"]] == [{"ports"}]
    assert {port["port"] for port in policy["spec"]["egress"][0]["ports"]} == {53}
    weights = [int(manifest["metadata"]["annotations"]["helm.sh/hook-weight"]) for manifest in (policy, pod)]
    assert weights == [1, 2], "after the job, when an operator listens"
    command = pod["spec"]["containers"][0]["command"]
    assert command[2:] == ["unfreeze_operator.enforced", f"unfreeze-operator.{NAMESPACE}.svc", "8080"]
    _, strict = asked({"test": {"requireNetworkPolicies": True}})
    assert strict["spec"]["containers"][0]["command"][-1] == "--require"


def test_no_two_manifests_are_the_same_object():
    made = render({"namespaces": [NAMESPACE, "a"], "replicas": 2, "admissionPolicy": {"enabled": False}})
    names = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in made]
    assert len(names) == len(set(names))
