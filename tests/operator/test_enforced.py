"""What `helm test` says of the network."""

import socket

import pytest
from click.testing import CliRunner

from unfreeze_operator import enforced


def said(host, port, *options):
    result = CliRunner().invoke(enforced.main, [host, str(port), "--patience", "0", "--pause", "0", *options])
    return result.exit_code, result.output


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--require",), 1)])
def test_what_can_be_reached_is_a_network_without_policies(listener, options, code):
    exit_code, output = said("127.0.0.1", listener, *options)
    assert exit_code == code
    assert "does NOT enforce NetworkPolicies" in output
    assert f"127.0.0.1:{listener} is within reach" in output


def test_what_is_out_of_reach_is_a_network_with_policies():
    with socket.socket() as taken:  # nobody else listens there
        taken.bind(("127.0.0.1", 0))
        exit_code, output = said("127.0.0.1", taken.getsockname()[1], "--require")
    assert exit_code == 0
    assert output.startswith("The network enforces NetworkPolicies")


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--require",), 1)])
def test_an_unknown_host_tells_nothing(monkeypatch, options, code):
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    exit_code, output = said("nowhere", 1, *options)
    assert exit_code == code
    assert "cannot be determined: nowhere is not known here (Name or service not known)" in output


def test_a_policy_may_take_a_moment():
    answers = [True, True, False]
    assert enforced.look(lambda: answers.pop(0), patience=60, pause=0)
    assert not enforced.look(lambda: True, patience=0, pause=0)
