"""What does a serving engine do with its requests, iteration by iteration?

In: requests, pools of engines (how they batch, what their steps take, what memory they have), a seed. Out: when each
request was scheduled, saw its first and its last token, and what each engine did meanwhile.
"""

from serried.engine.simulate import ROUTERS, simulate
from serried.engine.spec import Cluster, EngineModel, EnginePool, EngineSettings, KvTransfer, SimulationLog, StepTime
from serried.engine.speculation import tokens_per_step

__all__ = ["ROUTERS", "Cluster", "EngineModel", "EnginePool", "EngineSettings", "KvTransfer", "SimulationLog",
           "StepTime", "simulate", "tokens_per_step"]
