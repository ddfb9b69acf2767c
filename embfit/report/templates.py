"""The environment of the templates that all pages are made from."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def template_environment(*packages: str) -> Environment:
    """Return an environment that finds templates in some folders of the package, the first of them first.

    Values are escaped for HTML, and a name that a template uses and nobody gives is an error.

    Args:
        packages: the folders, such as `report`; what all pages share lies there.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("embfit", package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment
