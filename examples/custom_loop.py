"""Title: Train a task in a loop of your own, on any backend
Author: the keras_bridgetower maintainers
Date: 2026-11-26
Description: Takes twenty steps on two pictures without `fit`. `steps` is all
    that a loop needs; copy the function of your backend.
Accelerator: none; half a minute on one CPU core

    KERAS_BACKEND=torch python examples/custom_loop.py

Runs offline.
"""

import pathlib

import example
import keras

import keras_bridgetower as kbt

PICTURES = sorted((pathlib.Path(__file__).parent / "pictures").iterdir())
QUESTIONS = ["is there a circle?", "is there a rectangle?"]
STEPS = 20


def main():
    arguments = example.parser(__file__, __doc__).parse_args()
    keras.utils.set_random_seed(0)
    vqa = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    vqa.compile(keras.optimizers.AdamW(1e-4))
    x = {"images": [str(p) for p in PICTURES], "text": QUESTIONS}
    batches = [(x, ["no", "yes"])] * STEPS
    losses = []
    for number, loss in enumerate(steps(vqa, batches), start=1):
        losses.append(loss)
        if number % 5 == 0:
            print(f"step {number}: loss {loss:.4f}")
    figure = example.new_figure(6, 3.6)
    axes = figure.subplots()
    axes.plot(range(1, STEPS + 1), losses, "o-", color="#0072b2")
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.set_xticks(range(0, STEPS + 1, 5))
    axes.set_title(f"A loop of our own on {keras.config.backend()}")
    axes.grid(alpha=0.3)
    example.save(figure, arguments.output, "loss.png", "the loss of each step")


def steps(task, batches):
    """Take one step for each batch, as `task.fit` does.

    Args:
        task: a compiled task with a preprocessor.
        batches: list of `(x, y)` or `(x, y, sample_weight)`, raw inputs.

    Yields:
        float, the loss of each batch before its step.
    """
    step = {
        "tensorflow": tensorflow_step,
        "jax": jax_step,
        "torch": torch_step,
    }[keras.config.backend()]
    if not task.optimizer.built:
        task.optimizer.build(task.trainable_variables)
    for number, batch in enumerate(batches):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        if task.preprocessor.reads_step:
            # What the preprocessor draws depends on it.
            x = {**x, "step": number}
        made = task.preprocess_samples(x, y, weights)
        parts = [
            keras.tree.map_structure(keras.ops.convert_to_tensor, part)
            if part is not None
            else None
            for part in keras.utils.unpack_x_y_sample_weight(made)
        ]
        yield float(step(task, *parts))


def loss_of(task, x, y, weights):
    y_pred = task(x, training=True)
    return task.compute_loss(x, y, y_pred, weights, training=True)


def tensorflow_step(task, x, y, weights):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = loss_of(task, x, y, weights)
        # Where float16 needs it; the optimizer takes it back.
        scaled = task.optimizer.scale_loss(loss)
    variables = task.trainable_variables
    task.optimizer.apply(tape.gradient(scaled, variables), variables)
    return loss


def torch_step(task, x, y, weights):
    import torch

    task.zero_grad()
    loss = loss_of(task, x, y, weights)
    task.optimizer.scale_loss(loss).backward()
    variables = task.trainable_variables
    gradients = [v.value.grad for v in variables]
    with torch.no_grad():
        task.optimizer.apply(gradients, variables)
    return loss.detach()


def jax_step(task, x, y, weights):
    import jax

    variables = task.trainable_variables, task.non_trainable_variables

    def loss_and_state(trainable, non_trainable):
        values = (*trainable, *non_trainable)
        pairs = zip((*variables[0], *variables[1]), values, strict=True)
        # Not `stateless_call` alone: a loss may read weights too, such as the
        # scale of contrastive learning.
        with keras.StatelessScope(state_mapping=list(pairs)) as scope:
            loss = loss_of(task, x, y, weights)
        state = [scope.get_current_value(v) for v in variables[1]]
        return task.optimizer.scale_loss(loss), (loss, state)

    values = [[v.value for v in some] for some in variables]
    compute = jax.value_and_grad(loss_and_state, has_aux=True)
    (_, (loss, state)), gradients = compute(*values)
    optimizer = task.optimizer
    trained, counted = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], gradients, values[0]
    )
    changed = (*variables[0], *variables[1], *optimizer.variables)
    for variable, value in zip(
        changed, (*trained, *state, *counted), strict=True
    ):
        variable.assign(value)
    return loss


if __name__ == "__main__":
    main()
