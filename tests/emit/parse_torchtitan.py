"""Run inside the tools' environment: torchtitan's own parser reads the words and prints what it understood."""

import dataclasses
import json
import sys
import warnings

warnings.simplefilter("ignore")

from torchtitan.config import ConfigManager  # noqa: E402  (after the warnings are quiet)

config = ConfigManager().parse_args(sys.argv[1:])
print("PARSED " + json.dumps({"training": dataclasses.asdict(config.training),
                              "parallelism": dataclasses.asdict(config.parallelism),
                              "recompute": type(config.activation_checkpoint).__qualname__}))
