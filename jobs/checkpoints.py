"""The checkpoints of a run, from storage alone: lists, verifies, compares, prunes.

python jobs/checkpoints.py list runs/demo
python jobs/checkpoints.py verify runs/demo [--step 200]
python jobs/checkpoints.py compare runs/demo/pretrain/F/checkpoints/A runs/other/pretrain/G/checkpoints/B
python jobs/checkpoints.py prune runs/demo --keep 1 [--keep-every-steps 1000] [--keep-hours 24]
"""

import argparse
import datetime
import sys
from collections.abc import Sequence

from caravela.errors import UserError
from caravela.train import inspection
from caravela.train.retention import Rules


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status; 1 also where ``verify`` finds damage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_subparsers(dest="do", required=True)
    for name, help_text in (("list", "one line a checkpoint"), ("verify", "reads every file and compares its SHA-256")):
        asked.add_parser(name, help=help_text).add_argument("root", help="of the run, local or s3://")
    asked.choices["verify"].add_argument("--step", type=int, help="only this one; all unless given")
    compare = asked.add_parser("compare", help="largest differences of weights and moments")
    compare.add_argument("one", help="directory of a checkpoint")
    compare.add_argument("other", help="directory of a checkpoint, of any number of ranks")
    prune = asked.add_parser("prune", help="removes old ones by the rules of train.keep_*")
    prune.add_argument("root", help="of the run, local or s3://")
    prune.add_argument("--keep", type=int, required=True, metavar="N", help="newest that stay")
    prune.add_argument("--keep-every-steps", type=int, default=0, metavar="N", help="multiples of N stay too")
    prune.add_argument("--keep-hours", type=float, default=0.0, metavar="H", help="younger ones stay too")
    options = parser.parse_args(argv)
    try:
        return {"list": _list, "verify": _verify, "compare": _compare, "prune": _prune}[options.do](options)
    except (UserError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _list(options: argparse.Namespace) -> int:
    for stage in inspection.stages_of(options.root):
        print(f"{stage}\n{inspection.as_text(inspection.listed(stage))}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    every = [one for stage in inspection.stages_of(options.root) for one in inspection.listed(stage)]
    asked = [one for one in every if one.state != "incomplete" and options.step in (None, one.step)]
    if not asked:
        raise UserError(f"{options.root}: no complete checkpoint{f' of step {options.step}' if options.step else ''}")
    found = {one.uri: list(inspection.mistakes(one.uri)) for one in asked}
    for uri, mistakes in found.items():
        print("\n".join([f"{uri}: {'damaged' if mistakes else 'every file is as it was written'}", *mistakes]))
    return int(any(found.values()))


def _compare(options: argparse.Namespace) -> int:
    print(inspection.differences_as_text(inspection.differences(options.one, options.other)))
    return 0


def _prune(options: argparse.Namespace) -> int:
    rules = Rules(newest=options.keep, every_steps=options.keep_every_steps, hours=options.keep_hours)
    for stage in inspection.stages_of(options.root):
        for uri in inspection.prune(stage, rules, datetime.datetime.now(datetime.UTC)):
            print(f"removed {uri}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
