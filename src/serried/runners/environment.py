"""What a rank finds in its environment: torchrun's variables, the chips that are its own, where it saves."""

from __future__ import annotations

from collections.abc import Mapping

from serried.runners.spec import Launch, Node, Row

__all__ = ["rank_environment", "rendezvous_port"]

_FIRST_PORT, _PORT_COUNT = 10_000, 20_000   # below the ports that systems hand out by themselves (32,768 on)


def rendezvous_port(launch: Launch) -> int:
    """The port at which rank 0 listens. It follows from the attempt, so that all rows agree without talking; where it
    is taken, rank 0 fails, and the next attempt has another one."""
    return _FIRST_PORT + (launch.attempt.epoch * 7919 + launch.attempt.job) % _PORT_COUNT


def rank_environment(launch: Launch, row: Row, local_rank: int, nodes: Mapping[str, Node]) -> dict[str, str]:
    """Variables of one rank, over whatever the machine sets; the job's own come last but for those of its place.

    The rendezvous is torchrun's: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK, GROUP_WORLD_SIZE,
    MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RESTART_COUNT, TORCHELASTIC_RUN_ID.
    """
    chips_per_rank = len(row.chips) // row.rank_count
    chips = ",".join(str(chip) for chip in row.chips[local_rank * chips_per_rank:(local_rank + 1) * chips_per_rank])
    place = [one.node for one in launch.rows].index(row.node)
    return {
        **launch.environment,
        "RANK": str(row.first_rank + local_rank), "WORLD_SIZE": str(launch.world_size),
        "LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": str(row.rank_count),
        "GROUP_RANK": str(place), "GROUP_WORLD_SIZE": str(len(launch.rows)),
        "MASTER_ADDR": nodes[launch.rows[0].node].address, "MASTER_PORT": str(rendezvous_port(launch)),
        "TORCHELASTIC_RESTART_COUNT": str(launch.restarts), "TORCHELASTIC_RUN_ID": str(launch.attempt),
        "SERRIED_JOB": str(launch.attempt.job), "SERRIED_ATTEMPT": str(launch.attempt), "SERRIED_NODE": row.node,
        "SERRIED_CHIPS": chips, "SERRIED_CHIP_SHARE": f"{launch.share_milli / 1000:g}",
        "SERRIED_CHECKPOINT": launch.checkpoint_directory,
        **dict.fromkeys(nodes[row.node].device_variables, chips),
    }
