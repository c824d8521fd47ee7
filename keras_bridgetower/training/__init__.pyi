from . import recipes as recipes
from .compiled import compile_step as compile_step
from .optim.adamw import AdamW as AdamW
from .optim.adamw import WarmupPolynomial as WarmupPolynomial
from .planning import plan as plan
from .runs.checkpoint import Checkpoint as Checkpoint
from .runs.folders import CheckpointError as CheckpointError
