"""Reprompt runs from its checkout: what it is built of stands in setup.cfg."""

from setuptools import setup
from setuptools.command.build_py import build_py


class FromCheckout(build_py):
    """A copy would put `data`, `model`, `train` and their like among everybody's packages, and leave the models in assets/ behind."""

    def run(self) -> None:
        if not self.editable_mode:
            raise SystemExit("Reprompt runs from its checkout; install it from there with: pip install -e .")
        super().run()


setup(cmdclass={"build_py": FromCheckout})
