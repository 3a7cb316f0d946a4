"""What becomes of a fleet over days: jobs, services, failures and a policy under virtual time?

In comes a `Scenario` (a fleet, what breaks, who asks for what) and a seed; out comes an `Outcome`: goodput, and where
every other chip-hour went. The policy is the one that runs a live fleet. One seed gives one outcome, bit by bit.
"""

from serried.simulation.outcome import Outcome
from serried.simulation.simulator import Simulator, policy_of, simulate
from serried.simulation.spec import Checkpoint, Fault, JobClass, Scenario, Service, Submissions

__all__ = ["Checkpoint", "Fault", "JobClass", "Outcome", "Scenario", "Service", "Simulator", "Submissions",
           "policy_of", "simulate"]
