"""One process that answers HTTP with the models of all presets."""

import concurrent.futures
import dataclasses
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from keras_bridgetower.apps.serve.application import application
from keras_bridgetower.apps.serve.application import service_of
from keras_bridgetower.apps.serve.batching import BatchedPreset
from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.decoders import decoders_for
from keras_bridgetower.apps.serve.loading import opened_preset
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Plan


@dataclasses.dataclass
class Worker:
    """Makes the application in the process of a worker.

    Args:
        plan: `Plan`.
        load: callable without arguments that imports the package.
        failed: queue of processes, which gets the words of an error that
            loading ended with.
        failure: int, the exit code of a process that could not load.
    """

    plan: Plan
    load: Callable
    failed: Any
    failure: int

    def __call__(self):
        threading.Thread(target=_end_with_parent, daemon=True).start()
        # Until it can answer, it ends at once when it is told to stop.
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            self.load()
            presets = self._presets()
        except Exception as error:
            self.failed.put(str(error))
            sys.exit(self.failure)
        signal.signal(signal.SIGTERM, before)
        # What is loaded stays: collecting garbage need not look at it again.
        gc.freeze()
        return local_application(self.plan, presets, os.environ.get(KEY))

    def _presets(self):
        plan, searched = self.plan, self.plan.searched()
        thread = concurrent.futures.ThreadPoolExecutor(1)
        # They import what they need while the presets are loaded.
        decoders = Decoders(plan.limits, decoders_for(plan.replicas))
        presets = {}
        for preset, name in zip(plan.presets, plan.names(), strict=True):
            store = plan.store if name == searched else None
            presets[name] = BatchedPreset(
                *opened_preset(preset, plan.limits, plan.tokens, store),
                plan.limits,
                thread,
                decoders,
            )
        return presets


def local_application(plan, presets, key=None):
    """The application around models in the same process.

    Args:
        plan: `Plan`.
        presets: dict of `BatchedPreset` by name, in the order of the plan.
        key: str, the API key that clients must send, or None.

    Returns:
        `Admission`, an ASGI application.
    """

    async def ask(name, verb, asked):
        return await presets[name].ask(verb, asked)

    async def missing():
        # They are loaded before anything is answered.
        return []

    facts = [preset.facts() for preset in presets.values()]
    searching = [x.find for x in presets.values() if x.has_index]
    find = searching[0] if searching else None
    service = service_of(plan, facts, ask, missing, find)
    return application(service, key, plan.allowed_hosts)


def _end_with_parent():
    """Stop as if told to, where the supervisor is killed."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
