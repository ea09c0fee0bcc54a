"""deploy/compose.yaml: its parts fit together, and give no more rights than they need."""

import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import run
from deployed import VARIABLE, composed
from documents import ROOT, page
from redis import AuthenticationError, Redis
from redis_server import RedisServer
from waiting import until

from vlmbatch.config import options

FILE = composed()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("vlmbatch:")]
ENGINES = {"ollama", "ollama-cpu", "vllm"}


def source(volume: str | dict[str, str]) -> str:
    """What a volume mounts: the name of a volume, or a path."""
    return volume.split(":")[0] if isinstance(volume, str) else volume["source"]


def test_every_name_is_defined() -> None:
    """Each volume, network, secret and dependency of a service exists, and each of them is used."""
    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for service in SERVICES.values():
        used["volumes"] |= {source(volume) for volume in service.get("volumes", ())}
        used["networks"] |= set(service["networks"])
        used["secrets"] |= set(service.get("secrets", ()))
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
    paths = {name for name in used["volumes"] if name.startswith((".", "/"))}
    assert {kind: names - paths for kind, names in used.items()} == {kind: set(FILE[kind]) for kind in used}
    assert all((ROOT / "deploy" / path).exists() for path in paths if path.startswith("."))


def test_a_service_waits_only_for_what_can_become_ready() -> None:
    """What a service waits for has a health check or ends; an engine that is not chosen is not required."""
    for service in SERVICES.values():
        for name, rule in service.get("depends_on", {}).items():
            other = SERVICES[name]
            if rule["condition"] == "service_completed_successfully":
                assert other["restart"] == "on-failure"
            else:
                assert rule["condition"] == "service_healthy"
                assert "test" in other["healthcheck"]
            assert rule.get("required", True) is ("profiles" not in other)


def test_services_have_few_rights() -> None:
    """No service has or gains rights, and only engines have a file system that they can change."""
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only", False) is (name not in ENGINES), name
        assert "privileged" not in service
        if name != "service":  # it has the check of the image
            assert "test" in service["healthcheck"] or service["healthcheck"] == {"disable": True}
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]


def test_only_two_ports_are_open_and_only_here() -> None:
    """Only the service and Grafana have a port, at this machine alone, and Redis is inside."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"service": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}
    assert SERVICES["redis"]["networks"] == ["queue"]
    assert FILE["networks"]["queue"] == {"internal": True}


@pytest.mark.parametrize("name", OURS)
def test_the_commands_are_valid(name: str) -> None:
    """Each command of vlmbatch accepts its options, and each VLMBATCH_ variable is one of an option."""
    service = SERVICES[name]
    done = run(*service["command"], "--help")
    assert done.returncode == 0, done.stderr
    known = {f"VLMBATCH_{option.name.upper()}" for option in options()}
    assert {key for key in service["environment"] if key.startswith("VLMBATCH_")} <= known


def test_the_grace_is_longer_than_the_drain() -> None:
    """Docker sends SIGKILL only after the 30 seconds of --drain."""
    assert all(SERVICES[name]["stop_grace_period"] == "60s" for name in ("service", "worker"))


def test_the_example_of_settings_has_what_is_required() -> None:
    """.env.example names each variable that has no default, and no variable that nothing reads."""
    text = page("deploy/compose.yaml")
    variables = VARIABLE.findall(text)
    required = {name for name, kind, _ in variables if kind == "?"}
    example = page("deploy/.env.example")
    assert required == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))
    passed_on = set(re.findall(r"^  +(\w+): *(?:#.*)?$", text, re.MULTILINE))
    known = {name for name, _, _ in variables} | passed_on | {"COMPOSE_PROFILES"}
    assert set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) <= known
    assert set(re.findall(r"COMPOSE_PROFILES=(\w+)", example)) <= {"ollama", "cpu", "vllm"}


def answers(port: int) -> bool:
    """Whether a server takes connections at this port."""
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.long
def test_redis_starts_as_the_file_says(tmp_path: Path) -> None:
    """Redis needs the password and hides it, keeps each write, and never drops a job."""
    port = RedisServer(tmp_path).port
    *shell, script = SERVICES["redis"]["command"]
    script = script.replace("/data", str(tmp_path)).replace("server -", f"server - --port {port}")
    secret = SERVICES["redis"]["environment"]["REDISCLI_AUTH"]
    env = {"PATH": os.environ["PATH"], "REDISCLI_AUTH": secret}
    with subprocess.Popen([*shell, script], env=env, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port))
            assert secret.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
            with pytest.raises(AuthenticationError), Redis(port=port) as client:
                client.ping()
            with Redis(port=port, password=secret, decode_responses=True) as client:
                found = client.config_get("append*", "maxmemory-policy")
        finally:
            process.terminate()
    assert found["appendonly"] == "yes"
    assert found["appendfsync"] == "always"
    assert found["maxmemory-policy"] == "noeviction"
