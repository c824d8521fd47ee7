"""The server as deployments of Ray Serve, on one machine or many.

One deployment answers HTTP, and each preset is another. Ray Serve restarts
processes that die, and balances requests between replicas.
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

from keras_bridgetower import startup
from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.application import application
from keras_bridgetower.apps.serve.batching import BatchedPreset
from keras_bridgetower.apps.serve.batching import open_preset
from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.apps.serve.service import Service

# Attempts of a call whose process dies.
_TRIES = 3
# Seconds within which a ready preset responds.
_READY = 2.0


class PresetReplica(BatchedPreset):
    """One process with the models of one preset of a plan."""

    def __init__(self, plan, preset):
        opened, limits = open_preset(plan, preset), plan.limits
        thread = concurrent.futures.ThreadPoolExecutor(1)
        super().__init__(*opened, limits, thread, Decoders(limits))

    async def facts(self):
        """Return `ServedPreset.facts()`, once the models are warm."""
        return super().facts()


class HttpReplica:
    """One process that answers HTTP and calls the presets.

    Args:
        plan: `Plan`.
        searched: str, the name of the preset that searches, or None.
        *handles: the deployments of the presets, in the order of the plan.
    """

    async def __init__(self, plan, searched, *handles):
        self._handles = dict(zip(plan.names(), handles, strict=True))
        facts = await asyncio.gather(*(x.facts.remote() for x in handles))
        find = None
        if searched is not None:
            find = functools.partial(_call, self._handles[searched].find)
        service = Service(plan, facts, self._ask, self._missing, find)
        self._application = application(service, os.environ.get(KEY))

    def __serve_build_asgi_app__(self):
        return self._application

    async def _ask(self, name, verb, inputs):
        return await _call(self._handles[name].ask, verb, inputs)

    async def _missing(self):
        """Return the names of presets that cannot answer now."""
        handles = self._handles.values()
        calls = (asyncio.wait_for(_call(x.facts), _READY) for x in handles)
        found = await asyncio.gather(*calls, return_exceptions=True)
        pairs = zip(self._handles, found, strict=True)
        return [name for name, x in pairs if isinstance(x, Exception)]


async def _call(method, *arguments):
    """Call a deployment, again if its process dies: calls change nothing."""
    for _ in range(_TRIES):
        response = method.remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            # The client has disconnected.
            response.cancel()
            raise
        except RayActorError:
            continue
        except BackPressureError:
            raise errors.TooManyRequests from None
        except (TaskCancelledError, RayServeException):
            # The process of the model is stopping, or has not started yet.
            break
    raise errors.RequestError(503, "The model cannot answer now. Try again.")


def build(arguments):
    """Build the application of Ray Serve, as its configuration files name it.

    Args:
        arguments: `Plan`, or a dict of its fields, with `limits` a dict too.

    Raises:
        ValueError: invalid values of a `Plan`.
    """
    plan = arguments
    if not isinstance(plan, Plan):
        plan = Plan.from_values(**arguments)
    stopping = {
        # Between two checks whether a process still answers.
        "graceful_shutdown_wait_loop_s": 0.1,
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
        handles.append(deployment.bind(plan, preset))
    http = serve.deployment(
        serve.ingress()(HttpReplica),
        name="http",
        # More than are admitted, so that `Admission` rejects the others.
        max_ongoing_requests=2 * (plan.limits.concurrency + plan.limits.queue),
        # Nothing else sets the variable on a cluster.
        ray_actor_options={
            "num_cpus": 0,
            "runtime_env": {"env_vars": {startup.SERVER: "1"}},
        },
        **stopping,
    )
    return http.bind(plan, plan.searched(), *handles)
