"""Reading the file itself, resolv.conf, and the admin socket's place."""

import errno
import os

import pytest

from proxy.settings import SettingsError, SettingsUnreadable, load, read_resolv_conf, sections
from proxy.settings.reader import MOST_BYTES


def test_it_loads_a_file_and_names_it_in_errors(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("dns: {}\n")
    assert load(file).dns is not None
    file.write_text("dns: {timeout: 2}\n")
    with pytest.raises(SettingsError, match=r"x\.yaml:1:16: dns\.timeout: "):
        load(str(file))


def test_it_takes_a_byte_order_mark_and_windows_lines(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfdns:\r\n  timeout: 1s\r\n")
    assert load(file).dns.timeout == 1


def test_it_says_where_a_file_stops_being_utf8(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_bytes(b"# fine\n# caf\xe9\n")
    with pytest.raises(SettingsError, match=r"x\.yaml:2:6: \(file\): found the byte 0xe9"):
        load(file)


def test_it_tells_an_unreadable_file_from_a_wrong_one(tmp_path):
    with pytest.raises(
        SettingsUnreadable, match=r"cannot read .*/none: there is no such file; check the path"
    ) as caught:
        load(tmp_path / "none")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(SettingsUnreadable, match="it is a directory; name the file in it"):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="not a directory"):
        load(tmp_path / "file" / "x")
    with pytest.raises(SettingsUnreadable, match="null byte"):
        load("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_it_says_who_must_be_let_in(tmp_path):
    file = tmp_path / "x.yaml"
    file.touch(mode=0)
    with pytest.raises(SettingsUnreadable, match="permission denied; let the user that runs sidestep read it"):
        load(file)


def test_it_does_not_read_a_file_without_end():
    with pytest.raises(SettingsUnreadable, match=f"over {MOST_BYTES // 1024} KiB"):
        load("/dev/zero")


def nameservers(tmp_path, text):
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    return read_resolv_conf(file)


def test_it_takes_the_nameservers_that_glibc_takes(tmp_path):
    text = """\
# nameserver 192.0.2.100
; nameserver 192.0.2.101
search example
nameserver 192.0.2.1
nameserver\t192.0.2.2   # the second
 nameserver 192.0.2.102
nameserver192.0.2.103
nameserver
nameserver not.an.address
nameserver 192.0.2.1
nameserver fe80::1%eth0
nameserver 192.0.2.4
"""
    assert nameservers(tmp_path, text) == ["192.0.2.1:53", "192.0.2.2:53", "[fe80::1%eth0]:53"]


@pytest.mark.parametrize("text", ["", "search example\n", "nameserver\n", "nameserver localhost\n"])
def test_it_says_when_there_is_nobody_to_ask(tmp_path, text):
    with pytest.raises(SettingsUnreadable, match="no nameserver line with an IP address; list addresses"):
        nameservers(tmp_path, text)


def test_it_never_raises_anything_else_on_a_broken_resolv_conf(tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_bytes(b"nameserver \xff\xfe\x00\nnameserver [::1]:5353\nnameserver 2001:db8::1\n")
    assert read_resolv_conf(file) == ["[2001:db8::1]:53"]
    with pytest.raises(SettingsUnreadable):
        read_resolv_conf(tmp_path / "none")


@pytest.mark.parametrize(
    ("uid", "writable", "runtime", "path"),
    [
        (0, False, "/run/user/0", "/run/sidestep/admin.sock"),
        (7, True, "/run/user/7", "/run/sidestep/admin.sock"),
        (7, False, "/run/user/7", "/run/user/7/sidestep/admin.sock"),
        (7, False, "", "/tmp/sidestep-7/admin.sock"),
        (7, False, "relative", "/tmp/sidestep-7/admin.sock"),
    ],
)
def test_it_places_the_admin_socket_where_this_user_can_make_it(monkeypatch, uid, writable, runtime, path):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert sections.default_admin_socket() == path
