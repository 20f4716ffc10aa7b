"""What the documents about installing tell people to type does what they say."""

import json
import os
import re
import subprocess

import pytest
import yaml

from charts.generate import CHART, REPOSITORY, values
from tests.charts.release import ON_A_TEST_NODE
from tests.charts.render import HELMS, NAMESPACE
from tests.cluster import binaries

DOCS = [REPOSITORY / "docs" / f"{name}.md" for name in ("install", "upgrading", "uninstalling", "gitops")]
PAGES = [*DOCS, CHART / "README.md"]
VALUES = {value.name for value in values((CHART / "values.yaml").read_text())}


def block(page, start):
    """Return the code block of a page that starts like this."""
    (found,) = (text for text in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL) if text.startswith(start))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_values_that_are_set_exist(page):
    for name in re.findall(r"--set '?([\w.]+)[\[=]", page.read_text()):
        assert name in VALUES, name


@pytest.mark.cluster
@pytest.mark.timeout(600)
class TestCommands:
    @pytest.fixture
    def helm(self):
        """Which Helm the person has."""
        return "helm"

    @pytest.fixture
    def run(self, chart_cluster, tmp_path, helm):
        """A function that runs a code block as a person would."""
        (tmp_path / "helm").symlink_to(binaries.tool(helm))
        path = f"{tmp_path}:{chart_cluster.folder / 'bin'}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "KUBECONFIG": str(chart_cluster.kubeconfig)}

        def run(text):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
            )  # fmt: skip
            assert done.returncode == 0, f"{text}\n{done.stderr}"
            return done.stdout

        yield run
        chart_cluster.helm("uninstall", "unfreeze", "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
        chart_cluster.kubectl("delete", "crd", "finetunejobs.unfreeze.dev", "--ignore-not-found")

    @pytest.fixture
    def on_a_test_node(self, tmp_path):
        """What the commands need besides where pods share the machine's network."""
        (tmp_path / "values.json").write_text(json.dumps(ON_A_TEST_NODE))
        return f" --values {tmp_path / 'values.json'}"

    @pytest.mark.parametrize("helm", HELMS)
    def test_install_upgrade_uninstall(self, run, chart_cluster, on_a_test_node):
        command, _, _ = block(DOCS[0], "helm install").partition("\nhelm test")
        # An image of any name but these is a trainer on the nodes of the tests.
        run(command.replace("REGISTRY/unfreeze-operator", "unfreeze-operator") + on_a_test_node)
        assert "1/1" in chart_cluster.kubectl("get", "deployment", "-n", NAMESPACE)
        run(block(DOCS[1], "helm upgrade unfreeze").strip() + " --set operator.logLevel=debug")
        env = chart_cluster.kubectl("get", "deployment", "-n", NAMESPACE, "-o", "yaml")
        assert "REGISTRY/unfreeze-trainer" in env
        assert "debug" in env
        run(block(DOCS[2], "kubectl delete ftj"))
        assert "finetunejobs" not in chart_cluster.kubectl("get", "crd", "-o", "name")

    @pytest.mark.parametrize("helm", HELMS)
    def test_from_kustomize_to_helm(self, run, chart_cluster, on_a_test_node, helm):
        run("kubectl apply --server-side -k operator/deploy")
        command = block(DOCS[1], "helm upgrade --install").strip()
        if helm == "helm3":
            command = command.removesuffix(" --force-conflicts")
        run(command + on_a_test_node)
        assert "unfreeze" in chart_cluster.helm("list", "--namespace", NAMESPACE, "--deployed", "--short")
        run("kubectl rollout status -n unfreeze-system deployment/unfreeze-operator --timeout=120s")

    def test_argo_cd_gets_its_health_check(self, run, chart_cluster):
        chart_cluster.kubectl("create", "namespace", "argocd")
        chart_cluster.kubectl("create", "configmap", "argocd-cm", "-n", "argocd", "--from-literal=url=https://argocd")
        run(block(DOCS[3], "kubectl create configmap"))
        data = yaml.safe_load(chart_cluster.kubectl("get", "configmap", "argocd-cm", "-n", "argocd", "-o", "yaml"))[
            "data"
        ]
        lua = (REPOSITORY / "operator/deploy/argocd/health.lua").read_text()
        assert data == {"url": "https://argocd", "resource.customizations.health.unfreeze.dev_FineTuneJob": lua}
        chart_cluster.kubectl("delete", "namespace", "argocd")

    def test_the_overlay_of_your_own(self, run, tmp_path):
        text = block(DOCS[3], "apiVersion: kustomize")
        base = os.path.relpath(REPOSITORY / "operator/deploy/cluster-wide", tmp_path)
        text = re.sub(r"https://git\S*(?=\"\])", base, text)
        (tmp_path / "kustomization.yaml").write_text(text)
        made = run(f"kubectl kustomize {tmp_path}")
        assert "image: registry.example.com/unfreeze-operator:0.1.0" in made
        (deployment,) = (m for m in yaml.safe_load_all(made) if m["kind"] == "Deployment")
        env = {e["name"]: e["value"] for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert env["UNFREEZE_OPERATOR_TRAINER_IMAGE"] == "registry.example.com/unfreeze-trainer"
        assert env["UNFREEZE_OPERATOR_WORKERS"] == "16"
