"""What commands are about: services and instances by name, files of this cluster or another, what is kept of it.

Must not test what the commands do to services: other files do.
"""

from __future__ import annotations

import json
import signal

from clusters import wait_until
from stage import Stage

from svcd.protocol import messages

API = "db: {}\napi: {instances: 3, depends_on: [db], command: 'echo of {instance}; exec sleep 1000'}"


def test_a_service_is_all_of_its_instances(stage: Stage) -> None:
    stage.up(API)
    for number in range(3):
        wait_until(lambda name=f"api.{number}": stage.output(name), f"the word of api.{number}")
    assert stage.svcd("stop", "api").out == "api.0: stopped\napi.1: stopped\napi.2: stopped\n"
    assert [line.split()[0] for line in stage.svcd("status", "api").out.splitlines()[3:]] == ["api.0", "api.1", "api.2"]
    assert sorted(stage.svcd("logs", "api").out.split("\n")) == ["", *(f"api.{n} | of {n}" for n in range(3))]
    assert "api.1: stopped" in stage.svcd("status", "api.1").out
    asked = stage.svcd("why", "api", code=2)
    assert asked.err == "svcd: cannot tell why: api has 3 instances: name one, such as api.0\n"
    for command in (("unregister", "api.1"), ("update", "api.1"), ("scale", "api.1=2")):
        assert "api.1 is one instance: name the service, api" in stage.svcd(*command, code=2).err


def test_what_is_registered_may_need_what_runs(stage: Stage) -> None:
    stage.up(API)
    extra = stage.write("services: {worker: {command: sleep 1000, depends_on: [api]}}", "extra.yaml")
    assert stage.svcd("register", str(extra)).out == "1. start   worker  new\nworker: up\n"
    more = stage.write("services: {more: {command: sleep 1000, depends_on: [worker]}}", "more.yaml")
    stage.svcd("register", str(more))
    assert "required by worker" in stage.svcd("unregister", "api", code=1).err
    assert "there is no service gone" in stage.svcd(
        "register", str(stage.write("services: {x: {command: sleep 9, depends_on: [gone]}}", "x.yaml")), code=2
    ).err  # fmt: skip


def test_dependents_follow_a_scale_whatever_the_files_say_of_them_by_now(stage: Stage) -> None:
    stage.up(f"{API}\nweb: {{depends_on: [api, db]}}")
    extra = stage.write("services: {worker: {command: sleep 1000, depends_on: [api]}}", "extra.yaml")
    stage.svcd("register", str(extra))
    web, worker = stage.pid_of("web"), stage.pid_of("worker")
    stage.write_services(f"{API}\nweb: {{depends_on: [], env: {{NEW: x}}}}")
    for count in (5, 1, 2):
        stage.svcd("scale", f"api={count}")
        instances = [f"api.{number}" for number in range(count)]
        assert stage.names() == ["db", *instances, "web", "worker"]
        assert stage.row("web").depends_on == (*instances, "db")
        assert stage.row("worker").depends_on == tuple(instances)
    assert (stage.pid_of("web"), stage.pid_of("worker")) == (web, worker)
    causes = [each["cause"] for each in json.loads(stage.svcd("changes", "--json").out)]
    assert causes == ["start of the cluster", "registration of worker", *["scaling of api"] * 3]


def test_files_of_another_cluster_are_not_taken_for_this_ones(stage: Stage) -> None:
    stage.up(API)
    other = stage.write("cluster: other\nservices: {db: {command: sleep 1000}}", "other.yaml")
    assert "is for cluster other" in stage.svcd("apply", str(other), code=2).err
    assert stage.names() == ["db", "api.0", "api.1", "api.2"]


def test_sighup_reads_the_files_as_the_last_apply_did(stage: Stage) -> None:
    services = "a: {command: 'exec sleep ${LONG:-1000}'}\nb: {env: {N: '%s'}}"
    stage.up(services % 1)
    stage.environ["LONG"] = "2000"
    assert stage.svcd("apply", "cluster.yaml").out == "1. restart a  command changed\na: restarted\n"
    a, b = stage.pid_of("a"), stage.pid_of("b")
    stage.write_services(services % 2)
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    stage.wait_status(lambda _: stage.row("b").pid not in (None, b), "b to be restarted")
    assert stage.pid_of("a") == a


def test_a_change_that_makes_no_sense_is_refused(stage: Stage) -> None:
    stage.up("db: {}")
    document = stage.configuration()
    for mode, services in (("upd", ()), ("update", ()), ("update", ("nobody",))):
        order = stage.order(messages.ApplyConfiguration(document, mode, services))
        assert isinstance(order.first, messages.RequestRefused)
        assert order.first.code == "malformed"
    assert stage.states() == {"db": "running"}
