"""What a rank of the tests does: write down where it runs and for how long, so that the truth is known from outside.

`python rank_diary.py FOLDER LIFE_S`: one file an attempt and rank, made once; a second start of the same is `doubled`.
"""

import json
import os
import sys
import time


def main() -> None:
    folder, life_s = sys.argv[1], float(sys.argv[2])
    name = os.path.join(folder, f"{os.environ['SERRIED_ATTEMPT']}-{os.environ['RANK']}")
    words = {"node": os.environ["SERRIED_NODE"], "chips": os.environ["SERRIED_CHIPS"], "pid": os.getpid(),
             "world": os.environ["WORLD_SIZE"]}
    try:
        file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        file = os.open(name + ".doubled", os.O_CREAT | os.O_WRONLY)
    began = time.monotonic_ns()
    while True:
        now = time.monotonic_ns()
        os.pwrite(file, json.dumps({**words, "began": began, "alive": now}).encode().ljust(256), 0)
        if now - began > life_s * 1e9:
            return
        time.sleep(0.01)


if __name__ == "__main__":
    main()
