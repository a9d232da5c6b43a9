"""What groups of training processes import, once for all of them."""

import os

os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is imported

import caravela.train.loop  # noqa: F401
import tests.train.groups  # noqa: F401
