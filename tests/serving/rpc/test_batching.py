"""Small requests that share runs, and streams computed ahead, on real engines."""

import asyncio
import time
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgan.serving.config.settings import ServerSettings
from bgan.serving.errors import DeadlinePassedError
from bgan.serving.models.engine import RUN_ROWS, load_engine
from bgan.serving.models.noise import ImageRange
from bgan.serving.rpc import batching
from bgan.serving.rpc.batching import MAX_SHARED_IMAGES, DynamicBatcher, Prefetcher
from bgan.serving.rpc.pool import FairPool, in_one_step
from bgan.serving.rpc.stream_plan import plan_stream
from bgan.v1 import sampling_pb2

laws = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NEVER = 3600  # seconds
small_ranges = st.builds(
    ImageRange,
    seed=st.integers(0, 2**63 - 1),
    first_index=st.integers(0, 2**63 - 100),
    count=st.integers(1, MAX_SHARED_IMAGES),
)


def _counting(engine):
    """The engine, which from now on keeps what it was asked for."""
    engine.runs, engine.computed = [], 0
    sample_ranges, sample_in_steps = engine.sample_ranges, engine.sample_in_steps

    def counting_ranges(ranges):
        engine.runs.append(list(ranges))
        return sample_ranges(ranges)

    def counting(seed, first_index, count, *options):
        engine.computed += count
        return sample_in_steps(seed, first_index, count, *options)

    engine.sample_ranges, engine.sample_in_steps = counting_ranges, counting
    return engine


@contextmanager
def _pool():
    pool = FairPool(1)
    try:
        yield pool
    finally:
        pool.shutdown()


@pytest.fixture(scope="module")
def engines(models):
    return {name: _counting(load_engine(models / f"{name}.onnx")) for name in ("mlp-dbn", "mlp-sbn", "cnn-sbn")}


@pytest.fixture(params=["on the loop", "in a thread"])
def make_batcher(request):
    with _pool() as pool:

        def make(engine, **options):
            engine.seconds_per_image = 1e-9 if request.param == "on the loop" else 1.0
            return DynamicBatcher(engine, pool, **options)

        yield make


async def _sample(batcher, images):
    with _open(batcher):
        answer = await batcher.sample(images)
        await asyncio.sleep(0)  # sending it takes a turn of the loop at the least
        return answer.packed_images


@contextmanager
def _open(batcher):
    batcher.begin_call()
    try:
        yield
    finally:
        batcher.end_call()


async def _sample_all(batcher, ranges):
    return await asyncio.gather(*[_sample(batcher, images) for images in ranges])


@pytest.mark.parametrize("name", ["mlp-dbn", "mlp-sbn", "cnn-sbn"])
@laws
@given(ranges=st.lists(small_ranges, min_size=1, max_size=30))
def test_each_caller_gets_the_bits_it_would_get_alone(engines, make_batcher, name, ranges):
    engine = engines[name]
    answers = asyncio.run(_sample_all(make_batcher(engine), ranges))
    alone = [engine.sample(each.seed, each.first_index, each.count).packed_images for each in ranges]
    assert answers == alone


def test_callers_share_runs_of_bounded_size(engines, make_batcher):
    """The timer never comes: the runs are made when all callers but the first, who knew of no other, wait."""
    engine = engines["mlp-dbn"]
    engine.runs.clear()
    ranges = [ImageRange(seed, 5, 7) for seed in range(100)]

    async def sample_all():
        batcher = make_batcher(engine, delay_seconds=NEVER)
        tasks = [asyncio.create_task(_sample(batcher, images)) for images in ranges]
        await asyncio.sleep(0)  # each has asked for its images
        batcher.run_waiting()
        await asyncio.gather(*tasks)

    asyncio.run(sample_all())
    assert [images for run in engine.runs for images in run] == ranges
    others = -(-99 // (RUN_ROWS // 7))
    assert len(engine.runs) == 1 + others
    assert max(sum(images.count for images in run) for run in engine.runs) <= RUN_ROWS


def test_a_caller_alone_waits_for_nobody(engines, make_batcher):
    engine = engines["mlp-dbn"]
    engine.runs.clear()

    async def one_after_the_other():
        batcher = make_batcher(engine)
        timers = set()
        for seed in range(5):
            await _sample(batcher, ImageRange(seed, 0, 1))
            timers.add(batcher._timer)
        return timers

    assert asyncio.run(one_after_the_other()) == {None}
    assert [len(run) for run in engine.runs] == [1] * 5


def test_open_calls_are_waited_for_but_not_for_long(engines, make_batcher):
    engine = engines["mlp-dbn"]
    engine.runs.clear()

    async def beside_an_open_call():
        batcher = make_batcher(engine)
        with _open(batcher):  # its answer is being sent, and it never ends
            return await asyncio.wait_for(_sample(batcher, ImageRange(1, 0, 1)), 30)

    assert len(asyncio.run(beside_an_open_call())) == engine.packed_bytes


def test_callers_who_leave_are_passed_over(engines, make_batcher):
    engine = engines["mlp-dbn"]
    engine.runs.clear()

    async def leave():
        batcher = make_batcher(engine)
        tasks = [asyncio.create_task(_sample(batcher, ImageRange(seed, 0, 1))) for seed in range(6)]
        await asyncio.sleep(0)
        for task in tasks[1:5]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(leave())
    assert [type(answer) for answer in answers] == [bytes, *[asyncio.CancelledError] * 4, bytes]
    assert [images.seed for run in engine.runs for images in run] == [0, 5]


def test_when_all_leave_nothing_is_run_and_the_next_caller_is_served(engines, make_batcher):
    engine = engines["mlp-dbn"]
    engine.runs.clear()

    async def leave():
        batcher = make_batcher(engine, delay_seconds=NEVER)
        with _open(batcher):  # so the next caller waits for company
            task = asyncio.create_task(_sample(batcher, ImageRange(1, 0, 1)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            batcher.run_waiting()
            task = asyncio.create_task(_sample(batcher, ImageRange(2, 0, 1)))
            await asyncio.sleep(0)
            batcher.run_waiting()
            return await task

    assert asyncio.run(leave()) == engine.sample(2, 0, 1).packed_images
    assert [images.seed for run in engine.runs for images in run] == [2]


def test_a_run_that_fails_fails_its_callers_and_no_others(engines, make_batcher, monkeypatch):
    engine = engines["mlp-dbn"]

    async def fail_once():
        batcher = make_batcher(engine)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "sample_ranges", lambda ranges: 1 / 0)
            failed = await asyncio.gather(
                *[_sample(batcher, ImageRange(seed, 0, 1)) for seed in range(3)], return_exceptions=True
            )
        return failed, await _sample(batcher, ImageRange(1, 0, 1))

    failed, answer = asyncio.run(fail_once())
    assert [type(error) for error in failed] == [ZeroDivisionError] * 3
    assert answer == engine.sample(1, 0, 1).packed_images


def test_only_small_requests_of_models_with_independent_rows_are_shared(engines):
    engine = engines["mlp-dbn"]
    batcher = DynamicBatcher(engine, None)
    assert batcher.takes(MAX_SHARED_IMAGES)
    assert not batcher.takes(MAX_SHARED_IMAGES + 1)
    engine.tile_rows = 64
    try:
        assert not batcher.takes(1)
        with pytest.raises(ValueError, match="depend on each other"):
            engine.sample_ranges([ImageRange(1, 0, 1)])
    finally:
        engine.tile_rows = None


def test_streams_that_nobody_reads_compute_little(engines):
    """Forty streams of 400 kB batches: one each, and 16 MiB of batches ahead for all together."""
    engine = engines["mlp-dbn"]
    engine.computed = 0
    request = sampling_pb2.SampleBinaryImagesRequest(image_count=10**9, seed=1, batch_size=4096)
    plan = plan_stream(request, engine, ServerSettings())

    async def open_and_wait(pool):
        prefetcher = Prefetcher(pool, batches=9)
        streams = [prefetcher.begin(plan) for _ in range(40)]
        for stream in streams:
            await anext(stream)
        await pool.run((), in_one_step(lambda: None))  # all that is ordered before is computed
        for stream in streams:
            stream.close()
        return prefetcher.bytes_left

    with _pool() as pool:
        assert asyncio.run(open_and_wait(pool)) == 16 * 1024 * 1024
    sent = 40
    ahead = 40 + 16 * 1024 * 1024 // plan.batch_bytes
    assert engine.computed // 4096 <= sent + ahead


def test_a_callers_streams_wait_for_each_other_beyond_what_he_may_hold(engines, monkeypatch):
    engine = engines["mlp-dbn"]
    request = sampling_pb2.SampleBinaryImagesRequest(image_count=10**6, seed=1, batch_size=100)
    plan = plan_stream(request, engine, ServerSettings())
    monkeypatch.setattr(batching, "_FEW_BYTES", 0)
    monkeypatch.setattr(batching, "MAX_BYTES_OF_CALLER", 3 * plan.batch_bytes)

    async def open_and_read(pool):
        prefetcher = Prefetcher(pool, batches=1)
        streams = [prefetcher.begin(plan, ("greedy", number)) for number in range(5)]
        for stream in streams[:3]:
            await anext(stream)
        fourth = asyncio.ensure_future(anext(streams[3]))
        assert (await anext(prefetcher.begin(plan, ("modest", 9)))).image_count == 100
        assert prefetcher.room._held["greedy",] == 3 * plan.batch_bytes
        assert not fourth.done()
        streams[0].close()  # its reader has gone
        await fourth
        fifth = asyncio.ensure_future(anext(streams[4]))
        second = await anext(streams[1])  # its reader took the first message
        assert second.first_index == 100
        fifth.cancel()
        await asyncio.gather(fifth, return_exceptions=True)
        for stream in streams:
            stream.close()
        assert "greedy" not in {who[0] for who in prefetcher.room._held}

    with _pool() as pool:
        asyncio.run(open_and_read(pool))


def test_requests_that_share_a_run_are_taken_from_callers_in_turn(engines):
    engine = engines["mlp-dbn"]
    engine.runs.clear()

    async def sample(batcher, images, who):
        with _open(batcher):
            await batcher.sample(images, who)

    async def sample_all(pool):
        engine.seconds_per_image = 1.0  # so a run is not made on the loop, at once
        batcher = DynamicBatcher(engine, pool, delay_seconds=NEVER)
        tasks = [
            asyncio.create_task(sample(batcher, ImageRange(seed, 0, 16), ("greedy", "1"))) for seed in range(100)
        ]
        tasks.append(asyncio.create_task(sample(batcher, ImageRange(1000, 0, 16), ("modest", "2"))))
        await asyncio.sleep(0)
        batcher.run_waiting()
        await asyncio.gather(*tasks)

    with _pool() as pool:
        asyncio.run(sample_all(pool))
    place = next(place for place, run in enumerate(engine.runs) if 1000 in [images.seed for images in run])
    assert place <= 2  # those before were run at once, when there was no other caller
    assert len(engine.runs) > 10


def test_nothing_is_computed_for_a_caller_whose_deadline_is_past(engines):
    engine = engines["mlp-dbn"]
    engine.computed = 0
    request = sampling_pb2.SampleBinaryImagesRequest(image_count=10**6, seed=1)

    async def read(pool):
        plan = plan_stream(request, engine, ServerSettings(), deadline=time.monotonic() - 0.001)
        await anext(Prefetcher(pool, batches=3).begin(plan))

    with _pool() as pool, pytest.raises(DeadlinePassedError):
        asyncio.run(read(pool))
    assert engine.computed == 0


def test_the_servers_own_batches_begin_small(engines):
    request = sampling_pb2.SampleBinaryImagesRequest(image_count=8000, seed=1, first_index=3)
    plan = plan_stream(request, engines["mlp-dbn"], ServerSettings())
    counts = [128, 256, 512, 1024, 2048, 2560, 1472]
    assert list(plan.batches()) == [(3 + sum(counts[:place]), count) for place, count in enumerate(counts)]
    request.include_probabilities = True  # 33 times the bytes
    plan = plan_stream(request, engines["mlp-dbn"], ServerSettings())
    assert [count for _, count in plan.batches()] == [81] * 98 + [62]
