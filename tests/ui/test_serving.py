"""How the page is served: to this machine alone, from a folder that is nobody else's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from acoustic import settings as module
from acoustic.settings import Settings, prepare_process, private, upload_folder
from acoustic.ui.serving import SameSite, free_port, is_open, launch_arguments


def status(listens_on: str, headers: dict[str, str]) -> int:
    async def page(_: Request) -> PlainTextResponse:
        return PlainTextResponse("the page")

    routes = [Route("/", page, methods=["GET", "POST"])]
    app = Starlette(
        routes=routes, middleware=[Middleware(SameSite, host=listens_on, names=[" https://Music.home:8443/", ""])]
    )
    with TestClient(app) as client:
        return client.post("/", headers=headers).status_code


@pytest.mark.parametrize(
    ("host", "headers", "expected"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:7860"}, 200),
        ("127.0.0.1", {"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
        ("127.0.0.1", {"host": "LOCALHOST:7860", "origin": "http://localhost:7860"}, 200),
        ("::1", {"host": "[::1]:7860", "origin": "http://[::1]:7860"}, 200),
        ("192.168.1.7", {"host": "192.168.1.7:7860"}, 200),
        ("0.0.0.0", {"host": "studio.local:7860", "origin": "http://studio.local:7860"}, 200),
        # a name that another site has led here (DNS rebinding), and what such a site's page sends
        ("127.0.0.1", {"host": "evil.example:7860"}, 403),
        ("127.0.0.1", {"host": "evil.example:7860", "origin": "http://evil.example:7860"}, 403),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "https://evil.example"}, 403),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:8000"}, 403),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "null"}, 403),
        ("0.0.0.0", {"host": "studio.local:7860", "origin": "https://evil.example"}, 403),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}, 403),
        ("127.0.0.1", {"host": "[::1"}, 403),
        ("127.0.0.1", {"host": ""}, 403),
        ("2001:DB8::0:1", {"host": "[2001:db8::1]:7860", "origin": "http://[2001:db8::1]:7860"}, 200),
        ("fe80::1%eth0", {"host": "[fe80::1]:7860"}, 200),
        ("0::0", {"host": "studio.local"}, 200),
        ("127.0.0.1", {"host": "localhost:80", "origin": "http://localhost"}, 200),
        ("127.0.0.1", {"host": "localhost", "origin": "http://localhost:80"}, 200),
        # behind a proxy that keeps the name, and behind one that does not
        ("127.0.0.1", {"host": "music.home", "origin": "https://music.home"}, 200),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "https://music.home:8443"}, 200),
        ("127.0.0.1", {"host": "127.0.0.1:7860", "origin": "https://evil.music.home"}, 403),
    ],
)
def test_only_the_page_itself_is_answered(host: str, headers: dict[str, str], expected: int) -> None:
    assert status(host, headers) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]"])
def test_the_served_page_refuses_strangers(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    try:
        free_port(host, 0)
    except Exception as error:
        pytest.skip(f"no such address here: {error}")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):  # nobody answers there
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ["GRADIO_TEMP_DIR"])
    settings = Settings(host=host, port=0, open_browser=False)
    prepare_process(settings)
    with gr.Blocks() as page:
        gr.HTML("a page")
    _, url, _ = page.launch(**launch_arguments(settings), prevent_thread_lock=True)
    try:
        assert httpx.get(url).status_code == 200
        stranger = {"origin": "https://evil.example"}
        sent = httpx.post(f"{url}gradio_api/upload", headers=stranger, files={"files": ("a.mp3", b"x")})
        assert sent.status_code == 403
        assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403
    finally:
        page.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1,studio"),
        ({"NO_PROXY": "internal.example,.corp"}, "internal.example,.corp,localhost,127.0.0.1,::1,studio"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,localhost,127.0.0.1,::1,studio"),
        ({"NO_PROXY": "*"}, None),
    ],
)
def test_what_goes_past_a_proxy_stays_so(
    before: dict[str, str], after: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # so that it is put back at the end
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    prepare_process(Settings(cache_dir=str(tmp_path), host="studio"))
    found = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    assert found == ({"NO_PROXY": "*", "no_proxy": None} if after is None else dict.fromkeys(found, after))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", False), ("127.0.0.5", False), ("localhost", False), ("[::1]", False), ("0.0.0.0", True)],
)
def test_who_can_be_reached_by_others_is_told(host: str, expected: bool) -> None:
    assert is_open(Settings(host=host)) is expected


def test_a_folder_that_a_person_named_is_never_swept_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "mine"))
    prepare_process(Settings(cache_dir=str(tmp_path / "cache")))
    own = upload_folder()
    assert own.parent == tmp_path / "mine"
    assert os.environ["GRADIO_TEMP_DIR"] == str(own)
    prepare_process(Settings(cache_dir=str(tmp_path / "cache")))
    assert os.environ["GRADIO_TEMP_DIR"] == str(own)


def test_a_folder_of_another_account_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = private(tmp_path / "new" / "own")
    assert own == tmp_path / "new" / "own"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.chmod(0o755)
    assert private(own) == own
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    link = tmp_path / "link"
    link.symlink_to(own)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    assert private(link).parent == tmp_path
    assert private(link) not in (link, own)
    monkeypatch.setattr(os, "getuid", lambda: own.stat().st_uid + 1)
    other = private(own)
    assert other != own
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
