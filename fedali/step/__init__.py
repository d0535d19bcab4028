"""The local training step, written once: a pure function over flat vectors.

State and a batch go in, a new state and metrics come out. Nothing here keeps Python-side state, writes in place or
has shapes that depend on data, so the same function can be run eagerly, stacked over clients, compiled, or exported.
"""

from fedali.step.after import make_finish as make_finish
from fedali.step.after import make_measure as make_measure
from fedali.step.before import make_begin as make_begin
from fedali.step.client import ClientStep as ClientStep
from fedali.step.client import Ended as Ended
from fedali.step.client import Started as Started
from fedali.step.client import squared_distance as squared_distance
from fedali.step.forward import make_adapt as make_adapt
from fedali.step.forward import make_embed as make_embed
from fedali.step.forward import make_gated as make_gated
from fedali.step.forward import make_occupancy as make_occupancy
from fedali.step.forward import make_predict as make_predict
from fedali.step.training import make_head_step as make_head_step
from fedali.step.training import make_step as make_step
from fedali.step.types import Adapt as Adapt
from fedali.step.types import Begin as Begin
from fedali.step.types import Finish as Finish
from fedali.step.types import Gated as Gated
from fedali.step.types import Hyper as Hyper
from fedali.step.types import Measure as Measure
from fedali.step.types import Occupancy as Occupancy
from fedali.step.types import Predict as Predict
from fedali.step.types import Shared as Shared
from fedali.step.types import State as State
from fedali.step.types import Step as Step
from fedali.step.types import StepMetrics as StepMetrics
from fedali.step.vectors import Vectors as Vectors
from fedali.task import Batch as Batch
