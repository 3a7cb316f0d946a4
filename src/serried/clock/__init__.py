"""What happens next, and by what chance?

In comes what shall happen when, and a seed; out comes the next thing, in an order that never varies, and independent
streams of random numbers. Time is whole nanoseconds. Nobody here reads a real clock.
"""

from serried.clock.chance import Chance
from serried.clock.queue import DAY_NS, FOREVER_NS, HOUR_NS, SECOND_NS, EventQueue, nanoseconds

__all__ = ["DAY_NS", "FOREVER_NS", "HOUR_NS", "SECOND_NS", "Chance", "EventQueue", "nanoseconds"]
