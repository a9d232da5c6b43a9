"""What is measured while training: each step's row of figures, from the clock and the engine to where people look.

In: what the loop tells it (a step is done, a snapshot took so long, a validation gave these figures). Out: rows in the
journal, points for the sinks, lines for people. Columns of a row:

* ``loss``, ``loss/<source>`` where there are several sources, ``grad_norm`` (before clipping), ``learning_rate``,
  ``tokens`` (so far);
* ``seconds`` of the whole step, among them ``seconds_data`` of waiting for rows and ``seconds_checkpoint`` of the
  snapshot taken since the step before; a validation is not part of any step;
* ``tokens_per_second``, ``mfu``, ``matmul_share``: means over the latest steps (train.metrics);
* ``seconds_wall``, ``goodput``, ``steps_redone``, ``energy_kwh``, ``co2_kg``, ``cost``: of the run so far, over its
  attempts (train.goodput); energy of all workers is added up every ``log_every_steps`` steps.

Times are rank 0's. Other ranks take part in adding up energy, and do nothing else here.
"""

import functools
import time
from collections.abc import Callable, Sequence

import torch

from caravela.model.config import ModelConfig
from caravela.progress import clock
from caravela.train import goodput, metrics, sinks
from caravela.train.config import TrainConfig
from caravela.train.energy import EnergyMeter, local_rank
from caravela.train.engine import Engine, StepResult
from caravela.train.goodput import Ledger, Reached
from caravela.train.journal import Journal, Row
from caravela.train.matmul_rate import matmul_rate
from caravela.train.metrics import Rates, StepTime, Window


class Monitor:
    """Figures of one attempt. All ranks make one together, at the start."""

    def __init__(
        self,
        *,
        stage_uri: str,
        run: str,
        launch: str,
        config: TrainConfig,
        model: ModelConfig,
        source_names: Sequence[str],
        engine: Engine,
        rank: int,
        first_step: int,
        ledger: Ledger,
        started: float,
        journal: Journal,
        say: Callable[[str], None],
    ) -> None:
        """Measures the machine and opens the sinks.

        Args:
            stage_uri: directory of the pretrain stage.
            run: what the run is called among others, in Prometheus.
            launch: the driver that started this attempt.
            config: settings of training.
            model: its shape.
            source_names: of the mixture, in its order.
            engine: that trains.
            rank: of this process.
            first_step: of this attempt.
            ledger: of the attempts before.
            started: when this one began, by ``time.perf_counter``.
            journal: that takes the rows.
            say: a line for people.
        """
        self.launch = launch
        self.config = config
        self.source_names = tuple(source_names)
        self.engine = engine
        self.rank = rank
        self.ledger = ledger
        self.journal = journal
        self.say = say
        self.targets_per_step = config.batch_rows * model.max_positions
        self.window = Window()
        self._flops_per_token = functools.cache(functools.partial(metrics.flops_per_token, model))
        self._ledger_mark = self._step_mark = started
        self._stall = 0.0
        device = engine.device
        self._energy = EnergyMeter(device_uuid(device), local_rank())
        self.metered = engine.sum_over_ranks(int(bool(self._energy))) > 0
        self.rates = measured_rates(engine, config)
        self._sinks: sinks.Background | None = None
        if rank == 0:
            self._sinks = sinks.opened(stage_uri, run, first_step, config.tensorboard, config.prometheus, say)

    def begin(self) -> None:
        """The first step begins now."""
        self.say(
            f"MFU is of {self.rates.peak / 1e12:,.3g} TFLOP/s ({self.rates.peak_name}); matrices are multiplied at "
            f"{self.rates.matmul / 1e12:,.3g}" + ("" if self.metered else "; energy cannot be read here")
        )
        self._pass_time("starting")
        self._step_mark = self._ledger_mark

    def step_done(self, step: int, result: StepResult, rate: float, context: int, waited: float, kept: bool) -> None:
        """A step has ended.

        Args:
            step: its number.
            result: of the engine.
            rate: the learning rate.
            context: tokens that the model saw at once.
            waited: seconds for its rows.
            kept: whether a checkpoint of it is made next.
        """
        now = time.perf_counter()
        seconds, self._step_mark = now - self._step_mark, now
        self._pass_time()
        logged = step % self.config.log_every_steps == 0 or step == self.config.steps
        if logged and self.metered:
            microjoules = self.engine.sum_over_ranks(int(self._energy.joules() * 1e6))
            self.ledger = self.ledger.after(joules=microjoules / 1e6)
        stall, self._stall = self._stall, 0.0
        if self.rank:
            return
        flops = self.targets_per_step * self._flops_per_token(context)
        self.window.add(StepTime(self.targets_per_step, flops, seconds, waited, stall))
        row: Row = {
            "step": step,
            "loss": result.loss,
            **self._source_columns(result),
            "learning_rate": rate,
            "grad_norm": result.grad_norm,
            "tokens": step * self.targets_per_step,
            "seconds": round(seconds, 6),
            "seconds_data": round(waited, 6),
            "seconds_checkpoint": round(stall, 6),
            **metrics.speed_columns(self.window, self.rates),
            **self._cost_columns(),
        }
        self._put(row, kept)
        if logged:
            self.say(self._line(row))

    def _source_columns(self, result: StepResult) -> Row:
        if len(self.source_names) < 2:
            return {}
        named = zip(self.source_names, result.source_losses, strict=True)
        return {f"loss/{name}": loss for name, loss in named if loss is not None}

    def _cost_columns(self) -> Row:
        config = self.config
        return dict(
            goodput.cost_columns(
                self.ledger, self.metered, config.co2_kg_per_kwh, self.engine.num_ranks, config.cost_per_worker_hour
            )
        )

    def stalled(self, seconds: float) -> None:
        """Training stood still for a snapshot; it counts to the next step."""
        self._stall = seconds
        self.ledger = self.ledger.after(stall=seconds)

    def validated(self, step: int, columns: dict[str, float]) -> None:
        """Held-out rows were scored after a step."""
        self._step_mark = time.perf_counter() - self._stall
        self._pass_time()
        if self.rank == 0:
            self._put({"step": step, **columns}, kept=False)
        self.say(
            f"step {step}: validation loss {columns['validation_loss']:.4f}, "
            f"{columns['validation_bits_per_byte']:.4f} bits per byte"
        )

    def _put(self, row: Row, kept: bool) -> None:
        self.journal.add(row["step"], row)
        reached = Reached(launch=self.launch, step=row["step"], time=time.time(), ledger=self.ledger)
        if self._sinks:
            self._sinks.put(sinks.Point(row, reached, kept))

    def _pass_time(self, *also: str) -> None:
        now = time.perf_counter()
        passed, self._ledger_mark = now - self._ledger_mark, now
        self.ledger = self.ledger.after(wall=passed, **dict.fromkeys(also, passed))

    def _line(self, row: Row) -> str:
        parts = [
            f"step {row['step']}/{self.config.steps}",
            f"loss {row['loss']:.4f}",
            f"rate {row['learning_rate']:.2e}",
            f"grad norm {row['grad_norm']:.2f}",
        ]
        if "tokens_per_second" in row:
            parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in row:
            parts.append(f"{row['mfu']:.1%} MFU")
        if (share := self.window.data_share()) is not None:
            parts.append(f"{share:.1%} waiting for data")
        if (each := self.window.seconds_per_step()) is not None:
            parts.append(f"{clock(each * (self.config.steps - row['step']))} left")
        return " · ".join(parts)

    def close(self) -> None:
        """Waits until the sinks have everything."""
        if self._sinks:
            self._sinks.close()


def device_uuid(device: torch.device) -> str:
    """What NVML knows a GPU by; empty for a CPU."""
    if device.type != "cuda":
        return ""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def measured_rates(engine: Engine, config: TrainConfig) -> Rates:
    """The rates of all workers together, who measure at the same time. A CPU's peak is what was measured."""
    device = engine.device
    rate = matmul_rate(device, torch.bfloat16 if config.precision == "bf16" else torch.float32)
    matmul = float(engine.sum_over_ranks(int(rate)))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    each = config.peak_tflops or (metrics.peak_tflops(name) if device.type == "cuda" else None)
    if each is None:
        return Rates(matmul, f"{name}: the measured matmul rate of all workers", matmul)
    source = "train.peak_tflops" if config.peak_tflops else "dense bfloat16"
    return Rates(each * 1e12 * engine.num_ranks, f"{engine.num_ranks} × {name}, {source}", matmul)
