"""Name the folders that make up the package; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

# Configurations and class lists lie at the top of the repository, where people look for them. A wheel has them inside
# the package, where `xmask3d.resources` looks.
FOLDERS = {"xmask3d.config_files": "config", "xmask3d.class_lists": "dataset"}

setup(packages=[*find_packages(include=["xmask3d*"]), *FOLDERS], package_dir=FOLDERS)
