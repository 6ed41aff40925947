"""Ids of sessions and sockets."""

from base64 import urlsafe_b64encode
from os import urandom


def new_id() -> str:
    """Returns a random id of 20 characters, which nobody can guess."""
    return urlsafe_b64encode(urandom(15)).decode()
