"""The certificate of a server, and its TLS.

Left to others: TLS handshakes (`acceptor`), when a certificate is read again (`process`).
"""

import errno
import os
import ssl
import stat


def make_ssl_context(certificate: str, key: str | None = None) -> ssl.SSLContext:
    """Returns a server's context for TLS 1.2 or later.

    Raises `OSError`, which names the file, if one cannot be read or is not a regular file, and `ssl.SSLError`
    if it has no usable certificate or key, such as a key with a password.
    """
    for file in filter(None, (certificate, key)):
        if not stat.S_ISREG(os.stat(file).st_mode):
            # A pipe would stop the event loop until somebody writes to it.
            raise OSError(errno.EINVAL, "not a regular file", file)
        with open(file, "rb"):
            pass  # OpenSSL does not say which file it cannot read
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as error:
        if "PEM lib" not in str(error):
            raise
        problem = f"no certificate in {certificate}, or no private key in {key or certificate}, in PEM"
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, problem) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _refuse_password() -> str:
    # OpenSSL would ask for it at the terminal, and a service would wait there for ever.
    raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the key has a password")


class Certificate:
    """A certificate chain and its private key, in PEM files. ``key`` is the file of the key, if another.

    Raises as `make_ssl_context` does.
    """

    def __init__(self, chain: str, key: str | None = None) -> None:
        self._files = chain, key
        self.context = make_ssl_context(chain, key)
        """What new connections use."""

    def reload(self) -> None:
        """Reads the files again, for new connections. If it raises, as above, the old certificate stays."""
        self.context = make_ssl_context(*self._files)
