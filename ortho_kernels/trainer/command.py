"""The command line: `key=value` words to a configuration, a configuration to a run."""

from collections.abc import Sequence

HELP = """\
Self-supervised pretraining with an orthogonality penalty.

  python -m ortho_kernels.trainer [experiment=NAME] [GROUP=OPTION ...] [KEY=VALUE ...]
  python -m ortho_kernels.trainer.compare ...     the same, beside a baseline that differs in gamma alone

Groups:
{groups}
Options of this choice (add words to see others):

{options}
Examples:
  method=byol data=fashion_mnist penalty=so penalty.gamma=1e-6 backbone=resnet18 backbone.width=16
  method=simclr data=digits backbone=vit_tiny backbone.patch=4 trainer.max_steps=2
  data=imagefolder data.root=FOLDER penalty=srip resume=auto
"""


def main(words: Sequence[str]) -> None:
    from .config import load_config

    if wants_help(words):
        print(help_text(words))
        return
    config = load_config(words)
    from .pretrain import pretrain

    pretrain(config)


def wants_help(words: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def help_text(words: Sequence[str]) -> str:
    from omegaconf import OmegaConf

    from .config import load_config, option_groups

    config = load_config([word for word in words if not word.startswith("-")])
    groups = "".join(f"  {name}={'|'.join(options)}\n" for name, options in option_groups().items())
    return HELP.format(groups=groups, options=OmegaConf.to_yaml(config))
