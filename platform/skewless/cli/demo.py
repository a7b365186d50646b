"""The shipped example from source files to a comparison of live and offline predictions, step by step."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from skewless.adapters.gateway_client import GatewayClient
from skewless.bundles.bundle import Bundle
from skewless.cli.arguments import actor
from skewless.cli.demo_report import period_text, summarise
from skewless.cli.demo_state import (
    ReplayRecord,
    load_state,
    record_of,
    replay_work,
    sources_work,
    training_work,
)
from skewless.cli.deployments import opened_deployment
from skewless.cli.materialize_run import materialize_at
from skewless.cli.model_commands import describe
from skewless.cli.output import say, step
from skewless.cli.workspace import Workspace
from skewless.dtypes import Dtype
from skewless.errors import Conflict, InvalidDefinition, InvalidRequest, NotFound, Unavailable
from skewless.features.contract import FeatureContract
from skewless.registry.deployment import Change
from skewless.registry.repository import system_clock
from skewless.settings import StackSettings
from skewless.simulation.example import Example
from skewless.simulation.replay import FeatureFeed, Replay, replay
from skewless.simulation.summary import Summary
from skewless.stack import control
from skewless.stack.state import StackState, read_state
from skewless.timestamps import Micros, format_timestamp
from skewless.training.definition import Period
from skewless.training.examples import Examples

ROUTE_TIMEOUT_S = 60.0
"""A gateway follows a route within 2 s; loading and verifying the model comes on top."""
_POLL_S = 0.1


class Demo:
    """One run of the example of a workspace's repository."""

    def __init__(self, workspace: Workspace, stack: StackSettings, *, until: Micros | None) -> None:
        self._workspace = workspace
        self._stack_settings = stack.model_copy(update={"allow_as_of": True})
        self._example = _example(workspace)
        self._period = _period(self._example, until)
        self._state = load_state(workspace.home.root)

    def run(self, *, again: bool) -> Summary:
        """Do every step that is not done yet and summarise; `again` replays even where that was done."""
        say(self._example.title)
        self._start_stack()
        self._build_sources()
        with step("Registering feature definitions") as progress:
            applied = self._workspace.apply()
            progress.note(f"{len(applied.entities)} entities, {len(applied.feature_views)} feature views")
        contract = self._workspace.contract(self._example.model)
        bundle = self._trained(contract)
        self._serve(bundle)
        record = self._replayed(bundle, again=again)
        return summarise(
            self._workspace,
            self._example,
            bundle,
            self._period,
            record,
            offline=self._workspace.offline(self._example.model),
        )

    def _start_stack(self) -> StackState:
        running = read_state(self._workspace.home)
        if running is not None and not running.allow_as_of:
            raise Conflict(
                "the stack is up, but its gateway does not let requests choose their own time, as a replay must",
                hint="stop it with `skewless down` and run the demo again, which starts it as needed",
            )
        if running is not None:
            say(f"Using the stack that is up since {format_timestamp(running.started)}")
            return running
        if not self._stack_settings.runs_triton:
            say("Models run in the gateway itself: no Triton is started here (see SKEWLESS_STACK_MODEL_SERVER)")
        servers = "Valkey, Triton" if self._stack_settings.runs_triton else "Valkey"
        with step(f"Starting {servers} and the gateway") as progress:
            state = control.start_detached(self._workspace.settings, self._stack_settings, progress.note)
            progress.note(f"gateway on {state.gateway_url}")
        return state

    def _build_sources(self) -> None:
        work = sources_work(self._workspace.settings.repo)
        folder = self._workspace.settings.data_folder
        if self._state.sources == work and (folder / self._example.model.examples.path).is_file():
            say(f"Using the source tables in {_relative(folder)}")
            return
        folder.mkdir(parents=True, exist_ok=True)
        with step("Building source tables") as progress:
            report = self._example.build_sources(folder, progress.note)
            progress.note(f"Parquet files in {_relative(folder)}")
        for line in str(report).splitlines():
            say(f"       {line}")
        self._state.sources = work
        self._state.save()

    def _trained(self, contract: FeatureContract) -> Bundle:
        definition = self._example.model
        work = training_work(self._state.sources, definition, contract)
        if self._state.training == work:
            try:
                bundle = self._workspace.bundle(self._state.bundle)
            except NotFound:
                say("The bundle of the last demo is gone; training again")
            else:
                say(f"Using bundle {bundle.digest[:12]} of {definition.name}")
                return bundle
        with step(f"Training {definition.name}") as progress:
            training = self._workspace.train(definition, progress.note)
            progress.note(describe(training))
        self._state.training, self._state.bundle = work, training.digest
        self._state.save()
        return self._workspace.bundle(training.digest)

    def _serve(self, bundle: Bundle) -> None:
        name = self._example.endpoint
        change = Change(actor(), "demo", skip_parity="the demo writes the online store after this")
        with step(f"Serving on endpoint {name}") as progress:
            with opened_deployment(self._workspace) as deployment:
                try:
                    deployment.registry.endpoint(name)
                except NotFound:
                    deployment.create_endpoint(
                        name, bundle=bundle.digest, description=self._example.title, change=change
                    )
                else:
                    deployment.promote(name, change, bundle=bundle.digest)
            asyncio.run(self._wait_until_served(bundle))
            place = "through Triton" if self._stack_settings.runs_triton else "from the gateway itself"
            progress.note(f"bundle {bundle.digest[:12]} answers {place}")

    async def _wait_until_served(self, bundle: Bundle) -> None:
        give_up = time.monotonic() + ROUTE_TIMEOUT_S
        async with self._client(bundle) as client:
            while True:
                try:
                    described = await client.describe()
                    seen = f"it serves bundle {described['bundle'][:12]}"
                    if described["bundle"] == bundle.digest:
                        return
                except (Unavailable, InvalidRequest) as refusal:
                    seen = refusal.message
                if time.monotonic() > give_up:
                    raise Unavailable(
                        "gateway",
                        f"endpoint `{self._example.endpoint}` does not serve bundle {bundle.digest[:12]}: {seen}",
                        hint="run `skewless doctor`",
                    )
                await asyncio.sleep(_POLL_S)

    def _client(self, bundle: Bundle) -> GatewayClient:
        timestamps = frozenset(name for name, dtype in bundle.contract.columns if dtype is Dtype.TIMESTAMP)
        return GatewayClient(
            self._workspace.gateway_url,
            self._example.endpoint,
            timestamp_fields=timestamps,
            label_names=(bundle.post.labels.negative, bundle.post.labels.positive),
        )

    def _replayed(self, bundle: Bundle, *, again: bool) -> ReplayRecord:
        work = replay_work(bundle.digest, self._example.endpoint, self._period.start, self._period.end)
        done = self._state.replay
        if done is not None and done.work == work and not again:
            say(f"Using the replay of {period_text(self._period)} that is already in the prediction log")
            return done
        self._state.replay = None
        self._state.save()
        # Rows that became known exactly at the start belong to the replay's first moment; all before, to this.
        materialize_at(self._workspace, self._period.start - 1, reset=True)
        with step("Reading the questions to replay") as progress:
            feed, examples = self._feed_and_examples(bundle.contract)
            progress.note(f"{examples.rows:,} questions")
        started = system_clock()
        with step(f"Replaying {period_text(self._period)} as live traffic", total=examples.rows) as progress:
            result = asyncio.run(self._replay(bundle, feed, examples, progress.update))
            progress.note(
                f"{len(result.prediction_ids):,} predictions, {result.feature_rows:,} feature rows, "
                f"{result.outcomes:,} outcomes"
            )
        record = record_of(result, work, started)
        self._state.replay = record
        self._state.save()
        return record

    def _feed_and_examples(self, contract: FeatureContract) -> tuple[FeatureFeed, Examples]:
        from skewless.adapters.feast_feed import FeastFeed

        offline = self._workspace.offline(self._example.model)
        feed = FeastFeed(self._workspace.features(), contract, offline.sources, self._period)
        return feed, offline.examples(self._example.model.examples, contract, self._period)

    async def _replay(
        self, bundle: Bundle, feed: FeatureFeed, examples: Examples, progress: Callable[[int, int], None]
    ) -> Replay:
        async with self._client(bundle) as client:
            return await replay(examples, feed, client, progress)


def _example(workspace: Workspace) -> Example:
    module = workspace.definitions("example")
    example = getattr(module, "EXAMPLE", None)
    if not isinstance(example, Example):
        raise InvalidDefinition(
            f"module `{module.__name__}` has no `EXAMPLE`",
            hint="define EXAMPLE = skewless.simulation.example.Example(…) there",
        )
    return example


def _period(example: Example, until: Micros | None) -> Period:
    if until is not None and until <= example.replay_start:
        raise InvalidRequest(
            f"the replay cannot end at {format_timestamp(until)}",
            path="--until",
            allowed=f"a moment after its start, {format_timestamp(example.replay_start)}",
        )
    return Period(example.replay_start, example.replay_until if until is None else until)


def _relative(folder: Path) -> str:
    """A folder as a reader would type it from here."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
