"""Keys and addresses of servers: keys come from the environment, and addresses hold no secrets."""

from __future__ import annotations

import os
import re

from embfit.errors import ConfigError
from embfit.http_requests import is_address


def read_key(variable: str | None, setting: str) -> str | None:
    """Return the key, password or token in an environment variable; None if no variable is named.

    Args:
        variable: the name of the variable.
        setting: the setting that names the variable, for the message.

    Raises:
        ConfigError: the variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"{setting}={variable}: the environment variable is not set; put the server's key into it")
    return key


def check_address(url: str, setting: str, example: str) -> str:
    """Return the address of a server without a final slash.

    Args:
        url: the address.
        setting: the setting that holds the address; the setting beside it, `key_variable`, names the key's variable.
        example: an example of an address, for the message.

    Raises:
        ConfigError: the text is not an address, or holds a secret, which the run's records would show.
    """
    if not is_address(url):
        raise ConfigError(f"{setting} is not the address of a server, such as {example}")
    if re.search(r"//[^/]*@|[?#]", url):
        raise ConfigError(
            f"{setting} holds a name, a key or a query; give only the address, and the key in the environment "
            f"variable that {setting.rpartition('.')[0]}.key_variable names"
        )
    return url.rstrip("/")


def without_secrets(text: str) -> str:
    """Return a text in which addresses show neither what stands before `@` (user and password) nor their queries."""
    hidden = re.sub(r"://\S*@", "://…@", text)
    return re.sub(r"(://[^\s?#'\"]*)[?#][^\s'\"]*", r"\1?…", hidden)
