"""The files of docs/deploy: what can be checked of them without a container engine."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from retrodistill.base import config as configs
from retrodistill.base.command import build_parser
from retrodistill.base.config.reading import as_declared

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def instruction(name: str) -> list[str]:
    """Return the words of the Containerfile's last instruction of a name, written as JSON."""
    found = re.findall(rf"^{name} (\[.*\])$", read("Containerfile"), re.MULTILINE)
    return json.loads(found[-1])


def parsed(words: list[str]) -> Any:
    """Return the settings of a command `python -m retrodistill.VERB ...`."""
    verb = words[2].removeprefix("retrodistill.")
    config_class = getattr(configs, f"{verb.capitalize()}Config")
    values, unknown = build_parser(config_class, verb, "About.").parse_known_intermixed_args(
        words[3:]
    )
    assert not unknown
    skipped = ("config", "print_config", "quiet", "log_json", "help", "recipe")
    own = {name: value for name, value in vars(values).items() if name not in skipped}
    return config_class(**as_declared(own, config_class))


def test_the_container_starts_a_server_with_a_key() -> None:
    """A flag that was renamed; a server for the whole network without a key."""
    settings = parsed([*instruction("ENTRYPOINT"), *instruction("CMD")])
    assert settings.host == "0.0.0.0"
    assert str(settings.api_key_file) == "/run/secrets/retrodistill_keys"
    assert settings.key
    text = read("Containerfile")
    assert f"EXPOSE {settings.port}" in text
    assert f"127.0.0.1:{settings.port}/readyz" in text
    assert text.index("USER retrodistill") < text.index("ENTRYPOINT")


def test_the_page_starts_the_container_with_flags_that_there_are() -> None:
    """A `docker run` of last year: the test of documented commands does not know it."""
    page = (DEPLOY.parent / "deploying.md").read_text(encoding="utf-8").replace("\\\n", " ")
    runs = [line for line in page.splitlines() if line.startswith("docker run ")]
    for line in runs:
        words = shlex.split(line)
        settings = parsed([*instruction("ENTRYPOINT"), *words[words.index("retrodistill") + 1 :]])
        targets = [
            word.split(":")[1] for word in words if word.count(":") in (1, 2) and "/" in word
        ]
        for path in (*settings.index, str(settings.changes), str(settings.api_key_file)):
            assert any(path.startswith(target) for target in targets), path
    assert runs


def test_the_container_copies_what_there_is() -> None:
    """A file that has moved, and a build that fails."""
    for sources in re.findall(r"^COPY ([^-].*) \S+$", read("Containerfile"), re.MULTILINE):
        for source in sources.split():
            assert (DEPLOY.parents[1] / source).exists(), source


def test_the_health_check_fails_where_a_model_does_not_answer() -> None:
    """A check that a server which is not ready passes as well."""
    from fakes.llm_server import Reply, serve

    command = re.search(r"CMD (\[\"python\", \"-c\".*\])", read("Containerfile"))
    assert command is not None
    source = json.loads(command[1])[2]
    with serve(lambda prompt: Reply("")) as server:  # it answers to POST alone: 501 to this
        own = source.replace("http://127.0.0.1:8080", server.url.removesuffix("/v1"))
        with pytest.raises(OSError, match="501"):
            exec(own, {})


def test_compose_embeds_into_milvus_and_serves_it() -> None:
    """Commands of last year; a volume, network or secret that is not declared."""
    file = yaml.safe_load(read("compose.yaml"))
    services = file["services"]
    embed, serve = services["embed"], services["serve"]
    written = parsed([*embed["entrypoint"], *embed["command"]])
    served = parsed([*instruction("ENTRYPOINT"), *serve["command"]])
    assert written.index.startswith("milvus:http://milvus:")
    assert served.index == (str(written.out),)
    assert served.api_key_file.name in {*serve["secrets"]} & {*file["secrets"]}
    for service in services.values():
        named = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        assert {name for name in named if not name.startswith(".")} <= {*file["volumes"]}
        assert {*service["networks"]} <= {*file["networks"]}
    build = serve["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Containerfile")
    for name in build["args"]:
        assert f"ARG {name}=" in read("Containerfile")
    assert "milvus" in build["args"]["EXTRAS"]
    assert all(port.startswith("127.0.0.1:") for port in serve["ports"])


def unit() -> dict[str, list[str]]:
    """Return the values of the unit's settings."""
    settings: dict[str, list[str]] = {}
    for line in read("retrodistill.service").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings.setdefault(name, []).append(value)
    return settings


def test_the_unit_starts_a_server_of_this_machine() -> None:
    """A flag that was renamed, or a key that stands in the process list."""
    settings = unit()
    config = parsed(shlex.split(settings["ExecStart"][0]))
    assert config.host == "127.0.0.1"
    assert str(config.api_key_file) == "%d/keys"
    assert settings["LoadCredential"][0].startswith("keys:")
    assert f"127.0.0.1:{config.port}/readyz" in settings["ExecStartPost"][0]
    assert "-HUP" in settings["ExecReload"][0]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """A misspelled setting, which systemd ignores with a warning: the service is not hardened."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    file = tmp_path / "retrodistill.service"
    text = read("retrodistill.service")
    for program in re.findall(r"^Exec\w+=(\S+)", text, re.MULTILINE):  # not of this machine
        text = text.replace(program, "/bin/sh")
    file.write_text(text)
    verified = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
    if "Failed to" in verified.stderr:
        pytest.skip(f"systemd-analyze does not run here: {verified.stderr}")
    assert (verified.returncode, verified.stderr) == (0, "")


def test_alerts_name_what_the_server_counts() -> None:
    """An alert for a number that there is no more: it never fires."""
    pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")
    from retrodistill.stages.serving.batching import Admission
    from retrodistill.stages.serving.metrics import Metrics

    metrics = Metrics(Admission(10))
    metrics.requests.labels("/search", "200").inc()
    metrics.seconds.labels("/search").observe(0.1)
    for histogram in (metrics.batch_inputs, metrics.batch_size, metrics.batch_seconds):
        histogram.labels("kl encode").observe(1)
    counted = metrics.text().decode()
    rules = yaml.safe_load(read("alerts.yml"))["groups"][0]["rules"]
    jobs = [job["job_name"] for job in yaml.safe_load(read("prometheus.yml"))["scrape_configs"]]
    for rule in rules:
        for name in re.findall(r"\bretrodistill_\w+", rule["expr"]):
            assert re.search(rf"^{name}[{{ ]", counted, re.MULTILINE), name
        for job in re.findall(r'job="([^"]*)"', rule["expr"]):
            assert job in jobs
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_the_proxy_lets_the_server_speak() -> None:
    """A proxy that cuts a body or an answer off before the server's own limit says why."""
    from retrodistill.base.config.search import parse_bytes
    from retrodistill.base.config.serve import LOOPBACK, ServeConfig

    text, config = read("nginx.conf"), ServeConfig(index=("kl",))
    body = re.search(r"client_max_body_size (\d+)m;", text)
    seconds = re.search(r"proxy_read_timeout (\d+)s;", text)
    host = re.search(r"proxy_set_header Host (\S+);", text)
    assert body is not None
    assert seconds is not None
    assert host is not None
    assert int(body[1]) << 20 >= parse_bytes(config.body)
    assert int(seconds[1]) > config.timeout
    assert host[1] in LOOPBACK
    assert f"server 127.0.0.1:{config.port};" in text
