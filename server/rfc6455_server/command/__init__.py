"""The command ``rfc6455-server``, and its client for the terminal."""
