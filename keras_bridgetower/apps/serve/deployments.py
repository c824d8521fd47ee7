"""The server as deployments of Ray Serve, on one machine or many.

One deployment answers HTTP, and each preset is one more. Ray Serve starts
their processes again when they die, and divides requests among several.
"""

import asyncio
import concurrent.futures
import functools
import os

from ray import serve
from ray.exceptions import RayActorError
from ray.exceptions import TaskCancelledError
from ray.serve.exceptions import BackPressureError
from ray.serve.exceptions import RayServeException

from keras_bridgetower.apps.serve.application import application
from keras_bridgetower.apps.serve.batching import BatchedPreset
from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.apps.serve.service import service_of
from keras_bridgetower.apps.serve.starting import IMPORTS_LATE
from keras_bridgetower.apps.serve.starting import import_package
from keras_bridgetower.apps.serve.starting import opened_preset

# How often a question is asked whose process has died.
_TRIES = 3
# Seconds in which a preset must say that it can answer.
_READY = 2.0
# Seconds between two looks at whether a stopping process is idle.
_LOOK = 0.1


class PresetReplica(BatchedPreset):
    """One process with the models of one preset.

    Args:
        preset: str.
        limits: `Limits`.
        tokens: int or None, as `ServedPreset`.
        store: str, the index that is searched by these models, or None.
    """

    def __init__(self, preset, limits, tokens=None, store=None):
        import_package()
        super().__init__(
            *opened_preset(preset, limits, tokens, store),
            limits,
            concurrent.futures.ThreadPoolExecutor(1),
            Decoders(limits),
        )

    async def facts(self):
        """What `ServedPreset.facts` returns; it answers when all is warm."""
        return super().facts()


class HttpReplica:
    """One process that answers HTTP and asks the presets.

    Args:
        plan: `Plan`.
        searched: str, the name of the preset that searches, or None.
        *handles: handles of the deployments of its presets, in its order.
    """

    async def __init__(self, plan, searched, *handles):
        self._handles = dict(zip(plan.names(), handles, strict=True))
        facts = await asyncio.gather(*(x.facts.remote() for x in handles))
        find = None
        if plan.store is not None:
            find = functools.partial(
                _asked, self._handles[plan.searched()].find
            )
        service = service_of(plan, facts, self._ask, self._missing, find)
        self._application = application(
            service, os.environ.get(KEY), plan.allowed_hosts
        )

    def __serve_build_asgi_app__(self):
        return self._application

    async def drain(self):
        """Take no more requests, and return when those present are answered."""
        self._application.draining = True
        while self._application.present:
            await asyncio.sleep(_LOOK)

    async def _ask(self, name, verb, asked):
        return await _asked(self._handles[name].ask, verb, asked)

    async def _missing(self):
        """The names of presets that cannot answer now."""
        names = list(self._handles)
        answers = await asyncio.gather(
            *(_answers(handle) for handle in self._handles.values())
        )
        return [
            name
            for name, there in zip(names, answers, strict=True)
            if not there
        ]


async def _asked(method, *arguments):
    """What a deployment answers.

    A question whose process died is asked again: it changes nothing. A
    question whose client has gone is cancelled there too.
    """
    for _ in range(_TRIES):
        response = method.remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except RayActorError:
            continue
        except BackPressureError:
            raise RequestError(
                429, "Too many requests wait here. Try again in a second."
            ) from None
        except (TaskCancelledError, RayServeException):
            # The process of the model was told to stop, or is not there yet.
            break
    raise RequestError(503, "The model cannot answer now. Try again.")


async def _answers(handle):
    try:
        async with asyncio.timeout(_READY):
            await _asked(handle.facts)
    except (TimeoutError, RequestError):
        return False
    return True


def build(arguments):
    """The application that Ray Serve runs.

    A configuration file of Ray Serve names this function, as
    `keras_bridgetower.apps.serve.deployments:build`.

    Args:
        arguments: `Plan`, or a dict of its values, `limits` a dict too.

    Returns:
        An application of Ray Serve.

    Raises:
        ValueError: values that a `Plan` refuses.
    """
    plan = arguments
    if not isinstance(plan, Plan):
        plan = Plan.of(**arguments)
    searched = plan.searched()
    stopping = {
        "graceful_shutdown_wait_loop_s": _LOOK,
        "graceful_shutdown_timeout_s": plan.limits.seconds,
    }
    handles = []
    for preset, name in zip(plan.presets, plan.names(), strict=True):
        deployment = serve.deployment(
            PresetReplica,
            name=name,
            num_replicas=plan.replicas,
            max_ongoing_requests=plan.limits.concurrency,
            max_queued_requests=plan.limits.queue,
            ray_actor_options={"num_cpus": 1},
            **stopping,
        )
        store = plan.store if name == searched else None
        handles.append(deployment.bind(preset, plan.limits, plan.tokens, store))
    most = plan.limits.concurrency + plan.limits.queue
    http = serve.deployment(
        serve.ingress()(HttpReplica),
        name="http",
        # More than are let in, which are then refused by one shape.
        max_ongoing_requests=2 * most,
        # On a cluster nothing else sets the variable before the process.
        ray_actor_options={
            "num_cpus": 0,
            "runtime_env": {"env_vars": IMPORTS_LATE},
        },
        **stopping,
    )
    return http.bind(plan, searched, *handles)
