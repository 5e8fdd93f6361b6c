"""The source of a plain training loop by a recipe: optimiser, schedule, loss, batches, epochs."""

from __future__ import annotations

import inspect

import torch

from fanin.choice import Choice
from fanin.engine.optimizers import TORCH_CLASSES
from fanin.recipe import Recipe
from fanin.script.layout import docstring, fitted


def has_schedule(recipe: Recipe) -> bool:
    """Whether the learning rate changes."""
    return recipe.schedule.name != "constant" or recipe.schedule["warmup"] > 0


def schedule_source(recipe: Recipe) -> list[str]:
    """The lines of `def lr_factor(epoch: int) -> float`, which fanin.engine.schedules.factor is for epoch + 1."""
    schedule, epochs, warmup = recipe.schedule, recipe.epochs, recipe.schedule["warmup"]
    after = schedule.name if schedule.name != "constant" else "a constant rate"
    what = f"{warmup} epoch{'' if warmup == 1 else 's'} of warm-up, then {after}" if warmup else f"schedule {after}"
    lines = ["def lr_factor(epoch: int) -> float:"]
    lines += docstring(f"The factor on the learning rate in an epoch, counted from 0: {what}.")
    if warmup >= epochs:
        return [*lines, f"    return (epoch + 1) / {warmup + 1}"]
    if warmup:
        lines += [f"    if epoch < {warmup}:", f"        return (epoch + 1) / {warmup + 1}"]
    return [*lines, f"    return {_formula(schedule, epochs - warmup, warmup)}"]


def _formula(schedule: Choice, epochs: int, warmup: int) -> str:
    """What the schedule makes of `epoch`, after so many epochs of warm-up, of so many that are left."""
    passed = f"(epoch - {warmup})" if warmup else "epoch"
    options = schedule.keywords()
    final, gamma = options.get("final"), options.get("gamma")
    match schedule.name:
        case "step":
            return f"{gamma} ** ({passed} // {options['every']})"
        case "exponential":
            return f"{gamma} ** {passed}" if warmup else f"{gamma}**{passed}"
        case "linear":
            return f"1 - (1 - {final}) * {passed} / {epochs}" if final else f"1 - {passed} / {epochs}"
        case "cosine":
            wave = f"(1 + math.cos(math.pi * {passed} / {epochs})) / 2"
            return f"{final} + (1 - {final}) * {wave}" if final else wave
    return "1.0"


def training_source(recipe: Recipe, *, outputs: int) -> list[str]:
    """The lines of `def train(inputs, labels)`, which begins at START and takes EPOCHS of batches of BATCH_SIZE."""
    scheduled = has_schedule(recipe)
    return [
        "def train(inputs: Tensor, labels: Tensor) -> nn.Sequential:",
        *docstring(
            "The network trained by the trial's recipe on scaled inputs (N, features) and class numbers (N,).",
            _differences(recipe),
        ),
        "    net = network()",
        "    net.load_state_dict(load_file(START))",
        "    net.train()",
        *_optimizer(recipe.optimizer),
        *(["    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)"] if scheduled else []),
        *(_few(recipe.labels) if recipe.labels is not None else []),
        "    for epoch in range(1, EPOCHS + 1):",
        "        losses = []",
        "        order = torch.randperm(len(labels))",
        "        order = order[: len(order) // BATCH_SIZE * BATCH_SIZE]  # without the last, incomplete batch",
        "        for batch in order.view(-1, BATCH_SIZE):",
        *(_step_by_closure if recipe.optimizer.name == "lbfgs" else _step)(recipe, outputs),
        "            losses.append(loss.item())",
        *(["        scheduler.step()"] if scheduled else []),
        '        print(f"epoch {epoch}: loss {np.mean(losses):.4f}")',
        "    return net.eval()",
    ]


def _differences(recipe: Recipe) -> str:
    """In what the plain loop is not the trial, in words."""
    drawn = ["the order of the examples"]
    drawn += ["the dropout masks"] if recipe.dropout > 0 else []
    drawn += ["which examples have labels"] if recipe.labels is not None else []
    listed = " and ".join(filter(None, [", ".join(drawn[:-1]), drawn[-1]]))
    text = (
        f"It has the trial's recipe, not its bits: torch's generator draws {listed}, as streams keyed by the seed did "
    )
    text += "in the trial."
    if recipe.dropout > 0 and recipe.optimizer.name == "lbfgs":
        text += " Masks are drawn anew whenever LBFGS asks for the loss; in the trial, once a step."
    if recipe.normalization == "batch":
        text += " The gradient of a bias before batch normalisation is zero but for rounding; in the trial, exactly."
    if recipe.precision == "bf16":
        text += " Products are in float32; in the trial, those of hidden layers were of bfloat16 operands."
    if recipe.precision == "tf32":
        text += " Products are in float32; in the trial, they were of TensorFloat-32 operands."
    if recipe.optimizer.name == "asgd":
        text += " ASGD keeps an average of the weights too; as in the trial, the running weights are what counts."
    return text


def _optimizer(choice: Choice) -> list[str]:
    """The optimiser with its learning rate, and the options that are not at torch's default."""
    kind = getattr(torch.optim, TORCH_CLASSES[choice.name])
    defaults = inspect.signature(kind).parameters
    options = choice.keywords()
    given = ["lr", *sorted(name for name, value in options.items() if value != defaults[name].default and name != "lr")]
    arguments = ["net.parameters()", *(f"{name}={options[name]!r}" for name in given)]
    return fitted(f"optimizer = torch.optim.{kind.__name__}(", arguments, ")", indent=4)


def _few(labels: int) -> list[str]:
    return [
        f"    few = torch.randperm(len(labels))[:{labels}]  # the trial saw no more labels than these",
        "    inputs, labels = inputs[few], labels[few]",
    ]


def _loss(recipe: Recipe, outputs: int) -> list[str]:
    if recipe.loss == "cross_entropy":
        return ["loss = F.cross_entropy(net(inputs[batch]), labels[batch])"]
    return [
        "scores = net(inputs[batch])",
        f"loss = F.mse_loss(scores, F.one_hot(labels[batch], {outputs}).to(scores))",
    ]


def _step(recipe: Recipe, outputs: int) -> list[str]:
    lines = [*_loss(recipe, outputs), "optimizer.zero_grad()", "loss.backward()"]
    if recipe.optimizer.name == "sparse_adam":
        lines += ["for p in net.parameters():", "    p.grad = p.grad.to_sparse()  # where it is zero, nothing moves"]
    return [f"            {line}" for line in (*lines, "optimizer.step()")]


def _step_by_closure(recipe: Recipe, outputs: int) -> list[str]:
    """LBFGS asks for the loss several times a step."""
    inner = ["optimizer.zero_grad()", *_loss(recipe, outputs), "loss.backward()", "return loss"]
    lines = [
        "def closure(batch: Tensor = batch) -> Tensor:",
        *(f"    {line}" for line in inner),
        "",
        "loss = optimizer.step(closure)",
    ]
    return [f"            {line}" if line else "" for line in ("", *lines)]
