"""Train, or resume, the run of a configuration."""

from argparse import ArgumentParser, Namespace

from xmask3d.cli.arguments import add_config, check_data_folder, check_diffusion, read_config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d train`."""
    parser.epilog = (
        "Resumes by itself from the newest good checkpoint in output=FOLDER. SIGTERM and Ctrl-C save first, then exit\n"
        "with 143 and 130; a run that is complete exits with 0 at once. Several processes: scripts/train.sh, or\n"
        "torchrun --nproc-per-node N -m xmask3d train ..."
    )
    add_config(parser)


def run(options: Namespace) -> int:
    """Train, and return the exit code of `xmask3d.engine.train.train`."""
    config = read_config(options)
    check_data_folder(config)
    check_diffusion(config)

    from xmask3d.engine.train import train
    from xmask3d.visualize.view_picture import draw_view

    return train(config, draw_view)
