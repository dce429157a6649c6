"""The last moment of a process that is to stop: it ends, whatever it waits for."""

import signal
import subprocess
import sys
import textwrap

import pytest

_START = """
    import asyncio, ctypes, logging, signal, time
    from bgan.serving.server.stop import Stop
    from bgan.serving.telemetry.logs import writing_log

    async def main():
        with Stop(signal.SIGTERM, seconds=SECONDS) as stop:
            print("ready", flush=True)
"""


# On a busy machine the system may be first, or the log not done within the tenth of a second that it has.
_BY_FORCE = (1, -signal.SIGALRM)
_TRIES = 5


def _start(body, *, seconds=0.2, **options):
    """A process of its own, whose main coroutine goes on with a body."""
    start = textwrap.dedent(_START).replace("SECONDS", str(seconds))
    code = start + textwrap.indent(textwrap.dedent(body), " " * 8)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nwith writing_log('text'):\n    asyncio.run(main())"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_that_stops_in_time_ends_as_it_likes():
    with _start("await stop.wait()", seconds=50) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("await asyncio.Event().wait()", id="waits"),
        pytest.param("while True: pass", id="spins"),
        pytest.param(
            """
            await stop.wait()
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)
            """,
            id="joins a thread",
        ),
        pytest.param(
            """
            while True:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    pass
            """,
            id="is not to be cancelled",
        ),
    ],
)
def test_a_process_that_does_not_stop_is_ended_with_an_error(body):
    for _ in range(_TRIES):
        with _start(body) as process:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in _BY_FORCE
            if lines := process.stderr.read().splitlines():
                break
    (line,) = lines
    assert "ERROR still not stopped after 0.2 s; the process ends as it is" in line


def test_a_process_that_writes_to_a_log_that_nobody_reads_is_ended():
    with _start("while True: logging.error('x' * 65536)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in _BY_FORCE


def test_a_process_in_which_no_python_runs_is_ended_by_the_system():
    # PyDLL calls while it holds the interpreter's lock.
    with _start("stop.begin(); ctypes.PyDLL(None).sleep(1000)") as process:
        assert process.wait(60) == -signal.SIGALRM
