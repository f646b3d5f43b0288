"""The simulated caller against programs that others wrote: sipp's echo, and baresip's telephone."""

from __future__ import annotations

import math
import shutil
import socket
import struct
import subprocess
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.simulate.server import WORDS
from voiced.simulate.script import (
    Hold,
    Pause,
    Press,
    Resume,
    Say,
    Script,
    WaitForAgentSpeech,
    WaitForHangUp,
)
from voiced.simulate.sip_caller import call

pytestmark = pytest.mark.interop

STARTS_S = 10.0
BARESIP = """\
poll_method epoll
sip_listen 127.0.0.1:{port}
call_local_timeout 120
audio_source aufile,{folder}/tone.wav
audio_player aufile,{folder}/heard.wav
audio_alert aufile,/dev/null
jitter_buffer_type fixed
jitter_buffer_delay 1-5
net_interface 127.0.0.1
module_path /usr/lib/baresip/modules
module g711.so
module aufile.so
module uuid.so
module_tmp account.so
module_app menu.so
module_app debug_cmd.so
"""
ACCOUNT = "<sip:agent@127.0.0.1:{port}>;regint=0;answermode=auto;audio_codecs=PCMA,PCMU\n"


def program(name: str, package: str) -> str:
    """Its path; a peer that is missing is a failure."""
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: apt-get install {package}"
    return path


def free_port(room: int = 1) -> int:
    """A UDP port that nobody has, with as many free ones above it; even."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1]) & ~1
        try:
            for number in range(port, port + room):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[Path]:
    """A peer, once it has its SIP port; its log stays in the folder."""
    log = folder / "peer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        for _ in range(int(STARTS_S / 0.05)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    break
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(log.read_text("utf-8", "replace"))
        yield log
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_sipp_echoes_what_we_say(tmp_path: Path) -> None:
    port, media = free_port(), free_port(8)
    command = [program("sipp", "sip-tester"), "-sn", "uas", "-i", "127.0.0.1", "-p", str(port)]
    command += ["-mi", "127.0.0.1", "-mp", str(media), "-rtp_echo", "-nostdin", "-m", "1"]
    script = Script("echo", "", (Pause(200), Say(WORDS), Pause(300)))
    with running(command, tmp_path, port):
        uri = f"sip:echo@127.0.0.1:{port}"
        result = trio.run(partial(call, script, uri=uri, deadline_s=20))
    assert (result.failure, result.violations) == (None, ())
    assert result.sip is not None
    assert result.rtp is not None
    assert (result.sip.status, result.sip.codec, result.sip.ended) == (200, "PCMU", "BYE")
    assert result.sip.ringing_ms is not None
    assert (result.rtp.lost, result.rtp.duplicated, result.rtp.sources) == (0, 0, 1)
    assert result.rtp.received == pytest.approx(result.rtp.sent, abs=3)
    echo = result.rtp.echo_ms
    assert echo is not None
    assert echo.n > 20
    assert 0 < echo.p50 < 20  # no frame of ours comes back before it was sent
    # What is heard is what was said, a packet later at the most.
    (heard,) = result.agent
    (said,) = result.caller
    assert heard.start_ms == pytest.approx(said.start_ms + 20, abs=20)


@pytest.fixture(scope="module")
def telephone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("baresip")
    port = free_port(2)
    with wave.open(str(folder / "tone.wav"), "wb") as tone:
        tone.setparams((1, 2, 8000, 0, "NONE", ""))
        samples = (round(8000 * math.sin(0.3 * at)) for at in range(8000 * 6))
        tone.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    (folder / "config").write_text(BARESIP.format(port=port, folder=folder))
    (folder / "accounts").write_text(ACCOUNT.format(port=port))
    command = [program("baresip", "baresip-core"), "-f", str(folder), "-v"]
    with running(command, folder, port) as log:
        yield port, log


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_baresip_answers_holds_and_hears_keys(telephone: tuple[int, Path], transport: str) -> None:
    port, log = telephone
    steps = (WaitForAgentSpeech(300), Press("7"), Pause(400), Hold(), Pause(600), Resume())
    script = Script("telephone", "", (*steps, WaitForAgentSpeech(300)))
    before = len(log.read_text("utf-8", "replace"))
    uri = f"sip:agent@127.0.0.1:{port};transport={transport}"
    result = trio.run(partial(call, script, uri=uri, deadline_s=20))
    # baresip opens the way for its RTCP with a packet that RFC 3550 does not allow.
    assert {each.text.partition(":")[0] for each in result.violations} <= {"RTCP"}
    assert result.failure is None
    assert result.sip is not None
    assert result.rtp is not None
    assert (result.sip.codec, result.sip.ended) == ("PCMU", "BYE")
    assert (result.rtp.lost, result.rtp.unexpected) == (0, 0)
    # It is silent while it is held.
    assert result.rtp.received < (result.duration_ms - 500) / 20
    said = log.read_text("utf-8", "replace")[before:]
    assert said.count("re-INVITE") == 2


def test_baresip_hangs_up_at_the_end_of_its_file(telephone: tuple[int, Path]) -> None:
    port, _ = telephone
    script = Script("patient", "", (WaitForHangUp(timeout_s=15),))
    uri = f"sip:agent@127.0.0.1:{port}"
    result = trio.run(partial(call, script, uri=uri, codecs=("pcma",), deadline_s=25))
    assert (result.failure, result.ended_by) == (None, "agent")
    assert result.sip is not None
    assert result.sip.codec == "PCMA"
    assert result.duration_ms == pytest.approx(6000, abs=1500)
