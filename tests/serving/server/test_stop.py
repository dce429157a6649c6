"""The last moment of a process that is to stop: it ends, whatever it waits for."""

import signal
import subprocess
import sys
import textwrap

import pytest

_START = """
    import asyncio, ctypes, logging, signal, threading, time
    from bgan.serving.server import stop as stopping
    from bgan.serving.server.stop import Stop
    from bgan.serving.telemetry.logs import writing_log

    stopping._SECONDS_TO_LOG = SECONDS_TO_LOG

    async def main():
        with Stop(signal.SIGTERM, seconds=SECONDS) as stop:
            print("ready", flush=True)
"""


# On a busy machine the system may be first.
_BY_FORCE = (1, -signal.SIGALRM)


def _start(body, *, seconds=0.2, seconds_to_log=0.1, **options):
    """A process of its own, whose main coroutine goes on with a body.

    seconds_to_log: what its last line may take; a busy machine may take longer than the tenth that it has.
    """
    start = _START.replace("= SECONDS_TO_LOG", f"= {seconds_to_log}").replace("=SECONDS)", f"={seconds})")
    start = textwrap.dedent(start)
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
    ("wait", "seconds", "codes"),
    [
        pytest.param("stop.wait()", 50, [0], id="in time"),
        pytest.param("asyncio.Event().wait()", 0.2, _BY_FORCE, id="late"),
    ],
)
def test_a_signal_that_does_not_wake_the_main_thread_begins_the_stop(wait, seconds, codes):
    """As one does that comes between Python's last look for signals and the wait of the event loop."""
    body = f"""
    def send():
        time.sleep(0.5)  # the main thread waits by then
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    threading.Thread(target=send).start()
    await {wait}
    """
    with _start(body, seconds=seconds) as process:
        assert process.wait(60) in codes


def test_a_signal_of_another_kind_does_not_begin_the_stop():
    body = """
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.raise_signal(signal.SIGUSR1)
    await asyncio.wait_for(stop.wait(), 0.5)
    """
    with _start(body, seconds=50) as process:
        assert process.wait(60) == 1
        assert process.stderr.read().endswith("TimeoutError\n")


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
    with _start(body, seconds_to_log=2) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in _BY_FORCE
        lines = process.stderr.read().splitlines()
        assert len(lines) == 1 or process.returncode != 1
        assert all("ERROR still not stopped after 0.2 s; the process ends as it is" in line for line in lines)


def test_a_process_that_writes_to_a_log_that_nobody_reads_is_ended():
    with _start("while True: logging.error('x' * 65536)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in _BY_FORCE


def test_a_process_in_which_no_python_runs_is_ended_by_the_system():
    # PyDLL calls while it holds the interpreter's lock.
    with _start("stop.begin(); ctypes.PyDLL(None).sleep(1000)") as process:
        assert process.wait(60) == -signal.SIGALRM
