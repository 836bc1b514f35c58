"""Predict a list of slides as tasks of a Dask scheduler.

    python predict_slides.py slides.csv predictions --shares 8 --workers 2
    python predict_slides.py slides.csv predictions --shares 64 --scheduler tcp://head:8786

Each task runs ``wsiseg predict`` on its share of the list, so a task that fails or is
lost can simply be run again. A remote scheduler needs ``pip install distributed``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import dask


def predict(manifest: str, output: str, shares: int, share: int, extra: tuple[str, ...]) -> int:
    """Run one share in a process of its own and return its exit code."""
    command = ["wsiseg", "predict", "--manifest", manifest, "-o", output]
    command += ["--num-shards", str(shares), "--shard-index", str(share), *extra]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own command line


def main() -> int:
    """Run all shares and return the worst exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest")
    parser.add_argument("output")
    parser.add_argument("--shares", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="tasks at a time on this machine")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler")
    args, extra = parser.parse_known_args()
    tasks = [
        dask.delayed(predict)(args.manifest, args.output, args.shares, share, tuple(extra))
        for share in range(args.shares)
    ]
    if args.scheduler:
        from distributed import Client

        with Client(args.scheduler) as client:
            codes = client.gather(client.compute(tasks))
    else:
        # The work is in child processes; threads are enough to wait for them.
        codes = dask.compute(*tasks, scheduler="threads", num_workers=args.workers)
    for share, code in enumerate(codes):
        if code:
            print(f"share {share}: exit code {code}", file=sys.stderr)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
