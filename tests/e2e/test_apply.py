"""Changes of configuration: what differs is brought about, in order and as a whole; what does not is not touched.

Must not test which difference needs a restart: tests/config does. Nor instances, which test_instances scales.
"""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

from clusters import wait_until
from stage import DEFAULTS, Stage
from traces import before, starts, stops, together

from svcd.protocol import messages

RISES = "waiting → starting → running"
FRESH = "unloaded → waiting → starting → running"
BASE = """
    db: {}
    api: {depends_on: [db]}
    web: {depends_on: [api]}
    apart: {}
"""


def rewrite(stage: Stage, services: str, name: str = "cluster.yaml") -> str:
    """The cluster's file says something else now."""
    stage.write_services(services, name=name)
    return name


def steps(out: str) -> list[str]:
    """The steps that a plan shows: verb and name."""
    return [" ".join(line.split()[1:3]) for line in out.splitlines() if line.split()[0].rstrip(".").isdigit()]


def pids(stage: Stage) -> dict[str, int | None]:
    return {row.name: row.pid for row in stage.status().services}


# ---- what changes and what does not ----


def test_nothing_differs(stage: Stage) -> None:
    stage.up(BASE)
    assert stage.svcd("plan", "cluster.yaml").out == "nothing differs\n"
    stage.svcd("apply", "cluster.yaml")
    stage.tells()


def test_a_new_service_starts_and_nobody_else_notices(stage: Stage) -> None:
    stage.up(BASE)
    before = pids(stage)
    rewrite(stage, BASE + "    new: {depends_on: [db]}\n")
    assert steps(stage.svcd("plan", "cluster.yaml").out) == ["start new"]
    stage.tells()
    stage.svcd("apply", "cluster.yaml")
    stage.tells(f"new: {FRESH}")
    assert {name: pid for name, pid in pids(stage).items() if name != "new"} == before


def test_a_new_service_that_is_manual_waits_to_be_asked(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, BASE + "    new: {start: manual}\n")
    stage.svcd("apply", "cluster.yaml")
    stage.tells()
    stage.does("start", "new")
    stage.tells(f"new: {FRESH}")


def test_a_removed_service_stops_and_is_forgotten(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, "db: {}\napi: {depends_on: [db]}\nweb: {depends_on: [api]}")
    assert steps(stage.svcd("plan", "cluster.yaml").out) == ["stop apart"]
    stage.svcd("apply", "cluster.yaml")
    stage.tells(stops("apart"))
    assert stage.names() == ["db", "api", "web"]
    assert stage.svcd("stop", "apart", code=2).err


def test_a_changed_service_restarts_with_its_dependents_around_it(stage: Stage) -> None:
    stage.up(BASE)
    before = pids(stage)
    rewrite(stage, BASE.replace("api: {", "api: {env: {NEW: x}, "))
    assert steps(stage.svcd("plan", "cluster.yaml").out) == ["restart web", "restart api"]
    stage.svcd("apply", "cluster.yaml")
    stage.tells(stops("web", to="waiting"), f"api: running → stopping → {RISES}", starts("web"))
    after = pids(stage)
    assert (after["db"], after["apart"]) == (before["db"], before["apart"])


def test_a_policy_is_adopted_without_a_restart(stage: Stage) -> None:
    stage.up("a: {PLAYER}")
    rewrite(stage, "a: {PLAYER, restart: {policy: never}}")
    assert steps(stage.svcd("plan", "cluster.yaml").out) == ["update a"]
    stage.svcd("apply", "cluster.yaml")
    stage.tells()
    stage.say("a", "exit 1")
    stage.tells("a: running → failed")


def test_a_removal_and_an_addition_at_once(stage: Stage) -> None:
    stage.up("old: {}\nuser: {depends_on: [old]}")
    rewrite(stage, "new: {}\nuser: {depends_on: [new]}")
    stage.svcd("apply", "cluster.yaml")
    told = stage.tells(together(f"new: {FRESH}", f"user: running → stopping → {RISES}", stops("old")))
    assert before(told, "new: starting → running", "user: waiting → starting")
    assert before(told, "user: stopping → waiting", "old: running → stopping")
    assert sorted(stage.names()) == ["new", "user"]


def test_an_edge_that_turns_round(stage: Stage) -> None:
    stage.up("a: {}\nb: {depends_on: [a]}")
    rewrite(stage, "a: {depends_on: [b]}\nb: {}")
    stage.svcd("apply", "cluster.yaml")
    stage.skip()
    assert stage.states() == {"a": "running", "b": "running"}
    stage.crash("b")
    stage.tells("b: running → waiting", together(f"b: {RISES}", stops("a", to="waiting")), starts("a"))


def test_what_was_stopped_by_name_stays_down(stage: Stage) -> None:
    stage.up(BASE)
    stage.does("stop", "apart")
    stage.tells(stops("apart"))
    rewrite(stage, BASE.replace("apart: {}", "apart: {env: {NEW: x}}"))
    stage.svcd("apply", "cluster.yaml", code=None)
    stage.tells()
    stage.does("start", "apart")
    stage.tells(f"apart: stopped → {RISES}")


def test_a_failed_service_that_was_mended_is_tried_again(stage: Stage) -> None:
    stage.up("a: {command: exit 3, ready: {delay: 1h}, restart: {policy: never}}\nb: {depends_on: [a]}", wait=None)
    stage.wait_state("a", "failed")
    stage.skip()
    rewrite(stage, "a: {restart: {policy: never}}\nb: {depends_on: [a]}")
    stage.svcd("apply", "cluster.yaml")
    stage.tells(f"a: failed → {RISES}", starts("b"))


def test_an_apply_that_comes_to_nothing_good_says_so(stage: Stage) -> None:
    stage.up("a: {}")
    rewrite(stage, "a: {}\nbad: {command: exit 3, ready: {delay: 1h}, restart: {policy: never}}")
    done = stage.svcd("apply", "cluster.yaml", code=3)
    assert "bad" in done.err
    assert "exit code 3" in done.err
    stage.tells("bad: unloaded → waiting → starting → failed")


# ---- all or nothing ----


def test_an_invalid_file_changes_nothing(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, BASE.replace("db: {}", "db: {depends_on: [web]}"))
    done = stage.svcd("apply", "cluster.yaml", code=2)
    assert "cluster.yaml" in done.err
    stage.svcd("plan", "cluster.yaml", code=2)
    stage.tells()
    rewrite(stage, BASE.replace("apart: {}", "apart: {comand: x}") + "    new: {}\n")
    stage.svcd("apply", "cluster.yaml", code=2)
    stage.tells()
    assert stage.names() == ["db", "api", "web", "apart"]


def test_a_plan_does_nothing(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, "db: {env: {NEW: x}}\napi: {depends_on: [db]}\nnew: {}")
    shown = steps(stage.svcd("plan", "cluster.yaml").out)
    assert [step for step in shown if step != "stop apart"] == ["stop web", "restart api", "restart db", "start new"]
    assert "stop apart" in shown, "anywhere: it has to do with nobody"
    stage.tells()


def test_a_file_of_another_cluster_is_refused(stage: Stage) -> None:
    stage.up("a: {}")
    other = stage.write("cluster: other\nservices: {a: {command: exec sleep 1000}}\n", "other.yaml")
    assert "other" in stage.svcd("apply", str(other), code=None).err
    stage.tells()


# ---- two at once ----


def test_the_later_apply_wins(stage: Stage) -> None:
    stage.up("a: {PLAYER lingers}")
    rewrite(stage, "a: {PLAYER lingers, env: {ROUND: one}}")
    first = stage.command("apply", "cluster.yaml")
    stage.tells("a: running → stopping")
    rewrite(stage, "a: {PLAYER lingers, env: {ROUND: two}}")
    second = stage.command("apply", "cluster.yaml")
    stage.wait_status(lambda _: "two" in stage.configuration(), "the second configuration")
    stage.say("a", "exit 0")
    assert second.wait() == (0, "")
    assert first.wait()[0] in (0, 3)
    stage.tells(f"a: stopping → {RISES}")
    with open(f"/proc/{stage.pid_of('a')}/environ") as environ:
        assert "ROUND=two" in environ.read().split("\0")


def test_an_apply_in_the_middle_of_a_cascade(stage: Stage) -> None:
    stage.up("db: {}\napi: {PLAYER lingers, depends_on: [db]}")
    stage.crash("db")
    stage.tells("db: running → waiting", together(f"db: {RISES}", "api: running → stopping"))
    rewrite(stage, "db: {}\napi: {PLAYER lingers, depends_on: [db], env: {NEW: x}}\nnew: {depends_on: [api]}")
    applying = stage.command("apply", "cluster.yaml")
    stage.tells("new: unloaded → waiting")
    stage.say("api", "exit 0")
    assert applying.wait() == (0, "")
    stage.tells(f"api: stopping → {RISES}", starts("new"))


def test_a_removal_in_the_middle_of_a_backoff(stage: Stage) -> None:
    stage.up("a: {restart: {backoff: {initial: 1h}}}\nb: {}")
    stage.crash("a")
    stage.tells("a: running → backoff")
    rewrite(stage, "b: {}")
    stage.svcd("apply", "cluster.yaml")
    stage.skip()
    assert stage.names() == ["b"]


# ---- SIGHUP ----


def test_sighup_applies_the_files_that_were_started(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, BASE + "    new: {}\n")
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    stage.tells(f"new: {FRESH}")


def test_sighup_with_an_invalid_file_tells_and_changes_nothing(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, BASE.replace("db: {}", "db: {comand: x}"))
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    stage.wait_status(lambda _: any("nothing was changed" in text for text in stage.notices("")), "a notice")
    log = Path(stage.notices("")[-1].rpartition("see ")[2])
    wait_until(lambda: log.exists() and "comand" in log.read_text(), "the reason")
    stage.tells()
    rewrite(stage, BASE + "    new: {}\n")
    stage.process.send_signal(signal.SIGHUP)
    stage.tells(f"new: {FRESH}")


# ---- single services ----


def test_register_adds_and_registering_again_updates(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, "extra: {}", name="extra.yaml")
    stage.svcd("register", "extra.yaml")
    stage.tells(f"extra: {FRESH}")
    stage.svcd("register", "extra.yaml")
    stage.tells()
    rewrite(stage, "extra: {env: {NEW: x}}", name="extra.yaml")
    stage.svcd("register", "extra.yaml")
    stage.tells(f"extra: running → stopping → {RISES}")
    assert stage.names() == ["db", "api", "web", "apart", "extra"]


def test_unregister_stops_and_forgets(stage: Stage) -> None:
    stage.up(BASE)
    assert stage.svcd("unregister", "web").out == "1. stop    web  removal of web\nweb: removed\n"
    stage.tells(stops("web"))
    assert stage.names() == ["db", "api", "apart"]
    stage.svcd("unregister", "web", code=2)


def test_unregistering_what_others_require_is_refused_and_names_them(stage: Stage) -> None:
    stage.up("db: {}\napi: {depends_on: [db]}\nweb: {depends_on: [db]}\nsoft: {depends_on: {db: {kind: wants}}}")
    done = stage.svcd("unregister", "db", code=None)
    assert done.code != 0
    assert "api" in done.err
    assert "web" in done.err
    assert "soft" not in done.err
    stage.tells()
    stage.svcd("unregister", "db", "api", "web")
    stage.tells(together(stops("api"), stops("web")), stops("db"))
    assert stage.names() == ["soft"]


def test_update_takes_over_one_service_alone(stage: Stage) -> None:
    stage.up("a: {}\nb: {}")
    rewrite(stage, "a: {env: {NEW: x}}\nb: {env: {NEW: x}}")
    stage.svcd("update", "a")
    stage.tells(f"a: running → stopping → {RISES}")
    stage.svcd("apply", "cluster.yaml")
    stage.tells(f"b: running → stopping → {RISES}")


# ---- layers ----


def test_layers_are_applied_as_they_were_started(stage: Stage) -> None:
    base = stage.write(f"cluster: layered\n{DEFAULTS}services:\n  a: {{}}\n  b: {{}}\n", "base.yaml")
    prod = stage.write("services:\n  b: {env: {STAGE: prod}}\n", "prod.yaml")
    stage.start(base, prod)
    stage.skip()
    stage.write(textwrap.dedent("services:\n  b: {env: {STAGE: other}}\n"), "prod.yaml")
    assert stage.process is not None
    stage.process.send_signal(signal.SIGHUP)
    stage.tells(f"b: running → stopping → {RISES}")
    with open(f"/proc/{stage.pid_of('b')}/environ") as environ:
        assert "STAGE=other" in environ.read().split("\0")


# ---- it is one change ----


def test_an_apply_is_one_change(stage: Stage) -> None:
    stage.up(BASE)
    rewrite(stage, BASE.replace("db: {}", "db: {env: {NEW: x}}") + "    new: {depends_on: [web]}\n")
    stage.svcd("apply", "cluster.yaml")
    stage.wait_state("new", "running")
    answer = stage.ask(messages.GetChanges())
    assert isinstance(answer, messages.ChangesReported)
    last = answer.changes[-1]
    assert (last.cause, sorted(last.services)) == ("apply of cluster.yaml", ["api", "db", "new", "web"])
    assert len(answer.changes) == 2
