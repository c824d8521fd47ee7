"""Runs a preset on Ray Serve until SIGTERM; called by test_command.py.

python ray_run.py PRESET PORT REPLICAS
"""

import os
import signal
import sys
import threading

os.environ |= {
    "KERAS_BRIDGETOWER_SERVER": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A busy machine needs more than the default 5 seconds.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # By default Ray gives all other programs priority.
    "RAY_worker_niceness": "0",
}

import ray
from ray import serve

from keras_bridgetower.apps.serve.deployments import build

preset, port, replicas = sys.argv[1], *map(int, sys.argv[2:])
plan = {"presets": [preset], "replicas": replicas, "limits": {"seconds": 300}}
ray.init(
    address="local",
    num_cpus=replicas,
    include_dashboard=False,
    log_to_driver=False,
    object_store_memory=200 * 2**20,
    logging_level="error",
)
try:
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(plan), name="keras-bridgetower")
    stop = threading.Event()
    # After Ray, which would print a trace.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
finally:
    ray.shutdown()
