"""What groups of training processes import, once for all of them; the last three otherwise at the first use."""

import os

os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is imported

import deepspeed.module_inject.auto_ep_layer  # noqa: F401
import torch._dynamo
import torch.utils.cpp_extension  # noqa: F401

import caravela.train.loop  # noqa: F401
import tests.train.groups  # noqa: F401
