"""The command line: `key=value` words to configurations, configurations to runs.

What takes long to import is imported when it is needed, so that a mistyped word is answered at once.
"""

from collections.abc import Sequence

HELP = """\
Self-supervised pretraining with an orthogonality penalty.

  python -m ortho_kernels.trainer [GROUP=OPTION ...] [KEY=VALUE ...]
  python -m ortho_kernels.trainer -m seed=0,1 penalty.gamma=1e-7,1e-6,1e-5 ...    all combinations, one table and report
  python -m ortho_kernels.trainer.compare ...    the run and its baseline, which differ in gamma alone

Groups:
{groups}
Keys, as these words set them:

{options}
Unless it is given, penalty.gamma is the paper's for the penalty and the backbone; penalty=none is always 0.
With trainer.accumulate the weights, teachers, queues and centers move once an optimizer step, as with one large batch.
Batch norm does not: it normalizes each batch by itself. Losses that compare the images of a batch compare those alone.

Examples:
  method=byol data=fashion_mnist penalty=so penalty.gamma=1e-6 backbone=resnet18 backbone.width=16
  method=simclr data=digits backbone=vit_tiny backbone.patch=4 trainer.max_steps=2
  data=imagefolder data.root=FOLDER penalty=srip resume=auto
  -m experiment=paper/cifar100/byol_resnet18 penalty=so penalty.gamma=1e-7,1e-6,1e-5
  -m experiment=paper/cifar100/byol_resnet18 penalty=srip penalty.gamma=1e-5,1e-4,1e-3
"""


def main(words: Sequence[str]) -> None:
    flags, words = split_flags(words)
    if "help" in flags:
        print(help_text(words))
        return
    from .config import combinations, load_config

    if "multirun" in flags:
        varied, chosen = zip(*combinations(words), strict=True)
        configs = [
            load_config([f"title={_quoted(v)}", *all_words]) for v, all_words in zip(varied, chosen, strict=True)
        ]
        from .sweep import sweep

        print(f"Table and report of all: {sweep(varied, configs)}")
        return
    config = load_config(words)
    from .runs.pretrain import pretrain

    pretrain(config)


def split_flags(words: Sequence[str]) -> tuple[set[str], list[str]]:
    """What the words with a dash ask for, and the other words."""
    names = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun"}
    return {names[word] for word in words if word in names}, [word for word in words if word not in names]


def help_text(words: Sequence[str]) -> str:
    from omegaconf import OmegaConf

    from .config import load_config, option_groups
    from .config.recipes import paper_recipes, recipe_patterns

    options = option_groups()
    quick = [name for name in options["experiment"] if name not in paper_recipes()]
    options["experiment"] = [*quick, *recipe_patterns()]
    groups = "".join(f"  {name}={'|'.join(valid)}\n" for name, valid in options.items())
    return HELP.format(groups=groups, options=OmegaConf.to_yaml(load_config(words)))


def _quoted(words: Sequence[str]) -> str:
    return f"'{', '.join(words)}'" if words else "null"
