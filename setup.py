"""All stands in pyproject.toml but this: an editable install must leave C{twisted/plugins} where twistd looks."""

from setuptools import setup

setup(package_dir={"": "."})
