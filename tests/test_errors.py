from rfc6455 import CloseCode, HandshakeError, LocalProtocolError, RemoteProtocolError, WebSocketError


def test_every_error_has_the_common_base_class_and_a_slug() -> None:
    for error in (
        LocalProtocolError("why", slug="some-slug"),
        RemoteProtocolError("why", slug="some-slug"),
        HandshakeError("why", slug="some-slug"),
    ):
        assert isinstance(error, WebSocketError)
        assert error.slug == "some-slug"
        assert str(error) == "why"


def test_the_default_code_of_a_remote_error_is_1002() -> None:
    assert RemoteProtocolError("why", slug="s").code is CloseCode.PROTOCOL_ERROR
    assert RemoteProtocolError("why", slug="s", code=CloseCode.MESSAGE_TOO_BIG).code == 1009


def test_the_default_status_of_a_handshake_error_is_400() -> None:
    assert (HandshakeError("why", slug="s").status, HandshakeError("why", slug="s").headers) == (400, ())
    error = HandshakeError("why", slug="s", status=405, headers=(("Allow", "GET"),))
    assert (error.status, error.headers) == (405, (("Allow", "GET"),))
