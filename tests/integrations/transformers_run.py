"""A run of transformers' Trainer on the small model, with what differs from `llama_training` turned off."""

from llama_training import BATCH, GAMMA, RATE, STEPS, examples, language_model
from transformers import Trainer, TrainingArguments

from ortho_kernels.integrations.transformers import OrthogonalityCallback


def arguments(folder, **options):
    defaults = {
        "per_device_train_batch_size": BATCH,
        "max_steps": STEPS,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return TrainingArguments(output_dir=str(folder), **{**defaults, **options})


def trainer(folder, callback, model=None, *, kind=Trainer, scaler=None, eval_dataset=None, **options):
    model = language_model() if model is None else model
    args = arguments(folder, **options)
    rows = examples(STEPS * args.gradient_accumulation_steps * BATCH)
    made = kind(model, args, train_dataset=rows, eval_dataset=eval_dataset, callbacks=[callback])
    if scaler is not None:  # Accelerate makes none on a CPU, but works with one
        made.accelerator.scaler, made.accelerator.native_amp = scaler, True
    return made


def penalized(kind, **options):
    return OrthogonalityCallback(kind, gamma=GAMMA[kind], **options)
