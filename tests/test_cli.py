"""The `voiced` command: what it prints and how it exits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import voiced
from voiced import cli
from voiced.config import paths

COMMANDS = ["run", "check", "init", "plugins", "config", "demo", "simulate", "emulator"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of this machine has a part in any test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOICED_CONFIG", raising=False)
    monkeypatch.setattr(paths, "DEFAULT_PATH", tmp_path / "none" / "voiced.toml")


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, env=environ, catch_exceptions=False)


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert [name for name in COMMANDS if f"\n  {name} " in result.stdout] == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name} ")


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from voiced.cli import main; main(['--help'], standalone_mode=False); "
        "sys.exit(bool({'trio', 'msgspec', 'voiced.config', 'structlog'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_version() -> None:
    assert run("--version").stdout == f"voiced {voiced.__version__}\n"


def test_an_unknown_command_is_a_usage_error_that_names_the_nearest() -> None:
    result = run("chek")
    assert result.exit_code == 2
    assert "there is no command chek; did you mean check?" in result.stderr
    assert "see voiced --help" in run("xyz").stderr
    assert run("check", "--no-such-option").exit_code == 2


def test_check_says_in_one_line_what_would_run() -> None:
    result = run("check")
    assert (result.exit_code, result.stdout) == (
        0,
        "built-in defaults: ok; http://127.0.0.1:8080 for loopback only, no Twilio auth token; "
        "agents: reception on offline (emulator); numbers: * -> reception; "
        "journal: kept 90 days\n",
    )


def test_check_prints_one_line_for_each_mistake() -> None:
    Path("a.toml").write_text('[daemon]\nmax_call = 1\n[http]\nlisten = "x"\n')
    result = run("check", "-c", "a.toml")
    assert result.exit_code == 1
    assert result.stdout == (
        "a.toml:2: daemon.max_call: unknown key; did you mean max_calls?\n"
        'a.toml:4: http.listen: "x" has no port; '
        'write "127.0.0.1:8080", "0.0.0.0:8080" or "[::]:8080"\n'
    )
    assert run("check", VOICED_CONFIG="a.toml").stdout == result.stdout


def test_check_passes_with_warnings() -> None:
    Path("a.toml").write_text('[http]\nlisten = "0.0.0.0:8080"\n')
    result = run("check", "-c", "a.toml")
    assert result.exit_code == 0
    warning, summary = result.stdout.splitlines()
    assert warning.startswith("warning: a.toml:2: http.listen: others reach this address")
    assert summary.startswith("a.toml: ok; http://0.0.0.0:8080 for ")


def test_check_of_a_missing_file_is_one_line() -> None:
    result = run("check", "-c", "none.toml")
    assert result.exit_code == 1
    assert result.stdout == (
        "none.toml: there is no such file; write one with: voiced init none.toml\n"
    )


def test_config_prints_what_is_in_force_without_secrets() -> None:
    Path("a.toml").write_text(
        '[daemon]\nmax_calls = 7\n[http]\npublic_url = "https://a.example"\n'
        '[twilio]\nauth_token = "very-secret"\n'
    )
    result = run("config", "-c", "a.toml")
    assert result.exit_code == 0
    assert result.stdout.startswith("# from a.toml\n")
    assert "very-secret" not in result.output
    printed = tomllib.loads(result.stdout)
    assert printed["daemon"]["max_calls"] == 7
    assert printed["twilio"]["auth_token"] == "********"
    assert run("config", "-c", "none.toml").exit_code == 1
    assert run("config").stdout.startswith("# no file: these are the defaults\n")


def test_init_writes_a_file_that_passes_check() -> None:
    result = run("init", "new/voiced.toml")
    assert result.exit_code == 0
    assert result.stdout.startswith("wrote new/voiced.toml; next: voiced check -c new/voiced.toml")
    assert run("check", "-c", "new/voiced.toml").exit_code == 0


def test_init_replaces_nothing_without_force() -> None:
    Path("voiced.toml").write_text("mine")
    result = run("init")
    assert result.exit_code == 1
    assert "voiced.toml is there already; replace it with --force" in result.stderr
    assert Path("voiced.toml").read_text() == "mine"
    assert run("init", "--force").exit_code == 0
    assert run("check", "-c", "voiced.toml").exit_code == 0


def test_init_takes_a_folder_and_says_why_it_cannot_write() -> None:
    Path("folder").mkdir()
    assert run("init", "folder").exit_code == 0
    assert Path("folder/voiced.toml").is_file()
    result = run("init", "folder/voiced.toml/deeper")
    assert result.exit_code == 1
    assert "cannot be written: " in result.stderr


def test_run_with_a_mistake_says_so_without_a_traceback() -> None:
    Path("a.toml").write_text("[daemon]\nmax_calls = 0\n")
    command = [sys.executable, "-c", "from voiced.cli import main; main()", "run", "-c", "a.toml"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "a.toml:2: daemon.max_calls: expected a whole number of at least 1, "
        "found the number 0; change it, or remove it for the default\n"
    )


def test_the_emulator_serves_until_it_is_interrupted() -> None:
    command = [sys.executable, "-c", "from voiced.cli import main; main()"]
    command += ["emulator", "--listen", "127.0.0.1:0", "--fault", "late_response_ms=5"]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("listening on ws://127.0.0.1:"), process.stderr.read()
        port = int(line.rpartition(":")[2].partition("/")[0])
        socket.create_connection(("127.0.0.1", port), 5).close()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_the_emulator_says_why_it_cannot_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run("emulator", "--listen", address)
    assert result.exit_code == 1
    assert f"cannot listen on {address}: " in result.stderr
    assert "choose another --listen" in result.stderr


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (("--listen", "8090"), "8090 has no port"),
        (("--fault", "silent"), "silent has no value; write silent=…"),
        (("--fault", "silnt=true"), "did you mean 'silent'?"),
        (("--fault", "close_code=abc"), "fault 'close_code'"),
    ],
)
def test_the_emulator_refuses_impossible_options(option: tuple[str, str], problem: str) -> None:
    result = run("emulator", *option)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_simulate_refuses_impossible_options_and_unreachable_daemons() -> None:
    assert run("simulate", "--script", "none").exit_code == 2
    assert run("simulate", "--calls", "0").exit_code == 2
    assert run("simulate", "--url", "127.0.0.1:1").exit_code == 2
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert run("simulate", "--url", f"http://127.0.0.1:{port}").exit_code == 1


def test_a_demo_that_is_interrupted_says_so() -> None:
    command = [sys.executable, "-u", "-m", "voiced", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it has begun"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.decode() == "voiced demo: interrupted, nothing of it is kept\n"


@pytest.mark.parametrize("mode", [["-X", "utf8=0"], ["-I"], []])
def test_a_locale_whose_names_are_not_utf8(tmp_path: Path, mode: list[str]) -> None:
    """Files are found all the same; who insists on another mode is not asked for ever."""
    file = tmp_path / "ayar_\u0131_\u53d7\u4ed8.toml"
    file.write_text("[daemon]\nmax_calls = 3\n", "utf-8")
    command = [sys.executable, *mode, "-m", "voiced", "check", "-c", str(file)]
    environ = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert b": ok; " in done.stdout


@pytest.mark.parametrize(
    "run",
    ["main(words)", "sys.frozen = True; sys.argv[1:] = words; main()"],
    ids=["host", "frozen"],
)
def test_in_such_a_locale_nobody_elses_process_begins_anew(run: str) -> None:
    """Nor what takes no option of Python's."""
    program = "import sys; print('begun', flush=True); from voiced.cli import main; "
    program += f"words = ['check', '-c', 'none']; {run}"
    environ = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, timeout=60, check=False
    )
    assert done.stdout.count(b"begun") == 1, done.stderr
    assert done.returncode == 1


def test_what_is_piped_and_how_it_ends_outlive_the_new_beginning() -> None:
    program = "import os, sys; print(os.getpid(), flush=True); from voiced.cli import main; main()"
    command = [sys.executable, "-c", program, "check", "-c", "/dev/stdin"]
    environ = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    text = b"[daemon]\nmax_calls = 0\n"
    done = subprocess.run(
        command, input=text, env=environ, capture_output=True, timeout=60, check=False
    )
    first, second, *_ = done.stdout.split()
    assert first == second, "the process that a service manager knows"
    assert done.returncode == 1
    assert b"max_calls" in done.stdout + done.stderr
