"""The server as a process and as a neighbour: sockets, operator's pages, command."""

from __future__ import annotations

import ast
import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # as in demo.processes
import pytest
from tests.simulator.simulator_client import (
    DATASET,
    NOW,
    TOKEN,
    call,
    eventually,
    exchange,
    offline_purchase,
    purchases,
    send,
)

import graph_simulator
from graph_simulator import (
    Fault,
    FaultKind,
    Profile,
    Simulator,
    Switches,
    admin,
)
from graph_simulator.__main__ import main
from graph_simulator.faults import Faults

PACKAGE = Path(graph_simulator.__file__).parent


class TestConnections:
    def test_one_connection_carries_many_requests(self, sim: Simulator) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", sim.port, timeout=5)
        connection.connect()
        first = connection.sock
        for n in range(5):
            body = json.dumps({"data": purchases(1, first=n), "access_token": TOKEN})
            connection.request(
                "POST",
                f"/v26.0/{DATASET}/events",
                body,
                {"Content-Type": "application/json"},
            )
            assert connection.getresponse().read()
        assert connection.sock is first
        assert sim.counts(DATASET).received == 5
        connection.close()

    def test_many_clients_at_once_lose_nothing(self, sim: Simulator) -> None:
        def run(client: int) -> None:
            for n in range(10):
                first = client * 100 + n * 10
                assert send(sim, *purchases(10, first=first)).status == 200

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(run, range(16)))
        assert sim.counts(DATASET).processed == 1_600
        assert len(sim.received()) == 1_600
        numbers = {r.request for e in sim.received() for r in e.receipts}
        assert numbers == set(range(1, 161))

    def test_a_body_that_breaks_off_was_no_request(self, sim: Simulator) -> None:
        with socket.create_connection(("127.0.0.1", sim.port)) as connection:
            connection.sendall(
                f"POST /v26.0/{DATASET}/events HTTP/1.1\r\nHost: x\r\n"
                'Content-Length: 1000\r\n\r\n{"data": ['.encode()
            )
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        assert sim.stats()["requests"] == 0

    def test_expect_100_continue_is_answered(self, sim: Simulator) -> None:
        with socket.create_connection(("127.0.0.1", sim.port)) as connection:
            connection.sendall(
                f"POST /v26.0/{DATASET}/events HTTP/1.1\r\nHost: x\r\n"
                "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"{}")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ("Transfer-Encoding: chunked", 411),
            ("Content-Length: many", 411),
            ("Content-Length: 99999999999", 413),
        ],
    )
    def test_a_body_of_unknown_or_absurd_length_is_turned_away(
        self, sim: Simulator, header: str, status: int
    ) -> None:
        with socket.create_connection(("127.0.0.1", sim.port)) as connection:
            connection.sendall(
                f"POST /v26.0/{DATASET}/events HTTP/1.1\r\nHost: x\r\n"
                f"{header}\r\n\r\n".encode()
            )
            assert connection.recv(100).startswith(f"HTTP/1.1 {status} ".encode())

    def test_after_the_end_nobody_answers(self) -> None:
        with Simulator() as sim:
            connection = http.client.HTTPConnection("127.0.0.1", sim.port, timeout=5)
            connection.request("GET", "/_simulator/health")
            assert connection.getresponse().read()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            exchange(connection, "GET", "/_simulator/health")
        connection.close()

    def test_its_address_is_a_base_url(self, sim: Simulator) -> None:
        assert sim.url == f"http://127.0.0.1:{sim.port}"

    def test_a_profile_leaves_the_other_switches_as_they_are(self) -> None:
        switches = Switches(strict_seven_days=True)
        sim = Simulator(profile=Profile.OBSERVED, switches=switches)
        sim.stop()
        assert sim.graph.switches.profile is Profile.OBSERVED
        assert sim.graph.switches.strict_seven_days

    def test_a_simulator_that_never_started_can_be_stopped(self) -> None:
        Simulator().stop()

    def test_a_taken_port_is_an_error(self, sim: Simulator) -> None:
        with pytest.raises(OSError, match="in use"):
            Simulator(port=sim.port)


class TestSilence:
    """No body, no token, no query string in any log line."""

    def test_a_log_line_names_method_path_outcome_and_number(
        self, sim: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "graph_simulator")
        event = offline_purchase(event_id="canary-id")
        event["user_data"]["external_id"] = "canary-person"
        send(sim, event)
        sim.faults.add(Fault(kind=FaultKind.HTML))
        call(sim, "POST", f"/v26.0/{DATASET}/events?access_token=canary-token")
        call(sim, "GET", "/v26.0/canary-node?access_token=canary-token")
        call(sim, "GET", "/canary/../x")
        # A line follows its answer, so the test may be there first.
        assert eventually(lambda: len(caplog.messages) == 4)
        assert sorted(caplog.messages) == [
            "GET (unknown path) 400 0 events",
            "GET (unknown path) 401 0 events",
            f"POST /v26.0/{DATASET}/events 200 1 events",
            f"POST /v26.0/{DATASET}/events html 0 events",
        ]

    def test_a_request_that_is_none_is_not_quoted(
        self, sim: Simulator, caplog: pytest.LogCaptureFixture, capfd: Any
    ) -> None:
        with socket.create_connection(("127.0.0.1", sim.port)) as connection:
            connection.sendall(b"canary canary canary canary\r\n\r\n")
            assert b"400" in connection.recv(1_000)
        out, err = capfd.readouterr()
        assert "canary" not in caplog.text + out + err

    def test_a_fault_of_ours_is_told_without_the_request(
        self, sim: Simulator, caplog: pytest.LogCaptureFixture
    ) -> None:
        impossible: Any = "canary"
        sim.faults.add(Fault(kind=FaultKind.RECEIVED_OFF_BY, off_by=impossible))
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            send(sim, *purchases(1))
        [line] = caplog.messages
        assert line.startswith(
            "A request could not be answered: TypeError in sabotage.py, line "
        )
        assert "canary" not in caplog.text

    def test_a_token_is_not_shown(self) -> None:
        assert TOKEN not in repr(graph_simulator.Token(value=TOKEN))


class TestOperator:
    """The pages under /_simulator/."""

    @staticmethod
    def ask(sim: Simulator, method: str, page: str, content: object = None) -> Any:
        body = b"" if content is None else json.dumps(content).encode()
        return call(sim, method, f"/_simulator/{page}", body)

    def test_health(self, sim: Simulator) -> None:
        assert self.ask(sim, "GET", "health").json == {
            "status": "ok",
            "profile": "documented",
        }

    def test_a_fault_is_armed_and_disarmed(self, sim: Simulator) -> None:
        fault = {
            "kind": "refuse_if",
            "event_ids": ["order-0"],
            "count": None,
            "subcode": 2804004,
            "headers": [["Retry-After", "1"]],
        }
        reply = self.ask(sim, "POST", "faults", [fault, {"kind": "status", "nth": 2}])
        assert (reply.status, reply.json["faults"]) == (201, 2)
        assert send(sim, *purchases(1)).refusal == (100, 2804004)
        assert send(sim, *purchases(1, first=1)).status == 500
        assert self.ask(sim, "GET", "stats").json["faults"] == {
            "refuse_if": 1,
            "status": 1,
        }
        assert self.ask(sim, "PUT", "faults", {"kind": "status"}).status == 201
        assert self.ask(sim, "GET", "stats").json["faults"] == {"status": 0}
        assert send(sim, *purchases(1)).status == 500
        assert self.ask(sim, "DELETE", "faults").status == 200
        assert send(sim, *purchases(1)).status == 200

    @pytest.mark.parametrize(
        "posted",
        [
            {},
            {"kind": "earthquake"},
            {"kind": "status", "colour": "red"},
            {"kind": "refuse_if"},
            {"kind": "status", "count": "2"},
            [{"kind": "status"}, {"kind": "x"}],
            "status",
            3,
        ],
        ids=range(8),
    )
    def test_what_is_no_fault_arms_nothing(
        self, sim: Simulator, posted: object
    ) -> None:
        reply = self.ask(sim, "POST", "faults", posted)
        assert reply.status == 400
        assert reply.json["error"].startswith("No fault was armed.")
        assert send(sim, *purchases(1)).status == 200

    def test_what_was_received_can_be_counted_and_paged(self, sim: Simulator) -> None:
        sim.faults.add(Fault(kind=FaultKind.HTML))
        send(sim, *purchases(1, first=9))
        send(sim, *purchases(5))
        assert self.ask(sim, "GET", "received").json == {
            "distinct_events": {DATASET: {"Purchase": 5}}
        }
        page = self.ask(sim, "GET", "received?ids=1&limit=4&event_name=Purchase").json
        ids = [event["event_id"] for event in page["events"]]
        assert ids == ["order-9", "order-0", "order-1", "order-2"]
        assert page["events"][0]["receipts"] == [
            {"at": NOW, "request": 1, "processed": False, "fault": "html", "code": None}
        ]
        rest = self.ask(
            sim, "GET", f"received?ids=1&limit=4&offset={page['next_offset']}"
        ).json
        assert [e["event_id"] for e in rest["events"]] == ["order-3", "order-4"]
        assert rest["next_offset"] is None
        other = self.ask(sim, "GET", "received?dataset=9876543210").json
        assert other == {"distinct_events": {}}

    @pytest.mark.parametrize("query", ["limit=0", "offset=-1", "limit=all"])
    def test_a_page_that_is_none_is_refused(self, sim: Simulator, query: str) -> None:
        assert self.ask(sim, "GET", f"received?ids=1&{query}").status == 400

    def test_stats_tell_everything_and_reset_forgets_it(self, sim: Simulator) -> None:
        send(sim, *purchases(2))
        send(sim, *purchases(2))
        send(sim, offline_purchase(event_time=1))
        send(sim, offline_purchase(colour="red"))
        stats = self.ask(sim, "GET", "stats").json
        assert stats == {
            "requests": 4,
            "datasets": {
                DATASET: {
                    "arrived": 6,
                    "received": 5,
                    "repeated_event_ids": 2,
                    "repeated_offline": 0,
                    "deduplicated": 2,
                    "processed": 3,
                }
            },
            "refusals": {"100/2804003": 1},
            "faults": {},
            "notes": {"unknown event parameter": 1},
        }
        assert self.ask(sim, "POST", "reset").status == 200
        assert self.ask(sim, "GET", "stats").json == {
            "requests": 0,
            "datasets": {},
            "refusals": {},
            "faults": {},
            "notes": {},
        }

    def test_a_question_of_absurd_length_is_turned_away(self, sim: Simulator) -> None:
        head = {"Content-Length": "99999999999"}
        assert call(sim, "POST", "/_simulator/faults", b"", head).status == 413

    def test_other_pages_do_not_exist(self, sim: Simulator) -> None:
        assert self.ask(sim, "GET", "secrets").status == 404
        assert self.ask(sim, "POST", "health").status == 404

    @pytest.mark.parametrize("client", ["192.0.2.7", "10.0.0.1", "2001:db8::1"])
    @pytest.mark.parametrize("page", ["stats", "health"])
    def test_only_this_machine_may_ask(
        self, sim: Simulator, client: str, page: str
    ) -> None:
        answer = admin.handle(
            sim.graph, Faults(), "GET", f"/_simulator/{page}", b"", client
        )
        assert answer.status == 403
        local = admin.handle(
            sim.graph, Faults(), "GET", f"/_simulator/{page}", b"", "127.0.0.1"
        )
        assert local.status == 200


class TestCommand:
    """python -m graph_simulator"""

    @staticmethod
    def run(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "graph_simulator", *arguments],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
        (tmp_path / "tokens").write_text(f"{TOKEN}\n")
        process = self.run(
            *("--port", "0", "--profile", "observed"),
            *("--token-file", str(tmp_path / "tokens"), "--dataset", DATASET),
            *("--record", str(tmp_path / "journal")),
            *("--pid-file", str(tmp_path / "pid")),
        )
        assert process.stdout is not None
        sentence = process.stdout.readline()
        assert "(profile observed)" in sentence
        yield process, int(sentence.split("127.0.0.1:")[1].split()[0])
        process.kill()
        process.communicate()

    def test_it_serves_until_it_is_told_to_end(
        self, served: tuple[subprocess.Popen[str], int], tmp_path: Path
    ) -> None:
        process, port = served
        assert (tmp_path / "pid").read_text() == f"{process.pid}\n"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", f"/v26.0/{DATASET}?access_token={TOKEN}")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 0
        assert not (tmp_path / "pid").exists()
        assert f"GET /v26.0/{DATASET} 200 0 events" in err
        assert TOKEN not in err

    def test_a_kill_loses_nothing_that_was_answered(
        self, served: tuple[subprocess.Popen[str], int], tmp_path: Path
    ) -> None:
        process, port = served
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        event = offline_purchase()
        # This process has a clock of its own.
        event["event_time"] = int(tmp_path.stat().st_mtime)
        body = json.dumps({"data": [event], "access_token": TOKEN})
        head = {"Content-Type": "application/json"}
        connection.request("POST", f"/v26.0/{DATASET}/events", body, head)
        assert connection.getresponse().status == 200
        connection.close()
        process.kill()
        process.wait()
        with Simulator(record=tmp_path / "journal") as again:
            assert again.counts(DATASET).processed == 1

    @pytest.mark.matrix("X9")
    def test_no_option_takes_a_token_and_no_command_line_shows_one(
        self, served: tuple[subprocess.Popen[str], int], tmp_path: Path
    ) -> None:
        process, port = served
        assert TOKEN not in " ".join(psutil.Process(process.pid).cmdline())
        assert TOKEN not in psutil.Process(process.pid).environ().values()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", f"/v26.0/{DATASET}?access_token=EAABsomebodyElses")
        assert connection.getresponse().status == 401
        connection.close()
        unreadable = self.run("--port", "0", "--token-file", str(tmp_path / "none"))
        _, err = unreadable.communicate(timeout=10)
        assert unreadable.returncode == 2
        assert err.endswith("cannot be read (No such file or directory); name a file "
                            "with --token-file.\n")  # fmt: skip
        refused = self.run("--token", TOKEN)
        refused.communicate(timeout=10)
        assert refused.returncode == 2

    def test_a_taken_port_is_told_in_one_sentence(self, sim: Simulator) -> None:
        process = self.run("--port", str(sim.port))
        out, err = process.communicate(timeout=10)
        assert process.returncode == 2
        assert out == ""
        assert err == (
            f"The local Graph API cannot listen on 127.0.0.1:{sim.port} "
            "(Address already in use); choose another --port.\n"
        )

    @pytest.mark.parametrize("port", ["99999", "-1", "http"])
    def test_a_port_that_none_can_be_is_wrong_usage(
        self, port: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main([f"--port={port}"])
        assert ended.value.code == 2
        assert "--port: write a number from 0 to 65535" in capsys.readouterr().err


def test_the_simulator_knows_nothing_of_the_sender_but_its_facts() -> None:
    """A fault in the sender must show, so nothing but `spec` may be shared."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    modules = [name.name for name in names]
                case ast.ImportFrom(module="meta_capi", names=names):
                    modules = [f"meta_capi.{name.name}" for name in names]
                case ast.ImportFrom(module=str(module)):
                    modules = [module]
                case _:
                    continue
            for module in modules:
                top = module.partition(".")[0]
                assert (
                    top in sys.stdlib_module_names
                    or top in ("graph_simulator", "msgspec")
                    or module == "meta_capi.spec"
                ), f"{path.name} imports {module}"
