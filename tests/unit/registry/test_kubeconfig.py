"""Where the API server is and what it is shown: in a pod, by a kubeconfig, as configured, and what cannot be used."""

import base64
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.authority import Authority, Certificate

from sidecar.config.settings import Address, RegistrySettings, TlsSettings
from sidecar.errors import SourceError
from sidecar.registry.sources.kubeconfig import Access, Token, find_access

pytestmark = pytest.mark.server("openssl")

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Certificate:
    return authority.issue("client")


@pytest.fixture
def account(tmp_path: Path, authority: Authority) -> Path:
    """A pod's service account."""
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    (directory / "token").write_text("pod-token")
    (directory / "namespace").write_text("shop\n")
    (directory / "ca.crt").write_bytes(authority.ca.read_bytes())
    return directory


def kubeconfig(directory: Path, *, cluster: Any = None, user: Any = None, **more: Any) -> Path:
    """A file with one context. cluster, user: what they have besides a server and nothing; more: keys of the file."""
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "work",
        "contexts": [{"name": "work", "context": {"cluster": "here", "user": "me", "namespace": "shop"}}],
        "clusters": [{"name": "here", "cluster": {"server": "http://10.0.0.1:6443"} | (cluster or {})}],
        "users": [{"name": "me", "user": user or {}}],
    }
    directory.mkdir(exist_ok=True)
    file = directory / "config"
    file.write_text(yaml.safe_dump(content | more, sort_keys=False))
    return file


def find(
    environ: dict[str, str] | None = None, account: Path = Path("/nonexistent"), **settings: Any
) -> Access:
    return find_access(RegistrySettings("k", "kubernetes", **settings), environ or {}, account)


def refusal(
    environ: dict[str, str] | None = None, account: Path = Path("/nonexistent"), **settings: Any
) -> str:
    with pytest.raises(SourceError) as raised:
        find(environ, account, **settings).token.read(environ or {})
    said = str(raised.value)
    assert "\n" not in said
    assert len(said) < 400
    return said


def encoded(content: bytes | str) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


# In a pod


def test_a_pod_knows_its_server_its_namespace_and_its_token(account: Path) -> None:
    access = find(POD, account)
    assert (access.urls, access.namespace) == (("https://10.96.0.1:443",), "shop")
    assert access.token.read({}) == "pod-token"
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_REQUIRED
    assert access.tls.check_hostname
    assert len(access.tls.get_ca_certs()) == 1  # and not those of the whole world
    assert access.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert not access.tls.verify_flags & ssl.VERIFY_X509_STRICT


def test_the_token_of_a_pod_is_read_each_time(account: Path) -> None:
    access = find(POD, account)
    (account / "token").write_text(" next-token \n")
    assert access.token.read({}) == "next-token"
    assert not access.token.lasts


def test_a_server_with_an_ipv6_address_is_in_brackets(account: Path) -> None:
    assert find({"KUBERNETES_SERVICE_HOST": "fd00::1"}, account).urls == ("https://[fd00::1]:443",)


def test_a_pod_without_a_namespace_file_has_none(account: Path) -> None:
    (account / "namespace").unlink()
    assert find(POD, account).namespace == ""


def test_a_namespace_file_that_is_none_is_refused(account: Path) -> None:
    (account / "namespace").write_text("x" * 100)
    assert "is longer than 64 bytes" in refusal(POD, account)


@pytest.mark.parametrize("host", ["a b", "http://x", "x/y", "[::1]"])
def test_a_variable_that_names_no_host_is_refused(account: Path, host: str) -> None:
    assert "KUBERNETES_SERVICE_HOST and _PORT" in refusal(POD | {"KUBERNETES_SERVICE_HOST": host}, account)


def test_a_variable_that_names_no_port_is_refused(account: Path) -> None:
    said = refusal(POD | {"KUBERNETES_SERVICE_PORT": "tcp://10.0.0.1:80"}, account)
    assert said.startswith("KUBERNETES_SERVICE_HOST and _PORT: `10.96.0.1:tcp://10.0.0.1:80`")


def test_a_pod_without_a_token_is_told_why(account: Path) -> None:
    (account / "token").unlink()
    said = refusal(POD, account)
    assert said.startswith(f"{account}/token (token_file): no such file")
    assert said.endswith("; a pod has a token unless automountServiceAccountToken is false")


def test_a_pod_without_a_ca_is_refused(account: Path) -> None:
    (account / "ca.crt").unlink()
    assert refusal(POD, account).startswith(f"{account}/ca.crt (the service account's CA): no such file")


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "käse", "nul\0"])
def test_a_token_that_would_not_stay_in_its_header_is_refused_and_not_shown(
    account: Path, token: str
) -> None:
    (account / "token").write_text(token)
    said = refusal(POD, account)
    assert said == f"{account}/token holds characters that no token has; look into it"


# Which of them


def test_nothing_known_says_what_to_set() -> None:
    said = refusal()
    assert said.startswith(
        "registry `k`: no API server is known: this is no pod (KUBERNETES_SERVICE_HOST is not set)"
    )
    assert "name one under `kubeconfig`, or servers under `hosts`" in said


def test_a_kubeconfig_that_is_named_goes_before_the_pod(account: Path, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path)
    assert find(POD, account, kubeconfig=str(file)).urls == ("http://10.0.0.1:6443",)
    assert find(POD | {"KUBECONFIG": str(file)}, account).urls == ("http://10.0.0.1:6443",)


def test_of_several_kubeconfigs_the_first_that_exists_is_read(tmp_path: Path) -> None:
    one = kubeconfig(tmp_path / "1", cluster={"server": "http://one:1"})
    two = kubeconfig(tmp_path / "2", cluster={"server": "http://two:2"})
    assert find({"KUBECONFIG": f"{tmp_path}/none::{two}:{one}"}).urls == ("http://two:2",)


def test_where_none_of_several_exists_the_pod_is_asked(account: Path, tmp_path: Path) -> None:
    assert find(POD | {"KUBECONFIG": f"{tmp_path}/none"}, account).urls == ("https://10.96.0.1:443",)


def test_the_one_in_the_home_comes_last(account: Path, tmp_path: Path) -> None:
    kubeconfig(tmp_path / ".kube")
    home = {"HOME": str(tmp_path)}
    assert find(home).urls == ("http://10.0.0.1:6443",)
    assert find(home | POD, account).urls == ("https://10.96.0.1:443",)
    elsewhere = find(home, hosts=(Address("10.0.0.9", 0),))
    assert (elsewhere.urls, elsewhere.namespace) == (("http://10.0.0.9:8001",), "")


def test_a_kubeconfig_that_is_named_and_not_there_is_an_error(account: Path, tmp_path: Path) -> None:
    said = refusal(POD, account, kubeconfig=f"{tmp_path}/none")
    assert (
        said == f"{tmp_path}/none (kubeconfig): no such file or directory; check `kubeconfig` or KUBECONFIG"
    )


# What the configuration says


def test_hosts_are_asked_in_place_of_the_one_that_was_found(account: Path) -> None:
    hosts = (Address("10.0.0.1", 0), Address("fd00::2", 8443))
    access = find(POD, account, hosts=hosts)
    assert access.urls == ("https://10.0.0.1:6443", "https://[fd00::2]:8443")
    assert access.token.read({}) == "pod-token"
    assert access.tls is not None


def test_hosts_need_nothing_else() -> None:
    assert find(hosts=(Address("10.0.0.1", 0),)) == Access(("http://10.0.0.1:8001",), "", Token(), None)
    secure = find(hosts=(Address("10.0.0.1", 0),), tls=TlsSettings(enabled=True))
    assert secure.urls == ("https://10.0.0.1:6443",)
    assert secure.tls is not None
    assert secure.tls.verify_mode is ssl.CERT_REQUIRED


def test_a_token_that_is_configured_goes_before_what_was_found(account: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("own-token")
    assert find(POD, account, token_file=str(own)).token.read({}) == "own-token"
    assert find(POD, account, token_env="TOKEN").token.read({"TOKEN": "env-token"}) == "env-token"
    file = kubeconfig(tmp_path, user={"token": "other", "exec": {"command": "x"}})
    assert find(kubeconfig=str(file), token_file=str(own)).token.read({}) == "own-token"
    assert refusal(POD, account, token_env="TOKEN") == "the variable TOKEN (token_env) is not set"


def test_tls_that_is_configured_goes_before_what_was_found(
    account: Path, tmp_path: Path, client: Certificate
) -> None:
    other = Authority(tmp_path / "other", "other")
    access = find(POD, account, tls=TlsSettings(ca=str(other.ca), server_name="k8s.example"))
    assert access.server_name == "k8s.example"
    assert access.tls is not None
    assert access.tls.get_ca_certs()[0]["subject"] == ((("commonName", "other"),),)
    anyone = find(POD, account, tls=TlsSettings(verify=False))
    assert anyone.tls is not None
    assert anyone.tls.verify_mode is ssl.CERT_NONE
    file = kubeconfig(tmp_path, cluster={"server": "https://x:1"}, user={"exec": {"command": "x"}})
    find(kubeconfig=str(file), tls=TlsSettings(cert=str(client.cert), key=str(client.key)))


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        (TlsSettings(ca="/nonexistent"), "/nonexistent (tls.ca): no such file"),
        (TlsSettings(ca="/"), "/ (tls.ca) is no regular file"),
        (TlsSettings(cert="/nonexistent"), "/nonexistent (tls.cert): no such file"),
        (TlsSettings(cert="CERT", key="/nonexistent"), "/nonexistent (tls.key): no such file"),
        (TlsSettings(cert="CERT"), "CERT (tls.cert): "),
        (TlsSettings(cert="CERT", key="OTHER"), "CERT (tls.cert): "),
        (TlsSettings(ca="KEY"), "KEY (tls.ca): "),
        (TlsSettings(ca="TOKEN"), "TOKEN (tls.ca): "),
    ],
)
def test_tls_files_that_cannot_be_used_are_named(
    account: Path, client: Certificate, authority: Authority, tls: TlsSettings, said: str
) -> None:
    places = {
        "CERT": str(client.cert),
        "KEY": str(client.key),
        "OTHER": str(authority.issue("another").key),
        "TOKEN": str(account / "token"),
        "": "",
    }
    made = TlsSettings(*(places.get(one, one) if isinstance(one, str) else one for one in _fields(tls)))
    for name, place in places.items():
        said = said.replace(name, place) if name else said
    assert refusal(POD, account, tls=made).startswith(said)


def _fields(tls: TlsSettings) -> tuple[Any, ...]:
    return (tls.enabled, tls.ca, tls.cert, tls.key, tls.server_name, tls.verify)


# The file


def test_a_kubeconfig_says_where_the_server_is_and_who_asks(tmp_path: Path) -> None:
    access = find(kubeconfig=str(kubeconfig(tmp_path, user={"token": "file-token"})))
    assert access == Access(("http://10.0.0.1:6443",), "shop", Token("file-token"), None)
    assert access.token.read({}) == "file-token"
    assert access.token.lasts
    assert "file-token" not in repr(access)


def test_the_path_of_a_server_is_kept(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, cluster={"server": "http://rancher:80/k8s/clusters/c-1/"})
    assert find(kubeconfig=str(file)).urls == ("http://rancher:80/k8s/clusters/c-1",)


def test_a_context_may_be_chosen(tmp_path: Path) -> None:
    contexts = [
        {"name": "work", "context": {"cluster": "here", "user": "me"}},
        {"name": "test", "context": {"cluster": "there"}},
    ]
    clusters = [
        {"name": "here", "cluster": {"server": "http://here"}},
        {"name": "there", "cluster": {"server": "http://there"}},
    ]
    file = str(kubeconfig(tmp_path, contexts=contexts, clusters=clusters, user={"token": "t"}))
    assert find(kubeconfig=file).urls == ("http://here",)
    other = find(kubeconfig=file, context="test")
    assert other == Access(("http://there",), "", Token(), None)
    assert (
        refusal(kubeconfig=file, context="tset") == f"{file}:1: contexts has no `tset`; did you mean `test`?"
    )


def test_a_token_file_is_newer_than_the_token_beside_it(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, user={"token": "old", "tokenFile": "secrets/token"})
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("new")
    token = find(kubeconfig=str(file)).token
    assert token.read({}) == "new"
    assert token.origin == str(tmp_path / "secrets" / "token")  # beside the file, as kubectl looks for it


def test_what_is_there_and_empty_is_not_there(tmp_path: Path) -> None:
    user = {"username": "", "exec": None, "auth-provider": {}, "tokenFile": "", "token": "t"}
    assert find(kubeconfig=str(kubeconfig(tmp_path, user=user))).token.read({}) == "t"


def test_base64_may_be_in_several_lines(tmp_path: Path, authority: Authority) -> None:
    lines = base64.encodebytes(authority.ca.read_bytes()).decode()
    file = kubeconfig(tmp_path, cluster={"server": "https://x:1", "certificate-authority-data": lines})
    assert find(kubeconfig=str(file)).tls is not None


def test_numbers_may_be_names_and_tokens(tmp_path: Path) -> None:
    assert find(kubeconfig=str(kubeconfig(tmp_path, user={"token": 12345}))).token.read({}) == "12345"


@pytest.mark.parametrize("data", [True, False])
def test_certificates_are_in_the_file_or_beside_it(
    tmp_path: Path, authority: Authority, client: Certificate, data: bool
) -> None:
    def entry(key: str, content: bytes) -> dict[str, str]:
        if data:  # which goes before a file
            return {f"{key}-data": encoded(content), key: "/nonexistent"}
        (tmp_path / key).write_bytes(content)
        return {key: key}

    file = kubeconfig(
        tmp_path,
        cluster={"server": "https://x:1", "tls-server-name": "k8s"}
        | entry("certificate-authority", authority.ca.read_bytes()),
        user=entry("client-certificate", client.cert.read_bytes())
        | entry("client-key", client.key.read_bytes()),
    )
    access = find(kubeconfig=str(file))
    assert access.tls is not None
    assert len(access.tls.get_ca_certs()) == 1
    assert access.server_name == "k8s"


def test_any_server_is_trusted_only_where_the_file_says_so(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, cluster={"server": "https://x:1", "insecure-skip-tls-verify": True})
    access = find(kubeconfig=str(file))
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_NONE


def test_a_key_that_was_given_as_text_leaves_no_file(
    tmp_path: Path, client: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No directory is written to, and a read-only one will do."""
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    loaded: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def look(context: ssl.SSLContext, path: str, *rest: Any, **more: Any) -> None:
        loaded.append(str(Path(path).readlink()))
        assert more == {"password": ""}  # None would be to ask at the terminal
        load(context, path, *rest, **more)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", look)
    user = {
        "client-certificate-data": encoded(client.cert.read_bytes()),
        "client-key-data": encoded(client.key.read_bytes()),
    }
    find(kubeconfig=str(kubeconfig(tmp_path, cluster={"server": "https://x:1"}, user=user)))
    assert loaded == ["/memfd:certificate (deleted)"]


def test_an_encrypted_key_is_refused_and_not_asked_for_at_the_terminal(
    tmp_path: Path, client: Certificate
) -> None:
    key = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "pkey", "-in", client.key, "-aes256", "-passout", "pass:secret", "-out", key],
        check=True,
        timeout=30,
    )
    file = kubeconfig(
        tmp_path,
        cluster={"server": "https://x:1"},
        user={"client-certificate": str(client.cert), "client-key": str(key)},
    )
    said = refusal(kubeconfig=str(file))
    assert said.startswith(f"{client.cert} ({file}:")
    assert said.endswith("it has to be a PEM certificate with its key, unencrypted")


# What is wrong with it


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"exec": {"command": "aws"}}, "users[0].user.exec: a program that gives credentials is not run"),
        ({"auth-provider": {"name": "gcp"}}, "users[0].user.auth-provider: is not supported"),
        ({"username": "me", "password": "sesame"}, "users[0].user.username: passwords are not supported"),
        ({"as": "root"}, "users[0].user.as: acting as somebody else is not supported"),
        ({"token": "two words"}, "users[0].user.token: holds characters that no token has"),
        ({"token": ["sesame"]}, "users[0].user.token: is no text"),
        ({"tokenFile": {}}, "users[0].user.tokenFile: is no text"),
        ({"client-certificate-data": "sesame!"}, "users[0].user.client-certificate-data: is no base64"),
    ],
)
def test_credentials_that_cannot_be_used_are_refused_and_not_shown(
    tmp_path: Path, user: dict[str, Any], said: str
) -> None:
    file = kubeconfig(tmp_path, user=user)
    message = refusal(kubeconfig=str(file))
    line = file.read_text().split("users:")[0].count("\n") + 4
    assert message.startswith(f"{file}:{line}: {said}")
    assert "sesame" not in message


@pytest.mark.parametrize("key", ["client-certificate-data", "client-key-data"])
def test_certificates_of_nonsense_are_refused_and_not_shown(
    tmp_path: Path, client: Certificate, key: str
) -> None:
    user = {
        "client-certificate-data": encoded(client.cert.read_bytes()),
        "client-key-data": encoded(client.key.read_bytes()),
    } | {key: encoded("sesame")}
    said = refusal(kubeconfig=str(kubeconfig(tmp_path, cluster={"server": "https://x:1"}, user=user)))
    assert "users[0].user.client-certificate-data: " in said
    assert "it has to be a PEM certificate with its key" in said
    assert "sesame" not in said


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({"server": ""}, "clusters[0].cluster.server: is no URL of an API server"),
        ({"server": "10.0.0.1:6443"}, "clusters[0].cluster.server: is no URL of an API server, such as"),
        ({"server": "https://me:sesame@x"}, "clusters[0].cluster.server: "),
        ({"server": "https://:sesame@x"}, "clusters[0].cluster.server: "),
        ({"server": "https://x:99999"}, "clusters[0].cluster.server: "),
        ({"server": "https://x/?a=b"}, "clusters[0].cluster.server: "),
        ({"server": "unix:///x"}, "clusters[0].cluster.server: "),
        ({"server": "https://[::1"}, "clusters[0].cluster.server: "),
        ({"server": "https://a b"}, "clusters[0].cluster.server: "),
        ({"proxy-url": "http://p"}, "clusters[0].cluster.proxy-url: proxies are not supported"),
        (
            {"insecure-skip-tls-verify": "yes!"},
            "clusters[0].cluster.insecure-skip-tls-verify: `yes!` is neither",
        ),
        ({"certificate-authority-data": "%"}, "clusters[0].cluster.certificate-authority-data: is no base64"),
        (
            {"server": "https://x", "certificate-authority-data": encoded("nonsense")},
            "clusters[0].cluster.certificate-authority-data: ",
        ),
    ],
)
def test_a_cluster_that_cannot_be_used_is_refused(tmp_path: Path, cluster: dict[str, Any], said: str) -> None:
    message = refusal(kubeconfig=str(kubeconfig(tmp_path, cluster=cluster)))
    assert said in message
    assert message.startswith(f"{tmp_path}/config:")
    assert "sesame" not in message


def test_a_proxy_is_none_of_ours_where_hosts_are_configured(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, cluster={"proxy-url": "http://p"})
    assert find(kubeconfig=str(file), hosts=(Address("h", 1),)).urls == ("http://h:1",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"current-context": ""}, "current-context: is not set; name one under `context`"),
        ({"current-context": "wrok"}, "current-context: contexts has no `wrok`; did you mean `work`?"),
        ({"contexts": None}, "current-context: contexts has no `work`"),
        ({"contexts": [{"context": {}}]}, "contexts[0]: has no name"),
        ({"contexts": ["work"]}, "contexts[0]: has no name"),
        ({"clusters": []}, "contexts[0].context.cluster: clusters has no `here`"),
        ({"clusters": [{"name": "here"}]}, "clusters[0].cluster.server: is no URL"),
        ({"users": []}, "contexts[0].context.user: users has no `me`"),
    ],
)
def test_a_file_that_lacks_something_says_what(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    message = refusal(kubeconfig=str(kubeconfig(tmp_path, **content)))
    assert message.startswith(f"{tmp_path}/config")
    assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1", ": is not valid YAML"),
        (b"", ": is no kubeconfig: it has no keys"),
        (b"- 1", ": is no kubeconfig: it has no keys"),
        (b"\xff\xfe\xff", ": is not UTF-8 text"),
        (b"a: &a [*a]", "contains itself"),
        (b"#" * 5_000_000, "is larger than 4 MiB"),
        (b"a: 1\na: 2", ":2: a: is there twice"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "config"
    file.write_bytes(content)
    assert said in refusal(kubeconfig=str(file))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(kubeconfig=str(tmp_path / "pipe")) == f"{tmp_path}/pipe (kubeconfig) is no regular file"
    assert "is no regular file" in refusal(kubeconfig=str(tmp_path))
    assert "(kubeconfig): embedded null byte" in refusal(kubeconfig="a\0b")
