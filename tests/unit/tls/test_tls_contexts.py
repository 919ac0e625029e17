"""From files to contexts: what is asked of them, and what is wrong with a file."""

import os
import ssl
from pathlib import Path

import pytest
from support.certificates import NOW, Authority, Pair

from sidecar.config.doors import ClientTlsSettings, ServerTlsSettings
from sidecar.tls.contexts import TlsFileError, client_context, server_context
from sidecar.tls.validity import earliest_end


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("api.example")


def test_a_client_context_verifies_and_speaks_1_2_and_more(authority: Authority) -> None:
    context = client_context(ClientTlsSettings(ca=authority.ca), "http").context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    assert len(context.get_ca_certs()) == 1
    assert context.keylog_filename is None


def test_no_authority_named_is_the_systems() -> None:
    context = client_context(ClientTlsSettings(), "tcp").context
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_what_settings_change() -> None:
    identity = client_context(ClientTlsSettings(identity=("a.example",)), "http").context
    assert (identity.verify_mode, identity.check_hostname) == (ssl.CERT_REQUIRED, False)
    nobody = client_context(ClientTlsSettings(verify=False, min_version="1.3"), "http").context
    assert (nobody.verify_mode, nobody.check_hostname) == (ssl.CERT_NONE, False)
    assert nobody.minimum_version == ssl.TLSVersion.TLSv1_3


def test_a_server_context(authority: Authority, pair: Pair) -> None:
    settings = ServerTlsSettings(cert=pair.cert, key=pair.key, client_ca=authority.ca, min_version="1.3")
    context, expires = server_context(settings, "http")
    assert (context.verify_mode, context.minimum_version) == (ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_3)
    assert abs(expires - NOW.timestamp() - 30 * 86400) < 2
    open_to_all = server_context(ServerTlsSettings(cert=pair.cert, key=pair.key), "tcp").context
    assert open_to_all.verify_mode == ssl.CERT_NONE


def test_a_certificate_and_its_key_may_be_one_file(pair: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(pair.cert).read_text() + Path(pair.key).read_text())
    assert client_context(ClientTlsSettings(cert=str(both), key=str(both)), "tcp").expires > 0


def _problem(settings: ClientTlsSettings) -> tuple[str, str]:
    with pytest.raises(TlsFileError) as caught:
        client_context(settings, "http")
    assert "\n" not in str(caught.value)
    return caught.value.key, str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path, pair: Pair) -> None:
    gone = str(tmp_path / "gone.pem")
    why = "no such file or directory; name a file that is there and readable"
    assert _problem(ClientTlsSettings(ca=gone)) == ("ca", f"{gone} (tls.ca): {why}")
    assert _problem(ClientTlsSettings(cert=gone, key=pair.key)) == ("cert", f"{gone} (tls.cert): {why}")
    assert _problem(ClientTlsSettings(cert=pair.cert, key=gone)) == ("key", f"{gone} (tls.key): {why}")


def test_a_pipe_is_no_file_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    key, text = _problem(ClientTlsSettings(ca=str(tmp_path / "pipe")))
    assert key == "ca"
    assert "is no regular file" in text


def test_what_holds_no_certificate(tmp_path: Path, pair: Pair) -> None:
    words = tmp_path / "words.pem"
    words.write_text("nothing to see\n")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "holds no certificate in PEM form" in _problem(ClientTlsSettings(ca=str(words)))[1]
    assert "holds no certificate that can be read" in _problem(ClientTlsSettings(ca=str(garbage)))[1]
    assert "holds no certificate in PEM form" in _problem(ClientTlsSettings(cert=str(words), key=pair.key))[1]
    assert "holds no private key" in _problem(ClientTlsSettings(cert=pair.cert, key=str(words)))[1]
    cannot = _problem(ClientTlsSettings(cert=str(garbage), key=pair.key))
    assert cannot[0] == "cert"
    assert "cannot be used with" in cannot[1]


def test_a_key_of_another_certificate(authority: Authority, pair: Pair) -> None:
    other = authority.issue("other.example", file="other")
    assert _problem(ClientTlsSettings(cert=pair.cert, key=other.key)) == (
        "key",
        f"{other.key} (tls.key): does not belong to the certificate in {pair.cert}",
    )


def test_an_encrypted_key_is_refused_and_nobody_is_asked(authority: Authority) -> None:
    pair = authority.issue("api.example", password=b"secret")
    key, text = _problem(ClientTlsSettings(cert=pair.cert, key=pair.key))
    assert key == "key"
    assert "is encrypted" in text
    assert "secret" not in text


def test_the_first_of_a_chain_to_expire(authority: Authority) -> None:
    long, short = authority.issue("a", file="a", days=20), authority.issue("b", file="b", days=10)
    chain = Path(long.cert).read_bytes() + Path(short.cert).read_bytes()
    assert abs(earliest_end(chain) - NOW.timestamp() - 10 * 86400) < 2
    assert earliest_end(b"") == 0.0


def test_dates_after_2049_are_spelt_in_another_way(authority: Authority) -> None:
    """RFC 5280 section 4.1.2.5."""
    late = authority.issue("a", days=365.25 * 60)
    assert abs(earliest_end(Path(late.cert).read_bytes()) - NOW.timestamp() - 365.25 * 60 * 86400) < 2


@pytest.mark.parametrize("cut", [1, 10, 40, 100])
def test_what_is_cut_short_has_no_end(pair: Pair, cut: int) -> None:
    der = ssl.PEM_cert_to_DER_cert(Path(pair.cert).read_text())
    assert earliest_end(ssl.DER_cert_to_PEM_cert(der[:cut]).encode()) == 0.0
